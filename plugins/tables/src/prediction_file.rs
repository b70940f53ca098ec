//! Rows to be predicted, of which none is left out: whoever asks for predictions wants one for each row.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use plugin_api::{Column, Error, Result, Table, cell_column};

use crate::fasta::{FastaColumns, is_fasta};
use crate::records::RecordReader;
use crate::text::{TextBuffer, open_text, strip_invisible};
use crate::{not_csv, quoted};

/// A file of rows to be predicted, CSV or FASTA, read so far.
pub struct PredictionFile {
    path: PathBuf,
    names: Vec<String>,
    rows: Rows,
    /// The names that columns have in the file, by those that the dataset knows.
    renamed: BTreeMap<String, String>,
    /// What the rows since the last table say, column by column.
    cells: Vec<TextBuffer>,
}

enum Rows {
    Csv(RecordReader),
    FastaColumns(std::vec::IntoIter<StringRecord>),
}

impl PredictionFile {
    /// Begins to read a file, with tabs between columns where its name says so. `known` are the columns that the dataset can read, `renamed` the names that some of them have
    /// in the file. FASTA is read into the columns that `fasta` says, if the dataset takes it.
    ///
    /// # Errors
    /// If it cannot be read, or `renamed` has a column that is not known.
    pub fn open(
        path: &Path,
        delimiter: u8,
        known: &[&str],
        renamed: &BTreeMap<String, String>,
        fasta: Option<FastaColumns<'_>>,
    ) -> Result<Self> {
        if let Some(name) = renamed.keys().find(|name| !known.contains(&name.as_str())) {
            let error = Error::config(format!("`{name}` is no column that the model reads")).at_key("predict-columns");
            return Err(error.help(format!("it reads {}", quoted(known))));
        }
        let opened = open_text(path)?;
        let delimiter = if opened.tab_separated { b'\t' } else { delimiter };
        let mut source = BufReader::new(opened.reader);
        let start = source.fill_buf().map_err(|e| Error::io(path, &e))?;
        let (names, rows) = if is_fasta(path, start) {
            let fasta = fasta.ok_or_else(|| {
                let error = Error::data("a FASTA file has one text a record, and the model reads other columns");
                error.in_file(path, None).help(format!("give it a CSV file with {}", quoted(known)))
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

    /// Where a column stands; what does not show in names does not count.
    pub fn position(&self, known: &str) -> Option<usize> {
        let wanted = self.name_of(known);
        self.names.iter().position(|name| strip_invisible(name) == strip_invisible(wanted))
    }

    /// The columns' names: those that the dataset knows where it does.
    pub fn names(&self) -> Vec<String> {
        let known =
            |name: &String| self.renamed.iter().find(|(_, other)| strip_invisible(other) == strip_invisible(name));
        let name =
            |name: &String| known(name).map_or_else(|| strip_invisible(name).into_owned(), |(known, _)| known.clone());
        self.names.iter().map(name).collect()
    }

    fn name_of<'a>(&'a self, known: &'a str) -> &'a str {
        self.renamed.get(known).map_or(known, String::as_str)
    }

    /// The error of a file without these columns: which it lacks, and which it has.
    pub fn missing_columns(&self, known: &[&str]) -> Error {
        let missing: Vec<&str> =
            known.iter().filter(|name| self.position(name).is_none()).map(|name| self.name_of(name)).collect();
        let error = Error::data(format!("has no column {}", quoted(&missing))).in_file(&self.path, Some(1));
        let other = known.iter().find(|name| self.position(name).is_none()).copied().unwrap_or_default();
        error.help(format!("its columns: {}; of another name: `--column {other}=NAME`", quoted(&self.names)))
    }

    /// The next row, with a field for each column; none at the end of the file.
    ///
    /// # Errors
    /// If it cannot be read, or has more fields than there are columns.
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
            // A line of blanks is no row.
            if row.len() > 1 || self.names.len() == 1 || !row[0].trim().is_empty() {
                break;
            }
        }
        if row.iter().skip(self.names.len()).any(|field| !field.trim().is_empty()) {
            let what = format!("{} fields, and the header has {}", row.len(), self.names.len());
            return Err(self.at_row(&row, Error::data(what)));
        }
        (row.len()..self.names.len()).for_each(|_| row.push_field(""));
        self.cells.iter_mut().zip(&row).for_each(|(cells, field)| cells.push(&[field]));
        Ok(Some(row))
    }

    /// The error of a row that says nothing usable in a column.
    pub fn missing_value(&self, row: &StringRecord, place: usize) -> Error {
        let name = &self.names[place];
        self.row_error(
            row,
            match row[place].trim() {
                "" => format!("no `{name}`"),
                word => format!("no `{name}`, only `{word}`"),
            },
        )
    }

    /// The error of a row that cannot be predicted.
    pub fn row_error(&self, row: &StringRecord, what: String) -> Error {
        let help = "every row is predicted, so every row needs it; take the others out of the file";
        self.at_row(row, Error::data(what)).help(help)
    }

    fn at_row(&self, row: &StringRecord, error: Error) -> Error {
        error.in_file(&self.path, row.position().map(csv::Position::line))
    }

    /// The table, and beside its columns those of the file as the rows since the last table have them.
    ///
    /// # Errors
    /// If the table has not as many rows.
    pub fn with_original_cells(&mut self, mut table: Table) -> Result<Table> {
        for (place, (name, cells)) in self.names.iter().zip(&mut self.cells).enumerate() {
            let cells = std::mem::take(cells);
            table = table.with(cell_column(place, name), Column::text((0..cells.len()).map(|row| cells.get(row))))?;
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
    fn a_table_has_the_files_own_words_beside_it() {
        let text = "\u{feff}id,Se\u{ad}q,id,\n 1 ,A B,\"x, y\",\n\n2,C\r\n";
        let (_folder, file) = file("x.csv", text, &[("seq", "Seq")]);
        let mut file = file.unwrap();
        assert_eq!((file.position("seq"), file.position("age")), (Some(1), None));
        let mut told = Vec::new();
        while let Some(row) = file.next_row().unwrap() {
            let table = Table::new().with("seq", Column::text([&row[1]])).unwrap();
            let table = file.with_original_cells(table).unwrap();
            let cells = table.columns().filter_map(|(name, _)| {
                Some(format!("{}={}", plugin_api::cell_name(name)?, table.text(name).unwrap().get(0)))
            });
            told.push(cells.collect::<Vec<_>>());
        }
        assert_eq!(told, [["id= 1 ", "Se\u{ad}q=A B", "id=x, y", "="], ["id=2", "Se\u{ad}q=C", "id=", "="]]);
    }

    #[test]
    fn lines_are_those_of_an_editor() {
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
    fn what_a_file_lacks_is_told_with_what_it_has() {
        let (_folder, lacking) = file("x.csv", "id,VH\n", &[("age", "years")]);
        let lacking = lacking.unwrap();
        let error = lacking.missing_columns(&["seq", "age"]);
        assert!(error.to_string().ends_with("x.csv:1: has no column `seq`, `years`"), "{error}");
        assert_eq!(error.hint().unwrap(), "its columns: `id`, `VH`; of another name: `--column seq=NAME`");
        let (_folder, unknown) = file("x.csv", "id,VH\n", &[("sequence", "VH")]);
        assert_eq!(unknown.err().unwrap().message(), "`sequence` is no column that the model reads");
        let (_folder, long) = file("x.csv", "seq,age\nA,1,\nB,2,3\n", &[]);
        let mut long = long.unwrap();
        assert!(long.next_row().unwrap().is_some());
        let error = long.next_row().unwrap_err().to_string();
        assert!(error.ends_with("x.csv:3: 3 fields, and the header has 2"), "{error}");
    }

    #[test]
    fn fasta_records_are_rows_as_well() {
        let (_folder, fasta) = file("x.txt", ">a b\nEVQ\n>c\n-\n", &[]);
        let mut fasta = fasta.unwrap();
        let row = fasta.next_row().unwrap().unwrap();
        assert_eq!((fasta.position("seq"), &row[0], &row[1]), (Some(1), "a b", "EVQ"));
        let row = fasta.next_row().unwrap().unwrap();
        let error = fasta.missing_value(&row, 1).to_string();
        assert!(error.ends_with("x.txt:3: no `seq`, only `-`"), "{error}");
    }
}
