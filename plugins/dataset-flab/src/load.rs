//! Loads tasks from measurements or prepared data, and turns them into tables.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use fedplug_tables::text::TextBuffer;
use fedplug_tables::{Audit, AuditedTask, ClassNames, Classes, Split, quoted, scale_of, standardised, task_names};
use plugin_api::{Column, Context, Error, ORIGIN, Result, Scale, Source, Table, TargetKind, TaskSpec, VALIDATION};

use crate::chains::Chains;
use crate::config::{Config, SplitMethod, TaskPer};
use crate::folders::{self, TEST, TRAIN};
use crate::raw_tables::{RawTables, below};
use crate::read::{ReadMode, read};
use crate::split;

/// A task's measurements and their split. Tables are made of them when the first client is loaded: preparing data needs
/// none.
pub(crate) struct RawTask {
    pub(crate) name: String,
    pub(crate) tables: RawTables,
    pub(crate) split: Split,
}

/// For each part of a task the numbers of rows to train on and of rows for validation; and the number of test rows.
pub(crate) type Counts = (Vec<(usize, usize)>, usize);

/// A task's tables: one training table for each client, and the test table.
pub(crate) struct TaskTables {
    pub(crate) spec: TaskSpec,
    pub(crate) parts: Vec<Table>,
    pub(crate) test: Table,
}

impl RawTask {
    /// The numbers of training and validation rows of each part, and of rows of the test table.
    pub(crate) fn counts(&self, config: &Config) -> Counts {
        let part = |rows: &[usize]| {
            let (rows, trained) = (self.used(rows, config), self.trained(rows, config));
            (trained.len(), rows.len() - trained.len())
        };
        (self.parts(config).into_iter().map(part).collect(), self.used(&self.split.test, config).len())
    }

    /// The usable rows among these.
    fn used(&self, rows: &[usize], config: &Config) -> Vec<usize> {
        usable(&self.tables.fitness, rows.iter().copied(), config).collect()
    }

    /// Those of a part's rows that models train on.
    fn trained(&self, rows: &[usize], config: &Config) -> Vec<usize> {
        let used = self.used(rows, config);
        let marks = self.split.validation_marks(&used);
        used.into_iter().zip(marks).filter(|(_, validation)| !validation).map(|(row, _)| row).collect()
    }

