//! Reads one CSV file of measurements and counts the rows that cannot be used.

use std::path::Path;

use csv::StringRecord;
use plugin_api::{Context, Error, Result, Source};

use crate::open::{NotATable, open_or_explain};
use crate::records::RecordReader;
use crate::text::{strip_invisible, trim_invisible};
use crate::{ROWS_PER_CHECK, not_csv, quoted};

mod skipped;
#[cfg(test)]
mod tests;

use skipped::Skipped;
pub use skipped::require_usable_rows;

/// A CSV file whose header has been read.
pub struct CsvFile {
    source: Source,
    header: StringRecord,
    records: Option<RecordReader>,
    delimiter: u8,
    /// Whether the file's name asks for tabs between columns.
    tab_separated: bool,
    /// Why the file is not a table, if it is not.
    unreadable: Option<String>,
}

/// Why a file without the required columns is skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissingColumns {
    /// Why the file cannot be used.
    pub reason: String,
    /// The columns that it has instead.
    detail: String,
    /// What to do about it.
    advice: String,
    /// The number of its rows.
    rows: usize,
}

impl MissingColumns {
    /// Adds advice about the columns, unless something else is wrong with the file.
    #[must_use]
    pub fn with_advice(mut self, advice: &str) -> Self {
        if !self.detail.is_empty() {
            self.advice = format!("; {advice}");
        }
        self
    }
}

/// Which rows are accepted.
#[derive(Clone, Copy, Debug)]
pub struct RowPolicy<'a> {
    /// The reasons for skipping a row, in the order of the report. A wrong number of columns comes first.
    pub reasons: &'a [String],
    /// Whether rows with too few fields are accepted.
    pub allow_short_rows: bool,
    /// Whether a file without rows is accepted without a warning.
    pub allow_empty: bool,
}

/// Why a row is not used.
#[derive(Clone, Debug)]
pub enum RowError {
    /// It is skipped, for the reason with this index in [`RowPolicy::reasons`].
    Skip(usize),
    /// Reading stops with this error.
    Fatal(Error),
}

impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// A row with more lines is probably many rows after an unclosed quote.
const MAX_LINES: usize = 10;

/// The separators that are tried to explain a header without the required columns.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

