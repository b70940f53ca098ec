//! An experiment: the contents of the TOML file, read and checked as far as the host can.

use std::path::{Path, PathBuf};

use plugin_api::config::{self, PathFormat, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::{Document, FOLDER};
use crate::experiment::paths;
use crate::plugins::is_path;
pub use federation::Terms;
pub(crate) use federation::{
    EarlyStopping, Federation, LOCAL_SCORE, LOCAL_VALIDATION_SCORE, MOST_THREADS, OnClientFailure, VALIDATION_SCORE,
};
use host_keys::{HostKeys, HostValues, host_paths};
pub(crate) use repeats::{MOST_FOLDS, Repeats};
pub(crate) use sites::{FlowerApp, Site};
pub(crate) use sweep::Sweep;

mod federation;
mod host_keys;
mod repeats;
mod sites;
mod sweep;

/// The host's own keys, as they appear in the file. The tables of the plugins remain values until the plugins read
/// them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    /// The name of the run and its directory: letters, digits, `-`, `_` and `.`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"))]
    name: String,
    /// The seed of all randomness.
    #[serde(default)]
    seed: u32,
    /// The folder that relative paths in the file are relative to. By default that of the file. The copy of an experiment
    /// in a run's directory names it.
    #[serde(default)]
    #[expect(dead_code, reason = "only that it is a text; read with the file")]
    folder: Option<String>,
    /// Folders to search for plugins before the default ones.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    plugin_path: Vec<PathBuf>,
    /// Which seeds and folds to run the experiment with, if not once. `fedplug run --seeds` and `--folds` take precedence.
    #[serde(default)]
    repeats: Repeats,
    /// The values from which `fedplug sweep` chooses.
    #[serde(default)]
    sweep: Sweep,
    /// Rounds, epochs, devices.
    federation: Federation,
    /// The clients and the data of each.
    #[expect(
        dead_code,
        reason = "only that it is a table; read on its own, so that its errors are reported with others"
    )]
    dataset: Map<String, Value>,
    /// The model that the clients train.
    #[expect(dead_code, reason = "as above")]
    model: Map<String, Value>,
    /// How the clients' updates are combined into the next global model.
    #[expect(dead_code, reason = "as above")]
    aggregator: Map<String, Value>,
    /// The filters that change messages on their way, in order.
    #[serde(default)]
    #[expect(dead_code, reason = "as above")]
    filter: Vec<Map<String, Value>>,
}

/// Where a filter processes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FilterPosition {
    /// At a client, on what it sends.
    ClientOutput,
    /// At the server, on what a client sent.
    ServerInput,
    /// At the server, on what it sends to a client.
    ServerOutput,
    /// At a client, on what the server sent.
    ClientInput,
}

impl FilterPosition {
    /// Whether a filter there belongs to a client.
    pub(crate) fn is_at_client(self) -> bool {
        matches!(self, Self::ClientInput | Self::ClientOutput)
    }
}

/// The JSON Schemas of the host's own keys, which accept any table for a plugin, and of a filter's position.
pub(crate) fn schemas() -> (Value, Value) {
    (schemars::schema_for!(Raw).to_value(), schemars::schema_for!(FilterPosition).to_value())
}

/// A plugin that the experiment names, and its table.
#[derive(Clone, Debug)]
pub struct PluginRef {
    /// The name, or the path of a library.
    pub plugin: String,
    /// The plugin's own keys.
    pub config: Value,
    /// The path of its table in the file.
    pub table: Vec<String>,
}

/// An experiment whose host keys are valid.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The name of the run.
    pub name: String,
    /// The seed of all randomness.
    pub seed: u32,
    /// Folders to search for plugins.
    pub plugin_path: Vec<PathBuf>,
    /// The seeds and folds to run it with, if not once.
    pub repeats: Repeats,
    /// The values to choose from.
    pub sweep: Sweep,
    /// Rounds, epochs, devices.
    pub federation: Federation,
    /// The dataset.
    pub dataset: PluginRef,
    /// The model.
    pub model: PluginRef,
    /// The aggregator.
    pub aggregator: PluginRef,
    /// The filters with their positions, in the order of the file.
    pub filters: Vec<FilterRef>,
    /// The file, for errors in the plugins' tables.
    pub document: Document,
}

/// A filter at one of the positions that its table names.
#[derive(Clone, Debug)]
pub struct FilterRef {
    /// The position.
    pub position: FilterPosition,
    /// The plugin and its table.
    pub plugin: PluginRef,
}

