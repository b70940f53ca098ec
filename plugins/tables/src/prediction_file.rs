//! Reads rows for prediction. None is skipped: a row that cannot be predicted is an error.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use plugin_api::{Column, Error, Result, Table, cell_column};

use crate::fasta::{FastaColumns, is_fasta};
use crate::file::check_unique;
use crate::records::RecordReader;
use crate::text::{TextBuffer, open_text, strip_invisible};
use crate::{not_csv, quoted};

/// A file of rows for prediction, CSV or FASTA, read row by row.
pub struct PredictionFile {
    path: PathBuf,
    names: Vec<String>,
    rows: Rows,
    /// The names of columns in the file, by the names that the dataset uses.
    renamed: BTreeMap<String, String>,
    /// The cells of the rows since the last table, column by column.
    cells: Vec<TextBuffer>,
}

enum Rows {
    Csv(RecordReader),
    FastaColumns(std::vec::IntoIter<StringRecord>),
}

impl PredictionFile {
    /// Opens a file and reads its header. `delimiter` separates columns, unless the file's name ends in `.tsv` or `.tab`.
    /// `known` are the columns that the dataset can read, and `renamed` maps some of them to their names in the file. FASTA
    /// records fill the columns of `fasta`; `None` refuses FASTA.
    ///
    /// # Errors
    /// If the file cannot be read, or `renamed` has a column that is not known.
    pub fn open(
        path: &Path,
        delimiter: u8,
        known: &[&str],
        renamed: &BTreeMap<String, String>,
        fasta: Option<FastaColumns<'_>>,
    ) -> Result<Self> {
        if let Some(name) = renamed.keys().find(|name| !known.contains(&name.as_str())) {
            let error = Error::config(format!("the model has no input column `{name}`")).at_key("predict-columns");
            return Err(error.help(format!("its input columns: {}", quoted(known))));
        }
        let opened = open_text(path)?;
        let delimiter = if opened.tab_separated { b'\t' } else { delimiter };
        let mut source = BufReader::new(opened.reader);
        let start = source.fill_buf().map_err(|e| Error::io(path, &e))?;
        let (names, rows) = if is_fasta(path, start) {
            let fasta = fasta.ok_or_else(|| {
                let error = Error::data("FASTA records cannot fill the model's input columns");
                error.in_file(path, None).help(format!("use a CSV file with {}", quoted(known)))
            })?;
            (fasta.columns(), Rows::FastaColumns(fasta.rows(path, source)?.into_iter()))
        } else {
            let (mut records, mut header) = (RecordReader::new(Box::new(source), delimiter), StringRecord::new());
            records.next(&mut header).map_err(|e| not_csv(path, &e))?;
            (header.iter().map(str::to_owned).collect::<Vec<_>>(), Rows::Csv(records))
        };
        let cells = vec![TextBuffer::default(); names.len()];
        Ok(Self { path: path.to_owned(), names, rows, renamed: renamed.clone(), cells })
    }

    /// The index of a known column. Names are compared without white space and invisible characters.
    pub fn position(&self, known: &str) -> Option<usize> {
        let wanted = self.name_of(known);
        self.names.iter().position(|name| strip_invisible(name) == strip_invisible(wanted))
    }

    /// Checks that the columns with these indices have no namesakes.
    ///
    /// # Errors
    /// If one has, since either may be meant.
    pub fn check_unique(&self, columns: impl IntoIterator<Item = usize>) -> Result<()> {
        let names: Vec<String> = self.names.iter().map(|name| strip_invisible(name).into_owned()).collect();
        check_unique(&self.path, &names, columns)
    }

    fn name_of<'a>(&'a self, known: &'a str) -> &'a str {
        self.renamed.get(known).map_or(known, String::as_str)
    }

    /// The error for a file that lacks some of these columns. It names them, and those that the file has.
    pub fn missing_columns(&self, known: &[&str]) -> Error {
        let missing: Vec<&str> =
            known.iter().filter(|name| self.position(name).is_none()).map(|name| self.name_of(name)).collect();
        let error = Error::data(format!("has no column {}", quoted(&missing))).in_file(&self.path, Some(1));
        let other = known.iter().find(|name| self.position(name).is_none()).copied().unwrap_or_default();
        error.help(format!("its columns: {}; if one has another name: `--column {other}=NAME`", quoted(&self.names)))
    }

    /// The next row, with a field for each column; `None` at the end of the file.
    ///
    /// # Errors
    /// If it cannot be read, or has more fields than the header.
    pub fn next_row(&mut self) -> Result<Option<StringRecord>> {
        let mut row = StringRecord::new();
        loop {
            let more = match &mut self.rows {
                Rows::FastaColumns(rows) => rows.next().map(|next| row = next).is_some(),
                Rows::Csv(records) => records.next(&mut row).map_err(|e| not_csv(&self.path, &e))?,
            };
            if !more {
                return Ok(None);
            }
            // A line of white space is not a row.
            if row.len() > 1 || self.names.len() == 1 || !row[0].trim().is_empty() {
                break;
            }
        }
        if row.iter().skip(self.names.len()).any(|field| !field.trim().is_empty()) {
            let what = format!("{} fields, but the header has {}", row.len(), self.names.len());
            return Err(self.at_row(&row, Error::data(what)));
        }
        (row.len()..self.names.len()).for_each(|_| row.push_field(""));
        self.cells.iter_mut().zip(&row).for_each(|(cells, field)| cells.push(&[field]));
        Ok(Some(row))
    }

