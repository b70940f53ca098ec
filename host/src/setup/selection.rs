//! The plugins of an experiment: finding them, opening them, and checking their tables.

use plugin_api::{Component, Context, Kind, Result};
use serde_json::Value;

use crate::error::Diagnostic;
use crate::experiment::config::{Experiment, FilterPosition, PluginRef};
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::plugins::{Finder, Library};

/// A plugin of the experiment with its open library.
#[derive(Clone, Debug)]
pub(crate) struct LoadedPlugin {
    /// The plugin's entry in the experiment.
    pub choice: PluginRef,
    /// Its library.
    pub library: Library,
    /// The component.
    pub component: Component,
}

impl LoadedPlugin {
    /// The plugin's entry in a manifest.
    pub(crate) fn manifest(&self) -> Value {
        let profile = self.component.profile();
        serde_json::json!({
            "kind": profile.kind,
            "name": profile.name,
            "library": self.library.path,
            "about": self.library.plugin.about,
        })
    }

    /// Adds the plugin and its table to an error.
    pub(crate) fn fault(&self, error: plugin_api::Error) -> ComponentError {
        let who = format!("{} `{}`", self.component.profile().kind, self.choice.plugin);
        ComponentError::new(who, error).of_table(&self.choice.table)
    }

    /// Calls the plugin with a context for the server, on a device.
    pub(crate) fn with_line<R>(
        &self,
        services: &HostServices<'_>,
        device: &str,
        act: impl FnOnce(&Context<'_>) -> Result<R>,
    ) -> Result<R> {
        act(&CallScope::new(services, &self.choice.plugin, None, None).on(device).context())
    }
}

/// The plugins of an experiment that could be opened.
pub(crate) struct Found {
    pub(crate) model: Option<LoadedPlugin>,
    pub(crate) dataset: Option<LoadedPlugin>,
    pub(crate) aggregator: Option<LoadedPlugin>,
    pub(crate) filters: Vec<(FilterPosition, LoadedPlugin)>,
}

impl Found {
    /// Finds and opens all plugins, and lets each check its table; adds all errors to `reports`.
    pub(crate) fn all(experiment: &Experiment, finder: &Finder, reports: &mut Vec<Diagnostic>) -> Self {
        let mut note = |kind, choice: &PluginRef| {
            // A missing name is already reported.
            let named = !choice.plugin.is_empty();
            let found = named.then(|| find(experiment, finder, kind, choice));
            found.and_then(|found| found.map_err(|found| reports.extend(found)).ok())
        };
        let dataset = note(Kind::Dataset, &experiment.dataset);
        let model = note(Kind::Model, &experiment.model);
        let aggregator = note(Kind::Aggregator, &experiment.aggregator);
        // A table that names several positions is checked once.
        let mut last: Option<(&[String], Option<LoadedPlugin>)> = None;
        let mut filters = Vec::new();
        for (place, choice) in &experiment.filters {
            if last.as_ref().is_none_or(|(table, _)| *table != choice.table.as_slice()) {
                last = Some((choice.table.as_slice(), note(Kind::Filter, choice)));
            }
            filters.extend(last.as_ref().and_then(|(_, used)| used.clone()).map(|used| (*place, used)));
        }
        Self { model, dataset, aggregator, filters }
    }
}

/// Finds and opens one plugin, and lets it check its table.
///
/// # Errors
/// All errors, with their positions in the file.
pub(crate) fn find(
    experiment: &Experiment,
    finder: &Finder,
    kind: Kind,
    choice: &PluginRef,
) -> std::result::Result<LoadedPlugin, Vec<Diagnostic>> {
    let document = &experiment.document;
    let (library, component) = finder.find(kind, &choice.plugin).map_err(|report| {
        let way: Vec<String> = choice.table.iter().cloned().chain(["plugin".to_owned()]).collect();
        vec![document.place(report, &way)]
    })?;
    let used = LoadedPlugin { choice: choice.clone(), library, component };
    let problems = used.component.check(&choice.config).map_err(|error| vec![placed(experiment, &used, error)])?;
    if problems.is_empty() {
        return Ok(used);
    }
    let table: Vec<&str> = choice.table.iter().map(String::as_str).collect();
    Err(document.reports(&table, problems))
}

/// A plugin's error, located at the key of its table that the error names, or at the table.
pub(crate) fn placed(experiment: &Experiment, used: &LoadedPlugin, error: plugin_api::Error) -> Diagnostic {
    used.fault(error).placed("", &experiment.document)
}
