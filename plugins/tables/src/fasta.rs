//! Reads FASTA records as rows: single chains, or heavy and light chains paired by their names.

use std::io::BufRead;
use std::path::Path;

use csv::{Position, StringRecord};
use plugin_api::{Error, Result};

use crate::chain_names::{Chain, ChainName, parse_name};
use crate::text::strip_invisible;

mod pairs;
#[cfg(test)]
mod tests;

/// The columns that the records of a FASTA file fill.
#[derive(Clone, Copy, Debug)]
pub enum FastaColumns<'a> {
    /// A row is a heavy chain and its light chain.
    ///
    /// They are paired by their names, wherever they are in the file: `ab0_H` and `ab0_L`, `ab0 heavy` and `ab0 light`,
    /// `ab0|VH` and `ab0|VL`; `kappa` and `lambda` mean light chains. Records whose names say no chain are paired if one
    /// follows the other and both have the same name, the heavy chain first. A record may also contain both chains, with a
    /// `|` between them.
    Pairs {
        /// The column of heavy chains.
        heavy: &'a str,
        /// The column of light chains.
        light: &'a str,
        /// Whether a single chain is a row too. It is a heavy chain unless its name says otherwise.
        allow_single: bool,
    },
    /// Each record is a row. If the column's name says a chain, records of the other one are errors.
    Single(&'a str),
}

impl<'a> FastaColumns<'a> {
    /// What fills these text columns: one of any name, or two whose names say a heavy and a light chain. `None` for others.
    pub fn of_columns(columns: &[&'a str]) -> Option<Self> {
        match *columns {
            [column] => Some(Self::Single(column)),
            [one, other] => match (Chain::of_column(one)?, Chain::of_column(other)?) {
                (Chain::Heavy, Chain::Light) => Some(Self::Pairs { heavy: one, light: other, allow_single: false }),
                (Chain::Light, Chain::Heavy) => Some(Self::Pairs { heavy: other, light: one, allow_single: false }),
                _ => None,
            },
            _ => None,
        }
    }

    /// The columns of the rows: the names of the records, then the chains.
    pub(crate) fn columns(self) -> Vec<String> {
        match self {
            Self::Pairs { heavy, light, .. } => vec![NAME, LIGHT_NAME, heavy, light],
            Self::Single(column) => vec![if column == NAME { "header" } else { NAME }, column],
        }
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// All rows of a file, in the order of their first records. A row's position holds the line of its first record.
    ///
    /// # Errors
    /// If the file cannot be read or is not FASTA, or a record does not fit the columns.
    pub(crate) fn rows(self, path: &Path, reader: impl BufRead) -> Result<Vec<StringRecord>> {
        let records = read(path, reader)?;
        match self {
            Self::Pairs { allow_single, .. } => pairs::rows(path, &records, allow_single),
            Self::Single(column) => pairs::single_rows(path, &records, Chain::of_column(column)),
        }
    }
}

/// The column with the names of single records and of heavy chains.
const NAME: &str = "name";
/// The column with the names of light chains.
const LIGHT_NAME: &str = "light_name";

/// Whether a file is FASTA, by its name or its first character.
pub(crate) fn is_fasta(path: &Path, start: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let named = [".fasta", ".fa", ".faa", ".fas"].iter().any(|ending| name.ends_with(ending));
    named || start.trim_ascii_start().first() == Some(&b'>')
}

#[derive(Debug, PartialEq)]
struct Record {
    name: String,
    sequence: String,
    /// The line of the name, counted from 1.
    line: u64,
}

impl Record {
    /// Whether the record contains both chains.
    fn has_both(&self) -> bool {
        self.sequence.contains('|')
    }

    fn chain_name(&self, path: &Path) -> Result<ChainName> {
        parse_name(&self.name).ok_or_else(|| self.error(path, "the name says both a heavy and a light chain"))
    }

    fn error(&self, path: &Path, what: impl std::fmt::Display) -> Error {
        Error::data(format!("`{}`: {what}", self.name)).in_file(path, Some(self.line))
    }

    fn row(&self, fields: &[&str]) -> StringRecord {
        let mut row = StringRecord::from(fields);
        let mut position = Position::new();
        position.set_line(self.line);
        row.set_position(Some(position));
        row
    }
}

/// Reads all records. Sequences lose white space, invisible characters and the `*` at their ends.
fn read(path: &Path, reader: impl BufRead) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    for (line, number) in reader.lines().zip(1..) {
        let line = line.map_err(|e| Error::io(path, &e))?;
        if let Some(name) = line.trim_start().strip_prefix('>') {
            records.push(Record { name: name.trim().to_owned(), sequence: String::new(), line: number });
            continue;
        }
        let letters = strip_invisible(&line);
        match records.last_mut() {
            Some(record) => record.sequence += &letters,
            None if letters.is_empty() => {}
            None => {
                let error = Error::data("a sequence before the first `>`").in_file(path, Some(number));
                let help = "files that end in .fasta or .fa, or begin with `>`, are read as FASTA; all others as CSV";
                return Err(error.help(help));
            }
        }
    }
    for record in &mut records {
        // `*` marks the end of a translated sequence.
        let length = record.sequence.trim_end_matches('*').len();
        record.sequence.truncate(length);
        if record.sequence.is_empty() {
            return Err(record.error(path, "no sequence"));
        }
    }
    Ok(records)
}