    /// The scale by which targets are standardised, if they are.
    ///
    /// # Errors
    /// If scales are given by task, and none for this one.
    pub(crate) fn scale(&self, config: &Config) -> Result<Option<Scale>> {
        if self.tables.classes.kind() != TargetKind::Number {
            return Ok(None);
        }
        config.standardise.scale(&self.name, || {
            let fitness = &self.tables.fitness;
            let values = |rows: &[usize]| self.trained(rows, config).into_iter().map(|row| fitness[row]).collect();
            let parts: Vec<Vec<f32>> = self.parts(config).into_iter().map(values).collect();
            Ok(scale_of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
        })
    }

    /// Audits the rows and their split.
    fn audit(&self, config: &Config, audit: &mut Audit, ctx: &Context<'_>) {
        let Self { name, tables, split } = self;
        let train: Vec<usize> = self.parts(config).into_iter().flat_map(|rows| self.trained(rows, config)).collect();
        let task = AuditedTask {
            name,
            sequence: &|row| tables.combined(row),
            values: &tables.fitness,
            // Classes have no unit in which files could differ.
            files: &if config.classes == Classes::No { tables.file_of_rows() } else { vec![0; tables.rows()] },
            origin: &|row| tables.origin(row),
            advice: split::advice(config),
        };
        audit.task(&task, &train, &self.used(&split.test, config), ctx);
    }

    fn parts(&self, config: &Config) -> Vec<&[usize]> {
        match config.sites() {
            None => vec![&self.split.train[..]],
            Some(_) => self.split.site_rows().collect(),
        }
    }

    /// Makes the tables. The last one takes the measurements themselves, so that they are freed before its column moves to its
    /// final memory.
    pub(crate) fn tables(self, config: &Config) -> Result<TaskTables> {
        let scale = self.scale(config)?;
        let parts: Vec<Vec<usize>> = self.parts(config).into_iter().map(<[_]>::to_vec).collect();
        let Self { name, tables, split } = self;
        let tables = Rc::new(tables);
        let make = |tables: Rc<RawTables>, rows: Vec<usize>, split: Option<&Split>| {
            let rows: Vec<usize> = usable(&tables.fitness, rows.into_iter(), config).collect();
            let marks = split.map(|split| split.validation_marks(&rows));
            let fitness: Vec<f32> = rows.iter().map(|&row| tables.fitness[row]).collect();
            let origins = Column::text(rows.iter().map(|&row| tables.origin(row)));
            let classes = tables.classes.clone();
            let table =
                table(rows.into_iter().map(move |row| tables.combined(row)), &fitness, &classes, origins, config)?;
            let table = marks.map_or(Ok(table.clone()), |marks| table.with(VALIDATION, Column::bool(&marks)))?;
            scale.map_or(Ok(table.clone()), |scale| standardised(&table, &config.target, scale))
        };
        let test = make(Rc::clone(&tables), split.test.clone(), None)?;
        let marked = config.validation_fraction.map(|_| &split);
        let kind = tables.classes.kind();
        let (count, mut raw) = (parts.len(), Some(tables));
        let mut train = Vec::with_capacity(count);
        for (part, rows) in parts.into_iter().enumerate() {
            let raw = if part + 1 == count { raw.take() } else { raw.clone() };
            train.extend(raw.map(|raw| make(raw, rows, marked)).transpose()?);
        }
        Ok(TaskTables { spec: spec(&name, &config.target, kind), parts: train, test })
    }
}

impl TaskTables {
    /// The tables with standard scores as targets, and the scale, if targets are standardised.
    pub(crate) fn standardised(mut self, config: &Config) -> Result<(Self, Option<Scale>)> {
        if self.spec.target_kind != TargetKind::Number {
            return Ok((self, None));
        }
        let scale = config.standardise.scale(&self.spec.name, || {
            let targets = self.trained()?.into_iter().map(|table| table.f32(&config.target).map(<[f32]>::to_vec));
            let targets: Vec<Vec<f32>> = targets.collect::<Result<_>>()?;
            Ok(scale_of(&targets.iter().map(Vec::as_slice).collect::<Vec<_>>()))
        })?;
        let Some(by) = scale else { return Ok((self, None)) };
        for table in self.parts.iter_mut().chain([&mut self.test]) {
            *table = standardised(table, &config.target, by)?;
        }
        Ok((self, scale))
    }

    /// The numbers of training and validation rows of each part, and of test rows.
    ///
    /// # Errors
    /// If the marks of validation rows cannot be read.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let trained = self.trained()?;
        let part = |(all, trained): (&Table, Table)| (trained.rows(), all.rows() - trained.rows());
        Ok((self.parts.iter().zip(trained).map(part).collect(), self.test.rows()))
    }

    /// The rows of each part that models train on.
    fn trained(&self) -> Result<Vec<Table>> {
        let trained = |part: &Table| match part.column(VALIDATION) {
            None => Ok(part.clone()),
            Some(_) => {
                let marks = part.bool(VALIDATION)?;
                Ok(part.select(&(0..part.rows()).filter(|&row| marks[row] == 0).collect::<Vec<_>>()))
            }
        };
        self.parts.iter().map(trained).collect()
    }

    /// The same with some of the training rows marked for validation, if asked for: by the groups of all parts together.
    fn with_validation(mut self, config: &Config, ctx: &Context<'_>) -> Result<Self> {
        let Some(fraction) = config.validation_fraction else { return Ok(self) };
        let mut texts: Vec<String> = Vec::new();
        for part in &self.parts {
            texts.extend(part.text("combined")?.iter().map(str::to_owned));
        }
        let groups = config.group_by().groups(texts.len(), |row| &texts[row], ctx)?;
        let seed = split::seed(config, ctx).of(&self.spec.name);
        let split =
            Split::given(vec![false; texts.len()]).with_validation(&groups, &vec![0; texts.len()], fraction, seed);
        let mut start = 0;
        for part in &mut self.parts {
            let rows: Vec<usize> = (start..start + part.rows()).collect();
            start += part.rows();
            *part = part.clone().with(VALIDATION, Column::bool(&split.validation_marks(&rows)))?;
        }
        Ok(self)
    }