/// An experiment that may contain errors. Invalid host keys have their defaults and are listed in `reports`, so that
/// errors in the plugins' tables can be reported together with them.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The experiment.
    pub experiment: Experiment,
    /// The errors in the host's keys.
    pub reports: Vec<Diagnostic>,
}

impl Draft {
    /// Reads a file and applies the `--set` arguments.
    ///
    /// # Errors
    /// If the file cannot be read or is not TOML, or an argument is invalid.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, CliError> {
        let mut document = Document::read(path)?;
        for argument in overrides {
            document.set(argument)?;
        }
        Ok(Self::of(document))
    }

    /// Whether all host keys are valid.
    pub fn is_whole(&self) -> bool {
        self.reports.is_empty()
    }

    /// The experiment, if all host keys are valid.
    ///
    /// # Errors
    /// All errors in the host's keys.
    pub fn whole(self) -> Result<Experiment, CliError> {
        if self.reports.is_empty() { Ok(self.experiment) } else { Err(CliError::usage(self.reports)) }
    }

    /// Reads the host's keys of a parsed file.
    pub(crate) fn of(document: Document) -> Self {
        let HostKeys { values, mut problems, mut reports } = HostKeys::read(&document);
        // Even if there are other errors, also report those in the plugins' tables and in the values.
        let table = |key: &str| document.value().get(key).and_then(Value::as_object).cloned();
        let mut choose = |key: &str| {
            table(key)
                .and_then(|table| take_plugin(&document, table, vec![key.to_owned()], &mut problems))
                .unwrap_or_else(nothing)
        };
        let (dataset, model, aggregator) = (choose("dataset"), choose("model"), choose("aggregator"));
        let mut filters = Vec::new();
        let tables = document.value().get("filter").and_then(Value::as_array);
        for (index, table) in tables.into_iter().flatten().enumerate() {
            filters.extend(table.as_object().cloned().map(|table| take_filter(&document, table, index, &mut problems)));
        }
        let filters = filters.concat();
        if !problems.is_empty() {
            reports.extend(document.reports(&[], problems));
        }
        let HostValues { name, seed, plugin_path, repeats, sweep, federation } = values;
        let experiment = Experiment {
            name,
            seed,
            plugin_path,
            repeats,
            sweep,
            federation,
            dataset,
            model,
            aggregator,
            filters,
            document,
        };
        Self { experiment, reports }
    }
}

impl Experiment {
    /// Reads a file and applies the `--set` arguments.
    ///
    /// # Errors
    /// If the file cannot be read, or any of the host's keys are invalid; reports all of them together.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, CliError> {
        Draft::read(path, overrides)?.whole()
    }

    /// Creates an experiment from a parsed file.
    ///
    /// # Errors
    /// If any of the host's keys are invalid.
    pub fn from_document(document: Document) -> Result<Self, CliError> {
        Draft::of(document).whole()
    }

    /// The effective experiment as TOML, including the command line's overrides and the host's defaults. Paths are as they
    /// were written.
    pub fn resolved(&self) -> String {
        toml::to_string_pretty(&self.effective()).unwrap_or_default()
    }

    /// The same with the folder that its paths are relative to, and with absolute paths in what the command line set.
    /// `schemas` are those of the plugins' tables, each with the table's path.
    ///
    /// # Errors
    /// If the folder's name is not UTF-8.
    pub(crate) fn recorded(&self, schemas: &[(Vec<String>, Value)]) -> Result<String, CliError> {
        let (mut value, folder) = (self.effective(), self.document.folder());
        let absolute = std::path::absolute(Path::new(".").join(&folder))
            .map_err(|e| CliError::io(&folder, "find the experiment's folder", &e))?;
        let Some(absolute) = absolute.to_str() else {
            let what = format!("{}: the experiment's folder has a name that is not UTF-8", absolute.display());
            return Err(CliError::usage(Diagnostic::new(what)));
        };
        value[FOLDER] = absolute.into();
        paths::make_absolute(&self.document, &[], &mut value, &host_paths(&self.document));
        let tables = [&self.dataset, &self.model, &self.aggregator].into_iter();
        for table in tables.chain(self.filters.iter().map(|filter| &filter.plugin)).filter(|t| is_path(&t.plugin)) {
            let plugin = (vec!["plugin".to_owned()], PathFormat::Path);
            paths::make_absolute(&self.document, &table.table, &mut value, &[plugin]);
        }
        for (table, schema) in schemas {
            let config = paths::at(&mut value, table).map(|config| config.clone()).unwrap_or_default();
            paths::make_absolute(&self.document, table, &mut value, &config::paths(schema, &config));
        }
        Ok(toml::to_string_pretty(&value).unwrap_or_default())
    }

    /// The same as a value. It is that of one run, without the tables that make several of it.
    pub(crate) fn effective(&self) -> Value {
        let mut value = self.document.value().clone();
        if let Some(table) = value.as_object_mut() {
            table.shift_remove("repeats");
            table.shift_remove("sweep");
        }
        value["seed"] = self.seed.into();
        value["federation"] = serde_json::to_value(&self.federation).unwrap_or_default();
        // As it was written, like all paths.
        if let Some(initial) = self.document.value().pointer("/federation/initial") {
            value["federation"]["initial"] = initial.clone();
        }
        value
    }
}

