//! What the server of an experiment needs. None of it comes from the dataset but the description of the tasks.

use std::collections::BTreeSet;

use plugin_api::{ModelSetup, Params};

use crate::federation::aggregation::NamedAggregator;
use crate::federation::filters::Filters;
use crate::federation::server::Server;
use crate::federation::services::HostServices;
use crate::plugins::validate::Layout;
use crate::setup::errors::Errors;
use crate::setup::filters::{End, try_filters};
use crate::setup::plugins::Found;

/// What the server of an experiment needs.
pub(crate) struct ServerSide {
    /// The aggregator.
    pub aggregator: NamedAggregator,
    /// The server's filters.
    pub filters: Filters,
    /// The parameters of the first global model.
    pub initial: Params,
}

impl ServerSide {
    /// Creates the aggregator, the server's filters and, on a device, the first global model. Returns `None` if the
    /// aggregator or the model fails.
    pub(super) fn new(
        found: &Found,
        model_setup: &ModelSetup,
        device: &str,
        services: &HostServices<'_>,
        errors: &mut Errors<'_>,
    ) -> Option<Self> {
        let aggregator =
            found.aggregator.as_ref().and_then(|plugin| errors.take(plugin, plugin.new_aggregator(services)));
        let filters = try_filters(&found.filters, End::Server, services, errors);
        let initial = found.model.as_ref().and_then(|model| {
            let initial = model.call(services, device, |ctx| {
                model.component.new_model(&model.plugin_ref.config, model_setup, ctx)?.parameters(ctx)
            });
            errors.take(model, initial)
        });
        Some(Self { aggregator: aggregator?, filters, initial: initial? })
    }

    /// Starts with the first global model, without the parameters that are `private` to clients.
    pub(crate) fn start(self, private: &BTreeSet<String>) -> Server {
        let Self { aggregator, filters, mut initial } = self;
        let layout = Layout::of(&initial);
        initial.retain(|name, _| !private.contains(name));
        Server { aggregator, filters, global: initial.into(), layout }
    }
}
