//! FLAb's antibody fitness data as federated clients.
//!
//! [FLAb](https://github.com/Graylab/FLAb) keeps measurements of antibodies as `ROOT/TASK/*.csv` with the columns `heavy`,
//! `light` and `fitness`. All files of a task, in the order of their names, make one table with the columns `combined`
//! (heavy chain, `|`, light chain) and `fitness`; rows that cannot be used are skipped and counted. Then the table is
//! split at random into rows to train and rows to test on, and the former are dealt to the clients.
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
//! - Files named `.csv`, `.tsv` or `.tab` (tabs), packed by gzip as `.csv.gz` or alone in a `.zip`; what else lies in a
//!   task's folder is named in a warning. They are in UTF-8, UTF-16 or Windows-1252. `delimiter = ";"` and `decimal = ","`
//!   read what many spreadsheets write; a file whose header falls apart at another character says which key to set.
//! - [`Chains`]: `chains = "heavy"`, `"light"` or `"any"` reads single chains, as of nanobodies, and `combined` then holds a
//!   single chain without `|`. Training, [prepared](Dataset::prepare) data and predictions follow the same key.
//! - Chains lose white space and characters without a glyph and are read in upper case; rows with lower-case letters are
//!   counted. LetterCounts other than the 20 amino acids and `B` (`X`, `Z`, `U`, `*`, gaps) are kept, and reported per file
//!   with their share: a model may not know them.
//! - A chain that is missing (`NaN`, `NA`, `None`, `null`, `-`, `.`, `?` and more, see
//!   [`is_missing`](fedplug_tables::text::is_missing)) or without a letter is no chain, also beside the `|` of a `combined`
//!   that was prepared elsewhere. No chain is spelled `NA`.
//! - A number is trimmed at its ends, and must then be one: `7 8`, `1,000` and `5%` are skipped, and so are bounds and
//!   estimates such as `>100` and `~7`, with a reason of their own.
//! - RowWriter beyond the header may be empty, and names beyond a row's fields.
//!
//! The split of a task depends on the seed, the task's name and its rows alone: not on the other tasks.
//!
//! # Which rows stay together
//!
//! FLAb has most antibodies in several files of a folder, so a split by rows tests on antibodies that were trained on.
//! `group-by` says which rows of a folder a random split keeps on one side:
//!
//! | `group-by` | rows on one side | cost |
//! |---|---|---|
//! | `"sequence"`, the default | those with the same `combined` | none to speak of |
//! | `{ identity = 0.9 }` | those that a chain of sequences joins of which each two neighbours are at least so similar | all pairs in the worst case, shared among the call's threads: minutes of processor time for 100,000 distinct antibodies |
//! | `"none"` | each row on its own | none |
//!
//! The identity of two sequences is `1 - edits / length`, with Levenshtein's distance and the length of the longer one. No
//! test row's sequence is that similar to a training row's: this is single linkage and exact, not a greedy clustering.
//! Variants of one antibody are therefore often one group; a task that is one group is trained on as a whole, and a warning
//! says so. The test fraction is of rows and is met as closely as whole groups, taken at random, allow; where there are two
//! groups both sides have rows. Where every sequence is there once, `"sequence"` and `"none"` split alike.
//!
//! With `clients = { count, alpha }` all clients share the test rows, so no client trains on a sequence that is tested.
//! The training rows are then dealt row by row: a sequence may be at two clients, which leaks nothing into the test.
//!
//! In any split, prepared ones and `split = "reference"` included, the description counts the test rows of each task whose
//! sequence some client trains on for that task, warns of them, and leaves a note for the summary. It also reports, and never
//! drops, rows that repeat a sequence with the same value, sequences with different values, and files with the same bytes.
//!
//! # Which files make a task
//!
//! A folder may mix assays, units and directions. `files` and `exclude` choose files by glob patterns; `task-per = "file"`
//! makes each file a task of its own:
//!
//! ```toml
//! [dataset]
//! plugin = "flab"
//! root = "FLAb/data"
//! tasks = ["aggregation", "binding"]
//! task-per = "file"                          # tasks `aggregation-CST_HIC`, `aggregation-CST_SAS`, …
//! exclude = ["binding/*_ng_ml.csv"]
//! standardise = true                         # each file by its own mean and deviation
//! ```
//!
//! The files of a folder are still split together, so that an antibody is on one side in all of them, and each file's test
//! fraction is met; with `split = "reference"` each file's rows stay where the folder's published split puts them. The
//! description warns where the medians of one task's files lie a decade apart, or where nearly all
//! values of one file lie above zero and of another below.
//!
//! # The published split, and prepared data
//!
//! `split = "reference"` splits and splits as the published preparation does instead, row for row; see [`SplitMethod`]. What
//! either way gives can be [prepared](Dataset::prepare) as CSV files, and `root` may name the folder that holds them:
//! `TASK/train_data.csv`, `TASK/test_data.csv`, and `TASK/clientK_train_data.csv` for `clients = { count, alpha }`, of
//! which `count` must then be the number that was prepared. The keys that say how to split have no influence on
//! prepared data. They are no error, since the file that prepared the data has them: a warning names them. What
//! `task-per = "file"` prepared is run with the same `tasks` and `task-per`.
//!
//! Each table has a column [`ORIGIN`](plugin_api::ORIGIN): the file below `root` and the line.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chains;
mod config;
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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use chains::Chains;
pub use config::{Clients, Config, GroupBy, Sites, SplitMethod, TASKS, TaskPer};
use fedplug_tables::{note_scale, quoted, unknown_client, warn_identical_files};
pub use file_patterns::Patterns;
use load::{RawTask, TaskTables};
use plugin_api::{
    ClientSpec, ClientTask, Component, Context, Dataset, Description, Error, Result, Scale, Source, Table, Task,
    TaskSpec,
};
use prediction_rows::PredictionRows;

