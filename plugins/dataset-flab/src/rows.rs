//! Rows to be predicted: a CSV file with `heavy` and `light`, or `combined`, or FASTA records in pairs.
//!
//! In a FASTA file a pair is a heavy chain and the light chain that follows it; a sequence with a `|` in it is both at
//! once. No row is left out: whoever asks for predictions wants one for each row.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use fedplug_tables::text::{open, visible};
use fedplug_tables::{RowFile, quoted};
use plugin_api::{Column, Error, Result, Table};

use crate::chains::{Chains, Place};
use crate::config::Config;

type Source = Box<dyn Read + Send>;

/// A file of rows, read so far.
pub(crate) struct Rows {
    path: PathBuf,
    chains: Chains,
    reader: Reader,
}

enum Reader {
    Csv { file: RowFile, place: Place },
    Fasta { lines: BufReader<Source>, number: u64, heading: Option<String> },
}

impl Rows {
    /// Begins to read a file; what its name ends in says of which kind it is.
    pub(crate) fn open(path: &Path, config: &Config) -> Result<Self> {
        let chains = config.chains;
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        let reader = if ["fasta", "fa", "faa", "fas"].contains(&ending.as_str()) {
            Reader::Fasta { lines: BufReader::new(open(path)?.reader), number: 0, heading: None }
        } else {
            let file = RowFile::open(path, config.delimiter)?;
            let name = |name: &String| visible(name).into_owned();
            let place = chains.place(&file.names().iter().map(name).collect::<Vec<_>>(), true).map_err(|missing| {
                let error = Error::data(format!("has neither `combined` nor {}", quoted(&missing)));
                file.at_header(error).help(format!("its columns: {}", quoted(file.names())))
            })?;
            Reader::Csv { file, place }
        };
        Ok(Self { path: path.to_owned(), chains, reader })
    }

    /// The next rows, `at_most` so many.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Table> {
        let mut combined = Vec::new();
        while (combined.len() as u64) < at_most {
            let row = match &mut self.reader {
                Reader::Csv { file, place } => next_record(file, *place, self.chains)?,
                Reader::Fasta { lines, number, heading } => next_pair(&self.path, self.chains, lines, number, heading)?,
            };
            let Some(row) = row else { break };
            combined.push(row);
        }
        Table::new().with("combined", Column::text(combined))
    }
}

fn next_record(file: &mut RowFile, place: Place, chains: Chains) -> Result<Option<String>> {
    let Some(record) = file.next_row()? else { return Ok(None) };
    match chains.read(place, |place| record.get(place).unwrap_or_default()) {
        Ok(combined) => Ok(Some(combined.parts().concat())),
        Err(lack) => {
            let error = file.at_row(&record, Error::data(lack.reason()));
            Err(error.help("every row is predicted, so every row needs its chains; take the others out of the file"))
        }
    }
}

/// The next sequence, or two that make a pair.
fn next_pair(
    path: &Path,
    chains: Chains,
    lines: &mut BufReader<Source>,
    number: &mut u64,
    heading: &mut Option<String>,
) -> Result<Option<String>> {
    let Some(first) = next_sequence(path, lines, number, heading)? else { return Ok(None) };
    if first.contains('|') || chains != Chains::Paired {
        let combined = chains.split(&first).map(|combined| combined.parts().concat());
        return combined.map(Some).map_err(|lack| Error::data(lack.reason()).in_file(path, Some(*number)));
    }
    match next_sequence(path, lines, number, heading)? {
        Some(second) if !second.contains('|') => {
            let combined = chains.combine(&first, &second).map(|combined| combined.parts().concat());
            combined.map(Some).map_err(|lack| Error::data(lack.reason()).in_file(path, Some(*number)))
        }
        _ => Err(Error::data("a heavy chain without a light chain behind it")
            .in_file(path, Some(*number))
            .help("sequences come in pairs, a heavy chain and its light chain, or with a `|` between both")),
    }
}

fn next_sequence(
    path: &Path,
    lines: &mut BufReader<Source>,
    number: &mut u64,
    heading: &mut Option<String>,
) -> Result<Option<String>> {
    let mut sequence = String::new();
    loop {
        let mut line = String::new();
        let more = lines.read_line(&mut line).map_err(|e| Error::io(path, &e))? > 0;
        *number += u64::from(more);
        let line = visible(line.trim()).into_owned();
        if more && !line.starts_with('>') {
            if heading.is_none() && !line.is_empty() {
                let error = Error::data("a sequence before the first `>`").in_file(path, Some(*number));
                return Err(error.help("a FASTA file ends in .fasta or .fa; any other is read as CSV"));
            }
            sequence += &line;
            continue;
        }
        // Here a record begins, or the file ends: the one before is whole.
        let before = heading.take();
        if more {
            *heading = Some(line);
        }
        match before {
            Some(name) if sequence.is_empty() => {
                return Err(Error::data(format!("no sequence under `{name}`")).in_file(path, Some(*number)));
            }
            Some(_) => return Ok(Some(sequence)),
            None if more => {}
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str, at_most: u64) -> Result<Vec<String>> {
        rows_of(Chains::Paired, name, text, at_most)
    }

    fn rows_of(chains: Chains, name: &str, text: &str, at_most: u64) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut config: Config = plugin_api::config::read(&serde_json::json!({ "root": "" })).unwrap();
        config.chains = chains;
        let mut rows = Rows::open(&path, &config)?;
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
        let fasta = ">a heavy\nEV\nQ\n\n>a light\nDIQ\n>b\nQVQ|EIV\n>c\nQVT\n>c\nSYE";
        for at_most in [1, 2, 100] {
            for (name, text) in [("x.csv", csv), ("x.fasta", fasta)] {
                assert_eq!(rows(name, text, at_most).unwrap(), ["EVQ|DIQ", "QVQ|EIV", "QVT|SYE"], "{name}");
            }
        }
        assert_eq!(rows("x.csv", "combined,heavy\nA|B,C\n", 5).unwrap(), ["A|B"]);
        assert!(rows("x.fa", "", 5).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_predicted_is_told_with_its_line() {
        for (name, text, wanted) in [
            ("x.csv", "heavy,fitness\nA,1\n", "x.csv:1: has neither `combined` nor `light`"),
            ("x.csv", "heavy,light\nA,B\nA,\n", "x.csv:3: no light chain"),
            ("x.fa", "EVQ\n", "x.fa:1: a sequence before the first `>`"),
            ("x.fa", ">a\nEVQ\n", "x.fa:2: a heavy chain without a light chain behind it"),
            ("x.fa", ">a\n>b\nEVQ\n", "x.fa:2: no sequence under `>a`"),
        ] {
            let told = rows(name, text, 9).unwrap_err().to_string();
            assert!(told.ends_with(wanted), "{told}");
        }
    }
}
