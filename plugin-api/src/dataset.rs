//! Datasets: which clients there are, and what data each has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Context, Error, Message, Result, Table};

/// The name of an optional text column of a task's tables: where each row came from, as `FILE:LINE` with the line counted
/// from 1, unique within a task. The host writes it beside each row's predictions; models ignore it.
pub const ORIGIN: &str = "fedplug.origin";

/// The name of a text column of [`Dataset::next_rows`] that holds what the rows say in the file's column of this place and
/// name, as it stands there: so that predictions come with all that the file has. Models ignore it.
pub fn cell_column(place: usize, name: &str) -> String {
    format!("{CELL}{place}.{name}")
}

/// The name in the file of a column that is named by [`cell_column`]; none of any other.
pub fn cell_name(column: &str) -> Option<&str> {
    column.strip_prefix(CELL)?.split_once('.').map(|(_, name)| name)
}

const CELL: &str = "fedplug.cell.";

/// A task: a name, the columns a model reads, and the column it learns to predict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name, unique in the experiment.
    pub name: String,
    /// The columns that a model reads. What several of them mean is the model's to say.
    pub inputs: Vec<String>,
    /// The column that it predicts.
    pub target: String,
    /// What that column holds.
    #[serde(default)]
    pub target_kind: TargetKind,
}

impl TaskSpec {
    /// A task whose target is a number.
    pub fn new<I: Into<String>>(
        name: impl Into<String>,
        inputs: impl IntoIterator<Item = I>,
        target: impl Into<String>,
    ) -> Self {
        let inputs = inputs.into_iter().map(Into::into).collect();
        Self { name: name.into(), inputs, target: target.into(), target_kind: TargetKind::Number }
    }
}

/// What a task's target column holds. A later interface may add to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TargetKind {
    /// One number in each row.
    #[default]
    Number,
    /// One of these classes in each row: its place in the list in a column of integers, or its name in one of text.
    Class(Vec<String>),
    /// So many numbers in each row, in a column of lists.
    Numbers(usize),
}

/// A task at a client: its train and its test table, either of which may have no row.
#[derive(Clone, Debug)]
pub struct Task {
    /// What it is about.
    pub spec: TaskSpec,
    /// The rows to train on.
    pub train: Table,
    /// The rows to evaluate on.
    pub test: Table,
}

/// A client as the dataset knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// Its name, unique in the experiment; it names folders and tags.
    pub name: String,
    /// Its tasks with their numbers of rows, in the experiment's order of tasks.
    pub tasks: Vec<ClientTask>,
}

/// How much of a task a client has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTask {
    /// The task's name.
    pub name: String,
    /// Rows to train on.
    pub train: usize,
    /// Rows to evaluate on.
    pub test: usize,
}

/// A file that the data comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Rows that are used.
    pub rows: usize,
    /// Why rows, or the whole file, were left out, and how many rows each reason took.
    pub skipped: Vec<(String, usize)>,
}

/// How a task's targets were rescaled before a model sees them: `(value - mean) / deviation`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Mean of the training targets, in the target's own unit.
    pub mean: f64,
    /// Their standard deviation (of the population), in the target's own unit; 1 where all are equal.
    pub deviation: f64,
}

impl Scale {
    /// The target in its own unit, of a value that a model gives.
    pub fn restore(&self, scaled: f64) -> f64 {
        self.mean + self.deviation * scaled
    }
}

/// What a dataset holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The tasks, in the order that numbers them.
    pub tasks: Vec<TaskSpec>,
    /// The clients, in the order of aggregation.
    pub clients: Vec<ClientSpec>,
    /// The files.
    pub sources: Vec<Source>,
    /// The scale of each task, by its name, whose targets are standardised in the tables. The host turns predictions back
    /// into the target's own unit by it.
    #[serde(default)]
    pub scales: BTreeMap<String, Scale>,
}

impl Description {
    /// A description of these tasks, clients and files, whose targets are in their own units.
    pub fn new(tasks: Vec<TaskSpec>, clients: Vec<ClientSpec>, sources: Vec<Source>) -> Self {
        Self { tasks, clients, sources, scales: BTreeMap::new() }
    }

    /// The same with tasks whose targets are standardised.
    #[must_use]
    pub fn with_scales(mut self, scales: impl IntoIterator<Item = (String, Scale)>) -> Self {
        self.scales.extend(scales);
        self
    }
}

