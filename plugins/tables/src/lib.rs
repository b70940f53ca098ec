//! What any dataset over tables needs, in one place: so that the same rows are read, counted and split in one way.
//!
//! This is an ordinary library and not a plugin. Dataset plugins link it; it knows none of them, and nothing of it
//! crosses the boundary to the host.
//!
//! - [`CsvFile`] reads measurements: any encoding, packed or not, rows of other widths, line breaks in quotes. What cannot
//!   be used is skipped, counted by reason, and reported.
//! - [`number`] reads a number, and [`text::is_missing`] is the one list of what stands for a missing value.
//! - [`LetterCounts`] counts the letters of chains that are no usual amino acids.
//! - [`PredictionFile`] reads rows to be predicted, CSV or [`FastaColumns`], of which none is skipped.
//! - [`Split`] says at random which rows are for testing, and which of several sites gets which of the others;
//!   [`GroupBy`] says which rows it keeps on one side.
//! - [`Audit`] reports what makes scores mean less than they seem to: test sequences that are trained on, repeated and
//!   contradicting rows, files in different units.
//! - [`TaskPer`] says which files make a task, and [`task_names`] what it is called.
//! - [`standardised`] turns targets into standard scores, by the scale of [`scale_of`].
//! - [`write_csv`] writes a file that appears whole or not at all.
//! - [`text`] holds what is true of text before it is a table.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod chain_names;
mod fasta;
mod file;
mod group;
mod holdout;
mod letters;
mod number;
mod open;
mod prediction_file;
mod records;
mod scale;
mod similar;
mod split;
mod tasks;
#[cfg(test)]
mod testing;
pub mod text;
mod write;

use std::path::Path;

pub use audit::{Audit, warn_identical_files};
pub use fasta::FastaColumns;
pub use file::{CsvFile, MissingColumns, RowError, RowPolicy, require_usable_rows};
pub use group::{GroupBy, sequence_ids};
pub use letters::LetterCounts;
pub use number::{DecimalMark, NumberError, parse_number};
pub use open::is_table_file;
use plugin_api::{Error, Result};
pub use prediction_file::PredictionFile;
pub use records::deserialize_delimiter;
pub use scale::{note_scale, scale_of, standardised};
pub use split::{Sites, Split, shuffle};
pub use tasks::{TaskPer, file_stem, is_folder_name, task_names};
pub use write::{RowWriter, write_csv};

/// The part of the rows to test on where nobody says another.
pub const TEST_FRACTION: f64 = 0.2;

/// After how many rows it is asked whether to stop.
const ROWS_PER_CHECK: usize = 1 << 16;

/// The names in backticks, with commas between them.
pub fn quoted(names: &[impl std::fmt::Display]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The names of what a folder holds, sorted; hidden ones left out.
///
/// # Errors
/// If the folder cannot be read, or a name is not UTF-8.
pub fn list_names(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let io = |e: std::io::Error| Error::io(folder, &e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if wanted(&entry.path()) {
            let name = entry.file_name().into_string();
            names.push(
                name.map_err(|name| Error::data(format!("the name {name:?} is not UTF-8")).in_file(folder, None))?,
            );
        }
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(names)
}

/// What a dataset says that is asked for a client which it does not have.
pub fn unknown_client(client: &str, names: &[impl std::fmt::Display]) -> Error {
    Error::data(format!("there is no client `{client}`")).help(format!("there are {}", quoted(names)))
}

fn not_csv(path: &Path, error: &csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    Error::data("is not a CSV file").in_file(path, line).because(error)
}
