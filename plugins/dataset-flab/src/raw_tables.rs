//! A task's measurements with all their columns, read once: a run makes tables of them, a preparation writes them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use fedplug_tables::text::TextBuffer;
use plugin_api::{Context, Result, Source};

use crate::chains::{ChainColumns, Chains};
use crate::config::{Config, SplitMethod};
use crate::read::{ReadMode, read};

/// All files of a task.
#[derive(Debug)]
pub(crate) struct RawTables {
    pub(crate) sheets: Vec<RawTable>,
    /// What each row says, file after file; not a number where no model can use the row.
    pub(crate) fitness: Vec<f32>,
    /// Which chains are read.
    pub(crate) chains: Chains,
}

/// One file.
#[derive(Debug)]
pub(crate) struct RawTable {
    pub(crate) names: Vec<String>,
    /// The file, below the root.
    pub(crate) path: PathBuf,
    /// The fields of all rows, row after row.
    fields: TextBuffer,
    /// Where each row begins.
    lines: Vec<u64>,
    /// The number of its first row among all files' rows.
    first: usize,
    chains: ChainColumns,
}

impl RawTable {
    pub(crate) fn rows(&self) -> usize {
        self.fields.len() / self.names.len()
    }

    pub(crate) fn field(&self, row: usize, column: usize) -> &str {
        self.fields.get(row * self.names.len() + column)
    }
}

impl RawTables {
    /// Reads files. Whether the task can do with what they hold is for the caller to judge.
    pub(crate) fn read(files: &[PathBuf], config: &Config, ctx: &Context<'_>) -> Result<(Self, Vec<Source>)> {
        let form = match config.split() {
            SplitMethod::Random => ReadMode::Raw,
            SplitMethod::Reference => ReadMode::KeepUnusable,
        };
        let (mut sheets, mut fitness, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        for path in files {
            let (first, mut fields, mut lines) = (fitness.len(), TextBuffer::default(), Vec::new());
            let (names, source) = read(path, config, form, ctx, |record, width, antibody| {
                lines.push(record.position().map_or(0, csv::Position::line));
                record.iter().for_each(|field| fields.push(&[field]));
                (record.len()..width).for_each(|_| fields.push(&[]));
                fitness.push(antibody.map_or(f32::NAN, |antibody| antibody.fitness));
            })?;
            sources.push(source);
            if !names.is_empty() {
                let place = |wanted: &str| names.iter().position(|name| name == wanted);
                let chains = ChainColumns::Apart { heavy: place("heavy"), light: place("light") };
                let path = below(&config.root, path);
                sheets.push(RawTable { names: distinct(names), path, fields, lines, first, chains });
            }
        }
        Ok((Self { sheets, fitness, chains: config.chains }, sources))
    }

    pub(crate) fn rows(&self) -> usize {
        self.fitness.len()
    }

    /// Each file on its own, with the numbers that its rows have among all.
    pub(crate) fn by_file(self) -> Vec<(Range<usize>, Self)> {
        let Self { sheets, fitness, chains } = self;
        let alone = |sheet: RawTable| {
            let rows = sheet.first..sheet.first + sheet.rows();
            (
                rows.clone(),
                Self { fitness: fitness[rows].to_vec(), sheets: vec![RawTable { first: 0, ..sheet }], chains },
            )
        };
        sheets.into_iter().map(alone).collect()
    }

    /// The place of the file that has each row.
    pub(crate) fn files(&self) -> Vec<usize> {
        self.sheets.iter().enumerate().flat_map(|(file, sheet)| std::iter::repeat_n(file, sheet.rows())).collect()
    }

    /// Where a row came from.
    pub(crate) fn origin(&self, row: usize) -> String {
        let (sheet, row) = self.find(row);
        let sheet = &self.sheets[sheet];
        format!("{}:{}", sheet.path.display(), sheet.lines[row])
    }

    /// The place of the file that has the row of this number, and the row's number in it.
    pub(crate) fn find(&self, row: usize) -> (usize, usize) {
        let sheet = self.sheets.partition_point(|sheet| sheet.first <= row) - 1;
        (sheet, row - self.sheets[sheet].first)
    }

    /// Looks at each field of these rows. Rows in random order lie far apart, and memory brings many pieces at once in the
    /// time of one.
    pub(crate) fn fetch(&self, rows: &[usize]) {
        for &row in rows {
            let (sheet, row) = self.find(row);
            let sheet = &self.sheets[sheet];
            (0..sheet.names.len()).for_each(|column| _ = std::hint::black_box(sheet.field(row, column)));
        }
    }

    /// What a model reads of a row that it can use.
    pub(crate) fn combined(&self, row: usize) -> String {
        let (sheet, row) = self.find(row);
        let sheet = &self.sheets[sheet];
        let combined = self.chains.read(sheet.chains, |column| sheet.field(row, column));
        combined.map(|combined| combined.parts().concat()).unwrap_or_default()
    }
}

/// A file's path below the root.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

/// The names as pandas makes them distinct: `Unnamed: 0` for a first column without name, `name.1` for a second `name`.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(names.len());
    for (place, name) in names.iter().enumerate() {
        let name = if name.is_empty() { format!("Unnamed: {place}") } else { name.clone() };
        let free = |other: &String| !distinct.contains(other) && (*other == name || !names.contains(other));
        let numbered = (1..).map(|number| format!("{name}.{number}"));
        distinct.extend(std::iter::once(name.clone()).chain(numbered).find(free));
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns of `pandas.read_csv` with these headers.
    #[test]
    fn names_are_made_distinct_as_pandas_does() {
        let names = |names: &[&str]| distinct(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(names(&["", "a", "a", "", "a"]), ["Unnamed: 0", "a", "a.1", "Unnamed: 3", "a.2"]);
        assert_eq!(names(&["a", "a", "a.1"]), ["a", "a.2", "a.1"]);
    }
}
