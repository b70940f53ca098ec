//! FLAb's antibody fitness data as federated clients.
//!
//! [FLAb](https://github.com/Graylab/FLAb) keeps measurements of antibodies as `ROOT/TASK/*.csv` with the columns `heavy`,
//! `light` and `fitness`. All files of a task, in the order of their names, make one table with the columns `combined`
//! (heavy chain, `|`, light chain) and `fitness`; rows that cannot be used are left out and counted. Then the table is
//! split at random into rows to train and rows to test on, and the former are dealt to the clients.
//!
//! ```toml
//! [dataset]
//! plugin = "flab"
//! root = "FLAb/data"
//! clients = { count = 6, alpha = 1.0 }       # or "by-task", the default
//! ```
//!
//! The split of a task depends on the seed, the task's name and its rows alone: not on the other tasks.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod folders;
mod read;
mod split;

use std::path::Path;

pub use config::{Clients, Config, Sites, Split, TASKS};
use plugin_api::{
    ClientSpec, ClientTask, Column, Component, Context, Dataset, Description, Error, Result, Seed, Source, Table, Task,
    TaskSpec,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// FLAb's data, read once and kept.
#[derive(Debug)]
pub struct Flab {
    config: Config,
    read: Option<Data>,
}

#[derive(Clone, Debug)]
struct Data {
    clients: Vec<(String, Vec<Task>)>,
    sources: Vec<Source>,
}

/// The rows of one task as they are dealt: one training table for each part, and the test table.
struct Dealt {
    spec: TaskSpec,
    parts: Vec<Table>,
    test: Table,
}

impl Flab {
    /// A dataset of which nothing has been read yet.
    ///
    /// # Errors
    /// If the target is a column that is read anyway.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        if ["heavy", "light", "combined"].contains(&config.target.as_str()) {
            return Err(Error::config(format!("`{}` is what the model reads", config.target)).at_key("target"));
        }
        Ok(Self { config, read: None })
    }

    fn data(&mut self, ctx: &Context<'_>) -> Result<&Data> {
        if self.read.is_none() {
            self.read = Some(self.read(ctx)?);
        }
        self.read.as_ref().ok_or_else(|| Error::other("nothing was read"))
    }

    fn read(&self, ctx: &Context<'_>) -> Result<Data> {
        let seed = self.config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new);
        let folders = folders::of_tasks(&self.config.root, &self.config.tasks)?;
        let (mut tasks, mut sources) = (Vec::new(), Vec::new());
        for (task, folder) in self.config.tasks.iter().zip(&folders) {
            let (table, files) = self.table(task, folder, ctx)?;
            sources.extend(files);
            tasks.push(self.dealt(task, &table, seed.of(task))?);
        }
        Ok(Data { clients: self.clients(tasks), sources })
    }

    /// All usable rows of a task.
    fn table(&self, task: &str, folder: &Path, ctx: &Context<'_>) -> Result<(Table, Vec<Source>)> {
        let (mut rows, mut sources) = (Vec::new(), Vec::new());
        for path in folders::csv_files(folder)? {
            ctx.check()?;
            let (read, source) = read::read(&path, &self.config.target, ctx)?;
            rows.extend(read);
            sources.push(source);
        }
        if rows.is_empty() {
            let help = format!("a row needs `heavy`, `light` and a finite number in `{}`", self.config.target);
            let error = Error::data(format!("task `{task}` has no usable row")).in_file(folder, None).help(help);
            let no_file = sources.is_empty().then(|| "the folder holds no CSV file".to_owned());
            let causes = sources.iter().flat_map(|file| {
                file.skipped.iter().map(|(reason, rows)| format!("{}: {reason} ({rows} rows)", file.path.display()))
            });
            return Err(no_file.into_iter().chain(causes).fold(error, Error::because_of));
        }
        let fitness: Vec<f32> = rows.iter().map(|row| row.fitness).collect();
        let combined = Column::text(rows.into_iter().map(|row| row.combined));
        Ok((Table::new().with("combined", combined)?.with(&self.config.target, Column::f32(&fitness))?, sources))
    }

    fn dealt(&self, task: &str, table: &Table, seed: Seed) -> Result<Dealt> {
        let rng = |name| ChaCha8Rng::seed_from_u64(seed.of(name).value());
        let Split::Random = self.config.split;
        let (train, mut test) = split::holdout(table.rows(), self.config.test_fraction, &mut rng("test"));
        let mut parts = match self.config.clients {
            Clients::ByTask => vec![train],
            Clients::Sites(Sites { count, alpha }) => split::runs(&train, count.get(), alpha, &mut rng("clients")),
        };
        if let Some(most) = self.config.max_samples {
            // The order is random, so the first rows are a random subset.
            parts.iter_mut().chain([&mut test]).for_each(|rows| rows.truncate(most.get()));
        }
        let spec =
            TaskSpec { name: task.to_owned(), inputs: vec!["combined".to_owned()], target: self.config.target.clone() };
        Ok(Dealt { spec, parts: parts.iter().map(|rows| table.select(rows)).collect(), test: table.select(&test) })
    }

    fn clients(&self, tasks: Vec<Dealt>) -> Vec<(String, Vec<Task>)> {
        // A clone of a table shares its columns: all sites have one test table.
        let of = |dealt: &Dealt, part: usize| Task {
            spec: dealt.spec.clone(),
            train: dealt.parts[part].clone(),
            test: dealt.test.clone(),
        };
        match self.config.clients {
            Clients::ByTask => tasks.iter().map(|dealt| (dealt.spec.name.clone(), vec![of(dealt, 0)])).collect(),
            Clients::Sites(Sites { count, .. }) => {
                let site = |k: usize| (format!("site-{}", k + 1), tasks.iter().map(|dealt| of(dealt, k)).collect());
                (0..count.get()).map(site).collect()
            }
        }
    }
}

impl Dataset for Flab {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        let target = self.config.target.clone();
        let spec = |task: &String| TaskSpec {
            name: task.clone(),
            inputs: vec!["combined".to_owned()],
            target: target.clone(),
        };
        let tasks = self.config.tasks.iter().map(spec).collect();
        let data = self.data(ctx)?;
        let counts =
            |task: &Task| ClientTask { name: task.spec.name.clone(), train: task.train.rows(), test: task.test.rows() };
        let client = |(name, tasks): &(String, Vec<Task>)| ClientSpec {
            name: name.clone(),
            tasks: tasks.iter().map(counts).collect(),
        };
        Ok(Description::new(tasks, data.clients.iter().map(client).collect(), data.sources.clone()))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        let data = self.data(ctx)?;
        let found = data.clients.iter().find(|(name, _)| name == client);
        found.map(|(_, tasks)| tasks.clone()).ok_or_else(|| {
            let names: Vec<_> = data.clients.iter().map(|(name, _)| name).collect();
            Error::data(format!("there is no client `{client}`")).help(format!("there are {}", folders::quoted(&names)))
        })
    }
}

plugin_api::export_plugin!(Component::dataset("flab", "FLAb's antibody fitness data as federated clients", Flab::new));

#[cfg(test)]
mod tests;
