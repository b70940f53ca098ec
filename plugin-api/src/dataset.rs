//! Datasets: the clients of an experiment, and each client's data.

mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use target::TargetKind;

use crate::{Context, Error, Message, Result, Table};

/// The name of an optional text column in a task's tables: the origin of each row as `FILE:LINE`, with lines counted
/// from 1, unique within a task. The host writes it next to each row's predictions; models ignore it.
pub const ORIGIN: &str = "fedplug.origin";

/// The name of an optional bool column in a task's training tables: whether a row is for validation. The host takes these
/// rows out before any model sees the table, lets models be evaluated on them, and chooses the best model by them.
pub const VALIDATION: &str = "fedplug.validation";

/// The name of a text column of [`Dataset::next_rows`] that holds the file's column at this position and with this
/// name, verbatim. With it, predictions come with everything in the file. Models ignore it.
pub fn cell_column(place: usize, name: &str) -> String {
    format!("{CELL}{place}.{name}")
}

/// The name in the file of a column that [`cell_column`] named; `None` for any other column.
pub fn cell_name(column: &str) -> Option<&str> {
    column.strip_prefix(CELL)?.split_once('.').map(|(_, name)| name)
}

const CELL: &str = "fedplug.cell.";

/// A task: a name, the columns that a model reads, and the column that it learns to predict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name, unique in the experiment.
    pub name: String,
    /// The columns that a model reads. If there are several, the model decides what they mean.
    pub inputs: Vec<String>,
    /// The column that it predicts; empty if there is [none](TargetKind::None).
    pub target: String,
    /// The type of the target's values.
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

    /// A task of inputs alone.
    pub fn without_target<I: Into<String>>(name: impl Into<String>, inputs: impl IntoIterator<Item = I>) -> Self {
        Self { target_kind: TargetKind::None, ..Self::new(name, inputs, "") }
    }
}

/// A task at a client: its training table and its test table. Either may be empty.
#[derive(Clone, Debug)]
pub struct Task {
    /// The task's specification.
    pub spec: TaskSpec,
    /// The rows to train on. What a dataset returns may have a column [`VALIDATION`]; what a model gets has none.
    pub train: Table,
    /// The rows to evaluate on.
    pub test: Table,
}

impl Task {
    /// The rows of the training table that [`VALIDATION`] marks, by their indices.
    ///
    /// # Errors
    /// If the column of this name holds no booleans.
    pub fn validation_rows(&self) -> Result<Vec<usize>> {
        if self.train.column(VALIDATION).is_none() {
            return Ok(Vec::new());
        }
        Ok((0..).zip(self.train.bool(VALIDATION)?).filter(|(_, mark)| **mark == 1).map(|(row, _)| row).collect())
    }
}

/// A client as the dataset describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// Its name, unique in the experiment. Folders and tags use it.
    pub name: String,
    /// Its tasks with their row counts, in the experiment's task order.
    pub tasks: Vec<ClientTask>,
}

/// How much of a task a client has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTask {
    /// The task's name.
    pub name: String,
    /// The number of rows to train on, without those for validation.
    pub train: usize,
    /// The number of rows to evaluate on.
    pub test: usize,
    /// The number of rows of the training table that [`VALIDATION`] marks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub validation: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A file that the data comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its path.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The number of rows used.
    pub rows: usize,
    /// Why rows, or the whole file, were skipped, and how many rows for each reason.
    pub skipped: Vec<(String, usize)>,
}

/// The rescaling of a task's targets before a model sees them: `(value - mean) / deviation`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The mean of the training targets, in the target's own unit.
    pub mean: f64,
    /// Their population standard deviation, in the target's own unit; 1 if all targets are equal.
    pub deviation: f64,
}

impl Scale {
    /// Converts a model's value back to the target's own unit.
    pub fn restore(&self, scaled: f64) -> f64 {
        self.mean + self.deviation * scaled
    }
}

/// A description of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The tasks. Their order numbers them.
    pub tasks: Vec<TaskSpec>,
    /// The clients, in the order of aggregation.
    pub clients: Vec<ClientSpec>,
    /// The source files.
    pub sources: Vec<Source>,
    /// The scales of tasks whose targets are standardised in the tables, by task name. The host uses them to convert
    /// predictions back to the target's own unit.
    #[serde(default)]
    pub scales: BTreeMap<String, Scale>,
}

impl Description {
    /// A description of these tasks, clients and files, with targets in their own units.
    pub fn new(tasks: Vec<TaskSpec>, clients: Vec<ClientSpec>, sources: Vec<Source>) -> Self {
        Self { tasks, clients, sources, scales: BTreeMap::new() }
    }

    /// The same, with these tasks' targets standardised.
    #[must_use]
    pub fn with_scales(mut self, scales: impl IntoIterator<Item = (String, Scale)>) -> Self {
        self.scales.extend(scales);
        self
    }
}

/// The data for an experiment. The host creates one instance, asks for its description, and loads each client for the
/// run. It also loads some of the clients before the run, for a rehearsal.
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
///         let tasks = vec![ClientTask { name: "length".into(), train: 40, test: 10, validation: 0 }];
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
    /// Returns the tasks, the clients and the files. It reads as much as it needs to count rows. It reports bad rows;
    /// they are an error only if no row is usable.
    ///
    /// # Errors
    /// If a file or folder is missing, or no row is usable.
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description>;

    /// The tables of one client, in the order of its [`ClientSpec::tasks`].
    ///
    /// # Errors
    /// If there is no such client, or its data cannot be read.
    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>>;

    /// Writes the data to a folder in the form in which it will be used, for other programs and later runs. Returns the
    /// files. No client is working at that time, so the call may use more threads than a run: the files do not depend
    /// on the number.
    ///
    /// # Errors
    /// If a file cannot be written; [`Unsupported`](crate::ErrorKind::Unsupported) by default.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        let _ = (folder, ctx);
        Err(Error::unsupported("this dataset does not implement `prepare`, so there is nothing to prepare"))
    }

    /// Opens a file of rows without targets to predict. Its rows have the input columns of the tasks.
    ///
    /// Users can say that columns have other names in the file, with `--column NAME=OTHER`. They arrive as the table
    /// `predict-columns` in the configuration, `{ NAME = "OTHER" }`. A dataset without such a key refuses them.
    ///
    /// # Errors
    /// If the file cannot be read, or lacks a column; [`Unsupported`](crate::ErrorKind::Unsupported) by default.
    fn open_rows(&mut self, file: &Path, ctx: &Context<'_>) -> Result<()> {
        let _ = (file, ctx);
        Err(Error::unsupported("this dataset does not implement `open_rows`, so it cannot read rows to predict"))
    }

    /// The next rows of the most recently opened file, in its order. Returns `at_most` rows, fewer only at the end, and
    /// none after it. Besides the inputs, a table may have the file's own columns, named by [`cell_column`]. The output
    /// then has these before the predictions, instead of the inputs.
    ///
    /// # Errors
    /// If a row cannot be read. Rows are never skipped.
    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        let _ = (at_most, ctx);
        Err(Error::unsupported("this dataset does not implement `open_rows`, so it cannot read rows to predict"))
    }

    /// A call that this trait does not define: tensors and values in, tensors and values out. It lets later or custom
    /// hosts ask for more without a new interface. No names are known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for unknown names.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this dataset does not know the extension `{name}`")))
    }
}
