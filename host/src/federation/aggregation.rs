//! The aggregator of a run, with its plugin's name for errors.

use plugin_api::{Aggregator, Context, Result};

use crate::federation::component_error::ComponentError;
use crate::federation::services::{CallScope, HostServices};

/// The aggregator of a run.
pub(crate) struct NamedAggregator {
    plugin: String,
    /// The key path of its table in the experiment file.
    table: Vec<String>,
    aggregator: Box<dyn Aggregator>,
}

impl NamedAggregator {
    /// Names an aggregator by its plugin and by its table in the experiment file.
    pub(crate) fn new(plugin: String, table: Vec<String>, aggregator: Box<dyn Aggregator>) -> Self {
        Self { plugin, table, aggregator }
    }

    /// Adds the plugin and its table to an error.
    pub(crate) fn fault(&self, error: plugin_api::Error) -> ComponentError {
        ComponentError::new(format!("aggregator `{}`", self.plugin), error).of_table(&self.table)
    }

    /// Calls the aggregator in a round, or outside one.
    ///
    /// # Errors
    /// If the call fails.
    pub(crate) fn call<T>(
        &mut self,
        round: Option<u64>,
        services: &HostServices<'_>,
        call: impl FnOnce(&mut dyn Aggregator, &Context<'_>) -> Result<T>,
    ) -> std::result::Result<T, ComponentError> {
        let scope = CallScope::new(services, &self.plugin, None, round);
        let _working = services.activity.map(|activity| activity.enter(None));
        let result = call(&mut *self.aggregator, &scope.context());
        result.map_err(|error| self.fault(error))
    }
}