    /// The error for a row without a usable value in the column with this index.
    pub fn missing_value(&self, row: &StringRecord, column: usize) -> Error {
        let name = &self.names[column];
        self.row_error(
            row,
            match row[column].trim() {
                "" => format!("no `{name}`"),
                word => format!("no `{name}`, only `{word}`"),
            },
        )
    }

    /// The error for a row that cannot be predicted.
    pub fn row_error(&self, row: &StringRecord, what: String) -> Error {
        let help = "every row of the file is predicted; correct or remove this one";
        self.at_row(row, Error::data(what)).help(help)
    }

    fn at_row(&self, row: &StringRecord, error: Error) -> Error {
        error.in_file(&self.path, row.position().map(csv::Position::line))
    }

    /// Adds the file's own columns, for the rows since the last table, to their table.
    ///
    /// # Errors
    /// If the table does not have as many rows.
    pub fn with_original_cells(&mut self, mut table: Table) -> Result<Table> {
        for (column, (name, cells)) in self.names.iter().zip(&mut self.cells).enumerate() {
            let cells = std::mem::take(cells);
            table = table.with(cell_column(column, name), Column::text((0..cells.len()).map(|row| cells.get(row))))?;
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str, renamed: &[(&str, &str)]) -> (tempfile::TempDir, Result<PredictionFile>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let renamed = renamed.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned())).collect();
        let file = PredictionFile::open(&path, b',', &["seq", "age"], &renamed, Some(FastaColumns::Single("seq")));
        (folder, file)
    }

    #[test]
    fn a_table_keeps_the_original_cells_of_the_file() {
        let text = "\u{feff}id,Se\u{ad}q,id,\n 1 ,A B,\"x, y\",\n\n2,C\r\n";
        let (_folder, file) = file("x.csv", text, &[("seq", "Seq")]);
        let mut file = file.unwrap();
        assert_eq!((file.position("seq"), file.position("age")), (Some(1), None));
        let mut rows = Vec::new();
        while let Some(row) = file.next_row().unwrap() {
            let table = Table::new().with("seq", Column::text([&row[1]])).unwrap();
            let table = file.with_original_cells(table).unwrap();
            let cells = table.columns().filter_map(|(name, _)| {
                Some(format!("{}={}", plugin_api::cell_name(name)?, table.text(name).unwrap().get(0)))
            });
            rows.push(cells.collect::<Vec<_>>());
        }
        assert_eq!(rows, [["id= 1 ", "Se\u{ad}q=A B", "id=x, y", "="], ["id=2", "Se\u{ad}q=C", "id=", "="]]);
    }

    #[test]
    fn errors_name_lines_as_editors_count_them() {
        for (text, line) in [
            ("seq,age\nA,1\n-,2\n", 3),
            ("seq,age\r\nA,1\r\n-,2\r\n", 3),
            ("seq,age\r\n\r\n\r\nA,1\r\n\r\n,2", 6),
            ("seq,age\rA,1\rNA,2\r", 3),
            ("seq,age\n\"A\n\nB\",1\n  \nnan,2", 6),
        ] {
            let (_folder, file) = file("x.csv", text, &[]);
            let mut file = file.unwrap();
            let error = loop {
                let row = file.next_row().unwrap().unwrap();
                if crate::text::is_missing(&row[0]) {
                    break file.missing_value(&row, 0).to_string();
                }
            };
            assert!(error.contains(&format!("x.csv:{line}: no `seq`")), "{text:?}: {error}");
        }
    }

    #[test]
    fn missing_and_repeated_columns_are_errors_that_name_them() {
        let (_folder, lacking) = file("x.csv", "id,VH\n", &[("age", "years")]);
        let lacking = lacking.unwrap();
        let error = lacking.missing_columns(&["seq", "age"]);
        assert!(error.to_string().ends_with("x.csv:1: has no column `seq`, `years`"), "{error}");
        assert_eq!(error.hint().unwrap(), "its columns: `id`, `VH`; if one has another name: `--column seq=NAME`");
        let (_folder, unknown) = file("x.csv", "id,VH\n", &[("sequence", "VH")]);
        assert_eq!(unknown.err().unwrap().message(), "the model has no input column `sequence`");
        let (_folder, long) = file("x.csv", "seq,age\nA,1,\nB,2,3\n", &[]);
        let mut long = long.unwrap();
        assert!(long.next_row().unwrap().is_some());
        let error = long.next_row().unwrap_err().to_string();
        assert!(error.ends_with("x.csv:3: 3 fields, but the header has 2"), "{error}");
        let (_folder, twice) = file("x.csv", "seq,id,id, Se\u{ad}q\nA,1,2,B\n", &[("seq", "Seq")]);
        let twice = twice.unwrap();
        assert_eq!(twice.position("seq"), Some(3));
        twice.check_unique([0, 3]).unwrap();
        let error = twice.check_unique([1]).unwrap_err().to_string();
        assert!(error.ends_with("x.csv:1: columns 2 and 3 are both named `id`"), "{error}");
    }

    #[test]
    fn fasta_records_are_read_as_rows() {
        let (_folder, fasta) = file("x.txt", ">a b\nEVQ\n>c\n-\n", &[]);
        let mut fasta = fasta.unwrap();
        let row = fasta.next_row().unwrap().unwrap();
        assert_eq!((fasta.position("seq"), &row[0], &row[1]), (Some(1), "a b", "EVQ"));
        let row = fasta.next_row().unwrap().unwrap();
        let error = fasta.missing_value(&row, 1).to_string();
        assert!(error.ends_with("x.txt:3: no `seq`, only `-`"), "{error}");
    }
}
