//! `fedplug predict`: copies the input rows and adds one column per task with the model's predictions.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use plugin_api::{
    ClientTask, Column, Component, Context, Dataset, Kind, Level, Message, Model, ModelSetup, Received, Scale, Table,
    TaskSpec, cell_name,
};
use serde::Deserialize;

use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Experiment;
use crate::experiment::document::nearest;
use crate::federation::notes::Notes;
use crate::federation::predictions::{cell, restored};
use crate::federation::services::{CallScope, HostServices};
use crate::plugins::Finder;
use crate::plugins::validate;
use crate::setup::placement::Placement;
use crate::terminal::console::Console;

/// The number of rows in memory at a time. Predictions do not depend on it.
const ROWS: u64 = 1024;

/// The options of a prediction.
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
    /// The tasks to predict; all tasks of the model if empty.
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

/// Predicts each row of the input and writes the row with its predictions as CSV, in the order of the input.
/// Predictions are in the units of the targets. Returns the number of rows.
///
/// # Errors
/// If the run or the input cannot be read, or the output cannot be written.
pub(crate) fn predict(options: &Options, console: &Console, output: &mut dyn Write) -> Result<u64, CliError> {
    let file = options.run.join("experiment.toml");
    let experiment = Experiment::read(&file, &renamed(&options.columns)).map_err(|failure| {
        let report = Diagnostic::new(format!("{}: not a run's directory", options.run.display()));
        CliError::usage(failure.reports().iter().fold(report, |report, inner| report.cause(inner.message())))
    })?;
    let manifest = manifest(&options.run)?;
    let (file, held) = chosen(options, &manifest, experiment.federation.reports())?;
    let tasks = wanted(options, &held)?;
    let params = safetensors::read(&file)?;
    if manifest.scales.is_none() {
        let line =
            "the run's manifest does not say whether targets were standardised; predictions are in the model's unit";
        console.log(Level::Warn, line);
    }

    let finder = Finder::new(&options.plugin_folders, &experiment.plugin_path);
    let find = |kind, name: &str| finder.find(kind, name).map_err(CliError::usage);
    let (_, component) = find(Kind::Model, &experiment.model.plugin)?;
    let (_, dataset) = find(Kind::Dataset, &experiment.dataset.plugin)?;
    let (stop, notes) = (std::sync::atomic::AtomicBool::new(false), Notes::default());
    let services = HostServices::new(console, &notes, &stop, &experiment, options.threads);
    let devices = component.devices().map_err(CliError::run)?;
    let placement = Placement::new(std::slice::from_ref(&options.device), &devices, 1, 1).map_err(CliError::usage)?;
    let scope = CallScope::new(&services, &experiment.model.plugin, None, None).on(&placement.devices[0]);
    let ctx = scope.context();

    let federation = &experiment.federation;
    let setup = ModelSetup::new(manifest.tasks.clone(), federation.rounds, federation.local_epochs).holding(held);
    let mut model = component.new_model(&experiment.model.config, &setup, &ctx).map_err(CliError::run)?;
    let received = model.receive(&Message::from(params), &ctx).map_err(CliError::run)?;
    require_whole(&received, &file, &manifest)?;
    let mut dataset = open_rows(&dataset, &experiment, options, &ctx)?;
    let mut next = || dataset.next_rows(ROWS, &ctx).map_err(CliError::run);
    let scales = manifest.scales.unwrap_or_default();
    let predict = |task: &str, rows: &Table| {
        let found = predictions(&mut *model, task, rows, scales.get(task), &ctx);
        found.map_err(|error| {
            CliError::run(Diagnostic::from(error).within(&format!("model `{}`", experiment.model.plugin)))
        })
    };
    write(&tasks, &mut next, predict, output)
}

/// Checks that the file has all parameters of the model.
fn require_whole(received: &Received, file: &Path, manifest: &Manifest) -> Result<(), CliError> {
    let Some(first) = received.missing.first() else { return Ok(()) };
    let clients: Vec<_> = manifest.clients.iter().map(|client| client.name.as_str()).collect();
    let count = received.missing.len();
    let what =
        format!("{count} tensors, such as `{first}`, were kept private by the clients and are not in this model");
    let report = Diagnostic::new(format!("{}: {what}", file.display()));
    Err(CliError::usage(report.hint(format!("choose a client's own model with --client: {}", clients.join(", ")))))
}

/// Opens the input with the run's dataset.
fn open_rows(
    component: &Component,
    experiment: &Experiment,
    options: &Options,
    ctx: &Context<'_>,
) -> Result<Box<dyn Dataset>, CliError> {
    let mut dataset =
        component.new_dataset(&experiment.dataset.config, ctx).map_err(|error| match &options.columns[..] {
            [] => CliError::run(error),
            _ => CliError::usage(
                Diagnostic::from(error).hint("--column needs a dataset that has the key `predict-columns`"),
            ),
        })?;
    dataset.open_rows(&options.input, ctx).map_err(|e| CliError::usage(Diagnostic::from(e)))?;
    Ok(dataset)
}

