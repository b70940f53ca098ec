//! What the columns of a CSV file look like.

use std::collections::BTreeSet;
use std::path::Path;

use super::{MOST_CLIENTS, nearest};
use crate::error::{CliError, Diagnostic};

/// The amino acids, and what stands for an unknown one or a break.
const RESIDUES: &str = "ACDEFGHIKLMNPQRSTVWYBXZUO|-*";
/// Names of targets, the likeliest first.
const TARGETS: [&str; 14] = [
    "fitness",
    "target",
    "label",
    "y",
    "value",
    "score",
    "affinity",
    "kd",
    "tm",
    "binding",
    "expression",
    "activity",
    "measurement",
    "response",
];
/// Names of columns that say whose a row is.
const OWNERS: [&str; 11] =
    ["client", "site", "hospital", "centre", "center", "lab", "institution", "clinic", "source", "study", "partner"];
/// Distinct values that are kept; with more a column names neither clients nor classes.
const MOST_DISTINCT: usize = MOST_CLIENTS;
/// A column with more classes is not proposed as a target.
const MOST_CLASSES: usize = 20;

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// The values, sorted; `None` if there are too many.
    pub(super) distinct: Option<Vec<String>>,
    numbers: usize,
    sequences: usize,
    integers: usize,
    filled: usize,
    letters: usize,
}

impl Column {
    /// Whether its values are numbers.
    pub(super) fn is_numeric(&self) -> bool {
        self.filled > 0 && self.numbers == self.filled
    }

    /// Whether its values are sequences of amino acids.
    pub(super) fn is_sequence(&self) -> bool {
        self.filled > 0 && self.sequences * 100 >= self.filled * 95 && self.letters >= self.filled * 5
    }

    /// Whether it only numbers the rows.
    fn is_index(&self) -> bool {
        let name = self.name.to_lowercase();
        self.is_numeric()
            && self.integers == self.filled
            && (name.is_empty() || ["id", "index", "row", "unnamed: 0"].contains(&&*name))
    }

    fn is_named(&self, names: &[&str]) -> Option<usize> {
        let name = self.name.to_lowercase();
        names.iter().position(|word| name.split(|c: char| !c.is_alphanumeric()).any(|part| part == *word))
    }
}

/// The columns of a file.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Column>,
    delimiter: u8,
}

impl Columns {
    /// Reads the names and the first rows.
    ///
    /// # Errors
    /// If the file cannot be read, or has no rows.
    pub(super) fn read(path: &Path, most_rows: usize) -> Result<Self, CliError> {
        let bytes = std::fs::read(path).map_err(|e| CliError::io(path, "read the data", &e))?;
        Self::of(&bytes, most_rows).map_err(|report| CliError::usage(report.within(&path.display().to_string())))
    }

    pub(super) fn of(bytes: &[u8], most_rows: usize) -> Result<Self, Diagnostic> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let head = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let count = |mark: u8| head.iter().filter(|byte| **byte == mark).count();
        let delimiter =
            *b",;\t".iter().max_by_key(|mark| count(**mark) * 2 + usize::from(**mark == b',')).unwrap_or(&b',');
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bytes);
        let unreadable = |e: csv::Error| Diagnostic::new("not a CSV file").cause(e);
        let names = reader.byte_headers().map_err(unreadable)?.clone();
        let mut all: Vec<Column> = names.iter().map(|name| Column::new(&String::from_utf8_lossy(name))).collect();
        let mut distinct = vec![Some(BTreeSet::new()); all.len()];
        let mut rows = 0;
        for record in reader.byte_records().take(most_rows) {
            rows += 1;
            let record = record.map_err(unreadable)?;
            for ((column, distinct), field) in all.iter_mut().zip(&mut distinct).zip(record.iter()) {
                column.add(String::from_utf8_lossy(field).trim(), distinct);
            }
        }
        if rows == 0 {
            return Err(Diagnostic::new("it has no rows below its names of columns"));
        }
        for (column, distinct) in all.iter_mut().zip(distinct) {
            column.distinct = distinct.map(|values| values.into_iter().collect());
        }
        Ok(Self { all, delimiter })
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Column> {
        self.all.iter()
    }

    /// The column of this name.
    pub(super) fn named(&self, name: &str) -> Result<&Column, Diagnostic> {
        self.iter().find(|column| column.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.iter().map(|column| column.name.as_str()).collect();
            let report = Diagnostic::new(format!("there is no column `{name}`"));
            match nearest(name, &names) {
                Some(near) => report.hint(format!("did you mean `{near}`?")),
                None => report.hint(format!("its columns are: {}", names.join(", "))),
            }
        })
    }

    /// The column to predict: numbers under a usual name, or the last column of numbers, or the last with few classes.
    pub(super) fn target(&self) -> Option<&Column> {
        let numbers = || self.iter().filter(|column| column.is_numeric() && !column.is_index());
        let usual =
            numbers().filter_map(|column| Some((column.is_named(&TARGETS)?, column))).min_by_key(|(rank, _)| *rank);
        let classes = || {
            let few = |column: &&Column| {
                column.distinct.as_ref().is_some_and(|values| (2..=MOST_CLASSES).contains(&values.len()))
            };
            self.iter().filter(few).filter(|column| !column.is_sequence() && column.is_named(&OWNERS).is_none())
        };
        usual.map(|(_, column)| column).or_else(|| numbers().last()).or_else(|| classes().last())
    }

    /// The column that says whose a row is.
    pub(super) fn clients(&self, target: &Column) -> Option<&Column> {
        let several = |column: &&Column| {
            column.distinct.as_ref().is_some_and(|values| (2..=MOST_CLIENTS).contains(&values.len()))
        };
        let others = self.iter().filter(|column| column.name != target.name).filter(several);
        others
            .filter_map(|column| Some((column.is_named(&OWNERS)?, column)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, column)| column)
    }

    /// The columns to predict from: those of sequences, or else those of numbers.
    pub(super) fn inputs(&self, taken: impl Fn(&Column) -> bool) -> Vec<&Column> {
        let free = || self.iter().filter(|column| !taken(column));
        let sequences: Vec<&Column> = free().filter(|column| column.is_sequence()).collect();
        if !sequences.is_empty() {
            return sequences;
        }
        free().filter(|column| column.is_numeric() && !column.is_index()).collect()
    }
}

impl Column {
    fn new(name: &str) -> Self {
        let name = name.trim().to_owned();
        Self { name, distinct: None, numbers: 0, sequences: 0, integers: 0, filled: 0, letters: 0 }
    }

    fn add(&mut self, value: &str, distinct: &mut Option<BTreeSet<String>>) {
        if value.is_empty() || ["na", "nan", "null", "none"].contains(&&*value.to_lowercase()) {
            return;
        }
        self.filled += 1;
        let number = value.parse::<f64>();
        self.numbers += usize::from(number.is_ok_and(f64::is_finite));
        self.integers += usize::from(value.parse::<i64>().is_ok());
        self.sequences += usize::from(value.chars().all(|c| RESIDUES.contains(c.to_ascii_uppercase())));
        self.letters += value.chars().count();
        if let Some(values) = distinct {
            values.insert(value.to_owned());
            if values.len() > MOST_DISTINCT {
                *distinct = None;
            }
        }
    }
}
