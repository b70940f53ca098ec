//! A task's rows as tables, from measurements or from what was prepared of them.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use fedplug_tables::text::TextBuffer;
use fedplug_tables::{Audit, Split, quoted, scale_of, sequence_ids, standardised, task_names};
use plugin_api::{Column, Context, Error, ORIGIN, Result, Scale, Source, Table, TaskSpec};

use crate::chains::Chains;
use crate::config::{Config, SplitMethod, TaskPer};
use crate::folders::{self, TEST, TRAIN};
use crate::raw_tables::{RawTables, below};
use crate::read::{ReadMode, read};
use crate::split;

/// A task's measurements, and where each row goes. Tables are made of them when the first client asks for its own: a
/// preparation needs none.
pub(crate) struct RawTask {
    pub(crate) name: String,
    pub(crate) sheets: RawTables,
    pub(crate) split: Split,
}

/// A task as it is dealt: one training table for each part, and the test table.
pub(crate) struct TaskTables {
    pub(crate) spec: TaskSpec,
    pub(crate) parts: Vec<Table>,
    pub(crate) test: Table,
}

impl RawTask {
    /// How many rows each part's table and the test table will have.
    pub(crate) fn counts(&self, config: &Config) -> (Vec<usize>, usize) {
        let count = |rows: &[usize]| usable(&self.sheets.fitness, rows.iter().copied(), config).count();
        (self.parts(config).into_iter().map(count).collect(), count(&self.split.test))
    }

    /// How the tables' targets are standardised.
    pub(crate) fn scale(&self, config: &Config) -> Scale {
        let fitness = &self.sheets.fitness;
        let values = |rows: &[usize]| usable(fitness, rows.iter().copied(), config).map(|row| fitness[row]).collect();
        let parts: Vec<Vec<f32>> = self.parts(config).into_iter().map(values).collect();
        scale_of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Reports what its rows and their split show.
    fn audit(&self, config: &Config, ctx: &Context<'_>) {
        let Self { name, sheets, split } = self;
        let used = |rows: &[usize]| usable(&sheets.fitness, rows.iter().copied(), config).collect::<Vec<_>>();
        let train: Vec<usize> = self.parts(config).into_iter().flat_map(used).collect();
        Audit {
            task: name,
            sequences: &sequence_ids((0..sheets.rows()).map(|row| sheets.combined(row))),
            values: &sheets.fitness,
            files: &sheets.files(),
            origin: &|row| sheets.origin(row),
            advice: split::advice(config),
        }
        .report(&train, &used(&split.test), ctx);
    }

    fn parts(&self, config: &Config) -> Vec<&[usize]> {
        match config.sites() {
            None => vec![&self.split.train[..]],
            Some(_) => self.split.site_rows().collect(),
        }
    }

    /// The tables. The last one that is made takes the measurements themselves, so that they are gone by the time its
    /// column's memory is moved to where it stays.
    pub(crate) fn tables(self, config: &Config) -> Result<TaskTables> {
        let scale = config.standardise.then(|| self.scale(config));
        let parts: Vec<Vec<usize>> = self.parts(config).into_iter().map(<[_]>::to_vec).collect();
        let Self { name, sheets, split } = self;
        let sheets = Rc::new(sheets);
        let make = |sheets: Rc<RawTables>, rows: Vec<usize>| {
            let rows: Vec<usize> = usable(&sheets.fitness, rows.into_iter(), config).collect();
            let fitness: Vec<f32> = rows.iter().map(|&row| sheets.fitness[row]).collect();
            let origins = Column::text(rows.iter().map(|&row| sheets.origin(row)));
            let table = table(rows.into_iter().map(move |row| sheets.combined(row)), &fitness, origins, config)?;
            scale.map_or(Ok(table.clone()), |scale| standardised(&table, &config.target, scale))
        };
        let test = make(Rc::clone(&sheets), split.test)?;
        let (count, mut sheets) = (parts.len(), Some(sheets));
        let mut tables = Vec::with_capacity(count);
        for (place, rows) in parts.into_iter().enumerate() {
            let sheets = if place + 1 == count { sheets.take() } else { sheets.clone() };
            tables.extend(sheets.map(|sheets| make(sheets, rows)).transpose()?);
        }
        Ok(TaskTables { spec: spec(&name, &config.target), parts: tables, test })
    }
}

impl TaskTables {
    /// The same with standard scores for targets, and their scale.
    pub(crate) fn standardised(mut self, config: &Config) -> Result<(Self, Scale)> {
        let targets = self.parts.iter().map(|part| part.f32(&config.target));
        let scale = scale_of(&targets.collect::<Result<Vec<_>>>()?);
        for table in self.parts.iter_mut().chain([&mut self.test]) {
            *table = standardised(table, &config.target, scale)?;
        }
        Ok((self, scale))
    }

