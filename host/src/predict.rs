//! Predictions of a trained model: rows in, a CSV with a column for each task out.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use plugin_api::{ClientTask, Column, Context, Kind, Message, ModelSetup, Seed, Table, TaskSpec};
use serde::Deserialize;

use crate::config::Experiment;
use crate::console::Console;
use crate::document::nearest;
use crate::error::{Failure, Report};
use crate::link::{Line, Link};
use crate::notes::Notes;
use crate::placement::Placement;
use crate::plugins::Finder;
use crate::tensors;

/// How many rows are held at a time. Predictions do not depend on it.
const ROWS: u64 = 1024;

/// What is to be predicted, with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of a run that is done.
    pub run: PathBuf,
    /// The rows.
    pub input: PathBuf,
    /// The client whose own model predicts; the best global model without it.
    pub client: Option<String>,
    /// The task whose best global model predicts, in the place of the one that is best over all tasks.
    pub best_of: Option<String>,
    /// The tasks to predict; all that the model has without any.
    pub tasks: Vec<String>,
    /// Where to compute.
    pub device: String,
    /// How many threads may compute.
    pub threads: usize,
    /// Folders to look for plugins in before all others.
    pub plugin_folders: Vec<PathBuf>,
}

/// What of a run's manifest predictions need.
#[derive(Deserialize)]
struct Manifest {
    tasks: Vec<TaskSpec>,
    clients: Vec<Client>,
}

#[derive(Deserialize)]
struct Client {
    name: String,
    tasks: Vec<ClientTask>,
}

/// Predicts each row of the input and writes the inputs and the predictions as CSV, in the input's order.
///
/// # Errors
/// If the run, the rows or the output cannot be used.
pub fn predict(options: &Options, console: &Console, output: &mut dyn Write) -> Result<u64, Failure> {
    let experiment = Experiment::read(&options.run.join("experiment.toml"), &[]).map_err(|failure| {
        let report = Report::new(format!("{}: not the directory of a run", options.run.display()));
        Failure::usage(failure.reports().iter().fold(report, |report, inner| report.cause(inner.message())))
    })?;
    let manifest = manifest(&options.run)?;
    let (file, held) = chosen(options, &manifest)?;
    let tasks = wanted(options, &held)?;
    let params = tensors::read(&file)?;

    let finder = Finder::new(&options.plugin_folders, &experiment.plugin_path);
    let find = |kind, name: &str| finder.find(kind, name).map_err(Failure::usage);
    let (_, model) = find(Kind::Model, &experiment.model.plugin)?;
    let (_, dataset) = find(Kind::Dataset, &experiment.dataset.plugin)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let notes = Notes::default();
    let link = Link {
        console,
        reporter: crate::tracking::Reporter::nowhere(),
        notes: &notes,
        stop: &stop,
        seed: Seed::new(u64::from(experiment.seed)),
        threads: options.threads,
    };
    let devices = model.devices().map_err(Failure::run)?;
    let place = Placement::new(std::slice::from_ref(&options.device), &devices, 1, 1).map_err(Failure::usage)?;
    let line = Line::new(&link, &experiment.model.plugin, None, None).on(&place.devices[0]);
    let ctx = line.context();

    let federation = &experiment.federation;
    let setup = ModelSetup::new(manifest.tasks.clone(), federation.rounds, federation.local_epochs).holding(held);
    let mut model = model.new_model(&experiment.model.config, &setup, &ctx).map_err(Failure::run)?;
    let received = model.receive(&Message::from(params), &ctx).map_err(Failure::run)?;
    if !received.missing.is_empty() {
        let clients: Vec<_> = manifest.clients.iter().map(|client| client.name.as_str()).collect();
        let report = Report::new(format!("{}: is not a whole model", file.display()))
            .cause(format!("it lacks {}, which each client kept to itself", received.missing.join(", ")))
            .hint(format!("choose a client's own model with --client: {}", clients.join(", ")));
        return Err(Failure::usage(report));
    }
    let mut dataset = dataset.new_dataset(&experiment.dataset.config, &ctx).map_err(Failure::run)?;
    dataset.open_rows(&options.input, &ctx).map_err(|e| Failure::usage(Report::from(e)))?;
    let mut next = || dataset.next_rows(ROWS, &ctx).map_err(Failure::run);
    let mut predict = |task: &str, rows: &Table, ctx: &Context<'_>| {
        let found = model.predict(task, rows, ctx).map_err(Failure::run)?;
        let wrong = |what: String| {
            Err(Failure::run(Report::new(format!("model `{}`, task `{task}`: {what}", experiment.model.plugin))))
        };
        if found.len() != rows.rows() {
            return wrong(format!("{} predictions for {} rows", found.len(), rows.rows()));
        }
        match found.iter().find(|value| !value.is_finite()) {
            Some(value) => wrong(format!("a prediction is {value}")),
            None => Ok(found),
        }
    };
    write(&tasks, &mut next, |task, rows| predict(task, rows, &ctx), output)
}

