//! What the server of an experiment needs. None of it comes from the dataset but the description of the tasks.

use std::collections::BTreeSet;

use plugin_api::{ModelSetup, Params};

use crate::artefacts::safetensors;
use crate::error::Diagnostic;
use crate::experiment::config::Experiment;
use crate::federation::aggregation::NamedAggregator;
use crate::federation::filters::Filters;
use crate::federation::server::Server;
use crate::federation::services::HostServices;
use crate::plugins::validate::Layout;
use crate::setup::errors::Errors;
use crate::setup::filters::{End, try_filters};
use crate::setup::plugins::{LoadedPlugin, Plugins};

/// What the server of an experiment needs.
pub(crate) struct ServerSide {
    /// The aggregator's plugin.
    pub aggregator_plugin: LoadedPlugin,
    /// The aggregator.
    pub aggregator: NamedAggregator,
    /// The server's filters.
    pub filters: Filters,
    /// The parameters of the first global model.
    pub initial: Params,
}

impl ServerSide {
    /// Creates the aggregator, the server's filters and the first global model: that of the file `federation.initial`,
    /// or one that the model's plugin creates on a device. Returns `None` if the aggregator or the model fails.
    pub(crate) fn new(
        experiment: &Experiment,
        plugins: &Plugins,
        model_setup: &ModelSetup,
        device: &str,
        services: &HostServices<'_>,
        errors: &mut Errors<'_>,
    ) -> Option<Self> {
        let plugin = plugins.aggregator.as_ref();
        let aggregator = plugin.and_then(|plugin| errors.take(plugin, plugin.new_aggregator(services)));
        let filters = try_filters(&plugins.filters, End::Server, services, errors);
        let created = plugins.model.as_ref().map(|model| {
            let initial = model.call(services, device, |ctx| {
                model.component.new_model(&model.plugin_ref.config, model_setup, ctx)?.parameters(ctx)
            });
            errors.take(model, initial)
        });
        let read = experiment.federation.initial.as_ref().map(|path| {
            safetensors::read(path).map_err(|failure| errors.add_at("initial", failure.into_report())).ok()
        });
        let initial = match (created, read) {
            (Some(created), None) => created?,
            (None, Some(read)) => read?,
            (Some(created), Some(read)) => {
                let (created, read) = (created?, read?);
                if let Err(error) = Layout::of(&created).covers(&read) {
                    errors.add_at("initial", Diagnostic::from(error).within("the file does not fit the model"));
                    return None;
                }
                read
            }
            (None, None) => return None,
        };
        Some(Self { aggregator_plugin: plugin?.clone(), aggregator: aggregator?, filters, initial })
    }

    /// Starts with the first global model, without the parameters that are `private` to clients.
    pub(crate) fn start(self, private: &BTreeSet<String>) -> Server {
        let Self { aggregator, filters, mut initial, .. } = self;
        let layout = Layout::of(&initial);
        initial.retain(|name, _| !private.contains(name));
        Server { aggregator, filters, global: initial.into(), layout }
    }
}
