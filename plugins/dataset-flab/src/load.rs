//! A task's rows as tables, from measurements or from what was prepared of them.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use fedplug_tables::quoted;
use fedplug_tables::text::Texts;
use plugin_api::{Column, Context, Result, Source, Table, TaskSpec};

use crate::config::{Config, Split};
use crate::folders::{self, TEST, TRAIN};
use crate::read::{Antibody, Form, read};
use crate::split;

/// A task as it is dealt: one training table for each part, and the test table.
pub(crate) struct Dealt {
    pub(crate) spec: TaskSpec,
    pub(crate) parts: Vec<Table>,
    pub(crate) test: Table,
}

/// Rows in the order in which they were read.
#[derive(Default)]
struct Rows {
    combined: Texts,
    /// Not a number where the row cannot be used.
    fitness: Vec<f32>,
}

impl Rows {
    fn push(&mut self, antibody: Option<Antibody<'_>>) {
        let Antibody { combined, fitness } = antibody.unwrap_or(Antibody { combined: &[], fitness: f32::NAN });
        self.combined.push(combined);
        self.fitness.push(fitness);
    }

    /// The usable rows among these, in this order. It is random, so the first ones are a random subset.
    ///
    /// The last table that is made takes the rows themselves, so that they are gone by the time the column's memory is
    /// moved to where it stays.
    fn table(self: Rc<Self>, rows: impl IntoIterator<Item = usize>, config: &Config) -> Result<Table> {
        let most = config.max_samples.map_or(usize::MAX, usize::from);
        let rows: Vec<usize> = rows.into_iter().filter(|&row| !self.fitness[row].is_nan()).take(most).collect();
        let fitness: Vec<f32> = rows.iter().map(|&row| self.fitness[row]).collect();
        let combined = Column::text(rows.into_iter().map(move |row| Combined { rows: Rc::clone(&self), row }));
        Table::new().with("combined", combined)?.with(&config.target, Column::f32(&fitness))
    }
}

/// The text of one row, which keeps all of them alive.
struct Combined {
    rows: Rc<Rows>,
    row: usize,
}

impl AsRef<str> for Combined {
    fn as_ref(&self) -> &str {
        self.rows.combined.get(self.row)
    }
}

/// The model reads one column of a task and predicts one.
pub(crate) fn spec(task: &str, target: &str) -> TaskSpec {
    TaskSpec { name: task.to_owned(), inputs: vec!["combined".to_owned()], target: target.to_owned() }
}

/// Reads a task's measurements, and splits and deals them.
pub(crate) fn raw(task: &str, folder: &Path, config: &Config, ctx: &Context<'_>) -> Result<(Dealt, Vec<Source>)> {
    let (mut rows, mut sources) = (Rows::default(), Vec::new());
    for path in folders::csv_files(folder)? {
        let (_, source) = read(&path, &config.target, form(config), ctx, |_, antibody| rows.push(antibody))?;
        sources.push(source);
    }
    check_usable(task, folder, config, &sources)?;
    let deal = split::deal(rows.fitness.len(), task, config, ctx)?;
    let rows = Rc::new(rows);
    let table = |indices: &[usize]| Rc::clone(&rows).table(indices.iter().copied(), config);
    let test = table(&deal.test)?;
    let mut parts = match config.sites() {
        None => vec![&deal.train[..]],
        Some(_) => deal.parts().collect(),
    };
    let last = parts.pop().unwrap_or_default();
    let mut parts = parts.into_iter().map(table).collect::<Result<Vec<_>>>()?;
    parts.push(rows.table(last.iter().copied(), config)?);
    Ok((Dealt { spec: spec(task, &config.target), parts, test }, sources))
}

/// Reads what was prepared of a task, as it was split and dealt.
pub(crate) fn prepared(task: &str, folder: &Path, config: &Config, ctx: &Context<'_>) -> Result<(Dealt, Vec<Source>)> {
    let train = match config.sites() {
        None => vec![folder.join(TRAIN)],
        Some(sites) => folders::client_files(folder, sites.count.get())?,
    };
    tell_others(folder, ctx)?;
    let mut sources = Vec::new();
    let mut table = |path: PathBuf| {
        let mut rows = Rows::default();
        let (_, source) = read(&path, &config.target, Form::Prepared, ctx, |_, antibody| rows.push(antibody))?;
        sources.push(source);
        let count = rows.fitness.len();
        Rc::new(rows).table(0..count, config)
    };
    let test = table(folder.join(TEST))?;
    let parts = train.into_iter().map(&mut table).collect::<Result<_>>()?;
    check_usable(task, folder, config, &sources)?;
    Ok((Dealt { spec: spec(task, &config.target), parts, test }, sources))
}

/// How a file of measurements is read for this way to split.
pub(crate) fn form(config: &Config) -> Form {
    match config.split() {
        Split::Random => Form::Raw,
        Split::Reference => Form::Whole,
    }
}

/// Files beside the prepared ones are likely measurements that somebody expects to be used.
fn tell_others(folder: &Path, ctx: &Context<'_>) -> Result<()> {
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
pub(crate) fn check_usable(task: &str, folder: &Path, config: &Config, sources: &[Source]) -> Result<()> {
    fedplug_tables::check_usable(task, sources).map_err(|error| {
        let help = format!("a row needs `heavy`, `light` and a finite number in `{}`", config.target);
        let error = error.in_file(folder, None).help(help);
        if sources.is_empty() { error.because_of("the folder holds no CSV file") } else { error }
    })
}