fn write(
    tasks: &[String],
    next: &mut dyn FnMut() -> Result<Table, Failure>,
    mut predict: impl FnMut(&str, &Table) -> Result<Vec<f32>, Failure>,
    output: &mut dyn Write,
) -> Result<u64, Failure> {
    let failed = |e: csv::Error| Failure::run(Report::new("cannot write the predictions").cause(e));
    let mut writer = csv::Writer::from_writer(BufWriter::new(output));
    let mut count = 0;
    loop {
        let rows = next()?;
        if count == 0 {
            let inputs = rows.columns().map(|(name, _)| name);
            writer.write_record(inputs.chain(tasks.iter().map(String::as_str))).map_err(failed)?;
        }
        if rows.rows() == 0 {
            break;
        }
        let predictions = tasks.iter().map(|task| predict(task, &rows)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..rows.rows() {
            let inputs = rows.columns().map(|(_, column)| cell(column, row));
            let predicted = predictions.iter().map(|column| column[row].to_string());
            writer.write_record(inputs.chain(predicted)).map_err(failed)?;
        }
        count += rows.rows() as u64;
    }
    writer.flush().map_err(|e| failed(e.into()))?;
    Ok(count)
}

fn cell(column: &Column, row: usize) -> String {
    match column {
        Column::Text(column) => column.get(row).to_owned(),
        other => other.select(&[row]).numbers().first().copied().unwrap_or(f64::NAN).to_string(),
    }
}

fn manifest(run: &Path) -> Result<Manifest, Failure> {
    let path = run.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, "read the run's manifest", &e))?;
    serde_json::from_str(&text)
        .map_err(|e| Failure::usage(Report::new(format!("{}: not a manifest of a run", path.display())).cause(e)))
}

/// The file of the model that is asked for, and the tasks that it has.
fn chosen(options: &Options, manifest: &Manifest) -> Result<(PathBuf, Vec<String>), Failure> {
    let Some(name) = &options.client else {
        let tasks: Vec<String> = manifest.tasks.iter().map(|task| task.name.clone()).collect();
        let mut folder = options.run.join("best");
        match &options.best_of {
            Some(task) if !tasks.contains(task) => return Err(unknown("task", task, &tasks)),
            // The best of the only task is the best.
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

fn wanted(options: &Options, held: &[String]) -> Result<Vec<String>, Failure> {
    if let Some(name) = options.tasks.iter().find(|name| !held.contains(name)) {
        return Err(unknown("task", name, held));
    }
    Ok(if options.tasks.is_empty() { held.to_vec() } else { options.tasks.clone() })
}

fn unknown<S: AsRef<str>>(what: &str, name: &str, known: &[S]) -> Failure {
    let report = Report::new(format!("the model has no {what} `{name}`"));
    Failure::usage(match nearest(name, known) {
        Some(near) => report.hint(format!("did you mean `{near}`?")),
        None => report.hint(format!("it has: {}", known.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "))),
    })
}
