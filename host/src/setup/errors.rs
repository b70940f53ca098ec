//! Collecting the errors of an experiment, so that independent ones are reported together.

use std::collections::BTreeSet;

use crate::error::Diagnostic;
use crate::experiment::config::Experiment;
use crate::setup::plugins::LoadedPlugin;

/// The errors of an experiment so far.
pub(crate) struct Errors<'e> {
    experiment: &'e Experiment,
    /// The errors, with their positions in the file.
    pub reports: Vec<Diagnostic>,
    /// Whether the host's own keys have no errors. Otherwise their values are defaults.
    pub host_keys_are_valid: bool,
    /// The tables of filters that have an error. A table that names several positions has it once.
    faulty_filters: BTreeSet<Vec<String>>,
}

impl<'e> Errors<'e> {
    /// Starts with the errors that were found in the host's keys.
    pub(crate) fn new(experiment: &'e Experiment, reports: Vec<Diagnostic>) -> Self {
        let host_keys_are_valid = reports.is_empty();
        Self { experiment, reports, host_keys_are_valid, faulty_filters: BTreeSet::new() }
    }

    /// Returns the value, or adds the plugin's error.
    pub(crate) fn take<T>(&mut self, plugin: &LoadedPlugin, result: plugin_api::Result<T>) -> Option<T> {
        result.map_err(|error| self.reports.push(plugin.located(self.experiment, error))).ok()
    }

    /// Returns a filter, or adds the error of its table.
    pub(crate) fn take_filter<T>(&mut self, plugin: &LoadedPlugin, result: plugin_api::Result<T>) -> Option<T> {
        let value = self.take(plugin, result);
        if value.is_none() {
            self.faulty_filters.insert(plugin.plugin_ref.table.clone());
        }
        value
    }

    /// Whether a filter's table has an error already.
    pub(crate) fn is_faulty(&self, plugin: &LoadedPlugin) -> bool {
        self.faulty_filters.contains(&plugin.plugin_ref.table)
    }

    /// Adds an error at a key of the table `federation`.
    pub(crate) fn add_at(&mut self, key: &str, report: Diagnostic) {
        let path = ["federation", key].map(str::to_owned);
        self.reports.push(self.experiment.document.locate(report, &path));
    }
}
