//! FLAb's antibody fitness data as federated clients.
//!
//! [FLAb](https://github.com/Graylab/FLAb) stores measurements of antibodies as `ROOT/TASK/*.csv` with the columns `heavy`,
//! `light` and `fitness`. The files of a task, sorted by name, form one table with the columns `combined` (heavy chain, `|`,
//! light chain) and `fitness`; unusable rows are skipped and counted. The table is split at random into training and test
//! rows, and the training rows are divided among the clients.
//!
//! ```toml
//! [dataset]
//! plugin = "flab"
//! root = "FLAb/data"
//! clients = { count = 6, alpha = 1.0 }       # or "by-task", the default
//! ```
//!
//! # What is read
//!
//! - Files named `.csv`, `.tsv` or `.tab` (with tabs), also compressed as `.csv.gz` or as the only table in a `.zip`. A warning
//!   names other entries of a task's folder. Files may be in UTF-8, UTF-16 or Windows-1252. `delimiter = ";"` and
//!   `decimal = ","` read what many spreadsheets write; if a file's header has another separator, the message names the key to
//!   set.
//! - [`Chains`]: `chains = "heavy"`, `"light"` or `"any"` reads single chains, as for nanobodies; `combined` then holds a
//!   single chain without `|`. Training, [prepared](Dataset::prepare) data and predictions use the same key.
//! - Chains are read without white space and invisible characters, and in upper case; rows with lower-case letters are
//!   counted. Letters other than the 20 amino acids and `B` (`X`, `Z`, `U`, `*`, gaps) are kept and reported per file with
//!   their share, since a model may not know them.
//! - A chain that is missing (`NaN`, `NA`, `None`, `null`, `-`, `.`, `?` and more, see
//!   [`is_missing`](fedplug_tables::text::is_missing)) or has no letters is not a chain. This also holds for the parts of a
//!   `combined` that was prepared elsewhere.
//! - Numbers are trimmed at their ends: `7 8`, `1,000` and `5%` are not numbers, and neither are bounds and estimates such as
//!   `>100` and `~7`, which have a reason of their own.
//! - Empty fields beyond the header, and missing fields of columns without a name, are accepted.
//! - If a column that is read has a namesake in the same file, that is an error.
//!
//! The split of a task depends only on the seed, the task's name and its rows, not on other tasks.
//!
//! With `classes` the target is one of several classes, and the field's text is the class:
//!
//! ```toml
//! [dataset]
//! plugin = "flab"
//! root = "FLAb/data"
//! tasks = ["immunogenicity"]
//! target = "immunogenic"
//! classes = ["no", "yes"]                    # or true: the texts that occur, sorted
//! ```
//!
//! A class that the list lacks is an error with file and line; a missing value is no class. All tasks then have classes, which
//! are not standardised.
//!
//! # Which rows stay together
//!
//! FLAb has most antibodies in several files of a folder, so a split by rows would test on antibodies seen in training.
//! `group-by` says which rows of a folder a random split keeps on one side:
//!
//! | `group-by` | rows on one side | cost |
//! |---|---|---|
//! | `"sequence"`, the default | those with the same `combined` | negligible |
//! | `{ identity = 0.9 }` | those connected by a chain of sequences in which neighbours have at least this identity | all pairs in the worst case, on the threads of the call: minutes of processor time for 100,000 distinct antibodies |
//! | `"none"` | each row on its own | none |
//!
//! The identity of two sequences is `1 - edits / length`, with the Levenshtein distance and the length of the longer one. No
//! test sequence has this identity with a training sequence: this is exact single linkage, not greedy clustering. Variants of
//! one antibody are therefore often one group; a task that is one group has no test rows, and a warning says so. The test
//! fraction counts rows and is met as closely as whole groups, drawn at random, allow; with two or more groups both sides have
//! rows. If every sequence occurs once, `"sequence"` and `"none"` give the same split.
//!
//! For cross-validation, `folds = 5` and `fold = 0` test on one fold of five instead of on `test-fraction`: each group is for
//! testing in one of them, and the folds have about the same number of rows, of each file with `task-per = "file"`.
//!
//! `validation-fraction` holds out some of the training rows by the same groups, to choose the best model by. No client
//! trains on a sequence that any client has for validation; the test rows and the clients' shares stay the same. Prepared
//! data has these rows among the training rows, and the key draws them anew there.
//!
//! With `clients = { count, alpha }` all clients share the test rows, so no client trains on a test sequence of the same task.
//! The training rows are divided row by row: a sequence may be at two clients, which leaks nothing into the test.
//!
//! For any split, including prepared ones and `split = "reference"`, the description counts the test rows of each task whose
//! sequence some client trains on, for the same task and for others (a trunk that tasks share sees those too). It warns of
//! them and adds notes to the summary. It also reports, and never drops, rows that repeat a sequence with the same value,
//! sequences with different values, and identical files.
//!
//! # Which files form a task
//!
//! A folder may mix assays, units and directions. `files` and `exclude` select files by glob patterns; `task-per = "file"`
//! makes each file a task of its own:
//!
//! ```toml
//! [dataset]
//! plugin = "flab"
//! root = "FLAb/data"
//! tasks = ["aggregation", "binding"]
//! task-per = "file"                          # tasks `aggregation-CST_HIC`, `aggregation-CST_SAS`, …
//! exclude = ["binding/*_ng_ml.csv"]
//! standardise = true                         # each file with its own mean and deviation, or with given ones: see the key
//! ```
//!
//! The files of a folder are still split together, so an antibody is on the same side in all of them, and the test fraction of
//! each file is met; with `split = "reference"` each row stays on the side of the folder's published split. The description
//! warns if the medians of one task's files differ by a factor of ten or more, or if nearly all values of one file are
//! positive and those of another negative.
//!
//! # The published split, and prepared data
//!
//! `split = "reference"` splits as the published preparation does, row for row; see [`SplitMethod`]. Either split can be
//! [prepared](Dataset::prepare) as CSV files, and `root` may be the folder that contains them: `TASK/train_data.csv`,
//! `TASK/test_data.csv`, and `TASK/clientK_train_data.csv` for `clients = { count, alpha }`, whose `count` must be the one that
//! was prepared. The keys of the split have no effect on prepared data; since the file that prepared the data has them, they
//! cause a warning, not an error. Data prepared with `task-per = "file"` is used with the same `tasks` and `task-per`.
//!
//! Each table has a column [`ORIGIN`](plugin_api::ORIGIN): the file, relative to `root`, and the line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chains;
mod config;
mod data;
mod file_patterns;
mod folders;
mod load;
mod numpy_random;
mod pandas;
mod prediction_rows;
mod prepare;
mod raw_tables;
mod read;
mod reference;
mod split;

