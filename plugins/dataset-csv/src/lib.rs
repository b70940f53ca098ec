//! CSV files with any text and number columns as federated clients.
//!
//! ```toml
//! [dataset]
//! plugin = "csv"
//! files = "data/*.csv"                     # or a list of paths and patterns with `*` and `?`
//! inputs = ["heavy", "light"]              # text columns that the model reads
//! number-inputs = ["age"]                  # number columns that it reads, if it can
//! target = "fitness"                       # the number column to predict, or with `classes` the class
//! clients = { column = "hospital" }        # the clients
//! ```
//!
//! `clients` is one of
//!
//! - `{ column = "hospital" }`: each value of a column is a client, with the rows that have it;
//! - `{ pattern = "data/{client}/*.csv" }`: each file belongs to the client whose name `{client}` matches; without `files`, the
//!   matching files are read;
//! - `{ count = 6, alpha = 1.0 }`: `site-1`, `site-2`, …, of random, unequal size, with one test table for all;
//! - `"by-task"`: each task is a client.
//!
//! Several tasks have tables of their own, for which the table above has the defaults:
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
//! Or each file is a task: `task-per = "file"` names tasks after files, so that `north/kd.csv` and `south/kd.csv` are two
//! clients' rows of the task `kd`.
//!
//! # Classes
//!
//! With `classes` the target is one of several classes, and the field's text is the class:
//!
//! ```toml
//! [dataset]
//! plugin = "csv"
//! files = "data/*.csv"
//! inputs = ["heavy", "light"]
//! target = "immunogenic"
//! classes = ["no", "yes"]                   # or true: the texts that occur, sorted
//! clients = { column = "hospital" }
//! ```
//!
//! A class that the list lacks is an error with file and line. Of two classes the second is the positive one. A missing value
//! (`NA`, `-`, `none`) is no class. Classes are not standardised. Sites that hold their own data must agree on the classes
//! before the first round; the list says them.
//!
//! # No target
//!
//! Without `target`, rows have inputs only, for a model that learns from these alone, such as `amplify` with
//! `objective = "masked-lm"`; other models refuse such a task before the run. It needs a name:
//!
//! ```toml
//! [dataset]
//! plugin = "csv"
//! files = "repertoires/*.csv"
//! inputs = ["heavy", "light"]
//! name = "antibodies"
//! text = "sequence"
//! clients = { column = "hospital" }
//! ```
//!
//! # The split
//!
//! The split is given by `test-files`, or by `test-column` with `train` and `test` in it, or it is random: `test-fraction` of
//! each client's rows, which depends only on the seed, the names of task and client, and the rows. With `count` the split is
//! that of dataset-flab, row for row. A given split keeps the order of rows in the files. `folds = 5` and `fold = 0` test on
//! one fold of five instead of on `test-fraction`: each group of rows is for testing in one of them. `validation-fraction`
//! holds out some of the training rows, of any split, to choose the best model by.
//!
//! `group-by` says which rows a random split keeps on one side: those with the same sequence (`"sequence"`, the default),
//! those with similar sequences (`{ identity = 0.9 }`), or each row on its own (`"none"`); see dataset-flab for the meaning and
//! cost of identity. The sequence of a row is its texts in `inputs` together, or its numbers if it has no texts. If rows belong
//! to clients, each client's rows are split on their own, and groups do not extend across clients, since no
//! client knows the others' rows.
//!
//! For any split, given ones included, the description counts the test rows of each task whose sequence any client trains on,
//! for the same task or for another; it warns of them and adds notes to the summary. It also reports, and never drops, rows
//! that repeat or contradict one another, identical files, and files of one task whose medians differ by a factor of ten or
//! more.
//!
//! `standardise = true` turns each task's targets into standard scores, with the mean and standard deviation of all clients'
//! training rows. These are statistics of the data, shown without noise to all clients and in the run's files. Numbers known
//! beforehand, such as the range of an assay, reveal nothing:
//!
//! ```toml
//! standardise = { mean = 60.0, deviation = 10.0 }                 # for every task
//! # or for each:
//! # standardise = { tm = { mean = 60.0, deviation = 10.0 }, kd = { mean = -8.0, deviation = 1.5 } }
//! ```
//!
//! Either way predictions are in the target's own unit.
//!
//! # What is read
//!
//! Unusable rows are skipped; counts are reported per file. A row needs as many fields as the header (empty fields and names at
//! the end do not count), its texts, and numbers that are finite as `f32`. `NaN`, `NA`, `None`, `null`, `-`, `.`, `?` and more
//! are missing values in every column: see [`is_missing`](fedplug_tables::text::is_missing). A number is trimmed at its ends:
//! `7 8`, `1,000` and `>100` are skipped, the last with a reason of its own. Files without a required column are skipped as a
//! whole. It is an error if a task has no usable rows, if a required column has a namesake in the same file, or if a client's
//! name cannot be that of a folder.
//!
//! Files may be in UTF-8, UTF-16 or Windows-1252, compressed by gzip, or the only table in a zip archive. Files named `.tsv` or
//! `.tab` have tabs between columns, others `delimiter`. `decimal = ","` reads numbers with a decimal comma.
//!
//! Text is kept as in the file, without white space and invisible characters at its ends. With `text = "sequence"` it is a
//! chain of amino acids: in upper case, without such characters anywhere; letters other than the 20 amino acids and `B` are
//! reported per file. Numbers are [`Column::F32`](plugin_api::Column); a model that cannot read number columns says so in
//! training, with the column's name.
//!
//! # Prepared data, and predictions
//!
//! [Prepared](plugin_api::Dataset::prepare) data are the tables of a run, with `max-samples` applied:
//! `TASK/CLIENT/train.csv` and `TASK/CLIENT/test.csv` with the inputs and the target, without empty tables. Targets are not
//! standardised. Rows for validation are among the training rows there; `validation-fraction` draws them anew. The same
//! tables, to the same bits, are read again with
//!
//! ```toml
//! files = "prepared/TASK/*/train.csv"
//! test-files = "prepared/TASK/*/test.csv"
//! clients = { pattern = "prepared/*/{client}/*.csv" }
//! ```
//!
//! Each table has a column [`ORIGIN`](plugin_api::ORIGIN) with the file, relative to the folder that has all files of the task,
//! and the line. It is not prepared.
//!
//! Rows for prediction come from a CSV file with the inputs of at least one task, or from a FASTA file if tasks read one text
//! column: each record is a row. Two text columns whose names say a heavy and a light chain (`vh` and `vl`) take FASTA records
//! paired by their names. Columns with other names are mapped with `fedplug predict --column heavy=VH`. A row that cannot be
//! predicted is an error with its line: none is skipped.
//!
//! Everything is read once and kept in memory; a file that several tasks use is read for each.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clients;
mod config;
mod pattern;
mod prediction_rows;
mod prepare;
mod read;
mod row;
mod task_plan;
mod task_rows;