    /// Audits the rows and their split. The tables do not say which file of measurements a row is from, so units are not
    /// compared.
    fn audit(&self, config: &Config, audit: &mut Audit, ctx: &Context<'_>) -> Result<()> {
        let trained = self.trained()?;
        let tables: Vec<&Table> = trained.iter().chain([&self.test]).collect();
        let (mut texts, mut values, mut origins) = (Vec::new(), Vec::new(), Vec::new());
        for table in &tables {
            texts.extend(table.text("combined")?.iter());
            match self.spec.target_kind {
                TargetKind::Number => values.extend_from_slice(table.f32(&config.target)?),
                _ => values.extend(self.spec.class_indices(table)?.into_iter().map(|class| class as f32)),
            }
            origins.extend(table.text(ORIGIN)?.iter());
        }
        let rows: Vec<usize> = (0..values.len()).collect();
        let (train, test) = rows.split_at(values.len() - self.test.rows());
        let task = AuditedTask {
            name: &self.spec.name,
            sequence: &|row| texts[row].to_owned(),
            values: &values,
            files: &vec![0; values.len()],
            origin: &|row| origins[row].to_owned(),
            advice: Some("`split = \"random\"` keeps them apart when the data is prepared"),
        };
        audit.task(&task, train, test, ctx);
        Ok(())
    }
}

/// The usable rows among these, at most `max-samples`. Their order is random, so the first ones are a random subset.
fn usable(fitness: &[f32], rows: impl Iterator<Item = usize>, config: &Config) -> impl Iterator<Item = usize> {
    rows.filter(|&row| !fitness[row].is_nan()).take(config.max_samples.map_or(usize::MAX, usize::from))
}

fn table<S: AsRef<str>>(
    combined: impl Iterator<Item = S>,
    fitness: &[f32],
    classes: &ClassNames,
    origins: Column,
    config: &Config,
) -> Result<Table> {
    let table = Table::new().with("combined", Column::text(combined))?;
    let target = match classes.names() {
        [] => Column::f32(fitness),
        names => Column::text(fitness.iter().map(|&class| &names[class as usize])),
    };
    table.with(&config.target, target)?.with(ORIGIN, origins)
}

/// A task whose model reads the column `combined`.
pub(crate) fn spec(task: &str, target: &str, target_kind: TargetKind) -> TaskSpec {
    TaskSpec { target_kind, ..TaskSpec::new(task, ["combined"], target) }
}

/// Reads and splits the measurements of a folder: one task, or one for each file with usable rows.
///
/// # Errors
/// If a file cannot be read, no row is usable, or the rows cannot be split.
pub(crate) fn raw(
    name: &str,
    folder: &Path,
    files: &[PathBuf],
    config: &Config,
    audit: &mut Audit,
    ctx: &Context<'_>,
) -> Result<(Vec<RawTask>, Vec<Source>)> {
    if config.split() == SplitMethod::Reference && config.chains != Chains::Paired {
        let error = Error::config("the published preparation needs pairs").at_key("chains");
        return Err(error.help("`split = \"random\"` accepts single chains"));
    }
    folders::warn_other_files(folder, ctx)?;
    let (tables, sources) = RawTables::read(name, files, config, ctx)?;
    require_usable_rows(name, folder, config, &sources)?;
    let split = split::split(&tables, name, config, ctx)?;
    let mut task = |name: String, tables, split| {
        let raw = RawTask { split: split::assign(split, &name, config, ctx), name, tables };
        raw.audit(config, audit, ctx);
        raw
    };
    if config.task_per == TaskPer::Folder {
        return Ok((vec![task(name.to_owned(), tables, split)], sources));
    }
    let names = task_names(Some(name), tables.files.iter().map(|sheet| sheet.path.as_path()));
    let mut tasks = Vec::new();
    for (name, (rows, tables)) in names.into_iter().zip(tables.by_file()) {
        if tables.fitness.iter().any(|fitness| !fitness.is_nan()) {
            let split = split.filter(|row| rows.contains(&row));
            tasks.push(task(name, tables, split.renumbered(|row| row - rows.start)));
        }
    }
    Ok((tasks, sources))
}

