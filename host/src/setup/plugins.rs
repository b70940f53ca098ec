//! The plugins of an experiment: finding them, opening them, and checking their tables.

use std::collections::BTreeMap;

use plugin_api::{Component, Context, Kind, Level, Result};
use serde_json::Value;

use crate::error::Diagnostic;
use crate::experiment::config::{Experiment, FilterPosition, FilterRef, PluginRef};
use crate::experiment::paths;
use crate::federation::aggregation::NamedAggregator;
use crate::federation::component_error::ComponentError;
use crate::federation::services::{CallScope, HostServices};
use crate::plugins::{Finder, Library};
use crate::terminal::console::Console;

/// A plugin of the experiment with its open library.
#[derive(Clone, Debug)]
pub(crate) struct LoadedPlugin {
    /// The plugin's entry in the experiment.
    pub plugin_ref: PluginRef,
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
        let who = format!("{} `{}`", self.component.profile().kind, self.plugin_ref.plugin);
        ComponentError::new(who, error).of_table(&self.plugin_ref.table)
    }

    /// Adds the plugin to an error, and its position in the file: the key of its table that the error names, or the
    /// table.
    pub(crate) fn located(&self, experiment: &Experiment, error: plugin_api::Error) -> Diagnostic {
        self.fault(error).located("", &experiment.document)
    }

    /// Calls the plugin with a context for the server, on a device.
    pub(crate) fn call<R>(
        &self,
        services: &HostServices<'_>,
        device: &str,
        call: impl FnOnce(&Context<'_>) -> Result<R>,
    ) -> Result<R> {
        call(&CallScope::new(services, &self.plugin_ref.plugin, None, None).on(device).context())
    }

    /// Creates the plugin's aggregator.
    ///
    /// # Errors
    /// If the plugin fails.
    pub(crate) fn new_aggregator(&self, services: &HostServices<'_>) -> Result<NamedAggregator> {
        let new = |ctx: &Context<'_>| self.component.new_aggregator(&self.plugin_ref.config, ctx);
        let PluginRef { plugin, table, .. } = self.plugin_ref.clone();
        self.call(services, "cpu", new).map(|aggregator| NamedAggregator::new(plugin, table, aggregator))
    }
}

/// A filter plugin at one of its positions.
#[derive(Clone, Debug)]
pub(crate) struct FilterPlugin {
    /// Where the filter is applied.
    pub position: FilterPosition,
    /// The plugin.
    pub plugin: LoadedPlugin,
}

/// Which of an experiment's plugins are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Everything: server and clients are in this process.
    Both,
    /// The server, whose clients are elsewhere. `model` says whether it needs the model.
    Server { model: bool },
    /// A client whose server is elsewhere.
    Client,
}

impl Role {
    fn opens(self, kind: Kind) -> bool {
        match self {
            Self::Both => true,
            Self::Server { model } => matches!(kind, Kind::Aggregator | Kind::Filter) || (kind == Kind::Model && model),
            Self::Client => kind != Kind::Aggregator,
        }
    }

    fn filters_at(self, position: FilterPosition) -> bool {
        match self {
            Self::Both => true,
            Self::Server { .. } => !position.is_at_client(),
            Self::Client => position.is_at_client(),
        }
    }
}

/// The plugins of an experiment that are opened: those that this process needs, unless they have errors.
#[derive(Clone, Debug)]
pub(crate) struct Plugins {
    /// The dataset's plugin.
    pub dataset: Option<LoadedPlugin>,
    /// The model's plugin.
    pub model: Option<LoadedPlugin>,
    /// The aggregator's plugin.
    pub aggregator: Option<LoadedPlugin>,
    /// The filters' plugins, in the order of the file.
    pub filters: Vec<FilterPlugin>,
}

impl Plugins {
    /// Finds and opens the plugins that a role needs, and lets each check its table; adds all errors to `reports`.
    pub(crate) fn open(experiment: &Experiment, role: Role, finder: &Finder, reports: &mut Vec<Diagnostic>) -> Self {
        let mut open = |kind, choice: &PluginRef| {
            // A missing name is already reported.
            let wanted = !choice.plugin.is_empty() && role.opens(kind);
            let found = wanted.then(|| find(experiment, finder, kind, choice));
            found.and_then(|found| found.map_err(|found| reports.extend(found)).ok())
        };
        let dataset = open(Kind::Dataset, &experiment.dataset);
        let model = open(Kind::Model, &experiment.model);
        let aggregator = open(Kind::Aggregator, &experiment.aggregator);
        let here: Vec<&FilterRef> =
            experiment.filters.iter().filter(|filter| role.filters_at(filter.position)).collect();
        // A table that names several positions is checked once.
        let tables = here.chunk_by(|a, b| a.plugin.table == b.plugin.table);
        let filters = tables.flat_map(|table| {
            let plugin = table.first().and_then(|first| open(Kind::Filter, &first.plugin));
            let at = |filter: &&FilterRef| Some(FilterPlugin { position: filter.position, plugin: plugin.clone()? });
            table.iter().filter_map(at).collect::<Vec<_>>()
        });
        Self { dataset, model, aggregator, filters: filters.collect() }
    }

    /// All plugins, a filter once for each of its positions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LoadedPlugin> {
        let filters = self.filters.iter().map(|filter| &filter.plugin);
        [&self.dataset, &self.model, &self.aggregator].into_iter().flatten().chain(filters)
    }

    /// Warns of what is unusual about the plugins' libraries, each once.
    pub(crate) fn warn_of_libraries(&self, console: &Console) {
        let libraries: BTreeMap<_, _> = self.iter().map(|plugin| (&plugin.library.path, &plugin.library)).collect();
        for (path, library) in libraries {
            for line in library.mismatches() {
                console.log(Level::Warn, &format!("{}: {line}", path.display()));
            }
        }
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
    plugin_ref: &PluginRef,
) -> std::result::Result<LoadedPlugin, Vec<Diagnostic>> {
    let document = &experiment.document;
    let (library, component) = finder.find(kind, &plugin_ref.plugin).map_err(|report| {
        let path: Vec<String> = plugin_ref.table.iter().cloned().chain(["plugin".to_owned()]).collect();
        vec![document.locate(report, &path)]
    })?;
    let table: Vec<&str> = plugin_ref.table.iter().map(String::as_str).collect();
    let config = paths::of_table(document, &plugin_ref.table, &component, &plugin_ref.config)
        .map_err(|problems| document.reports(&table, problems))?;
    let used = LoadedPlugin { plugin_ref: PluginRef { config, ..plugin_ref.clone() }, library, component };
    let problems =
        used.component.check(&used.plugin_ref.config).map_err(|error| vec![used.located(experiment, error)])?;
    if problems.is_empty() { Ok(used) } else { Err(document.reports(&table, problems)) }
}
