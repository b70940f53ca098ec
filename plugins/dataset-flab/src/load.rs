//! A task's rows as tables, from measurements or from what was prepared of them.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use fedplug_tables::text::Texts;
use fedplug_tables::{Deal, quoted, scale_of};
use plugin_api::{Column, Context, Error, Result, Scale, Source, Table, TaskSpec};

use crate::chains::Chains;
use crate::config::{Config, Split};
use crate::folders::{self, TEST, TRAIN};
use crate::read::{Form, read};
use crate::sheets::Sheets;
use crate::split;

/// A task's measurements, and where each row goes. Tables are made of them when the first client asks for its own: a
/// preparation needs none.
pub(crate) struct Measured {
    pub(crate) sheets: Sheets,
    pub(crate) deal: Deal,
}

/// A task as it is dealt: one training table for each part, and the test table.
pub(crate) struct Dealt {
    pub(crate) spec: TaskSpec,
    pub(crate) parts: Vec<Table>,
    pub(crate) test: Table,
}

impl Measured {
    /// How many rows each part's table and the test table will have.
    pub(crate) fn counts(&self, config: &Config) -> (Vec<usize>, usize) {
        let count = |rows: &[usize]| usable(&self.sheets.fitness, rows.iter().copied(), config).count();
        (self.parts(config).into_iter().map(count).collect(), count(&self.deal.test))
    }

    /// How the tables' targets are standardised.
    pub(crate) fn scale(&self, config: &Config) -> Scale {
        let fitness = &self.sheets.fitness;
        let values = |rows: &[usize]| usable(fitness, rows.iter().copied(), config).map(|row| fitness[row]).collect();
        let parts: Vec<Vec<f32>> = self.parts(config).into_iter().map(values).collect();
        scale_of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn parts(&self, config: &Config) -> Vec<&[usize]> {
        match config.sites() {
            None => vec![&self.deal.train[..]],
            Some(_) => self.deal.parts().collect(),
        }
    }

    /// The tables. The last one that is made takes the measurements themselves, so that they are gone by the time its
    /// column's memory is moved to where it stays.
    pub(crate) fn tables(self, task: &str, config: &Config) -> Result<Dealt> {
        let parts: Vec<Vec<usize>> = self.parts(config).into_iter().map(<[_]>::to_vec).collect();
        let Self { sheets, deal } = self;
        let sheets = Rc::new(sheets);
        let make = |sheets: Rc<Sheets>, rows: Vec<usize>| {
            let rows: Vec<usize> = usable(&sheets.fitness, rows.into_iter(), config).collect();
            let fitness: Vec<f32> = rows.iter().map(|&row| sheets.fitness[row]).collect();
            table(rows.into_iter().map(move |row| sheets.combined(row)), &fitness, config)
        };
        let test = make(Rc::clone(&sheets), deal.test)?;
        let (count, mut sheets) = (parts.len(), Some(sheets));
        let mut tables = Vec::with_capacity(count);
        for (place, rows) in parts.into_iter().enumerate() {
            let sheets = if place + 1 == count { sheets.take() } else { sheets.clone() };
            tables.extend(sheets.map(|sheets| make(sheets, rows)).transpose()?);
        }
        let mut dealt = Dealt { spec: spec(task, &config.target), parts: tables, test };
        if config.standardise {
            fedplug_tables::standardise(&mut dealt.parts, &mut dealt.test, &config.target)?;
        }
        Ok(dealt)
    }
}

/// The usable rows among these, in this order. It is random, so the first ones are a random subset.
fn usable(fitness: &[f32], rows: impl Iterator<Item = usize>, config: &Config) -> impl Iterator<Item = usize> {
    rows.filter(|&row| !fitness[row].is_nan()).take(config.max_samples.map_or(usize::MAX, usize::from))
}

fn table<S: AsRef<str>>(combined: impl Iterator<Item = S>, fitness: &[f32], config: &Config) -> Result<Table> {
    Table::new().with("combined", Column::text(combined))?.with(&config.target, Column::f32(fitness))
}

/// The model reads one column of a task and predicts one.
pub(crate) fn spec(task: &str, target: &str) -> TaskSpec {
    TaskSpec { name: task.to_owned(), inputs: vec!["combined".to_owned()], target: target.to_owned() }
}

/// Reads a task's measurements, and splits and deals them.
pub(crate) fn raw(task: &str, folder: &Path, config: &Config, ctx: &Context<'_>) -> Result<(Measured, Vec<Source>)> {
    if config.split() == Split::Reference && config.chains != Chains::Paired {
        let error = Error::config("the published preparation knows pairs alone").at_key("chains");
        return Err(error.help("`split = \"random\"` takes single chains"));
    }
    folders::tell_skipped(folder, ctx)?;
    let (sheets, sources) = Sheets::read(folder, config, ctx)?;
    check_usable(task, folder, config, &sources)?;
    let deal = split::deal(sheets.rows(), task, config, ctx)?;
    Ok((Measured { sheets, deal }, sources))
}

/// Reads what was prepared of a task, as it was split and dealt.
pub(crate) fn prepared(task: &str, folder: &Path, config: &Config, ctx: &Context<'_>) -> Result<(Dealt, Vec<Source>)> {
    let train = match config.sites() {
        None => vec![folder.join(TRAIN)],
        Some(sites) => folders::client_files(folder, sites.count.get())?,
    };
    tell_others(folder, ctx)?;
    let mut sources = Vec::new();
    let mut one = |path: PathBuf| {
        let (mut combined, mut fitness) = (Texts::default(), Vec::new());
        let (_, source) = read(&path, config, Form::Prepared, ctx, |_, _, antibody| {
            if let Some(antibody) = antibody {
                combined.push(antibody.combined);
                fitness.push(antibody.fitness);
            }
        })?;
        sources.push(source);
        let rows = usable(&fitness, 0..fitness.len(), config).count();
        // All usable rows are given, so the wanted ones are the first. The texts go with the iterator, before the
        // column's memory is moved to where it stays.
        table((0..rows).map(move |row| combined.get(row).to_owned()), &fitness[..rows], config)
    };
    let test = one(folder.join(TEST))?;
    let parts = train.into_iter().map(&mut one).collect::<Result<_>>()?;
    check_usable(task, folder, config, &sources)?;
    Ok((Dealt { spec: spec(task, &config.target), parts, test }, sources))
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