impl CsvFile {
    /// Opens a file and reads its header. `delimiter` separates columns, unless the file's name ends in `.tsv` or `.tab`.
    /// Warns if the encoding had to be guessed. A file that is not a table has no columns, and
    /// [`missing_columns`](Self::missing_columns) says why.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(path: &Path, delimiter: u8, ctx: &Context<'_>) -> Result<Self> {
        let mut header = StringRecord::new();
        let source = |sha256| Source { path: path.to_owned(), sha256, ..Source::default() };
        let opened = match open_or_explain(path)? {
            Ok(opened) => opened,
            Err(NotATable { sha256, reason }) => {
                let (source, unreadable) = (source(sha256), Some(reason));
                return Ok(Self { source, header, records: None, delimiter, tab_separated: false, unreadable });
            }
        };
        if let Some(encoding_warning) = opened.encoding_warning {
            ctx.warn(format_args!("{}: {encoding_warning}", path.display()));
        }
        let delimiter = if opened.tab_separated { b'\t' } else { delimiter };
        let mut records = RecordReader::new(opened.reader, delimiter);
        records.next(&mut header).map_err(|e| not_csv(path, &e))?;
        let (source, records) = (source(opened.sha256), Some(records));
        Ok(Self { source, header, records, delimiter, tab_separated: opened.tab_separated, unreadable: None })
    }

    /// The names of the columns. A name that equals a wanted one but for white space and invisible characters is replaced by
    /// it.
    pub fn names(&self, wanted: &[&str]) -> Vec<String> {
        let name = |name: &str| {
            let exact = wanted.iter().find(|wanted| **wanted == name.trim());
            let known = exact.or_else(|| wanted.iter().find(|wanted| strip_invisible(wanted) == strip_invisible(name)));
            known.map_or_else(|| name.trim().to_owned(), |known| (*known).to_owned())
        };
        self.header.iter().map(name).collect()
    }

    /// Checks that the columns with these indices, of all with these [`names`](Self::names), have no namesakes.
    ///
    /// # Errors
    /// If one has, since either may be meant.
    pub fn check_unique(&self, names: &[String], columns: impl IntoIterator<Item = usize>) -> Result<()> {
        check_unique(&self.source.path, names, columns)
    }

    /// Explains why a file with columns of these names cannot be used: it lacks the `missing` ones, or is not a table.
    pub fn missing_columns(&mut self, names: &[String], missing: &[&str]) -> MissingColumns {
        if let Some(reason) = self.unreadable.take() {
            return MissingColumns { reason, ..MissingColumns::default() };
        }
        let (mut rows, mut record) = (0, StringRecord::new());
        while self.records.as_mut().is_some_and(|records| records.next(&mut record).unwrap_or_default()) {
            rows += 1;
        }
        if rows == 0 && names.iter().all(String::is_empty) {
            return MissingColumns { reason: "it is empty".to_owned(), ..MissingColumns::default() };
        }
        let reason = format!("it has no column {}", quoted(missing));
        if let Some(other) = self.other_delimiter(missing) {
            let (ours, other) = (shown(self.delimiter), shown(other));
            let advice = match self.tab_separated {
                true => "but its name says tabs; rename it to `.csv`".to_owned(),
                false => format!("not `{ours}`; set `delimiter = \"{other}\"`"),
            };
            let reason = format!("its columns are separated by `{other}`, {advice}");
            return MissingColumns { reason, rows, ..MissingColumns::default() };
        }
        MissingColumns { reason, detail: format!(", only {}", quoted(names)), rows, ..MissingColumns::default() }
    }

    /// The separator that would split the header into the missing columns.
    fn other_delimiter(&self, missing: &[&str]) -> Option<u8> {
        let header = self.header.iter().collect::<Vec<_>>().join(&char::from(self.delimiter).to_string());
        let has = |delimiter: u8, name: &str| {
            let mut names = header.split(char::from(delimiter)).map(|name| name.replace('"', ""));
            names.any(|other| strip_invisible(&other) == strip_invisible(name))
        };
        let others = DELIMITERS.into_iter().filter(|delimiter| *delimiter != self.delimiter);
        others.into_iter().find(|delimiter| missing.iter().all(|name| has(*delimiter, name)))
    }

    /// Skips the whole file with a warning, and returns it as a source without rows.
    pub fn skip(
        mut self,
        MissingColumns { reason, detail, advice, rows }: MissingColumns,
        ctx: &Context<'_>,
    ) -> Source {
        ctx.warn(format_args!("{}: file skipped: {reason}{detail}{advice}", self.source.path.display()));
        self.source.skipped.push((reason + &advice, rows));
        self.source
    }

    /// Calls `row` for each row, which decides whether it is used, and warns of those that are not. A row may have more
    /// fields than the header if they are empty, and fewer if the missing ones have no name. A record's position holds the
    /// line on which it begins.
    ///
    /// # Errors
    /// If the file is not CSV, the call is cancelled, or `row` returns [`RowError::Fatal`].
    pub fn rows(
        self,
        rules: RowPolicy<'_>,
        ctx: &Context<'_>,
        mut row: impl FnMut(&StringRecord) -> Result<(), RowError>,
    ) -> Result<Source> {
        let Self { mut source, header, records, .. } = self;
        let Some(mut records) = records else { return Ok(source) };
        let is_empty = |field: &str| trim_invisible(field).is_empty();
        let named = (0..header.len()).rev().find(|&column| !is_empty(&header[column])).map_or(0, |last| last + 1);
        let mut skipped = Skipped::new(rules.reasons);
        let (mut record, mut unclosed) = (StringRecord::new(), None);
        for index in 0_usize.. {
            if index.is_multiple_of(ROWS_PER_CHECK) {
                ctx.check()?;
            }
            if !records.next(&mut record).map_err(|e| not_csv(&source.path, &e))? {
                break;
            }
            if record.len() == 1 && header.len() > 1 && is_empty(&record[0]) {
                continue;
            }
            if record.len() > header.len() && record.iter().skip(header.len()).all(is_empty) {
                record.truncate(header.len());
            }
            let used = if record.len() > header.len() || record.len() < named && !rules.allow_short_rows {
                Err(0)
            } else {
                match row(&record) {
                    Ok(()) => Ok(()),
                    Err(RowError::Skip(reason)) => Err(reason + 1),
                    Err(RowError::Fatal(error)) => return Err(error),
                }
            };
            match used {
                Ok(()) => source.rows += 1,
                Err(reason) => skipped.add(reason, &record),
            }
            let lines = 1 + memchr::memchr_iter(b'\n', record.as_slice().as_bytes()).count();
            if unclosed.is_none() && lines > if used.is_ok() { MAX_LINES } else { 1 } {
                unclosed = Some((line(&record), lines));
            }
        }
        if let Some((line, lines)) = unclosed {
            let shown = source.path.display();
            ctx.warn(format_args!("{shown}:{line}: this row spans {lines} lines; is a quote not closed?"));
        }
        skipped.report(&mut source, rules.allow_empty, ctx);
        Ok(source)
    }
}

/// The line on which a record begins.
fn line(record: &StringRecord) -> u64 {
    record.position().map_or(0, csv::Position::line)
}

/// A separator as in a TOML string.
fn shown(delimiter: u8) -> String {
    if delimiter == b'\t' { "\\t".to_owned() } else { char::from(delimiter).to_string() }
}

/// Checks that the columns with these indices have no namesakes.
///
/// # Errors
/// If one has, with the file and both columns, counted from 1.
pub(crate) fn check_unique(path: &Path, names: &[String], columns: impl IntoIterator<Item = usize>) -> Result<()> {
    for column in columns {
        let same = |&other: &usize| other != column && names[other] == names[column];
        if let Some(other) = (0..names.len()).find(same) {
            let (first, second) = (column.min(other) + 1, column.max(other) + 1);
            let error = Error::data(format!("columns {first} and {second} are both named `{}`", names[column]));
            return Err(error.in_file(path, Some(1)).help("rename or remove one of them"));
        }
    }
    Ok(())
}