    /// Reports what its rows and their split show. Tables of clients are too small to tell units by.
    fn audit(&self, config: &Config, ctx: &Context<'_>) -> Result<()> {
        let tables: Vec<&Table> = self.parts.iter().chain([&self.test]).collect();
        let (mut texts, mut values, mut origins) = (Vec::new(), Vec::new(), Vec::new());
        for table in &tables {
            texts.extend(table.text("combined")?.iter());
            values.extend_from_slice(table.f32(&config.target)?);
            origins.extend(table.text(ORIGIN)?.iter());
        }
        let rows: Vec<usize> = (0..values.len()).collect();
        let (train, test) = rows.split_at(values.len() - self.test.rows());
        Audit {
            task: &self.spec.name,
            sequences: &sequence_ids(&texts),
            values: &values,
            files: &vec![0; values.len()],
            origin: &|row| origins[row].to_owned(),
            advice: Some("`split = \"random\"` keeps them apart when the data is prepared"),
        }
        .report(train, test, ctx);
        Ok(())
    }
}

/// The usable rows among these, in this order. It is random, so the first ones are a random subset.
fn usable(fitness: &[f32], rows: impl Iterator<Item = usize>, config: &Config) -> impl Iterator<Item = usize> {
    rows.filter(|&row| !fitness[row].is_nan()).take(config.max_samples.map_or(usize::MAX, usize::from))
}

fn table<S: AsRef<str>>(
    combined: impl Iterator<Item = S>,
    fitness: &[f32],
    origins: Column,
    config: &Config,
) -> Result<Table> {
    let table = Table::new().with("combined", Column::text(combined))?;
    table.with(&config.target, Column::f32(fitness))?.with(ORIGIN, origins)
}

/// The model reads one column of a task and predicts one.
pub(crate) fn spec(task: &str, target: &str) -> TaskSpec {
    TaskSpec { name: task.to_owned(), inputs: vec!["combined".to_owned()], target: target.to_owned() }
}

/// Reads the measurements of a folder, and splits and splits them: one task, or one for each file with a usable row.
pub(crate) fn raw(
    name: &str,
    folder: &Path,
    files: &[PathBuf],
    config: &Config,
    ctx: &Context<'_>,
) -> Result<(Vec<RawTask>, Vec<Source>)> {
    if config.split() == SplitMethod::Reference && config.chains != Chains::Paired {
        let error = Error::config("the published preparation knows pairs alone").at_key("chains");
        return Err(error.help("`split = \"random\"` takes single chains"));
    }
    folders::warn_other_files(folder, ctx)?;
    let (sheets, sources) = RawTables::read(files, config, ctx)?;
    require_usable_rows(name, folder, config, &sources)?;
    let split = split::split(&sheets, name, config, ctx)?;
    let task = |name: String, sheets, split| {
        let measured = RawTask { split: split::share(split, &name, config, ctx), name, sheets };
        measured.audit(config, ctx);
        measured
    };
    if config.task_per == TaskPer::Folder {
        return Ok((vec![task(name.to_owned(), sheets, split)], sources));
    }
    let names = task_names(Some(name), sheets.sheets.iter().map(|sheet| sheet.path.as_path()));
    let mut tasks = Vec::new();
    for (name, (rows, sheets)) in names.into_iter().zip(sheets.by_file()) {
        if sheets.fitness.iter().any(|fitness| !fitness.is_nan()) {
            let mut split = split.filter(|row| rows.contains(&row));
            split.train.iter_mut().chain(&mut split.test).for_each(|row| *row -= rows.start);
            tasks.push(task(name, sheets, split));
        }
    }
    Ok((tasks, sources))
}

/// Reads what was prepared of a task, as it was split and dealt.
pub(crate) fn prepared(
    task: &str,
    folder: &Path,
    config: &Config,
    ctx: &Context<'_>,
) -> Result<(TaskTables, Vec<Source>)> {
    let train = match config.sites() {
        None => vec![folder.join(TRAIN)],
        Some(sites) => folders::client_files(folder, sites.count.get())?,
    };
    warn_unread_files(folder, ctx)?;
    let mut sources = Vec::new();
    let mut one = |path: PathBuf| {
        let (mut combined, mut fitness, mut lines) = (TextBuffer::default(), Vec::new(), Vec::new());
        let (_, source) = read(&path, config, ReadMode::Prepared, ctx, |record, _, antibody| {
            if let Some(antibody) = antibody {
                lines.push(record.position().map_or(0, csv::Position::line));
                combined.push(antibody.combined);
                fitness.push(antibody.fitness);
            }
        })?;
        sources.push(source);
        let rows = usable(&fitness, 0..fitness.len(), config).count();
        // All usable rows are given, so the wanted ones are the first. The texts go with the iterator, before the
        // column's memory is moved to where it stays.
        let file = below(&config.root, &path);
        let origins = Column::text(lines[..rows].iter().map(|line| format!("{}:{line}", file.display())));
        table((0..rows).map(move |row| combined.get(row).to_owned()), &fitness[..rows], origins, config)
    };
    let test = one(folder.join(TEST))?;
    let parts = train.into_iter().map(&mut one).collect::<Result<_>>()?;
    require_usable_rows(task, folder, config, &sources)?;
    let dealt = TaskTables { spec: spec(task, &config.target), parts, test };
    dealt.audit(config, ctx)?;
    Ok((dealt, sources))
}

/// Files beside the prepared ones are likely measurements that somebody expects to be used.
fn warn_unread_files(folder: &Path, ctx: &Context<'_>) -> Result<()> {
    let mut others = folders::csv_files(folder)?;
    others.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(TRAIN)));
    others.retain(|path| !path.ends_with(TEST));
    if !others.is_empty() {
        let names: Vec<_> = others.iter().filter_map(|path| path.file_name()).map(|n| n.to_string_lossy()).collect();
        ctx.warn(format_args!("{}: not read beside prepared data: {}", folder.display(), quoted(&names)));
    }
    Ok(())
}

/// An error with all reasons if no file has a usable row.
pub(crate) fn require_usable_rows(task: &str, folder: &Path, config: &Config, sources: &[Source]) -> Result<()> {
    fedplug_tables::require_usable_rows(task, sources).map_err(|error| {
        let chains = match config.chains {
            Chains::Paired => "`heavy`, `light`",
            Chains::Heavy => "`heavy`",
            Chains::Light => "`light`",
            Chains::Any => "`heavy` or `light`",
        };
        let help = format!("a row needs {chains} and a finite number in `{}`", config.target);
        let error = error.in_file(folder, None).help(help);
        if sources.is_empty() { error.because_of("the folder holds no CSV file") } else { error }
    })
}