fn nothing() -> PluginRef {
    PluginRef { plugin: String::new(), config: Value::Null, table: Vec::new() }
}

fn take_plugin(
    document: &Document,
    mut table: Map<String, Value>,
    path: Vec<String>,
    problems: &mut Vec<Problem>,
) -> Option<PluginRef> {
    let complaint = match table.shift_remove("plugin") {
        Some(Value::String(plugin)) if !plugin.is_empty() => {
            let key_path: Vec<String> = path.iter().cloned().chain(["plugin".to_owned()]).collect();
            let found = match is_path(&plugin) {
                true => document.resolve(&key_path, &plugin, PathFormat::Path),
                false => Ok(None),
            };
            let plugin = found
                .map(|found| found.unwrap_or(plugin))
                .map_err(|message| problems.push(Problem { path: key_path, message, known: Vec::new() }));
            return Some(PluginRef { plugin: plugin.ok()?, config: Value::Object(table), table: path });
        }
        Some(_) => (path.into_iter().chain(["plugin".to_owned()]).collect(), "`plugin` must be a name or a path"),
        None => (path, "`plugin` is missing: the name of a plugin, or the path of its library"),
    };
    problems.push(Problem { path: complaint.0, message: complaint.1.to_owned(), known: Vec::new() });
    None
}

/// Creates a filter for each position that the table names.
fn take_filter(
    document: &Document,
    mut table: Map<String, Value>,
    index: usize,
    problems: &mut Vec<Problem>,
) -> Vec<FilterRef> {
    let path = vec!["filter".to_owned(), index.to_string()];
    let at = table.shift_remove("at");
    let plugin_ref = take_plugin(document, table, path.clone(), problems);
    let known = || ["client-output", "server-input", "server-output", "client-input"].map(str::to_owned).to_vec();
    let mut complain = |message: String| {
        let key = at.is_some().then(|| "at".to_owned());
        problems.push(Problem { path: path.iter().cloned().chain(key).collect(), message, known: known() });
    };
    let named: &[Value] = match &at {
        Some(Value::Array(names)) if !names.is_empty() => names,
        Some(name @ Value::String(_)) => std::slice::from_ref(name),
        Some(_) => {
            complain("`at` must be a position or a list of positions".to_owned());
            return Vec::new();
        }
        None => {
            complain("`at` is missing: where the filter processes messages".to_owned());
            return Vec::new();
        }
    };
    let mut positions = Vec::new();
    for value in named {
        match config::read::<FilterPosition>(value) {
            Ok(position) if positions.contains(&position) => complain("`at` contains a position twice".to_owned()),
            Ok(position) => positions.push(position),
            Err(found) if value.is_string() => {
                complain(found.into_iter().next().map(|p| p.message).unwrap_or_default());
            }
            Err(_) => complain("`at` must be a position or a list of positions".to_owned()),
        }
    }
    let at = |position, plugin: &PluginRef| FilterRef { position, plugin: plugin.clone() };
    plugin_ref.map(|plugin| positions.into_iter().map(|position| at(position, &plugin)).collect()).unwrap_or_default()
}

/// Describes in words how a run's name violates the schema's pattern.
pub(crate) fn check_name(name: &str) -> Vec<Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && !name.starts_with('.') && name.chars().all(plain) {
        return Vec::new();
    }
    let message = "names a directory: use letters, digits, `-`, `_` and `.`, which must not come first".to_owned();
    vec![Problem { path: vec!["name".to_owned()], message, known: Vec::new() }]
}
