//! All that is read: tasks, clients, scales and sources.

use std::collections::BTreeMap;

use fedplug_tables::{Audit, quoted, unknown_client, warn_identical_files};
use plugin_api::{ClientSpec, ClientTask, Context, Error, Result, Scale, Source, Task, TaskSpec};

use crate::config::{Classes, Config, Sites, Standardise, TaskPer};
use crate::load::{self, Counts, RawTask, TaskTables};
use crate::{file_patterns, folders};

/// The tasks with their clients, and what they were read from.
pub(crate) struct Data {
    pub(crate) specs: Vec<TaskSpec>,
    /// The scale of each task whose targets are standardised.
    pub(crate) scales: BTreeMap<String, Scale>,
    pub(crate) clients: Vec<ClientSpec>,
    pub(crate) sources: Vec<Source>,
    /// The index of each client: clients are loaded by name, and there may be thousands.
    indices: BTreeMap<String, usize>,
    tasks: Tasks,
}

/// The tasks in the order of the experiment.
enum Tasks {
    Raw(Vec<RawTask>),
    Tables(Vec<TaskTables>),
}

impl Data {
    /// Reads the data of all tasks, raw or prepared, and audits it.
    ///
    /// # Errors
    /// If a folder or file cannot be read, or a task has no usable rows.
    pub(crate) fn read(config: &Config, ctx: &Context<'_>) -> Result<Self> {
        if config.classes != Classes::No && config.standardise != Standardise::No {
            return Err(Error::config("has no effect, since all targets are classes").at_key("standardise"));
        }
        let (mut audit, mut sources, mut scales) = (Audit::default(), Vec::new(), BTreeMap::new());
        let by_file = match config.task_per {
            TaskPer::Folder => None,
            TaskPer::File => folders::of_prepared_files(&config.root, &config.tasks)?,
        };
        let (names, folders) = match by_file {
            Some(found) => found,
            None => (config.tasks.clone(), folders::of_tasks(&config.root, &config.tasks)?),
        };
        let tasks = if folders::are_prepared(&config.root, &names, &folders)? {
            if config.folds.is_some() {
                let error = Error::config("the data is already prepared, with one split").at_key("folds");
                return Err(error.help("set `root` to the folder with the measurements"));
            }
            warn_ignored_keys(config, ctx);
            let mut tasks = Vec::new();
            for (name, folder) in names.iter().zip(&folders) {
                let (tables, files) = load::prepared(name, folder, config, &mut audit, ctx)?;
                sources.extend(files);
                let (tables, scale) = tables.standardised(config)?;
                scales.extend(scale.map(|scale| (name.clone(), scale)));
                tasks.push(tables);
            }
            Tasks::Tables(tasks)
        } else {
            let mut tasks: Vec<RawTask> = Vec::new();
            let files = names.into_iter().zip(&folders).map(|(name, folder)| Ok((name, folders::csv_files(folder)?)));
            let files = files.collect::<Result<_>>()?;
            let selected = file_patterns::select_files(files, config.files.as_ref(), config.exclude.as_ref())?;
            for ((name, files), folder) in selected.into_iter().zip(&folders) {
                let (raw, read) = load::raw(&name, folder, &files, config, &mut audit, ctx)?;
                sources.extend(read);
                tasks.extend(raw);
            }
            for task in &tasks {
                scales.extend(task.scale(config)?.map(|scale| (task.name.clone(), scale)));
            }
            Tasks::Raw(tasks)
        };
        audit.across_tasks(ctx);
        warn_identical_files(&sources, ctx);
        config.standardise.note(&scales, ctx)?;
        let specs: Vec<TaskSpec> = match &tasks {
            Tasks::Raw(tasks) => {
                tasks.iter().map(|task| load::spec(&task.name, &config.target, task.tables.classes.kind())).collect()
            }
            Tasks::Tables(tasks) => tasks.iter().map(|task| task.spec.clone()).collect(),
        };
        let clients = clients(config, &specs, &tasks.counts(config)?);
        let indices = clients.iter().enumerate().map(|(index, client)| (client.name.clone(), index)).collect();
        Ok(Self { specs, scales, clients, sources, indices, tasks })
    }

