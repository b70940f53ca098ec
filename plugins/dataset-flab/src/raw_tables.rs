//! A task's measurements with all their columns. A run makes tables of them; preparing data writes them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use fedplug_tables::ClassNames;
use fedplug_tables::text::TextBuffer;
use plugin_api::{Context, Result, Source};

use crate::chains::{ChainColumns, Chains};
use crate::config::{Config, SplitMethod};
use crate::read::{ReadMode, read};

/// All files of a task.
#[derive(Debug)]
pub(crate) struct RawTables {
    pub(crate) files: Vec<RawTable>,
    /// The target of each row, file after file, of classes their numbers; NaN where the row cannot be used.
    pub(crate) fitness: Vec<f32>,
    /// The classes of all files of the folder.
    pub(crate) classes: ClassNames,
    /// The chains that are read.
    pub(crate) chains: Chains,
}

/// One file.
#[derive(Debug)]
pub(crate) struct RawTable {
    pub(crate) names: Vec<String>,
    /// The path of the file relative to the root.
    pub(crate) path: PathBuf,
    /// The fields of all rows, row after row.
    fields: TextBuffer,
    /// The line on which each row begins.
    lines: Vec<u64>,
    /// The index of its first row among the rows of all files.
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
    /// Reads the files of a task's folder. The caller checks whether the task has enough rows.
    ///
    /// # Errors
    /// If a file cannot be read, or there is only one class.
    pub(crate) fn read(
        task: &str,
        paths: &[PathBuf],
        config: &Config,
        ctx: &Context<'_>,
    ) -> Result<(Self, Vec<Source>)> {
        let mode = match config.split() {
            SplitMethod::Random => ReadMode::Raw,
            SplitMethod::Reference => ReadMode::KeepUnusable,
        };
        let (mut files, mut fitness, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        let mut classes = ClassNames::new(&config.classes);
        for path in paths {
            let (first, mut fields, mut lines) = (fitness.len(), TextBuffer::default(), Vec::new());
            let (names, source) = read(path, config, mode, &mut classes, ctx, |record, width, antibody| {
                lines.push(record.position().map_or(0, csv::Position::line));
                record.iter().for_each(|field| fields.push(&[field]));
                (record.len()..width).for_each(|_| fields.push(&[]));
                fitness.push(antibody.map_or(f32::NAN, |antibody| antibody.fitness));
            })?;
            sources.push(source);
            if !names.is_empty() {
                let position = |wanted: &str| names.iter().position(|name| name == wanted);
                let chains = ChainColumns::Separate { heavy: position("heavy"), light: position("light") };
                let path = below(&config.root, path);
                files.push(RawTable { names: distinct(names), path, fields, lines, first, chains });
            }
        }
        let sorted = classes.sort(task)?;
        if !sorted.is_empty() {
            let usable = fitness.iter_mut().filter(|class: &&mut f32| !class.is_nan());
            usable.for_each(|class| *class = sorted[*class as usize] as f32);
        }
        Ok((Self { files, fitness, classes, chains: config.chains }, sources))
    }

    pub(crate) fn rows(&self) -> usize {
        self.fitness.len()
    }

    /// Each file on its own, with the range of its rows among all.
    pub(crate) fn by_file(self) -> Vec<(Range<usize>, Self)> {
        let Self { files, fitness, classes, chains } = self;
        let single = |file: RawTable| {
            let rows = file.first..file.first + file.rows();
            let (fitness, files) = (fitness[rows.clone()].to_vec(), vec![RawTable { first: 0, ..file }]);
            (rows, Self { fitness, files, classes: classes.clone(), chains })
        };
        files.into_iter().map(single).collect()
    }

    /// The index of each row's file.
    pub(crate) fn file_of_rows(&self) -> Vec<usize> {
        self.files.iter().enumerate().flat_map(|(index, file)| std::iter::repeat_n(index, file.rows())).collect()
    }

    /// The file and line of a row.
    pub(crate) fn origin(&self, row: usize) -> String {
        let (index, row) = self.find(row);
        let file = &self.files[index];
        format!("{}:{}", file.path.display(), file.lines[row])
    }

    /// The index of a row's file, and the row's index in it.
    pub(crate) fn find(&self, row: usize) -> (usize, usize) {
        let index = self.files.partition_point(|file| file.first <= row) - 1;
        (index, row - self.files[index].first)
    }

    /// Touches each field of these rows. Rows in random order are far apart in memory, which loads many pieces at once in the
    /// time of one.
    pub(crate) fn prefetch(&self, rows: &[usize]) {
        for &row in rows {
            let (index, row) = self.find(row);
            let file = &self.files[index];
            (0..file.names.len()).for_each(|column| _ = std::hint::black_box(file.field(row, column)));
        }
    }

    /// The text that a model reads of a row; empty if the row cannot be used.
    pub(crate) fn combined(&self, row: usize) -> String {
        let (index, row) = self.find(row);
        let file = &self.files[index];
        let combined = self.chains.read(file.chains, |column| file.field(row, column));
        combined.map(|combined| combined.parts().concat()).unwrap_or_default()
    }
}

/// A file's path relative to the root.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

/// The names made distinct as by pandas: `Unnamed: 0` for a first column without a name, `name.1` for a second `name`.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(names.len());
    for (column, name) in names.iter().enumerate() {
        let name = if name.is_empty() { format!("Unnamed: {column}") } else { name.clone() };
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
    fn names_are_made_distinct_as_by_pandas() {
        let names = |names: &[&str]| distinct(names.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(names(&["", "a", "a", "", "a"]), ["Unnamed: 0", "a", "a.1", "Unnamed: 3", "a.2"]);
        assert_eq!(names(&["a", "a", "a.1"]), ["a", "a.2", "a.1"]);
    }
}
