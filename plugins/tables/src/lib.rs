//! What datasets over tables share, so that they read, audit and split rows alike.
//!
//! This is an ordinary library and not a plugin. Dataset plugins link it; it knows none of them, and nothing of it crosses
//! the boundary to the host.
//!
//! - [`CsvFile`] reads measurements: any encoding, compressed or not, ragged rows, line breaks in quotes. Rows that cannot be
//!   used are skipped; counts are reported by reason.
//! - [`parse_number`] parses a number, and [`text::is_missing`] is the only list of missing values.
//! - [`LetterCounts`] counts letters of chains that are not amino acids.
//! - [`PredictionFile`] reads rows for prediction, CSV or FASTA ([`FastaColumns`]), and skips none.
//! - [`Split`] divides rows into training and test rows, once or into [folds](Fold), and training rows among sites;
//!   [`GroupBy`] says which rows it never separates. Some training rows may be for validation.
//! - [`Audit`] reports what makes scores mean less than they seem to: overlaps of training and test rows, repeated and
//!   contradicting rows, different units.
//! - [`TaskPer`] says which files form a task, and [`task_names`] names the tasks.
//! - [`standardised`] turns targets into standard scores, with the scale of [`scale_of`] or a given one; [`Standardise`] says
//!   which.
//! - [`write_csv`] writes a file that appears complete or not at all.
//! - [`text`] handles missing values and invisible characters.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audit;
mod chain_names;
mod classes;
mod fasta;
mod file;
mod folds;
#[cfg(test)]
mod fuzz;
mod group;
mod holdout;
mod keys;
mod letters;
mod number;
mod open;
mod prediction_file;
mod records;
mod scale;
mod similar;
mod split;
mod standardise;
mod tasks;
pub mod text;
mod write;

use std::path::Path;

pub use audit::{Audit, AuditedTask, warn_identical_files};
pub use classes::{ClassNames, Classes};
pub use fasta::FastaColumns;
pub use file::{CsvFile, MissingColumns, RowError, RowPolicy, require_usable_rows};
pub use folds::Fold;
pub use group::GroupBy;
pub use keys::{deserialize_delimiter, deserialize_one_or_many};
pub use letters::LetterCounts;
pub use number::{DecimalMark, NumberError, parse_number};
pub use open::is_table_file;
use plugin_api::{Error, Result};
pub use prediction_file::PredictionFile;
pub use scale::{note_scale, scale_of, standardised};
pub use split::{Sites, Split, shuffle};
pub use standardise::Standardise;
pub use tasks::{TaskPer, file_stem, is_folder_name, task_names};
pub use write::{RowWriter, write_csv};

/// The default fraction of test rows.
pub const TEST_FRACTION: f64 = 0.2;

/// How many rows are read or written between two checks for cancellation.
const ROWS_PER_CHECK: usize = 1 << 16;

/// The names in backticks, separated by commas.
pub fn quoted(names: &[impl std::fmt::Display]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The sorted names of a folder's entries whose paths `wanted` accepts, without hidden ones.
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

/// The error for a client that a dataset does not have.
pub fn unknown_client(client: &str, names: &[impl std::fmt::Display]) -> Error {
    Error::data(format!("there is no client `{client}`")).help(format!("its clients: {}", quoted(names)))
}

fn not_csv(path: &Path, error: &csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    Error::data("is not a CSV file").in_file(path, line).because(error)
}
