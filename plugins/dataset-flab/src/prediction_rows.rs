//! Reads rows for prediction: a CSV file with `heavy` and `light`, or `combined`, or FASTA records.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use fedplug_tables::{FastaColumns, LetterCounts, PredictionFile};
use plugin_api::{Column, Context, Error, Result, Table};

use crate::chains::{ChainColumns, Chains, MissingChain};
use crate::config::Config;

/// A file of rows for prediction, read row by row.
pub(crate) struct PredictionRows {
    path: PathBuf,
    file: PredictionFile,
    chains: Chains,
    columns: ChainColumns,
    /// The letters read so far; `None` after they have been reported.
    letters: Option<LetterCounts>,
}

impl PredictionRows {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, lacks a column, or has a namesake of one.
    pub(crate) fn open(path: &Path, config: &Config) -> Result<Self> {
        let [combined, heavy, light] = ["combined", "heavy", "light"];
        let fasta = match config.chains {
            Chains::Paired => FastaColumns::Pairs { heavy, light, allow_single: false },
            Chains::Any => FastaColumns::Pairs { heavy, light, allow_single: true },
            Chains::Heavy => FastaColumns::Single(heavy),
            Chains::Light => FastaColumns::Single(light),
        };
        let renamed = &config.predict_columns;
        let file = PredictionFile::open(path, config.delimiter, &[combined, heavy, light], renamed, Some(fasta))?;
        // A mapped chain takes precedence over the column `combined`.
        let with_combined = ![heavy, light].iter().any(|chain| renamed.contains_key(*chain));
        let chains = config.chains;
        let position = |name: &str| file.position(name);
        let columns = chains.columns(position, with_combined).map_err(|missing| file.missing_columns(&missing))?;
        file.check_unique(columns.indices(chains))?;
        Ok(Self { path: path.to_owned(), file, chains, columns, letters: Some(LetterCounts::default()) })
    }

    /// The next rows, at most this many. Warns of unusual letters after the last row.
    ///
    /// # Errors
    /// If a row cannot be predicted.
    pub(crate) fn next(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        let mut combined = Vec::new();
        while (combined.len() as u64) < at_most {
            let Some(row) = self.file.next_row()? else {
                if let Some(letters) = self.letters.take() {
                    letters.warn(&self.path, ctx);
                }
                break;
            };
            let found = self.chains.read(self.columns, |column| &row[column]);
            let found = found.map_err(|missing| self.missing_chain(&row, missing))?.parts().concat();
            self.letters.iter_mut().for_each(|letters| letters.add([found.as_str()]));
            combined.push(found);
        }
        self.file.with_original_cells(Table::new().with("combined", Column::text(combined))?)
    }

    fn missing_chain(&self, row: &StringRecord, missing: MissingChain) -> Error {
        let column = match (self.columns, missing) {
            (ChainColumns::Combined(_), _) => None,
            (ChainColumns::Separate { light, .. }, MissingChain::Light) => light,
            (ChainColumns::Separate { heavy, light }, _) => heavy.or(light),
        };
        column.map_or_else(
            || self.file.row_error(row, missing.reason().to_owned()),
            |column| self.file.missing_value(row, column),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::cell_name;
    use plugin_api::context::Silent;
    use serde_json::json;

    fn rows(name: &str, text: &str, at_most: u64) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let config = json!({ "root": "data", "predict-columns": { "light": "VL" } });
        let renamed = serde_json::from_value(config).unwrap();
        let usual = serde_json::from_value(json!({ "root": "data" })).unwrap();
        let mut rows = PredictionRows::open(&path, if text.contains("VL") { &renamed } else { &usual })?;
        let mut all = Vec::new();
        loop {
            let table = rows.next(at_most, &Context::new(&Silent))?;
            if table.rows() == 0 {
                return Ok(all);
            }
            all.extend(table.text("combined")?.iter().map(str::to_owned));
        }
    }

    #[test]
    fn rows_keep_the_order_of_the_file_in_batches_of_any_size() {
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
        let table = PredictionRows::open(&path, &config).unwrap().next(9, &Context::new(&Silent)).unwrap();
        let cell = |(name, _): (&str, &Column)| {
            Some((cell_name(name)?.to_owned(), table.text(name).unwrap().get(0).to_owned()))
        };
        let wanted = [("name", "a_H two"), ("light_name", "a_L one"), ("heavy", "EVQ"), ("light", "DIQ")];
        let wanted = wanted.map(|(name, cell)| (name.to_owned(), cell.to_owned()));
        assert_eq!(table.columns().filter_map(cell).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn rows_that_cannot_be_predicted_are_errors_with_their_line() {
        for (name, text, wanted) in [
            ("x.csv", "heavy,fitness\nA,1\n", "x.csv:1: has no column `light`"),
            ("x.csv", "heavy,light,heavy\nA,B,C\n", "x.csv:1: columns 1 and 3 are both named `heavy`"),
            ("x.csv", "heavy,light\nA,B\nA,\n", "x.csv:3: no `light`"),
            ("x.csv", "heavy,light\r\nA,B\r\nA,nan\r\n", "x.csv:3: no `light`, only `nan`"),
            ("x.fa", ">a_H\nEVQ\n>b_H\nQVQ\n", "x.fa:1: `a_H`: a heavy chain without its light chain"),
        ] {
            let error = rows(name, text, 9).unwrap_err().to_string();
            assert!(error.ends_with(wanted), "{error}");
        }
    }

    #[test]
    fn single_chains_are_read_if_the_model_was_trained_on_them() {
        let folder = tempfile::tempdir().unwrap();
        let read = |chains: &str, name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let config = serde_json::from_value(json!({ "root": "data", "chains": chains })).unwrap();
            let table = PredictionRows::open(&path, &config)?.next(9, &Context::new(&Silent))?;
            Ok::<_, Error>(table.text("combined")?.iter().map(str::to_owned).collect::<Vec<_>>())
        };
        let nanobodies = ">vhh1\nEVQ\n>vhh2 of a llama\nqvq\n";
        assert_eq!(read("heavy", "x.fa", nanobodies).unwrap(), ["EVQ", "QVQ"]);
        assert_eq!(read("any", "x.fa", nanobodies).unwrap(), ["EVQ", "QVQ"]);
        assert!(read("paired", "x.fa", nanobodies).is_err());
        let mixed = ">a_H\nEVQ\n>b_L\nDIQ\n>a_L\nEIV\n";
        assert_eq!(read("any", "x.fa", mixed).unwrap(), ["EVQ|EIV", "DIQ"]);
        assert!(
            read("heavy", "x.fa", mixed)
                .unwrap_err()
                .to_string()
                .ends_with("x.fa:3: `b_L`: a light chain, but the model reads one chain")
        );
        assert_eq!(read("light", "x.fa", ">b_L\nDIQ\n").unwrap(), ["DIQ"]);
        assert_eq!(read("heavy", "x.csv", "heavy,light\nEVQ,-\n").unwrap(), ["EVQ"]);
    }

    #[test]
    fn mapped_columns_take_precedence_over_combined_and_their_namesakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        std::fs::write(&path, "combined,heavy,VH,VL\nA|B,QQQ,EVQ,DIQ\n").unwrap();
        let config = json!({ "root": "data", "predict-columns": { "heavy": "VH", "light": "VL" } });
        let config = serde_json::from_value(config).unwrap();
        let table = PredictionRows::open(&path, &config).unwrap().next(9, &Context::new(&Silent)).unwrap();
        assert_eq!(table.text("combined").unwrap().get(0), "EVQ|DIQ");
    }
}