/// FLAb's data, read once and kept.
pub struct Flab {
    config: Config,
    read: Option<Data>,
    /// The file of rows to be predicted that was opened last.
    rows: Option<PredictionRows>,
}

struct Data {
    specs: Vec<TaskSpec>,
    /// Of each task whose targets are standardised.
    scales: BTreeMap<String, Scale>,
    clients: Vec<ClientSpec>,
    /// Where each client stands among them: each is asked for by name, and there may be thousands.
    places: BTreeMap<String, usize>,
    sources: Vec<Source>,
    tasks: Tasks,
}

/// In the order of the experiment.
enum Tasks {
    RawTask(Vec<RawTask>),
    Tables(Vec<TaskTables>),
}

impl Flab {
    /// A dataset of which nothing has been read yet.
    ///
    /// # Errors
    /// If the target is a column that is read anyway, or rows shall be grouped in a split that does not.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        if ["heavy", "light", "combined"].contains(&config.target.as_str()) {
            return Err(Error::config(format!("`{}` is what the model reads", config.target)).at_key("target"));
        }
        let grouped = config.group_by.is_some_and(|by| by != GroupBy::None);
        if config.split() == SplitMethod::Reference && grouped {
            let error = Error::config("`split = \"reference\"` splits row by row, as published").at_key("group-by");
            return Err(error.help("take one of them out"));
        }
        Ok(Self { config, read: None, rows: None })
    }

    /// What was read, or is read now.
    fn data(&mut self, ctx: &Context<'_>) -> Result<&mut Data> {
        let data = match self.read.take() {
            Some(data) => data,
            None => self.read(ctx)?,
        };
        Ok(self.read.insert(data))
    }

    fn read(&self, ctx: &Context<'_>) -> Result<Data> {
        let config = &self.config;
        let (mut sources, mut scales) = (Vec::new(), BTreeMap::new());
        let by_file = match config.task_per {
            TaskPer::Folder => None,
            TaskPer::File => folders::of_prepared_files(&config.root, &config.tasks)?,
        };
        let (names, folders) = match by_file {
            Some(found) => found,
            None => (config.tasks.clone(), folders::of_tasks(&config.root, &config.tasks)?),
        };
        let tasks = if folders::are_prepared(&config.root, &names, &folders)? {
            self.warn_ignored_keys(ctx);
            let mut tasks = Vec::new();
            for (name, folder) in names.iter().zip(&folders) {
                let (mut dealt, files) = load::prepared(name, folder, config, ctx)?;
                sources.extend(files);
                if config.standardise {
                    let (scores, scale) = dealt.standardised(config)?;
                    scales.insert(name.clone(), scale);
                    dealt = scores;
                }
                tasks.push(dealt);
            }
            Tasks::Tables(tasks)
        } else {
            let mut tasks: Vec<RawTask> = Vec::new();
            let files = names.into_iter().zip(&folders).map(|(name, folder)| Ok((name, folders::csv_files(folder)?)));
            let files = files.collect::<Result<_>>()?;
            let chosen = file_patterns::select_files(files, config.files.as_ref(), config.exclude.as_ref())?;
            for ((name, files), folder) in chosen.into_iter().zip(&folders) {
                let (measured, read) = load::raw(&name, folder, &files, config, ctx)?;
                sources.extend(read);
                tasks.extend(measured);
            }
            if config.standardise {
                scales.extend(tasks.iter().map(|task| (task.name.clone(), task.scale(config))));
            }
            Tasks::RawTask(tasks)
        };
        warn_identical_files(&sources, ctx);
        scales.iter().for_each(|(task, scale)| note_scale(task, *scale, ctx));
        let specs: Vec<TaskSpec> = match &tasks {
            Tasks::RawTask(tasks) => tasks.iter().map(|task| load::spec(&task.name, &config.target)).collect(),
            Tasks::Tables(tasks) => tasks.iter().map(|task| task.spec.clone()).collect(),
        };
        let clients = self.clients(&specs, &tasks);
        let places = clients.iter().enumerate().map(|(place, client)| (client.name.clone(), place)).collect();
        Ok(Data { specs, scales, clients, places, sources, tasks })
    }

    /// Warns of keys that say how to split data which is split already.
    fn warn_ignored_keys(&self, ctx: &Context<'_>) {
        let Config { root, split, group_by, seed, test_fraction, files, exclude, .. } = &self.config;
        let keys = [
            ("split", split.is_some()),
            ("group-by", group_by.is_some()),
            ("test-fraction", test_fraction.is_some()),
            ("seed", seed.is_some()),
            ("files", files.is_some()),
            ("exclude", exclude.is_some()),
        ];
        let given: Vec<&str> = keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
        if !given.is_empty() {
            let keys = quoted(&given);
            ctx.warn(format_args!("{}: the data is prepared, so there is no influence of {keys}", root.display()));
        }
    }

    fn clients(&self, specs: &[TaskSpec], tasks: &Tasks) -> Vec<ClientSpec> {
        let counts: Vec<(Vec<usize>, usize)> = match tasks {
            Tasks::RawTask(tasks) => tasks.iter().map(|task| task.counts(&self.config)).collect(),
            Tasks::Tables(tasks) => {
                tasks.iter().map(|task| (task.parts.iter().map(Table::rows).collect(), task.test.rows())).collect()
            }
        };
        let tasks = || specs.iter().map(|spec| &spec.name).zip(&counts);
        let of = |(name, (parts, test)): (&String, &(Vec<usize>, usize)), part: usize| ClientTask {
            name: name.clone(),
            train: parts[part],
            test: *test,
        };
        match self.config.sites() {
            None => tasks().map(|task| ClientSpec { name: task.0.clone(), tasks: vec![of(task, 0)] }).collect(),
            Some(Sites { count, .. }) => {
                let site = |k: usize| ClientSpec {
                    name: format!("site-{}", k + 1),
                    tasks: tasks().map(|task| of(task, k)).collect(),
                };
                (0..count.get()).map(site).collect()
            }
        }
    }
}

