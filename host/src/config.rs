//! An experiment: what the TOML file says, read and checked so far as the host can.

use std::path::{Path, PathBuf};

use plugin_api::config::{self, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bytes::Bytes;
use crate::document::Document;
use crate::error::Failure;

/// The host's own keys, as they stand in the file. The plugins' tables stay values until the plugins read them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    /// Names the run and its directory: letters, digits, `-`, `_` and `.`.
    #[schemars(extend("pattern" = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"))]
    name: String,
    /// The seed of all randomness.
    #[serde(default)]
    seed: u32,
    /// Folders to look for plugins in, before the usual ones.
    #[serde(default)]
    plugin_path: Vec<PathBuf>,
    /// Rounds, epochs, devices.
    federation: Federation,
    /// Which clients there are, and what data each has.
    #[expect(dead_code, reason = "only that it is a table; read on its own, so that its faults are told with others")]
    dataset: Map<String, Value>,
    /// What the clients train.
    #[expect(dead_code, reason = "as above")]
    model: Map<String, Value>,
    /// How the clients' updates become the next global model.
    #[expect(dead_code, reason = "as above")]
    aggregator: Map<String, Value>,
    /// What changes messages on their way, in order.
    #[serde(default)]
    filter: Vec<Map<String, Value>>,
}

/// The table `[federation]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Federation {
    /// How many rounds.
    #[schemars(range(min = 1))]
    pub rounds: u64,
    /// How many epochs each client trains in a round.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub local_epochs: u64,
    /// Where the clients compute: client k gets entry k modulo the list's length. `auto` stands for the GPUs that the
    /// model finds, or else the CPU.
    #[serde(default = "auto")]
    #[schemars(length(min = 1))]
    pub devices: Vec<String>,
    /// How many clients work at the same time; 0 chooses by the machine. Results do not depend on it.
    #[serde(default)]
    pub threads: usize,
    /// How many threads each client computes with. Results may depend on it.
    #[serde(default = "one_thread")]
    #[schemars(range(min = 1))]
    pub threads_per_client: usize,
    /// What happens when a client fails.
    #[serde(default)]
    pub on_client_failure: OnClientFailure,
    /// Which share of the clients takes part in a round: drawn anew for each, from the seed.
    #[serde(default = "all")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub fraction: f64,
    /// At least so many clients take part in a round, and a round with fewer updates than this ends the run.
    #[serde(default = "one_client")]
    #[schemars(range(min = 1))]
    pub min_clients: usize,
    /// When to stop before the last round; never where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Whether every client evaluates the models of all at the end.
    #[serde(default)]
    pub cross_site: bool,
    /// After how many rounds a checkpoint is written; 0 goes by `checkpoint-after`. Results do not depend on it.
    #[serde(default)]
    pub checkpoint_every: u64,
    /// After how many seconds a checkpoint is written where `checkpoint-every` is 0: at the end of the first round that
    /// ends so long after the last one, and in a longer round between two epochs. There clients at work wait for the
    /// slowest one's epoch, so if several work at a time, at least ten of the longest epochs lie between two checkpoints.
    /// Results do not depend on it.
    #[serde(default = "a_minute")]
    pub checkpoint_after: u64,
    /// How much memory the models of clients that are not at work and the best global model may take together, such as
    /// `8 GiB`, by the bytes of their states. What finds no room waits on disk. Without a limit all stays in memory.
    /// Results do not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_memory: Option<Bytes>,
}

fn one() -> u64 {
    1
}

fn a_minute() -> u64 {
    60
}

fn one_thread() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn one_client() -> usize {
    1
}

fn auto() -> Vec<String> {
    vec!["auto".to_owned()]
}

/// The table `[federation.early-stopping]`: the run stops after `patience` rounds without a better number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EarlyStopping {
    /// How many rounds.
    #[schemars(range(min = 1))]
    pub patience: u64,
    /// Which of the server's numbers is watched: the mean over the clients, by its tag, such as `RMSE/local_test`. The
    /// default is the score of the global model.
    #[serde(default = "score")]
    pub metric: String,
    /// By how much a number must be better than the best before to count.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
}

