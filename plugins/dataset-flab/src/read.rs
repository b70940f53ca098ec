//! Reads one CSV file of antibodies and counts the rows that cannot be used.

use std::path::Path;

use csv::StringRecord;
use fedplug_tables::text::{is_missing, trim_invisible};
use fedplug_tables::{ClassNames, Classes, CsvFile, LetterCounts, NumberError, RowError, RowPolicy, parse_number};
use plugin_api::{Context, Error, Result, Source};

use crate::chains::{ChainColumns, Chains, MissingChain};
use crate::config::Config;

/// The input and the target of a usable row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Antibody<'a> {
    /// The parts of the text that a model reads; see [`Chains`].
    pub(crate) combined: &'a [&'a str],
    /// The target; of classes, the number of its class.
    pub(crate) fitness: f32,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Measurements; usable rows are passed on.
    Raw,
    /// Measurements; all rows that the published preparation keeps are passed on: also unusable ones, those of files without
    /// the target, and short ones, whose missing fields are empty.
    KeepUnusable,
    /// Prepared data; usable rows are passed on. The column `combined`, if there is one, replaces the chains. A file without
    /// rows is that of a client without rows.
    Prepared,
}

/// Reads a file and calls `row` for each row with its record, the number of columns and, if it is usable, its antibody. Warns
/// of unusable rows. Returns the columns' names; there are none if the file is skipped for want of a column. The caller checks
/// whether the task has enough rows.
///
/// # Errors
/// If the file cannot be read, a column that is read has a namesake, prepared data lacks a column, or a class is none of those
/// that are listed.
pub(crate) fn read(
    path: &Path,
    config: &Config,
    mode: ReadMode,
    classes: &mut ClassNames,
    ctx: &Context<'_>,
    mut row: impl FnMut(&StringRecord, usize, Option<Antibody<'_>>),
) -> Result<(Vec<String>, Source)> {
    let target = config.target.as_str();
    let mut file = CsvFile::open(path, config.delimiter, ctx)?;
    let names = file.names(&["heavy", "light", "combined", target]);
    let columns = match Columns::of(&names, config, mode) {
        Ok(columns) => columns,
        Err(missing) => {
            let mut reason = file.missing_columns(&names, &missing);
            if mode == ReadMode::Prepared {
                return Err(Error::data(reason.reason).in_file(path, None).help("prepare the raw data again"));
            }
            if config.chains == Chains::Paired {
                match missing[..] {
                    ["light"] => reason = reason.with_advice("`chains = \"heavy\"` accepts single chains"),
                    ["heavy"] => reason = reason.with_advice("`chains = \"light\"` accepts single chains"),
                    _ => {}
                }
            }
            return Ok((Vec::new(), file.skip(reason, ctx)));
        }
    };
    file.check_unique(&names, columns.chains.indices(config.chains).chain(columns.fitness))?;
    let chains = MissingChain::ALL.map(|missing| missing.advice(config.chains));
    let numbers = NumberError::ALL.map(|error| error.reason(target, config.decimal));
    let class = format!("no `{target}`");
    let targets = if config.classes == Classes::No { numbers.to_vec() } else { vec![class] };
    let reasons: Vec<String> = chains.into_iter().chain(targets).collect();
    if columns.fitness.is_none() {
        ctx.warn(format_args!(
            "{}: no column `{target}`; its rows take part in the split, as in the published preparation",
            path.display()
        ));
    }
    let keep = mode == ReadMode::KeepUnusable;
    let policy = RowPolicy { reasons: &reasons, allow_short_rows: keep, allow_empty: mode == ReadMode::Prepared };
    let mut letters = LetterCounts::default();
    let source = file.rows(policy, ctx, |record| {
        let used = columns.antibody(record, config, classes, |antibody| row(record, names.len(), Some(antibody)));
        match &used {
            Ok(()) => {
                letters.add(config.chains.fields(columns.chains, |column| record.get(column).unwrap_or_default()))
            }
            Err(RowError::Skip(_)) if keep => row(record, names.len(), None),
            Err(_) => {}
        }
        used.map_err(|error| match error {
            RowError::Fatal(error) => error.in_file(path, record.position().map(csv::Position::line)).into(),
            skip @ RowError::Skip(_) => skip,
        })
    })?;
    letters.warn(path, ctx);
    Ok((names, source))
}

/// The indices of the required columns.
struct Columns {
    chains: ChainColumns,
    /// `None` if the file has no target, which [`ReadMode::KeepUnusable`] allows.
    fitness: Option<usize>,
}

impl Columns {
    /// The required columns among these, or the names of those that are missing.
    fn of<'a>(names: &[String], config: &'a Config, mode: ReadMode) -> std::result::Result<Self, Vec<&'a str>> {
        let position = |wanted: &str| names.iter().position(|name| name == wanted);
        let fitness = position(&config.target);
        match (config.chains.columns(position, mode == ReadMode::Prepared), fitness) {
            (Ok(chains), fitness) if fitness.is_some() || mode == ReadMode::KeepUnusable => {
                Ok(Self { chains, fitness })
            }
            (chains, fitness) => {
                let target = fitness.is_none().then_some(config.target.as_str());
                Err(chains.err().unwrap_or_default().into_iter().chain(target).collect())
            }
        }
    }

    /// Calls `give` with the antibody of a usable row. The error says why the row is not usable, or why reading stops.
    fn antibody(
        &self,
        record: &StringRecord,
        config: &Config,
        classes: &mut ClassNames,
        give: impl FnOnce(Antibody<'_>),
    ) -> std::result::Result<(), RowError> {
        let field = |column: usize| record.get(column).unwrap_or_default();
        let combined = config.chains.read(self.chains, field).map_err(|missing| RowError::Skip(missing as usize))?;
        let target = self.fitness.map(field).unwrap_or_default();
        let first = MissingChain::ALL.len();
        let fitness = if config.classes == Classes::No {
            parse_number(target, config.decimal).map_err(|error| RowError::Skip(first + error as usize))?
        } else if is_missing(target) {
            return Err(RowError::Skip(first));
        } else {
            classes.number(&config.target, trim_invisible(target))? as f32
        };
        give(Antibody { combined: &combined.parts(), fitness });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
