//! One CSV file, row after row: what a model would read of each, and a count of those that none can use.

use std::path::Path;

use csv::StringRecord;
use fedplug_tables::text::visible;
use fedplug_tables::{CsvFile, Rules, Unusable};
use plugin_api::{Context, Error, Result, Source};

use crate::pandas;

/// What a model reads of a row, and what it learns to predict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Antibody<'a> {
    /// Texts that together are the heavy chain, `|` and the light chain.
    pub(crate) combined: &'a [&'a str],
    pub(crate) fitness: f32,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Measurements, of which the usable rows are given.
    Raw,
    /// Measurements, of which all rows are given that the published preparation keeps: the unusable ones too, those of a
    /// file without the target among them, and those with too few fields, whose others are then empty.
    Whole,
    /// What was prepared, of which the usable rows are given. The column `combined`, if there is one, stands for the
    /// chains. A file without rows is one of a client without rows.
    Prepared,
}

/// Why a row is left out, in the order in which reasons are told.
#[derive(Clone, Copy)]
enum Reason {
    NoChain,
    NoFitness,
    NotFinite,
}

const REASONS: [&str; 3] = ["no heavy or light chain", "no fitness value", "fitness is not a finite number"];

/// Reads a file, gives each row to `row` with the number of columns and what a model would read of it, if that is usable,
/// and warns of the rows that are not. The columns' names are returned, none of a file that is left out: one without rows or without a needed
/// column. Whether the task can do without is for the caller to judge.
pub(crate) fn read(
    path: &Path,
    target: &str,
    form: Form,
    ctx: &Context<'_>,
    mut row: impl FnMut(&StringRecord, usize, Option<Antibody<'_>>),
) -> Result<(Vec<String>, Source)> {
    let mut file = CsvFile::open(path, b',', ctx)?;
    let names = file.names(&["heavy", "light", "combined", target]);
    let columns = match Columns::of(&names, target, form) {
        Ok(columns) => columns,
        Err(missing) => {
            let lack = file.lack(&names, &missing);
            if form == Form::Prepared {
                return Err(Error::data(lack.reason).in_file(path, None).help("prepare the raw data again"));
            }
            return Ok((Vec::new(), file.leave_out(lack, ctx)));
        }
    };
    if columns.fitness.is_none() {
        ctx.warn(format_args!("{}: no column `{target}`; its rows count in the split as published", path.display()));
    }
    let whole = form == Form::Whole;
    let rules = Rules { reasons: &REASONS, short_rows: whole, may_be_empty: form == Form::Prepared };
    let source = file.rows(rules, ctx, |record| {
        let used = columns.antibody(record, |antibody| row(record, names.len(), Some(antibody)));
        if used.is_err() && whole {
            row(record, names.len(), None);
        }
        used.map_err(|reason| Unusable::Row(reason as usize))
    })?;
    Ok((names, source))
}

/// Where the needed columns stand.
struct Columns {
    chains: Chains,
    /// None where the rows count without one.
    fitness: Option<usize>,
    /// Whether a text that pandas takes for a missing value is one.
    missing: fn(&str) -> bool,
}

enum Chains {
    Apart { heavy: usize, light: usize },
    Combined(usize),
}

impl Columns {
    /// The needed columns among these, or the names of those that are missing.
    fn of<'a>(names: &[String], target: &'a str, form: Form) -> std::result::Result<Self, Vec<&'a str>> {
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let combined = place("combined").filter(|_| form == Form::Prepared).map(Chains::Combined);
        let apart = || Some(Chains::Apart { heavy: place("heavy")?, light: place("light")? });
        let missing = if form == Form::Whole { pandas::is_missing } else { str::is_empty };
        match (combined.or_else(apart), place(target)) {
            (Some(chains), fitness) if fitness.is_some() || form == Form::Whole => {
                Ok(Self { chains, fitness, missing })
            }
            _ => Err(["heavy", "light", target].into_iter().filter(|name| place(name).is_none()).collect()),
        }
    }

    /// Gives what a model would read of a row to `give`, or says why the row is of no use.
    fn antibody(&self, record: &StringRecord, give: impl FnOnce(Antibody<'_>)) -> std::result::Result<(), Reason> {
        let field =
            |place: usize| visible(record.get(place).filter(|field| !(self.missing)(field)).unwrap_or_default());
        match self.chains {
            Chains::Apart { heavy, light } => {
                let (heavy, light) = (field(heavy), field(light));
                if heavy.is_empty() || light.is_empty() {
                    return Err(Reason::NoChain);
                }
                let fitness = number(&self.fitness.map(field).unwrap_or_default())?;
                give(Antibody { combined: &[&heavy, "|", &light], fitness });
            }
            Chains::Combined(combined) => {
                let combined = field(combined);
                if combined.is_empty() || combined.starts_with('|') || combined.ends_with('|') {
                    return Err(Reason::NoChain);
                }
                let fitness = number(&self.fitness.map(field).unwrap_or_default())?;
                give(Antibody { combined: &[&combined], fitness });
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> std::result::Result<f32, Reason> {
    if text.is_empty() {
        return Err(Reason::NoFitness);
    }
    fedplug_tables::number(text).ok_or(Reason::NotFinite)
}

#[cfg(test)]
mod tests;