/// The tag of the global model's score among the server's numbers.
pub const SCORE: &str = "Score/global_test";

fn score() -> String {
    SCORE.to_owned()
}

/// What happens when a client fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnClientFailure {
    /// The run ends.
    #[default]
    Stop,
    /// The round goes on without it, with a warning.
    LeaveOut,
}

/// Where a filter stands on a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// At a client, on what it sends.
    ClientOutput,
    /// At the server, on what a client sent.
    ServerInput,
    /// At the server, on what it sends to a client.
    ServerOutput,
    /// At a client, on what the server sent.
    ClientInput,
}

/// The JSON Schemas of the host's own keys, in which the plugins' tables are any tables, and of a filter's place.
pub fn schemas() -> (Value, Value) {
    (schemars::schema_for!(Raw).to_value(), schemars::schema_for!(Place).to_value())
}

/// A plugin that the experiment names, with its own table.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The name, or the path of a library.
    pub plugin: String,
    /// The plugin's own keys.
    pub config: Value,
    /// The way to its table in the file.
    pub table: Vec<String>,
}

/// An experiment whose host keys are in order.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Names the run.
    pub name: String,
    /// The seed of all randomness.
    pub seed: u32,
    /// Folders to look for plugins in.
    pub plugin_path: Vec<PathBuf>,
    /// Rounds, epochs, devices.
    pub federation: Federation,
    /// The dataset.
    pub dataset: Choice,
    /// The model.
    pub model: Choice,
    /// The aggregator.
    pub aggregator: Choice,
    /// The filters with their places, in the file's order.
    pub filters: Vec<(Place, Choice)>,
    /// The file, for errors about the plugins' tables.
    pub document: Document,
}

impl Experiment {
    /// Reads a file and applies the `--set` arguments.
    ///
    /// # Errors
    /// If the file cannot be read, or a key of the host's is wrong: all of them at once.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, Failure> {
        let mut document = Document::read(path)?;
        for argument in overrides {
            document.set(argument)?;
        }
        Self::from_document(document)
    }

    /// Makes an experiment of a parsed file.
    ///
    /// # Errors
    /// If a key of the host's is wrong.
    pub fn from_document(document: Document) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let raw = match config::read::<Raw>(document.value()) {
            Ok(raw) => Some(raw),
            Err(found) => {
                problems = found;
                None
            }
        };
        // Even when something else is wrong, say what is wrong with the plugins' tables and the values too.
        let table = |key: &str| document.value().get(key).and_then(Value::as_object).cloned();
        let mut choose = |key: &str| {
            table(key).and_then(|table| take_plugin(table, vec![key.to_owned()], &mut problems)).unwrap_or_else(nothing)
        };
        let (dataset, model, aggregator) = (choose("dataset"), choose("model"), choose("aggregator"));
        let mut filters = Vec::new();
        for (index, table) in raw.iter().flat_map(|raw| raw.filter.iter().cloned().enumerate()) {
            filters.extend(take_filter(table, index, &mut problems));
        }
        if let Some(raw) = &raw {
            check_values(raw, &mut problems);
        }
        match raw {
            Some(raw) if problems.is_empty() => {
                let Raw { name, seed, plugin_path, federation, .. } = raw;
                Ok(Self { name, seed, plugin_path, federation, dataset, model, aggregator, filters, document })
            }
            _ => Err(document.failure(&[], problems)),
        }
    }

    /// The experiment as it is run: with the command line's changes and the host's defaults written out, as TOML.
    pub fn resolved(&self) -> String {
        let mut value = self.document.value().clone();
        value["seed"] = self.seed.into();
        value["federation"] = serde_json::to_value(&self.federation).unwrap_or_default();
        toml::to_string_pretty(&value).unwrap_or_default()
    }
}

fn nothing() -> Choice {
    Choice { plugin: String::new(), config: Value::Null, table: Vec::new() }
}

