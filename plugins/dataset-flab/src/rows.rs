//! Rows to be predicted: a CSV file with `heavy` and `light`, or `combined`, or FASTA records.

use std::path::Path;

use fedplug_tables::text::visible;
use fedplug_tables::{Fasta, RowFile};
use plugin_api::{Column, Result, Table};

use crate::config::Config;

/// A file of rows, read so far.
pub(crate) struct Rows {
    file: RowFile,
    /// Where the chains stand.
    chains: Vec<usize>,
}

impl Rows {
    /// Begins to read a file.
    pub(crate) fn open(path: &Path, config: &Config) -> Result<Self> {
        let apart = ["heavy", "light"];
        let fasta = Fasta::Pairs { heavy: "heavy", light: "light" };
        let known = ["combined", "heavy", "light"];
        let file = RowFile::open(path, b',', &known, &config.predict_columns, Some(fasta))?;
        let places = |names: &[&str]| names.iter().map(|name| file.place(name)).collect::<Option<Vec<_>>>();
        let chains = places(&["combined"]).or_else(|| places(&apart)).ok_or_else(|| file.lack(&apart))?;
        Ok(Self { file, chains })
    }

    /// The next rows, `at_most` so many.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Table> {
        let mut combined = Vec::new();
        while (combined.len() as u64) < at_most {
            let Some(row) = self.file.next_row()? else { break };
            let chains = self.chains.iter().map(|&place| self.file.field(&row, place).map(visible));
            combined.push(chains.collect::<Result<Vec<_>>>()?.join("|"));
        }
        self.file.with_cells(Table::new().with("combined", Column::text(combined))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::cell_name;
    use serde_json::json;

    fn rows(name: &str, text: &str, at_most: u64) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let config = json!({ "root": "data", "predict-columns": { "light": "VL" } });
        let renamed = serde_json::from_value(config).unwrap();
        let usual = serde_json::from_value(json!({ "root": "data" })).unwrap();
        let mut rows = Rows::open(&path, if text.contains("VL") { &renamed } else { &usual })?;
        let mut all = Vec::new();
        loop {
            let table = rows.next(at_most)?;
            if table.rows() == 0 {
                return Ok(all);
            }
            all.extend(table.text("combined")?.iter().map(str::to_owned));
        }
    }

    #[test]
    fn rows_come_in_the_files_order_however_many_at_a_time() {
        let csv = "\u{feff}id,light,heavy\n1,DIQ,EVQ\n2,\"EIV\",QVQ\n3,SYE,QVT\n";
        let other = csv.replace("light", "VL");
        let fasta = ">a heavy\nEV\nQ\n\n>b\nQVQ|EIV\n>a light\nDIQ\n>c\nQVT\n>c\nSYE";
        for at_most in [1, 2, 100] {
            for (name, text) in [("x.csv", csv), ("x.csv", &other), ("x.fasta", fasta)] {
                assert_eq!(rows(name, text, at_most).unwrap(), ["EVQ|DIQ", "QVQ|EIV", "QVT|SYE"], "{name}");
            }
        }
        assert_eq!(rows("x.csv", "combined,heavy\nA|B,C\n", 5).unwrap(), ["A|B"]);
        assert!(rows("x.fa", "", 5).unwrap().is_empty());
    }

    #[test]
    fn a_fasta_file_gives_names_and_chains() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fa");
        std::fs::write(&path, ">a_L one\nDIQ\n>a_H two\nEVQ\n").unwrap();
        let config = serde_json::from_value(json!({ "root": "data" })).unwrap();
        let table = Rows::open(&path, &config).unwrap().next(9).unwrap();
        let cell = |(name, _): (&str, &Column)| {
            Some((cell_name(name)?.to_owned(), table.text(name).unwrap().get(0).to_owned()))
        };
        let wanted = [("name", "a_H two"), ("light_name", "a_L one"), ("heavy", "EVQ"), ("light", "DIQ")];
        let wanted = wanted.map(|(name, cell)| (name.to_owned(), cell.to_owned()));
        assert_eq!(table.columns().filter_map(cell).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_cannot_be_predicted_is_told_with_its_line() {
        for (name, text, wanted) in [
            ("x.csv", "heavy,fitness\nA,1\n", "x.csv:1: has no column `light`"),
            ("x.csv", "heavy,light\nA,B\nA,\n", "x.csv:3: no `light`"),
            ("x.csv", "heavy,light\r\nA,B\r\nA,nan\r\n", "x.csv:3: no `light`: `nan` stands for a missing value"),
            ("x.fa", ">a_H\nEVQ\n>b_H\nQVQ\n", "x.fa:1: `a_H`: a heavy chain without its light chain"),
        ] {
            let told = rows(name, text, 9).unwrap_err().to_string();
            assert!(told.ends_with(wanted), "{told}");
        }
    }
}