    /// The tasks of a client.
    ///
    /// # Errors
    /// If there is no such client.
    pub(crate) fn load(&mut self, client: &str, config: &Config) -> Result<Vec<Task>> {
        let Some(&client) = self.indices.get(client) else {
            let names: Vec<_> = self.clients.iter().map(|client| &client.name).collect();
            return Err(unknown_client(client, &names));
        };
        // A clone of a table shares its columns: all sites have the same test table.
        let task = |tables: &TaskTables, part: usize| Task {
            spec: tables.spec.clone(),
            train: tables.parts[part].clone(),
            test: tables.test.clone(),
        };
        let tables = self.tasks.tables(config)?;
        Ok(match config.sites() {
            None => vec![task(&tables[client], 0)],
            Some(_) => tables.iter().map(|tables| task(tables, client)).collect(),
        })
    }

    /// The raw tasks, as long as no client has been loaded.
    pub(crate) fn raw_tasks(&self) -> Option<&[RawTask]> {
        if let Tasks::Raw(tasks) = &self.tasks { Some(tasks) } else { None }
    }
}

impl Tasks {
    /// The numbers of rows, task by task.
    ///
    /// # Errors
    /// If the marks of validation rows cannot be read.
    fn counts(&self, config: &Config) -> Result<Vec<Counts>> {
        match self {
            Self::Raw(tasks) => Ok(tasks.iter().map(|task| task.counts(config)).collect()),
            Self::Tables(tasks) => tasks.iter().map(TaskTables::counts).collect(),
        }
    }

    /// The tables, which the first call makes from the raw tasks.
    fn tables(&mut self, config: &Config) -> Result<&[TaskTables]> {
        if let Self::Raw(tasks) = self {
            let tasks = std::mem::take(tasks);
            *self = Self::Tables(tasks.into_iter().map(|task| task.tables(config)).collect::<Result<_>>()?);
        }
        match self {
            Self::Tables(tables) => Ok(tables),
            Self::Raw(_) => Err(Error::other("the tables were not made")),
        }
    }
}

/// Warns of keys that say how to split data which is already split.
fn warn_ignored_keys(config: &Config, ctx: &Context<'_>) {
    let Config { root, split, group_by, seed, test_fraction, files, exclude, validation_fraction, .. } = config;
    // Validation rows are drawn from the prepared training rows.
    let draws = validation_fraction.is_some();
    let keys = [
        ("split", split.is_some()),
        ("group-by", group_by.is_some() && !draws),
        ("test-fraction", test_fraction.is_some()),
        ("seed", seed.is_some() && !draws),
        ("files", files.is_some()),
        ("exclude", exclude.is_some()),
    ];
    let given: Vec<&str> = keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect();
    if !given.is_empty() {
        let keys = quoted(&given);
        ctx.warn(format_args!("{}: the data is already prepared; ignored: {keys}", root.display()));
    }
}

/// The clients with their numbers of rows.
fn clients(config: &Config, specs: &[TaskSpec], counts: &[Counts]) -> Vec<ClientSpec> {
    let tasks = || specs.iter().map(|spec| &spec.name).zip(counts);
    let task = |(name, (parts, test)): (&String, &Counts), part: usize| {
        let (train, validation) = parts[part];
        ClientTask { name: name.clone(), train, test: *test, validation }
    };
    match config.sites() {
        None => tasks().map(|of| ClientSpec { name: of.0.clone(), tasks: vec![task(of, 0)] }).collect(),
        Some(Sites { count, .. }) => {
            let site = |part: usize| ClientSpec {
                name: format!("site-{}", part + 1),
                tasks: tasks().map(|of| task(of, part)).collect(),
            };
            (0..count.get()).map(site).collect()
        }
    }
}