/// Data for an experiment. The host makes one instance, asks what it holds, and loads each client for the run; some of
/// them also before it, for a rehearsal.
///
/// ```no_run
/// //! Random numbers, of which half the letters of a text are the target.
/// use plugin_api::{ClientSpec, ClientTask, Column, Component, Context, Dataset, Description, JsonSchema};
/// use plugin_api::{Result, Seed, Table, Task, TaskSpec};
///
/// /// The keys of the experiment's `[dataset]` table.
/// #[derive(serde::Deserialize, JsonSchema)]
/// #[schemars(crate = "plugin_api::schemars")]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     /// How many clients there are.
///     clients: u64,
/// }
///
/// fn spec() -> TaskSpec {
///     TaskSpec::new("length", ["text"], "half")
/// }
///
/// fn table(rows: u64, seed: Seed) -> Result<Table> {
///     let lengths: Vec<u64> = (0..rows).map(|row| seed.at(row).value() % 50).collect();
///     let texts: Vec<String> = lengths.iter().map(|&n| "A".repeat(n as usize)).collect();
///     let halves: Vec<f32> = lengths.iter().map(|&n| n as f32 / 2.0).collect();
///     Table::new().with("text", Column::text(&texts))?.with("half", Column::f32(&halves))
/// }
///
/// impl Dataset for Config {
///     fn describe(&mut self, _: &Context<'_>) -> Result<Description> {
///         let tasks = vec![ClientTask { name: "length".into(), train: 40, test: 10 }];
///         let client = |k| ClientSpec { name: format!("client-{k}"), tasks: tasks.clone() };
///         Ok(Description::new(vec![spec()], (1..=self.clients).map(client).collect(), vec![]))
///     }
///     fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
///         let seed = ctx.experiment_seed().of(client);
///         Ok(vec![Task { spec: spec(), train: table(40, seed.at(0))?, test: table(10, seed.at(1))? }])
///     }
/// }
///
/// plugin_api::export_plugin!(Component::dataset("lengths", "Texts and their lengths", |c: Config, _| Ok(c)));
/// # fn main() {}
/// ```
pub trait Dataset: Send {
    /// The tasks, the clients and the files. It reads what it must to count rows; it reports bad rows, and is an error
    /// only where nothing is usable.
    ///
    /// # Errors
    /// If a file or folder is missing, or no row is usable.
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description>;

    /// The tables of one client, in the order of its [`ClientSpec::tasks`].
    ///
    /// # Errors
    /// If there is no such client, or its data cannot be read.
    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>>;

    /// Writes the data as it will be used into a folder, for other programs and for later runs; returns the files. No
    /// client is at work meanwhile, so the call may use more threads than those of a run: the files do not depend on it.
    ///
    /// # Errors
    /// If a file cannot be written; [`Unsupported`](crate::ErrorKind::Unsupported) by default.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        let _ = (folder, ctx);
        Err(Error::unsupported("this dataset does not implement `prepare`, so it has nothing to prepare"))
    }

    /// Begins to read a file of rows without targets, to be predicted: what comes are the input columns of the tasks.
    ///
    /// Whoever predicts may say that columns have other names in the file, with `--column NAME=OTHER`. They come as the table
    /// `predict-columns` of the configuration, `{ NAME = "OTHER" }`; a dataset without such a key refuses them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a column; [`Unsupported`](crate::ErrorKind::Unsupported) by default.
    fn open_rows(&mut self, file: &Path, ctx: &Context<'_>) -> Result<()> {
        let _ = (file, ctx);
        Err(Error::unsupported("this dataset does not implement `open_rows`, so it reads no rows to be predicted"))
    }

    /// The next rows of the file that was opened last, in its order: `at_most` so many, fewer only at its end, none
    /// after it. Beside the inputs a table may have the file's own columns, named by [`cell_column`]; they are written
    /// before the predictions, in the place of the inputs.
    ///
    /// # Errors
    /// If a row cannot be read; none is left out.
    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        let _ = (at_most, ctx);
        Err(Error::unsupported("this dataset does not implement `open_rows`, so it reads no rows to be predicted"))
    }

    /// A call that this trait does not name: tensors and values in, tensors and values out. So later hosts may ask for more,
    /// and plugins for one another's host, without another interface. No name is known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for names that it does not know.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this dataset does not know the extension `{name}`")))
    }
}