/// A model's predictions of some rows, in the target's own unit.
fn predictions(
    model: &mut dyn Model,
    task: &str,
    rows: &Table,
    scale: Option<&Scale>,
    ctx: &Context<'_>,
) -> plugin_api::Result<Table> {
    let found = model.predict(task, rows, ctx).and_then(|found| validate::predictions(task, rows, found))?;
    let numbers = found.columns().flat_map(|(_, column)| match column {
        // In a nullable column, missing values are intentional.
        Column::Nullable(_) => Vec::new(),
        column => column.numbers(),
    });
    if let Some(value) = numbers.into_iter().find(|value| !value.is_finite()) {
        return Err(plugin_api::Error::other(format!("task `{task}`: a prediction is {value}")));
    }
    restored(&found, scale)
}

/// The `--set` argument that renames columns of the dataset, for [`Experiment::read`].
fn renamed(columns: &[(String, String)]) -> Vec<String> {
    let text = |text: &String| serde_json::Value::from(text.as_str());
    let pairs: Vec<String> =
        columns.iter().map(|(ours, theirs)| format!("{} = {}", text(ours), text(theirs))).collect();
    if pairs.is_empty() { Vec::new() } else { vec![format!("dataset.predict-columns={{ {} }}", pairs.join(", "))] }
}

fn write(
    tasks: &[String],
    next: &mut dyn FnMut() -> Result<Table, CliError>,
    mut predict: impl FnMut(&str, &Table) -> Result<Table, CliError>,
    output: &mut dyn Write,
) -> Result<u64, CliError> {
    let failed = |e: csv::Error| CliError::run(Diagnostic::new("cannot write the predictions").cause(e));
    let mut writer = csv::Writer::from_writer(BufWriter::new(output));
    let (mut count, mut columns) = (0, None);
    loop {
        let table = next()?;
        let (inputs, cells) = apart(&table)?;
        if columns.is_some() && table.rows() == 0 {
            break;
        }
        let predictions = tasks.iter().map(|task| predict(task, &inputs)).collect::<Result<Vec<_>, _>>()?;
        let predicted = column_names(tasks, &predictions);
        match &columns {
            None => {
                let header = header(&cells, &predicted)?;
                writer.write_record(header).map_err(failed)?;
                columns = Some(predicted);
            }
            Some(columns) if *columns != predicted => return Err(changed(columns, &predicted)),
            Some(_) => {}
        }
        if table.rows() == 0 {
            break;
        }
        for row in 0..table.rows() {
            let kept = cells.iter().map(|(_, column)| cell(column, row));
            let found = predictions.iter().flat_map(Table::columns);
            writer.write_record(kept.chain(found.map(|(_, column)| cell(column, row)))).map_err(failed)?;
        }
        count += table.rows() as u64;
    }
    writer.flush().map_err(|e| failed(e.into()))?;
    Ok(count)
}

/// The names of the columns of predictions in the output.
fn column_names(tasks: &[String], predictions: &[Table]) -> Vec<String> {
    let of_task = |(task, found): (&String, &Table)| -> Vec<String> {
        found.columns().map(|(name, _)| format!("{task}_{name}")).collect()
    };
    tasks.iter().zip(predictions).flat_map(of_task).collect()
}

/// The header of the output.
fn header<'h>(cells: &Cells<'h>, predicted: &'h [String]) -> Result<Vec<&'h str>, CliError> {
    let mut header: Vec<&str> = cells.iter().map(|(name, _)| *name).collect();
    if let Some(twice) = predicted.iter().find(|name| header.contains(&name.as_str())) {
        let report = Diagnostic::new(format!(
            "the input already has a column `{twice}`, which is the name of a column of predictions"
        ));
        return Err(CliError::usage(report.hint("rename it, or choose other tasks with --task")));
    }
    header.extend(predicted.iter().map(String::as_str));
    Ok(header)
}

/// The error if a model predicts other columns than for earlier rows.
fn changed(before: &[String], now: &[String]) -> CliError {
    let (now, before) = (now.join(", "), before.join(", "));
    CliError::run(Diagnostic::new(format!("the model predicts {now}, but predicted {before} for earlier rows")))
}

/// Columns with their names in the file.
type Cells<'a> = Vec<(&'a str, &'a Column)>;

/// Splits a table into the model's inputs and the columns written before the predictions: the file's own columns, or
/// the inputs if it has none.
fn apart(table: &Table) -> Result<(Table, Cells<'_>), CliError> {
    let mut inputs = Table::new();
    for (name, column) in table.columns().filter(|(name, _)| cell_name(name).is_none()) {
        inputs = inputs.with(name, column.clone()).map_err(CliError::run)?;
    }
    if let Some((name, column)) = table.columns().find(|(_, column)| !validate::is_written(column)) {
        let what = format!("column `{name}` holds {}, which cannot be written as text", column.kind());
        return Err(CliError::run(Diagnostic::new(what)));
    }
    let cells: Cells<'_> = table.columns().filter_map(|(name, column)| Some((cell_name(name)?, column))).collect();
    Ok((inputs, if cells.is_empty() { table.columns().collect() } else { cells }))
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
