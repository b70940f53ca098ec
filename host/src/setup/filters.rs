//! Creating the filters of the server and of clients.

use plugin_api::{Filter, Result};

use crate::experiment::config::FilterPosition;
use crate::federation::component_error::ComponentError;
use crate::federation::filters::Filters;
use crate::federation::local_client::Identity;
use crate::federation::services::{CallScope, ClientRef, HostServices};
use crate::setup::errors::Errors;
use crate::setup::plugins::FilterPlugin;

/// The end of the connection between the server and a client at which filters are applied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// The server.
    Server,
    /// A client, with the device on which it computes.
    Client { client: ClientRef<'a>, device: &'a str },
}

impl<'a> End<'a> {
    /// The end of a local client.
    pub(crate) fn of(identity: &'a Identity) -> Self {
        let client = ClientRef { index: identity.index, name: &identity.name };
        Self::Client { client, device: &identity.device }
    }
}

impl FilterPlugin {
    fn is_at(&self, end: End<'_>) -> bool {
        self.position.is_at_client() == matches!(end, End::Client { .. })
    }

    fn new_filter(&self, end: End<'_>, services: &HostServices<'_>) -> Result<Box<dyn Filter>> {
        let (client, device) = match end {
            End::Server => (None, "cpu"),
            End::Client { client, device } => (Some(client), device),
        };
        let plugin_ref = &self.plugin.plugin_ref;
        let scope = CallScope::new(services, &plugin_ref.plugin, client, None).on(device).at(self.position);
        self.plugin.component.new_filter(&plugin_ref.config, &scope.context())
    }

    fn add(&self, filter: Box<dyn Filter>, filters: &mut Filters) {
        let chain = match self.position {
            FilterPosition::ServerInput | FilterPosition::ClientInput => &mut filters.input,
            FilterPosition::ServerOutput | FilterPosition::ClientOutput => &mut filters.output,
        };
        chain.push(self.plugin.plugin_ref.plugin.clone(), self.plugin.plugin_ref.table.clone(), filter);
    }
}

/// Creates the filters at one end.
///
/// # Errors
/// If one of them cannot be created.
pub(crate) fn new_filters(
    plugins: &[FilterPlugin],
    end: End<'_>,
    services: &HostServices<'_>,
) -> std::result::Result<Filters, ComponentError> {
    let mut filters = Filters::default();
    for plugin in plugins.iter().filter(|plugin| plugin.is_at(end)) {
        let filter = plugin.new_filter(end, services).map_err(|error| plugin.plugin.fault(error))?;
        plugin.add(filter, &mut filters);
    }
    Ok(filters)
}

/// Creates the filters at one end that can be created, and collects the errors of the others.
pub(super) fn try_filters(
    plugins: &[FilterPlugin],
    end: End<'_>,
    services: &HostServices<'_>,
    errors: &mut Errors<'_>,
) -> Filters {
    let mut filters = Filters::default();
    for plugin in plugins.iter().filter(|plugin| plugin.is_at(end)) {
        if errors.is_faulty(&plugin.plugin) {
            continue;
        }
        if let Some(filter) = errors.take_filter(&plugin.plugin, plugin.new_filter(end, services)) {
            plugin.add(filter, &mut filters);
        }
    }
    filters
}
