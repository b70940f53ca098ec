//! Writes a task's rows as they are split, with all their columns.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fedplug_tables::{RowWriter, write_csv};
use plugin_api::{Context, Error, Result};

use crate::config::{Config, SplitMethod};
use crate::folders::{TEST, TRAIN, client_file};
use crate::load::RawTask;
use crate::pandas::{self, PandasType};
use crate::raw_tables::RawTables;

/// How many rows are loaded from memory together.
const PREFETCHED: usize = 16;

/// The files to prepare in a folder, the same for each task: `TASK/train_data.csv`, `TASK/test_data.csv` and, with
/// `clients = { count, alpha }`, `TASK/clientK_train_data.csv`.
///
/// # Errors
/// If one of them exists.
pub(crate) fn files(tasks: &[RawTask], config: &Config, folder: &Path) -> Result<Vec<PathBuf>> {
    let clients = config.sites().map_or(0, |sites| sites.count.get());
    let names: Vec<String> =
        [TRAIN.to_owned(), TEST.to_owned()].into_iter().chain((1..=clients).map(client_file)).collect();
    let paths = |task: &RawTask| names.iter().map(|name| folder.join(&task.name).join(name)).collect::<Vec<_>>();
    let files: Vec<PathBuf> = tasks.iter().flat_map(paths).collect();
    if let Some(taken) = files.iter().find(|path| path.exists()) {
        let error = Error::data("the file already exists").in_file(taken, None);
        return Err(error.help("prepare into a new folder, or remove the old files"));
    }
    Ok(files)
}

/// Writes the [`files`] of these tasks on the threads of the call.
///
/// # Errors
/// If a file cannot be written, or the call is cancelled.
pub(crate) fn write(tasks: &[RawTask], config: &Config, files: &[PathBuf], ctx: &Context<'_>) -> Result<()> {
    for folder in files.chunk_by(|a, b| a.parent() == b.parent()).filter_map(|files| files[0].parent()) {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    }
    let tables: Vec<Columns<'_>> =
        tasks.iter().map(|task| Columns::of(&task.tables, config.split(), config.delimiter)).collect();
    let parts = tasks.iter().zip(&tables).flat_map(|(RawTask { split, .. }, columns)| {
        [&split.train[..], &split.test].into_iter().chain(split.site_rows()).map(move |rows| (columns, rows))
    });
    let jobs: Vec<_> = files.iter().zip(parts).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((path, (columns, rows))) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            // After a failure no thread begins another file.
            columns.write(path, rows, ctx).inspect_err(|_| next.store(jobs.len(), Ordering::Relaxed))?;
            ctx.progress(done.fetch_add(1, Ordering::Relaxed) as u64 + 1, jobs.len() as u64);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..ctx.threads().min(jobs.len())).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let theirs = others.into_iter().map(|other| other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        theirs.fold(mine, Result::and)
    })
}

/// The columns of all files of a task.
struct Columns<'a> {
    tables: &'a RawTables,
    split: SplitMethod,
    /// Their names, in order of first appearance, then `combined`.
    names: Vec<String>,
    heavy: Option<usize>,
    light: Option<usize>,
    combined: usize,
    delimiter: u8,
    /// For each file and each column of the task: the column's index in the file and its type, if the file has it.
    columns: Vec<Vec<Option<(usize, PandasType)>>>,
}

impl<'a> Columns<'a> {
    fn of(tables: &'a RawTables, split: SplitMethod, delimiter: u8) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in tables.files.iter().flat_map(|file| &file.names).map(String::as_str).chain(["combined"]) {
            if !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        let position = |name: &str| names.iter().position(|other| other == name);
        let [heavy, light, combined] = ["heavy", "light", "combined"].map(position);
        let combined = combined.unwrap_or_default();
        let mut columns = vec![Vec::new(); tables.files.len()];
        for name in &names {
            for (columns, found) in columns.iter_mut().zip(column_types(tables, name, split)) {
                columns.push(found);
            }
        }
        Self { tables, split, names, heavy, light, combined, delimiter, columns }
    }

    fn write(&self, path: &Path, rows: &[usize], ctx: &Context<'_>) -> Result<()> {
        write_csv(path, self.delimiter, &self.names, rows.len(), ctx, |row, fields| {
            if row.is_multiple_of(PREFETCHED) {
                self.tables.prefetch(&rows[row..rows.len().min(row + PREFETCHED)]);
            }
            self.write_row(rows[row], fields);
        })
    }

    fn write_row(&self, row: usize, fields: &mut RowWriter) {
        let (index, row) = self.tables.find(row);
        let (file, columns) = (&self.tables.files[index], &self.columns[index]);
        let text = |column: usize| match (columns[column], self.split) {
            (None, _) => Cow::Borrowed(""),
            (Some((column, _)), SplitMethod::Random) => Cow::Borrowed(file.field(row, column)),
            (Some((column, kind)), SplitMethod::Reference) => kind.printed(file.field(row, column)),
        };
        for column in 0..self.names.len() {
            if column == self.combined {
                let chain = |column: Option<usize>| column.map_or(Cow::Borrowed(""), text);
                self.combine(&chain(self.heavy), &chain(self.light), fields);
            } else {
                fields.push(&[&text(column)]);
            }
        }
    }

    /// The published preparation joins the chains without normalising them, and leaves the field empty if one is missing.
    fn combine(&self, heavy: &str, light: &str, fields: &mut RowWriter) {
        match self.split {
            // Every row of a random split is usable.
            SplitMethod::Random => match self.tables.chains.combine(heavy, light) {
                Ok(combined) => fields.push(&combined.parts()),
                Err(_) => fields.push(&[]),
            },
            SplitMethod::Reference if heavy.is_empty() || light.is_empty() => fields.push(&[]),
            SplitMethod::Reference => fields.push(&[heavy, "|", light]),
        }
    }
}

/// Finds a column in every file, and its type in pandas where that affects how values are printed.
fn column_types(tables: &RawTables, name: &str, split: SplitMethod) -> Vec<Option<(usize, PandasType)>> {
    let tables = &tables.files;
    let columns: Vec<Option<usize>> =
        tables.iter().map(|file| file.names.iter().position(|other| other == name)).collect();
    if split == SplitMethod::Random {
        return columns.into_iter().map(|column| column.map(|column| (column, PandasType::Text))).collect();
    }
    let kind = |(file, column): (&crate::raw_tables::RawTable, &Option<usize>)| {
        column.map(|column| PandasType::of((0..file.rows()).map(|row| file.field(row, column))))
    };
    let mut kinds: Vec<Option<PandasType>> = tables.iter().zip(&columns).map(kind).collect();
    pandas::joined(&mut kinds);
    columns.into_iter().zip(kinds).map(|(column, kind)| column.zip(kind)).collect()
}
