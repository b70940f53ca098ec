//! One CSV file, row after row: what a model would read of each, and a count of those that none can use.

use std::path::Path;

use csv::StringRecord;
use fedplug_tables::{CsvFile, LetterCounts, NumberError, RowError, RowPolicy, parse_number};
use plugin_api::{Context, Error, Result, Source};

use crate::chains::{ChainColumns, Chains, MissingChain};
use crate::config::Config;

/// What a model reads of a row, and what it learns to predict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Antibody<'a> {
    /// TextBuffer that together are what [`Chains`] says.
    pub(crate) combined: &'a [&'a str],
    pub(crate) fitness: f32,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Measurements, of which the usable rows are given.
    Raw,
    /// Measurements, of which all rows are given that the published preparation keeps: the unusable ones too, those of a
    /// file without the target among them, and those with too few fields, whose others are then empty.
    KeepUnusable,
    /// What was prepared, of which the usable rows are given. The column `combined`, if there is one, stands for the
    /// chains. A file without rows is one of a client without rows.
    Prepared,
}

/// Reads a file, gives each row to `row` with the number of columns and what a model would read of it, if that is usable,
/// and warns of the rows that are not. The columns' names are returned, none of a file that is skipped: one without rows or
/// without a needed column. Whether the task can do without is for the caller to judge.
pub(crate) fn read(
    path: &Path,
    config: &Config,
    form: ReadMode,
    ctx: &Context<'_>,
    mut row: impl FnMut(&StringRecord, usize, Option<Antibody<'_>>),
) -> Result<(Vec<String>, Source)> {
    let target = config.target.as_str();
    let mut file = CsvFile::open(path, config.delimiter, ctx)?;
    let names = file.names(&["heavy", "light", "combined", target]);
    let columns = match Columns::of(&names, config, form) {
        Ok(columns) => columns,
        Err(missing) => {
            let mut lack = file.missing_columns(&names, &missing);
            if form == ReadMode::Prepared {
                return Err(Error::data(lack.reason).in_file(path, None).help("prepare the raw data again"));
            }
            if config.chains == Chains::Paired {
                match missing[..] {
                    ["light"] => lack = lack.with_advice("`chains = \"heavy\"` takes single chains"),
                    ["heavy"] => lack = lack.with_advice("`chains = \"light\"` takes single chains"),
                    _ => {}
                }
            }
            return Ok((Vec::new(), file.skip(lack, ctx)));
        }
    };
    let chains = MissingChain::ALL.map(|lack| lack.advice(config.chains));
    let numbers = NumberError::ALL.map(|lack| lack.reason(target, config.decimal));
    let reasons: Vec<String> = chains.into_iter().chain(numbers).collect();
    if columns.fitness.is_none() {
        ctx.warn(format_args!("{}: no column `{target}`; its rows count in the split as published", path.display()));
    }
    let whole = form == ReadMode::KeepUnusable;
    let rules = RowPolicy { reasons: &reasons, allow_short_rows: whole, allow_empty: form == ReadMode::Prepared };
    let mut letters = LetterCounts::default();
    let source = file.rows(rules, ctx, |record| {
        let used = columns.antibody(record, config, |antibody| row(record, names.len(), Some(antibody)));
        match used {
            Ok(()) => letters.add(config.chains.fields(columns.chains, |place| record.get(place).unwrap_or_default())),
            Err(_) if whole => row(record, names.len(), None),
            Err(_) => {}
        }
        used.map_err(RowError::Skip)
    })?;
    letters.warn(path, ctx);
    Ok((names, source))
}

/// Where the needed columns stand.
struct Columns {
    chains: ChainColumns,
    /// None where the rows count without one.
    fitness: Option<usize>,
}

impl Columns {
    /// The needed columns among these, or the names of those that are missing.
    fn of<'a>(names: &[String], config: &'a Config, form: ReadMode) -> std::result::Result<Self, Vec<&'a str>> {
        let fitness = names.iter().position(|name| *name == config.target);
        match (config.chains.place(names, form == ReadMode::Prepared), fitness) {
            (Ok(chains), fitness) if fitness.is_some() || form == ReadMode::KeepUnusable => {
                Ok(Self { chains, fitness })
            }
            (chains, fitness) => {
                let target = fitness.is_none().then_some(config.target.as_str());
                Err(chains.err().unwrap_or_default().into_iter().chain(target).collect())
            }
        }
    }

    /// Gives what a model would read of a row to `give`; an error is the number of the reason why the row is of no use.
    fn antibody(
        &self,
        record: &StringRecord,
        config: &Config,
        give: impl FnOnce(Antibody<'_>),
    ) -> std::result::Result<(), usize> {
        let field = |place: usize| record.get(place).unwrap_or_default();
        let combined = config.chains.read(self.chains, field).map_err(|lack| lack as usize)?;
        let lack = |lack: NumberError| MissingChain::ALL.len() + lack as usize;
        let fitness = parse_number(self.fitness.map(field).unwrap_or_default(), config.decimal).map_err(lack)?;
        give(Antibody { combined: &combined.parts(), fitness });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
