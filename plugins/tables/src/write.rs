//! Writes CSV files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use plugin_api::{Context, Error, Result};

use crate::ROWS_PER_CHECK;

/// How many bytes are buffered before they are written.
const BLOCK: usize = 1 << 16;

/// The fields of rows, encoded as CSV.
pub struct RowWriter {
    delimiter: u8,
    bytes: Vec<u8>,
    /// Where the current row begins.
    row: usize,
}

impl RowWriter {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, bytes: Vec::with_capacity(BLOCK), row: 0 }
    }

    /// Adds a field, the concatenation of these parts. It is quoted if necessary.
    pub fn push(&mut self, parts: &[&str]) {
        let start = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part.as_bytes()));
        // Without an early exit, so that the compiler vectorises.
        let special = |byte: u8| (byte == self.delimiter) | (byte == b'"') | (byte == b'\n') | (byte == b'\r');
        if self.bytes[start..].iter().fold(false, |found, &byte| found | special(byte)) {
            let field = self.bytes.split_off(start);
            self.bytes.push(b'"');
            for byte in field {
                self.bytes.extend([b'"', byte].iter().skip(usize::from(byte != b'"')));
            }
            self.bytes.push(b'"');
        }
        self.bytes.push(self.delimiter);
    }

    fn end_row(&mut self) {
        // The delimiter after the last field.
        self.bytes.pop();
        if self.bytes.len() == self.row {
            // An empty line would not be a record.
            self.bytes.extend(b"\"\"");
        }
        self.bytes.push(b'\n');
        self.row = self.bytes.len();
    }

    fn write(&mut self, file: &mut File) -> std::io::Result<()> {
        file.write_all(&self.bytes)?;
        self.bytes.clear();
        self.row = 0;
        Ok(())
    }
}

/// Writes a file with a header and this number of rows, which appears complete or not at all. `row` adds the fields of the
/// row with an index, at least one.
///
/// # Errors
/// If the file cannot be written, or the call is cancelled.
pub fn write_csv(
    path: &Path,
    delimiter: u8,
    header: &[String],
    rows: usize,
    ctx: &Context<'_>,
    row: impl FnMut(usize, &mut RowWriter),
) -> Result<()> {
    let part = path.with_extension("csv.part");
    let written = write_part(&part, delimiter, header, rows, ctx, row);
    let moved = written.and_then(|()| fs::rename(&part, path).map_err(|e| Error::io(path, &e)));
    if moved.is_err() {
        // The first error is the one to report.
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
    mut row: impl FnMut(usize, &mut RowWriter),
) -> Result<()> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let mut file = File::create(path).map_err(io)?;
    let mut fields = RowWriter::new(delimiter);
    header.iter().for_each(|name| fields.push(&[name]));
    fields.end_row();
    for index in 0..rows {
        if index.is_multiple_of(ROWS_PER_CHECK) {
            ctx.check()?;
        }
        row(index, &mut fields);
        fields.end_row();
        if fields.bytes.len() >= BLOCK {
            fields.write(&mut file).map_err(io)?;
        }
    }
    fields.write(&mut file).map_err(io)
}

#[cfg(test)]
mod tests {
    use plugin_api::context::Silent;

    use super::*;

    #[test]
    fn written_files_equal_those_of_the_csv_crate() {
        let plain = "EVQ".repeat(BLOCK);
        let texts = ["", "a", "a,b", "a;b", "\"", "say \"so\"", "a\nb", "a\rb", " a\t", "é|🧬", "#", &plain];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        for delimiter in [b',', b';', b'\t'] {
            for columns in 1..=3 {
                let row = |row: usize| (0..columns).map(move |column| texts[(row * 5 + column * 7) % texts.len()]);
                let header: Vec<String> = row(0).map(str::to_owned).collect();
                let fields = |at: usize, fields: &mut RowWriter| row(at).for_each(|text| fields.push(&[text]));
                write_csv(&path, delimiter, &header, texts.len(), &Context::new(&Silent), fields).unwrap();
                let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
                writer.write_record(&header).unwrap();
                (0..texts.len()).for_each(|at| writer.write_record(row(at)).unwrap());
                let (ours, theirs) = (fs::read(&path).unwrap(), writer.into_inner().unwrap());
                assert!(ours == theirs, "{columns} columns between `{}`", delimiter as char);
            }
        }
    }

    #[test]
    fn a_field_of_parts_is_one_field() {
        let mut fields = RowWriter::new(b',');
        fields.push(&["a,", "|", "\"b"]);
        fields.push(&[]);
        fields.push(&["c", "|", "d"]);
        fields.end_row();
        assert_eq!(fields.bytes, b"\"a,|\"\"b\",,c|d\n");
    }
}
