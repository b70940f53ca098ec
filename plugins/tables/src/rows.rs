//! Rows to be predicted, of which none is left out: whoever asks for predictions wants one for each row.

use std::io::Read;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use plugin_api::{Error, Result};

use crate::not_csv;
use crate::text::{open, visible};

pub(crate) type Reader = csv::Reader<Box<dyn Read + Send>>;

/// A CSV file of rows to be predicted, read so far.
pub struct RowFile {
    path: PathBuf,
    names: Vec<String>,
    reader: Reader,
}

impl RowFile {
    /// Begins to read a file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path, delimiter: u8) -> Result<Self> {
        let source = open(path)?;
        let delimiter = if source.tabs { b'\t' } else { delimiter };
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(source.reader);
        let names = reader.headers().map_err(|e| not_csv(path, &e))?.iter().map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), names, reader })
    }

    /// The columns' names, as they stand in the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where a column stands; what does not show in names does not count.
    pub fn place(&self, wanted: &str) -> Option<usize> {
        self.names.iter().position(|name| visible(name) == visible(wanted))
    }

    /// The next row; none at the end of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next_row(&mut self) -> Result<Option<StringRecord>> {
        let mut record = StringRecord::new();
        let more = self.reader.read_record(&mut record).map_err(|e| not_csv(&self.path, &e))?;
        Ok(more.then_some(record))
    }

    /// The error, said of the header.
    pub fn at_header(&self, error: Error) -> Error {
        error.in_file(&self.path, Some(1))
    }

    /// The error, said of this row.
    pub fn at_row(&self, row: &StringRecord, error: Error) -> Error {
        error.in_file(&self.path, row.position().map(csv::Position::line))
    }
}