impl Dataset for Flab {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        let data = self.data(ctx)?;
        let description = Description::new(data.specs.clone(), data.clients.clone(), data.sources.clone());
        Ok(description.with_scales(data.scales.clone()))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        let data = self.data(ctx)?;
        let Some(&place) = data.places.get(client) else {
            let names: Vec<_> = data.clients.iter().map(|client| &client.name).collect();
            return Err(unknown_client(client, &names));
        };
        let config = &self.config;
        if let Some(Data { tasks: Tasks::RawTask(tasks), specs, scales, clients, places, sources }) =
            self.read.take_if(|data| matches!(data.tasks, Tasks::RawTask(_)))
        {
            let tasks = Tasks::Tables(tasks.into_iter().map(|task| task.tables(config)).collect::<Result<_>>()?);
            self.read = Some(Data { specs, scales, clients, places, sources, tasks });
        }
        let Some(Data { tasks: Tasks::Tables(tables), .. }) = &self.read else {
            return Err(Error::other("nothing was read"));
        };
        // A clone of a table shares its columns: all sites have one test table.
        let of = |dealt: &TaskTables, part: usize| Task {
            spec: dealt.spec.clone(),
            train: dealt.parts[part].clone(),
            test: dealt.test.clone(),
        };
        Ok(match self.config.sites() {
            None => vec![of(&tables[place], 0)],
            Some(_) => tables.iter().map(|dealt| of(dealt, place)).collect(),
        })
    }

    /// Writes `TASK/train_data.csv`, `TASK/test_data.csv` and, for `clients = { count, alpha }`,
    /// `TASK/clientK_train_data.csv` with K from one. A file has all columns of the task's files in the order in which
    /// they first appear, empty where a file has no such column, and `combined`. Numbers stand as they are in the files,
    /// or with `split = "reference"` as pandas prints them.
    ///
    /// Of rows that no run can use, `split = "reference"` keeps those that the published preparation keeps.
    ///
    /// # Errors
    /// If one of the files exists, the data is prepared already, or a file cannot be read or written.
    fn prepare(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
        // What a description read, unless a client's tables were made of it since.
        if let Some(Data { tasks: Tasks::Tables(_), .. }) = self.read {
            self.read = None;
        }
        self.data(ctx)?;
        let Some(Data { tasks: Tasks::RawTask(tasks), .. }) = &self.read else {
            let error = Error::data("the data is prepared already").in_file(&self.config.root, None);
            return Err(error.help("`root` is to name the folder of the measurements"));
        };
        let files = prepare::files(tasks, &self.config, folder)?;
        prepare::write(tasks, &self.config, &files, ctx)?;
        Ok(files)
    }

    /// A CSV file with the columns that [`Chains`] asks for, or `combined`; or FASTA records: single chains where `chains`
    /// reads one, else heavy and light chains that are paired by their names as [`FastaColumns::Pairs`](fedplug_tables::FastaColumns) says.
    ///
    /// # Errors
    /// If the file cannot be read, has no such columns, or its names contradict or leave open what belongs together.
    fn open_rows(&mut self, file: &Path, _: &Context<'_>) -> Result<()> {
        self.rows = Some(PredictionRows::open(file, &self.config)?);
        Ok(())
    }

    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        ctx.check()?;
        self.rows.as_mut().ok_or_else(|| Error::other("no file of rows was opened"))?.next(at_most, ctx)
    }
}

/// What this plugin offers.
pub fn component() -> Component {
    Component::dataset("flab", "FLAb's antibody fitness data as federated clients", Flab::new)
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests;
