//! A trained model of a run, and rows for it: what `predict` and `embed` share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_api::{
    ClientTask, Component, Context, Dataset, Kind, Message, Model, ModelSetup, Scale, Table, TaskSpec, cell_name,
};
use serde::Deserialize;
use serde_json::Value;

use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Experiment, PluginRef};
use crate::experiment::document::{Document, nearest};
use crate::experiment::paths;
use crate::federation::notes::Notes;
use crate::federation::services::{CallScope, HostServices};
use crate::plugins::Finder;
use crate::setup::placement::Placement;
use crate::terminal::console::Console;

/// The number of rows in memory at a time. Predictions do not depend on it.
const ROWS: u64 = 1024;

/// Which model of a run, and which rows.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directory of a finished run.
    pub run: PathBuf,
    /// The file with the input rows.
    pub input: PathBuf,
    /// Use this client's own model. By default, use the best global model, or the last one if the run has no reports.
    pub client: Option<String>,
    /// Use the global model that is best for this task and not the one that is best over all tasks.
    pub best_of: Option<String>,
    /// The tasks; all tasks of the model if empty.
    pub tasks: Vec<String>,
    /// Pairs of column names: the one that the dataset expects, and the one in the input.
    pub columns: Vec<(String, String)>,
    /// The device to compute on.
    pub device: String,
    /// The maximum number of threads.
    pub threads: usize,
    /// Folders to search for plugins before all others.
    pub plugin_folders: Vec<PathBuf>,
}

/// The parts of a run's manifest that predictions need.
#[derive(Deserialize)]
struct Manifest {
    tasks: Vec<TaskSpec>,
    clients: Vec<Client>,
    /// Absent in runs of earlier versions.
    scales: Option<BTreeMap<String, Scale>>,
}

#[derive(Deserialize)]
struct Client {
    name: String,
    tasks: Vec<ClientTask>,
}

/// A trained model, ready for rows.
pub(crate) struct Trained<'a> {
    pub model: Box<dyn Model>,
    /// The dataset, with the input open.
    pub dataset: Box<dyn Dataset>,
    /// The tasks that are asked for.
    pub tasks: Vec<String>,
    /// By which scale each task's targets were standardised; `None` in runs of earlier versions.
    pub scales: Option<BTreeMap<String, Scale>>,
    /// What the model's file lacks, since the clients kept it private.
    pub missing: Vec<String>,
    pub ctx: Context<'a>,
    /// The name of the model's plugin.
    plugin: &'a str,
    file: &'a Path,
    clients: Vec<String>,
}

impl Trained<'_> {
    /// The next rows of the input.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn next_rows(&mut self) -> Result<Table, CliError> {
        self.dataset.next_rows(ROWS, &self.ctx).map_err(CliError::run)
    }

    /// An error of the model.
    pub(crate) fn model_error(&self, error: plugin_api::Error) -> CliError {
        CliError::run(Diagnostic::from(error).within(&format!("model `{}`", self.plugin)))
    }

    /// Checks that the file has all parameters of the model.
    ///
    /// # Errors
    /// If it lacks one.
    pub(crate) fn require_whole(&self) -> Result<(), CliError> {
        let Some(first) = self.missing.first() else { return Ok(()) };
        let count = self.missing.len();
        let what =
            format!("{count} tensors, such as `{first}`, were kept private by the clients and are not in this model");
        let report = Diagnostic::new(format!("{}: {what}", self.file.display()));
        let hint = format!("choose a client's own model with --client: {}", self.clients.join(", "));
        Err(CliError::usage(report.hint(hint)))
    }
}

