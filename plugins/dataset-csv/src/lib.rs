//! CSV files with any columns of text and numbers as federated clients.
//!
//! ```toml
//! [dataset]
//! plugin = "csv"
//! files = "data/*.csv"                     # or a list of paths and patterns with `*` and `?`
//! inputs = ["heavy", "light"]              # columns of text that the model reads
//! number-inputs = ["age"]                  # columns of numbers that it reads, if it can
//! target = "fitness"                       # the column of numbers that it learns to predict
//! clients = { column = "hospital" }        # who the clients are
//! ```
//!
//! Who the clients are is one of
//!
//! - `{ column = "hospital" }`: each value of a column is a client, with the rows that have it;
//! - `{ pattern = "data/{client}/*.csv" }`: each file is a client's whose name stands where the braces do; without `files`
//!   the files are those that fit;
//! - `{ count = 6, alpha = 1.0 }`: `site-1`, `site-2`, …, of unequal size at random, with one test table for all;
//! - `"by-task"`: each task is a client.
//!
//! Several tasks are tables of their own. What a task does not say, the table above says:
//!
//! ```toml
//! [dataset]
//! plugin = "csv"
//! inputs = ["heavy", "light"]
//! target = "fitness"
//! clients = "by-task"
//! [[dataset.task]]
//! name = "tm"
//! files = "data/tm/*.csv"
//! [[dataset.task]]
//! name = "binding"
//! files = "data/binding/*.csv"
//! ```
//!
//! Or each file is a task: `task-per = "file"` makes tasks of the files' names, so that `north/kd.csv` and `south/kd.csv` are
//! two clients' rows of the task `kd`.
//!
//! Which rows are for testing is given by `test-files`, or by `test-column` with `train` and `test` in it, or it is
//! random: a `test-fraction` of each client's rows, of the seed, the task's and the client's name and the rows alone. With
//! `count` the split and the split are those of dataset-flab, to the row. A given split keeps the files' order of rows.
//!
//! `group-by` says which rows a random split keeps on one side: those of the same sequence (`"sequence"`, the default), of
//! similar ones (`{ identity = 0.9 }`), or each row on its own (`"none"`); dataset-flab's page says what identity means and
//! costs. The sequence of a row is its texts in `inputs` together, or its numbers where it has none. Where each client's rows
//! are split on their own, groups hold within a client: nobody there knows the others' rows. In any split, given ones
//! included, the description counts the test rows of each task whose sequence any client trains on, warns of them, and leaves
//! a note for the summary. It also reports, and never drops, rows that repeat or contradict one another, files with the same
//! bytes, and files of one task whose medians lie decades apart.
//!
//! `standardise = true` turns each task's targets into standard scores, by mean and deviation of all clients' training rows.
//!
//! PredictionRows that cannot be used are skipped, counted and reported per file: with another number of columns than the header
//! (empty fields and names at the end do not count), without a text or number that is needed, with a number that is none or
//! not finite in 32 bits. `NaN`, `NA`, `None`, `null`, `-`, `.`, `?` and more stand for a missing value in every column: see
//! [`is_missing`](fedplug_tables::text::is_missing). A number is trimmed at its ends, and must then be one: `7 8`, `1,000`
//! and `>100` are skipped, the last with a reason of its own. Files without a column that is needed are skipped as a whole.
//! It is an error if a task has no usable row, or a client's name could not name a folder. A column that stands twice is
//! read where it stands first.
//!
//! Files may be in UTF-8, UTF-16 or Windows-1252, packed by gzip, or alone in a zip archive. Those named `.tsv` or `.tab`
//! have tabs between columns, others what `delimiter` says. `decimal = ","` reads numbers with a comma.
//!
//! Text is given as it stands, but for white space and characters without a glyph at its ends. With `text = "sequence"` it
//! is a chain of amino acids: without such characters within it, in upper case, and letters other than the 20 amino acids
//! and `B` are reported per file. Numbers are given as [`Column::F32`](plugin_api::Column); a model that cannot read a
//! column of numbers says so when it is trained, with the column's name.
//!
//! [Prepared](plugin_api::Dataset::prepare) data are the tables as a run has them, `max-samples` included:
//! `TASK/CLIENT/train.csv` and `TASK/CLIENT/test.csv` with the inputs and the target, those without rows left out. They are
//! read again, to the same bits, with (targets in their own unit, whatever `standardise` says)
//!
//! ```toml
//! files = "prepared/TASK/*/train.csv"
//! test-files = "prepared/TASK/*/test.csv"
//! clients = { pattern = "prepared/*/{client}/*.csv" }
//! ```
//!
//! Each table has a column [`ORIGIN`](plugin_api::ORIGIN): the file and the line. It is not prepared.
//! PredictionRows to be predicted come from a CSV file with the inputs of at least one task, or from a FASTA file where tasks read one
//! column of text: each record is a row. Two columns of text whose names tell a heavy and a light chain (`vh` and `vl`) take
//! FASTA records in pairs, by their names. Columns of other names are mapped with `fedplug predict --column heavy=VH`. A row
//! that cannot be predicted is an error with its line: none is skipped.
//!
//! All is read once and kept in memory; a file that several tasks use is read for each.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clients;
mod config;
mod pattern;
mod prediction_rows;
mod prepare;
mod read;
mod task_plan;