use std::path::{Path, PathBuf};

pub use chains::Chains;
pub use config::{Classes, Clients, Config, GroupBy, Sites, SplitMethod, TASKS, TaskPer};
use data::Data;
use fedplug_tables::Fold;
pub use file_patterns::Patterns;
use plugin_api::{Component, Context, Dataset, Description, Error, Result, Table, Task};
use prediction_rows::PredictionRows;

/// FLAb's data, read once and kept in memory.
pub struct Flab {
    config: Config,
    data: Option<Data>,
    /// The file of rows for prediction that was opened last.
    rows: Option<PredictionRows>,
}

impl Flab {
    /// A dataset that has read nothing yet.
    ///
    /// # Errors
    /// If the target is an input column, `group-by` is set for a split that does not group, or the keys of folds do not fit.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        if ["heavy", "light", "combined"].contains(&config.target.as_str()) {
            return Err(Error::config(format!("`{}` is an input of the model", config.target)).at_key("target"));
        }
        let grouped = config.group_by.is_some_and(|by| by != GroupBy::None);
        if config.split() == SplitMethod::Reference && grouped {
            let error = Error::config("`split = \"reference\"` splits row by row, as published").at_key("group-by");
            return Err(error.help("remove one of them"));
        }
        let fold = Fold::of_keys(config.folds, config.fold, config.test_fraction)?;
        if config.split() == SplitMethod::Reference && fold.is_some() {
            let error = Error::config("`split = \"reference\"` is one split, as published").at_key("folds");
            return Err(error.help("remove one of them"));
        }
        Ok(Self { config, data: None, rows: None })
    }

    /// The data, which the first call reads.
    fn data(&mut self, ctx: &Context<'_>) -> Result<&mut Data> {
        let data = match self.data.take() {
            Some(data) => data,
            None => Data::read(&self.config, ctx)?,
        };
        Ok(self.data.insert(data))
    }
}

impl Dataset for Flab {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        let data = self.data(ctx)?;
        let description = Description::new(data.specs.clone(), data.clients.clone(), data.sources.clone());
        Ok(description.with_scales(data.scales.clone()))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        self.data(ctx)?;
        let data = self.data.as_mut().ok_or_else(|| Error::other("no data was read"))?;
        data.load(client, &self.config)
    }

    /// Writes `TASK/train_data.csv`, `TASK/test_data.csv` and, with `clients = { count, alpha }`,
    /// `TASK/clientK_train_data.csv` with K from 1. A file has all columns of the task's files in order of first appearance,
    /// empty where a row's file lacks the column, then `combined`. Numbers are written as in the files or, with
    /// `split = "reference"`, as pandas prints them.
    ///
    /// `split = "reference"` also writes the unusable rows that the published preparation keeps.
    ///
    /// # Errors
    /// If one of the files exists, the data is already prepared, or a file cannot be read or written.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        // Once tables were made for a client, the measurements must be read again.
        self.data.take_if(|data| data.raw_tasks().is_none());
        self.data(ctx)?;
        let Some(tasks) = self.data.as_ref().and_then(Data::raw_tasks) else {
            let error = Error::data("the data is already prepared").in_file(&self.config.root, None);
            return Err(error.help("set `root` to the folder with the measurements"));
        };
        let files = prepare::files(tasks, &self.config, folder)?;
        prepare::write(tasks, &self.config, &files, ctx)?;
        Ok(files)
    }

    /// Opens a CSV file with the columns that [`Chains`] needs, or `combined`; or a FASTA file with single chains if `chains`
    /// reads one, otherwise with heavy and light chains paired by name as described at
    /// [`FastaColumns::Pairs`](fedplug_tables::FastaColumns).
    ///
    /// # Errors
    /// If the file cannot be read, lacks columns or has two of one name, or its FASTA records cannot be paired.
    fn open_rows(&mut self, file: &Path, _: &Context<'_>) -> Result<()> {
        self.rows = Some(PredictionRows::open(file, &self.config)?);
        Ok(())
    }

    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        ctx.check()?;
        self.rows.as_mut().ok_or_else(|| Error::other("no file of rows was opened"))?.next(at_most, ctx)
    }
}

/// The component of this plugin.
pub fn component() -> Component {
    Component::dataset("flab", "FLAb's antibody fitness data as federated clients", Flab::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