/// Opens a run's model and the input, and calls `work` with them.
///
/// # Errors
/// If the run or the input cannot be read, and those of `work`.
pub(crate) fn with_trained<T>(
    options: &Options,
    console: &Console,
    work: impl FnOnce(Trained<'_>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let file = options.run.join("experiment.toml");
    let experiment = read(&file, &renamed(&options.columns)).map_err(|failure| {
        let report = Diagnostic::new(format!("{}: not a run's directory", options.run.display()));
        CliError::usage(failure.reports().iter().fold(report, |report, inner| report.cause(inner.message())))
    })?;
    let manifest = manifest(&options.run)?;
    let (file, held) = chosen(options, &manifest, experiment.federation.reports())?;
    let tasks = wanted(options, &held)?;
    let params = safetensors::read(&file)?;
    let finder = Finder::new(&options.plugin_folders, &experiment.plugin_path);
    let find = |kind, plugin: &PluginRef| -> Result<(Component, Value), CliError> {
        let (_, component) = finder.find(kind, &plugin.plugin).map_err(CliError::usage)?;
        let config = paths::of_table(&experiment.document, &plugin.table, &component, &plugin.config);
        let table: Vec<&str> = plugin.table.iter().map(String::as_str).collect();
        Ok((component, config.map_err(|problems| experiment.document.failure(&table, problems))?))
    };
    let (component, model_config) = find(Kind::Model, &experiment.model)?;
    let (dataset, dataset_config) = find(Kind::Dataset, &experiment.dataset)?;
    let (stop, notes) = (std::sync::atomic::AtomicBool::new(false), Notes::default());
    let services = HostServices::new(console, &notes, &stop, &experiment, options.threads);
    let devices = component.devices().map_err(CliError::run)?;
    let placement =
        Placement::new(std::slice::from_ref(&options.device), &devices, 1, 1, 1).map_err(CliError::usage)?;
    let scope = CallScope::new(&services, &experiment.model.plugin, None, None).on(&placement.devices[0]);
    let ctx = scope.context();

    let federation = &experiment.federation;
    let setup = ModelSetup::new(manifest.tasks.clone(), federation.rounds, federation.local_epochs).holding(held);
    let mut model = component.new_model(&model_config, &setup, &ctx).map_err(CliError::run)?;
    let received = model.receive(&Message::from(params), &ctx).map_err(CliError::run)?;
    let dataset = open_rows(&dataset, &dataset_config, options, &ctx)?;
    let clients = manifest.clients.into_iter().map(|client| client.name).collect();
    let (missing, plugin) = (received.missing, experiment.model.plugin.as_str());
    work(Trained { model, dataset, tasks, scales: manifest.scales, missing, ctx, plugin, file: &file, clients })
}

/// Reads the experiment of a run. In runs of earlier versions, which do not name its folder, paths are relative to the
/// current directory.
fn read(file: &Path, overrides: &[String]) -> Result<Experiment, CliError> {
    let mut document = Document::read(file)?.unless_named_in_current();
    overrides.iter().try_for_each(|argument| document.set(argument))?;
    Experiment::from_document(document)
}

/// Opens the input with the run's dataset.
fn open_rows(
    component: &Component,
    config: &Value,
    options: &Options,
    ctx: &Context<'_>,
) -> Result<Box<dyn Dataset>, CliError> {
    let mut dataset = component.new_dataset(config, ctx).map_err(|error| match &options.columns[..] {
        [] => CliError::run(error),
        _ => {
            CliError::usage(Diagnostic::from(error).hint("--column needs a dataset that has the key `predict-columns`"))
        }
    })?;
    dataset.open_rows(&options.input, ctx).map_err(|e| CliError::usage(Diagnostic::from(e)))?;
    Ok(dataset)
}

/// The `--set` argument that renames columns of the dataset, for [`Experiment::read`].
fn renamed(columns: &[(String, String)]) -> Vec<String> {
    let text = |text: &String| serde_json::Value::from(text.as_str());
    let pairs: Vec<String> =
        columns.iter().map(|(ours, theirs)| format!("{} = {}", text(ours), text(theirs))).collect();
    if pairs.is_empty() { Vec::new() } else { vec![format!("dataset.predict-columns={{ {} }}", pairs.join(", "))] }
}

fn manifest(run: &Path) -> Result<Manifest, CliError> {
    let path = run.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|e| CliError::io(&path, "read the run's manifest", &e))?;
    serde_json::from_str(&text)
        .map_err(|e| CliError::usage(Diagnostic::new(format!("{}: not a manifest of a run", path.display())).cause(e)))
}

/// The file of the requested model, and its tasks. If clients report no scores, the last global model is used.
fn chosen(options: &Options, manifest: &Manifest, reports: bool) -> Result<(PathBuf, Vec<String>), CliError> {
    let Some(name) = &options.client else {
        let tasks: Vec<String> = manifest.tasks.iter().map(|task| task.name.clone()).collect();
        let mut folder = options.run.join(if reports { "best" } else { "global" });
        match &options.best_of {
            Some(_) if !reports => {
                let report = Diagnostic::new("the run has no best models: its clients reported no scores");
                return Err(CliError::usage(report.hint("without --best-of, the last global model is used")));
            }
            Some(task) if !tasks.contains(task) => return Err(unknown("task", task, &tasks)),
            // With a single task, the best model overall is also the best for that task.
            Some(task) if tasks.len() > 1 => folder.extend(["tasks", task]),
            _ => {}
        }
        return Ok((folder.join("model.safetensors"), tasks));
    };
    let client = manifest.clients.iter().find(|client| client.name == *name).ok_or_else(|| {
        let names: Vec<_> = manifest.clients.iter().map(|client| client.name.as_str()).collect();
        unknown("client", name, &names)
    })?;
    let file = options.run.join("clients").join(name).join("model.safetensors");
    Ok((file, client.tasks.iter().map(|task| task.name.clone()).collect()))
}

fn wanted(options: &Options, held: &[String]) -> Result<Vec<String>, CliError> {
    if let Some(name) = options.tasks.iter().find(|name| !held.contains(name)) {
        return Err(unknown("task", name, held));
    }
    Ok(if options.tasks.is_empty() { held.to_vec() } else { options.tasks.clone() })
}

fn unknown<S: AsRef<str>>(what: &str, name: &str, known: &[S]) -> CliError {
    let report = Diagnostic::new(format!("the model has no {what} `{name}`"));
    CliError::usage(match nearest(name, known) {
        Some(near) => report.hint(format!("did you mean `{near}`?")),
        None => report.hint(format!("it has: {}", known.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))),
    })
}

/// The columns of a table that a model reads, without those that are only written.
///
/// # Errors
/// Never, as long as columns have the same length.
pub(crate) fn inputs(table: &Table) -> Result<Table, CliError> {
    let read = table.columns().filter(|(name, _)| cell_name(name).is_none());
    let mut inputs = Table::new();
    for (name, column) in read {
        inputs = inputs.with(name, column.clone()).map_err(CliError::run)?;
    }
    Ok(inputs)
}