/// Reads the prepared tables of a task.
///
/// # Errors
/// If a file cannot be read, or no row is usable.
pub(crate) fn prepared(
    task: &str,
    folder: &Path,
    config: &Config,
    audit: &mut Audit,
    ctx: &Context<'_>,
) -> Result<(TaskTables, Vec<Source>)> {
    let train = match config.sites() {
        None => vec![folder.join(TRAIN)],
        Some(sites) => folders::client_files(folder, sites.count.get())?,
    };
    warn_unread_files(folder, ctx)?;
    let (mut sources, mut classes) = (Vec::new(), ClassNames::new(&config.classes));
    let mut one = |path: PathBuf| {
        let (mut combined, mut fitness, mut lines) = (TextBuffer::default(), Vec::new(), Vec::new());
        let (_, source) = read(&path, config, ReadMode::Prepared, &mut classes, ctx, |record, _, antibody| {
            if let Some(antibody) = antibody {
                lines.push(record.position().map_or(0, csv::Position::line));
                combined.push(antibody.combined);
                fitness.push(antibody.fitness);
            }
        })?;
        sources.push(source);
        let rows = usable(&fitness, 0..fitness.len(), config).count();
        // Only usable rows were read, so the wanted ones are the first. The iterator owns the texts, which are freed before
        // the column moves to its final memory.
        let file = below(&config.root, &path);
        let origins = Column::text(lines[..rows].iter().map(|line| format!("{}:{line}", file.display())));
        table((0..rows).map(move |row| combined.get(row).to_owned()), &fitness[..rows], &classes, origins, config)
    };
    let test = one(folder.join(TEST))?;
    let parts = train.into_iter().map(&mut one).collect::<Result<_>>()?;
    require_usable_rows(task, folder, config, &sources)?;
    classes.sort(task)?;
    let tables = TaskTables { spec: spec(task, &config.target, classes.kind()), parts, test };
    let tables = tables.with_validation(config, ctx)?;
    tables.audit(config, audit, ctx)?;
    Ok((tables, sources))
}

/// Warns of other CSV files beside prepared ones, since somebody may expect them to be used.
fn warn_unread_files(folder: &Path, ctx: &Context<'_>) -> Result<()> {
    let mut others = folders::csv_files(folder)?;
    others.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(TRAIN)));
    others.retain(|path| !path.ends_with(TEST));
    if !others.is_empty() {
        let names: Vec<_> = others.iter().filter_map(|path| path.file_name()).map(|n| n.to_string_lossy()).collect();
        ctx.warn(format_args!("{}: not read, since the data is prepared: {}", folder.display(), quoted(&names)));
    }
    Ok(())
}

/// Checks that a task has usable rows.
///
/// # Errors
/// If it has none, with the reasons file by file.
pub(crate) fn require_usable_rows(task: &str, folder: &Path, config: &Config, sources: &[Source]) -> Result<()> {
    fedplug_tables::require_usable_rows(task, sources).map_err(|error| {
        let chains = match config.chains {
            Chains::Paired => "`heavy`, `light`",
            Chains::Heavy => "`heavy`",
            Chains::Light => "`light`",
            Chains::Any => "`heavy` or `light`",
        };
        let target = if config.classes == Classes::No { "a finite number" } else { "a class" };
        let help = format!("a row needs {chains} and {target} in `{}`", config.target);
        let error = error.in_file(folder, None).help(help);
        if sources.is_empty() { error.because_of("the folder contains no CSV files") } else { error }
    })
}