use std::path::{Path, PathBuf};

use clients::Data;
pub use config::{Clients, Config, TaskTable, Text};
use fedplug_tables::unknown_client;
pub use fedplug_tables::{GroupBy, TaskPer};
pub use pattern::{Pattern, Patterns};
use plugin_api::{ClientSpec, ClientTask, Component, Context, Dataset, Description, Error, Result, Table, Task};
use prediction_rows::PredictionRows;
use task_plan::TaskPlan;

/// CSV files, read once and kept.
pub struct CsvDataset {
    config: Config,
    plans: Vec<TaskPlan>,
    data: Option<Data>,
    /// The file of rows to be predicted that was opened last.
    rows: Option<PredictionRows>,
}

impl CsvDataset {
    /// A dataset of which nothing has been read yet.
    ///
    /// # Errors
    /// If the keys do not say, or say in two ways, what the tasks, the clients and the split are.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self { plans: task_plan::plans(&config)?, config, data: None, rows: None })
    }

    fn data(&mut self, ctx: &Context<'_>) -> Result<&Data> {
        if self.data.is_none() {
            self.data = Some(Data::read(&self.plans, &self.config, ctx)?);
        }
        self.data.as_ref().ok_or_else(|| Error::other("nothing was read"))
    }
}

impl Dataset for CsvDataset {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        let data = self.data(ctx)?;
        let counts =
            |task: &Task| ClientTask { name: task.spec.name.clone(), train: task.train.rows(), test: task.test.rows() };
        let client = |(name, tasks): &(String, Vec<Task>)| ClientSpec {
            name: name.clone(),
            tasks: tasks.iter().map(counts).collect(),
        };
        let clients = data.clients.iter().map(client).collect();
        let description = Description::new(data.specs.clone(), clients, data.sources.clone());
        Ok(description.with_scales(data.scales.clone()))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        let data = self.data(ctx)?;
        data.tasks_of(client).unwrap_or_else(|| {
            let names: Vec<_> = data.clients.iter().map(|(name, _)| name).collect();
            Err(unknown_client(client, &names))
        })
    }

    /// Writes `TASK/CLIENT/train.csv` and `TASK/CLIENT/test.csv`, as the crate's first page says.
    ///
    /// # Errors
    /// If one of the files exists, or a file cannot be read or written.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        let config = self.config.clone();
        prepare::prepare(self.data(ctx)?, &config, folder, ctx)
    }

    /// A CSV file with the inputs of at least one task. The columns of a task that it lacks are left out. It may be a FASTA
    /// file where tasks read one column of text, or two of which the names tell one to hold heavy and one light chains.
    ///
    /// # Errors
    /// If the file cannot be read, or no task has all its inputs there.
    fn open_rows(&mut self, file: &Path, _: &Context<'_>) -> Result<()> {
        self.rows = Some(PredictionRows::open(file, &self.plans, &self.config)?);
        Ok(())
    }

    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        ctx.check()?;
        self.rows.as_mut().ok_or_else(|| Error::other("no file of rows was opened"))?.next(at_most)
    }
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::dataset("csv", "CSV files with any columns as federated clients", CsvDataset::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
