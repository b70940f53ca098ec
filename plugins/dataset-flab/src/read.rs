//! One CSV file, row after row: what a model would read of each, and a count of those that none can use.

use std::path::Path;

use csv::StringRecord;
use plugin_api::{Context, Error, Result, Source};

use crate::folders::quoted;
use crate::pandas;
use crate::text::{Opened, open, visible};

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
    /// Measurements, of which all rows are given that the published preparation keeps: the unusable ones too, and
    /// those with too few fields, whose others are then empty.
    Whole,
    /// What was prepared, of which the usable rows are given. The column `combined`, if there is one, stands for the
    /// chains. A file without rows is one of a client without rows.
    Prepared,
}

/// Why a row is left out, in the order in which reasons are told.
#[derive(Clone, Copy)]
enum Reason {
    Ragged,
    NoChain,
    NoFitness,
    NotFinite,
}

const REASONS: [&str; 4] =
    ["wrong number of columns", "no heavy or light chain", "no fitness value", "fitness is not a finite number"];

/// After how many rows it is asked whether to stop.
const ROWS_PER_CHECK: usize = 1 << 16;

/// Reads a file, gives each row to `row` with what a model would read of it, if that is usable, and warns of the rows
/// that are not. The columns' names are returned, none of a file that is left out: one without rows or without a needed
/// column. Whether the task can do without is for the caller to judge.
pub(crate) fn read(
    path: &Path,
    target: &str,
    form: Form,
    ctx: &Context<'_>,
    mut row: impl FnMut(&StringRecord, Option<Antibody<'_>>),
) -> Result<(Vec<String>, Source)> {
    let Opened { reader, sha256, guessed } = open(path)?;
    let mut source = Source { path: path.to_owned(), sha256, ..Source::default() };
    let shown = path.display();
    if guessed {
        ctx.warn(format_args!("{shown}: neither UTF-8 nor UTF-16, read as Latin-1"));
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).buffer_capacity(1 << 16).from_reader(reader);
    let bad = |e: csv::Error| {
        Error::data("is not a CSV file").in_file(path, e.position().map(csv::Position::line)).because(&e)
    };
    let names = names(reader.headers().map_err(bad)?, target);
    let columns = match Columns::of(&names, target, form) {
        Ok(columns) => columns,
        Err(missing) => {
            let rows = reader.records().count();
            let empty = rows == 0 && names.iter().all(String::is_empty);
            let reason =
                if empty { "it is empty".to_owned() } else { format!("it has no column {}", quoted(&missing)) };
            if form == Form::Prepared {
                return Err(Error::data(reason).in_file(path, None).help("prepare the raw data again"));
            }
            let detail = if empty { String::new() } else { format!(", only {}", quoted(&names)) };
            ctx.warn(format_args!("{shown}: the file is left out: {reason}{detail}"));
            source.skipped.push((reason, rows));
            return Ok((Vec::new(), source));
        }
    };

    let (mut skipped, mut record) = ([0; REASONS.len()], StringRecord::new());
    for done in 0_usize.. {
        if done.is_multiple_of(ROWS_PER_CHECK) {
            ctx.check()?;
        }
        if !reader.read_record(&mut record).map_err(bad)? {
            break;
        }
        let blank = record.len() == 1 && names.len() > 1 && record[0].trim().is_empty();
        let short = form == Form::Whole && record.len() < names.len();
        if blank {
            continue;
        } else if record.len() != names.len() && !short {
            skipped[Reason::Ragged as usize] += 1;
            continue;
        }
        let used = columns.antibody(&record, |antibody| {
            source.rows += 1;
            row(&record, Some(antibody));
        });
        if let Err(reason) = used {
            skipped[reason as usize] += 1;
            if form == Form::Whole {
                row(&record, None);
            }
        }
    }
    tell(&mut source, skipped, form, ctx);
    Ok((names, source))
}

/// Puts down and tells how many rows were left out, and why.
fn tell(source: &mut Source, skipped: [usize; REASONS.len()], form: Form, ctx: &Context<'_>) {
    let shown = source.path.display();
    source.skipped = REASONS.map(str::to_owned).into_iter().zip(skipped).filter(|(_, count)| *count > 0).collect();
    let left_out: usize = skipped.iter().sum();
    let told = match &source.skipped[..] {
        [] if source.rows > 0 || form == Form::Prepared => return,
        [] => {
            ctx.warn(format_args!("{shown}: the file is left out: it has no row"));
            source.skipped.push(("it has no row".to_owned(), 0));
            return;
        }
        [(reason, _)] => reason.clone(),
        many => many.iter().map(|(reason, count)| format!("{reason} ({count})")).collect::<Vec<_>>().join(", "),
    };
    ctx.warn(format_args!("{shown}: {left_out} of {} rows left out: {told}", left_out + source.rows));
}

/// The columns' names, without what does not show in those that are looked for.
fn names(header: &StringRecord, target: &str) -> Vec<String> {
    let wanted = ["heavy", "light", "combined", target];
    let name = |name: &str| {
        let known = wanted.iter().find(|wanted| visible(wanted) == visible(name));
        known.map_or_else(|| name.trim().to_owned(), |known| (*known).to_owned())
    };
    header.iter().map(name).collect()
}

/// Where the needed columns stand.
struct Columns {
    chains: Chains,
    fitness: usize,
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
            (Some(chains), Some(fitness)) => Ok(Self { chains, fitness, missing }),
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
                let fitness = number(&field(self.fitness))?;
                give(Antibody { combined: &[&heavy, "|", &light], fitness });
            }
            Chains::Combined(combined) => {
                let combined = field(combined);
                if combined.is_empty() || combined.starts_with('|') || combined.ends_with('|') {
                    return Err(Reason::NoChain);
                }
                let fitness = number(&field(self.fitness))?;
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
    // By way of 64 bits, so that a number is the same before and after pandas printed it. One that is too large for 32
    // becomes infinite, and is as useless.
    text.parse::<f64>().ok().map(|value| value as f32).filter(|value| value.is_finite()).ok_or(Reason::NotFinite)
}

#[cfg(test)]
mod tests;