fn take_plugin(mut table: Map<String, Value>, way: Vec<String>, problems: &mut Vec<Problem>) -> Option<Choice> {
    let complaint = match table.shift_remove("plugin") {
        Some(Value::String(plugin)) if !plugin.is_empty() => {
            return Some(Choice { plugin, config: Value::Object(table), table: way });
        }
        Some(_) => (way.into_iter().chain(["plugin".to_owned()]).collect(), "`plugin` must be a name or a path"),
        None => (way, "`plugin` is missing: the name of a plugin, or the path of its library"),
    };
    problems.push(Problem { path: complaint.0, message: complaint.1.to_owned(), known: Vec::new() });
    None
}

/// A filter at each of the places that its table names.
fn take_filter(mut table: Map<String, Value>, index: usize, problems: &mut Vec<Problem>) -> Vec<(Place, Choice)> {
    let way = vec!["filter".to_owned(), index.to_string()];
    let at = table.shift_remove("at");
    let choice = take_plugin(table, way.clone(), problems);
    let known = || ["client-output", "server-input", "server-output", "client-input"].map(str::to_owned).to_vec();
    let mut complain = |message: String| {
        let key = at.is_some().then(|| "at".to_owned());
        problems.push(Problem { path: way.iter().cloned().chain(key).collect(), message, known: known() });
    };
    let named: &[Value] = match &at {
        Some(Value::Array(places)) if !places.is_empty() => places,
        Some(place @ Value::String(_)) => std::slice::from_ref(place),
        Some(_) => {
            complain("`at` must name a place, or a list of places".to_owned());
            return Vec::new();
        }
        None => {
            complain("`at` is missing: where the filter stands".to_owned());
            return Vec::new();
        }
    };
    let mut places = Vec::new();
    for value in named {
        match config::read::<Place>(value) {
            Ok(place) if places.contains(&place) => complain("`at` names a place twice".to_owned()),
            Ok(place) => places.push(place),
            Err(found) if value.is_string() => {
                complain(found.into_iter().next().map(|p| p.message).unwrap_or_default());
            }
            Err(_) => complain("`at` must name a place, or a list of places".to_owned()),
        }
    }
    choice.map(|choice| places.into_iter().map(|place| (place, choice.clone())).collect()).unwrap_or_default()
}

fn check_values(raw: &Raw, problems: &mut Vec<Problem>) {
    let mut complain = |way: &[&str], message: &str| {
        let path = way.iter().map(|&s| s.to_owned()).collect();
        problems.push(Problem { path, message: message.to_owned(), known: Vec::new() });
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if raw.name.is_empty() || raw.name.starts_with('.') || !raw.name.chars().all(plain) {
        complain(&["name"], "names a directory: use letters, digits, `-`, `_` and `.`");
    }
    if raw.federation.rounds == 0 {
        complain(&["federation", "rounds"], "must be at least 1");
    }
    if raw.federation.local_epochs == 0 {
        complain(&["federation", "local-epochs"], "must be at least 1");
    }
    if raw.federation.threads_per_client == 0 {
        complain(&["federation", "threads-per-client"], "must be at least 1");
    }
    if !(raw.federation.fraction > 0.0 && raw.federation.fraction <= 1.0) {
        complain(&["federation", "fraction"], "must be more than 0 and at most 1");
    }
    if raw.federation.min_clients == 0 {
        complain(&["federation", "min-clients"], "must be at least 1");
    }
    if let Some(rule) = &raw.federation.early_stopping {
        if rule.patience == 0 {
            complain(&["federation", "early-stopping", "patience"], "must be at least 1");
        }
        if !(rule.min_delta >= 0.0 && rule.min_delta.is_finite()) {
            complain(&["federation", "early-stopping", "min-delta"], "must be a number from 0 up");
        }
    }
    if raw.federation.devices.is_empty() {
        complain(&["federation", "devices"], "must name at least one device, such as `cpu`, `cuda:0` or `auto`");
    }
}