use std::path::{Path, PathBuf};

use clients::Data;
pub use config::{Clients, Config, TaskTable, Text};
use fedplug_tables::unknown_client;
pub use fedplug_tables::{Classes, GroupBy, Standardise, TaskPer};
pub use pattern::{Pattern, Patterns};
use plugin_api::{ClientSpec, ClientTask, Component, Context, Dataset, Description, Error, Result, Table, Task};
use prediction_rows::PredictionRows;
use task_plan::TaskPlan;

/// A dataset of CSV files, read once and kept in memory.
pub struct CsvDataset {
    config: Config,
    plans: Vec<TaskPlan>,
    data: Option<Data>,
    /// The file of rows for prediction that was opened last.
    rows: Option<PredictionRows>,
}

impl CsvDataset {
    /// A dataset that has read nothing yet.
    ///
    /// # Errors
    /// If keys of the tasks, the clients or the split are missing or exclude each other.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self { plans: task_plan::plans(&config)?, config, data: None, rows: None })
    }

    fn data(&mut self, ctx: &Context<'_>) -> Result<&Data> {
        if self.data.is_none() {
            self.data = Some(Data::read(&self.plans, &self.config, ctx)?);
        }
        self.data.as_ref().ok_or_else(|| Error::other("no data was read"))
    }
}

impl Dataset for CsvDataset {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        let data = self.data(ctx)?;
        let counts = |task: &Task| {
            let (name, validation) = (task.spec.name.clone(), task.validation_rows()?.len());
            Ok(ClientTask { name, train: task.train.rows() - validation, test: task.test.rows(), validation })
        };
        let client = |(name, tasks): &(String, Vec<Task>)| {
            Ok(ClientSpec { name: name.clone(), tasks: tasks.iter().map(counts).collect::<Result<_>>()? })
        };
        let clients = data.clients.iter().map(client).collect::<Result<_>>()?;
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

    /// Writes `TASK/CLIENT/train.csv` and `TASK/CLIENT/test.csv`; see the crate's documentation.
    ///
    /// # Errors
    /// If one of the files exists, or a file cannot be read or written.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        let config = self.config.clone();
        prepare::prepare(self.data(ctx)?, &config, folder, ctx)
    }

    /// Opens a CSV file with the inputs of at least one task; the others' columns are not read. It may be a FASTA file if tasks
    /// read one text column, or two whose names say a heavy and a light chain.
    ///
    /// # Errors
    /// If the file cannot be read, or has all inputs of no task.
    fn open_rows(&mut self, file: &Path, _: &Context<'_>) -> Result<()> {
        self.rows = Some(PredictionRows::open(file, &self.plans, &self.config)?);
        Ok(())
    }

    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        ctx.check()?;
        self.rows.as_mut().ok_or_else(|| Error::other("no file of rows was opened"))?.next(at_most)
    }
}

/// The component of this plugin.
pub fn component() -> Component {
    Component::dataset("csv", "CSV files with any columns as federated clients", CsvDataset::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
