//! Writing CSV files.

use std::fs::{self, File};
use std::path::Path;

use plugin_api::{Context, Error, Result};

use crate::ROWS_PER_CHECK;

/// Writes a file of so many rows that appears whole or not at all. `row` writes the fields of the row of a number, and
/// the record's end.
///
/// # Errors
/// If the file cannot be written, or the call shall stop.
pub fn write_csv(
    path: &Path,
    delimiter: u8,
    header: &[String],
    rows: usize,
    ctx: &Context<'_>,
    row: impl FnMut(usize, &mut csv::Writer<File>) -> csv::Result<()>,
) -> Result<()> {
    let part = path.with_extension("csv.part");
    let written = write_part(&part, delimiter, header, rows, ctx, row);
    let moved = written.and_then(|()| fs::rename(&part, path).map_err(|e| Error::io(path, &e)));
    if moved.is_err() {
        // That it could not be written is what matters, and what is left of it is not the file.
        let _ = fs::remove_file(&part);
    }
    moved
}

fn write_part(
    path: &Path,
    delimiter: u8,
    header: &[String],
    rows: usize,
    ctx: &Context<'_>,
    mut row: impl FnMut(usize, &mut csv::Writer<File>) -> csv::Result<()>,
) -> Result<()> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut builder = csv::WriterBuilder::new();
    let writer = builder.delimiter(delimiter).buffer_capacity(1 << 16).from_path(path);
    let mut writer = writer.map_err(|e| io(e.into()))?;
    writer.write_record(header).map_err(|e| io(e.into()))?;
    for done in 0..rows {
        if done.is_multiple_of(ROWS_PER_CHECK) {
            ctx.check()?;
        }
        row(done, &mut writer).map_err(|e| io(e.into()))?;
    }
    writer.flush().map_err(io)
}
