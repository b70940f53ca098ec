//! Writing a task's rows as they are split and dealt, with all their columns.

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

/// So many rows are fetched from memory together.
const FETCHED: usize = 16;

/// The files that are prepared in a folder, as many for each task: `TASK/train_data.csv`, `TASK/test_data.csv` and, for
/// clients of a number, `TASK/clientK_train_data.csv`.
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
        let error = Error::data("there is such a file already").in_file(taken, None);
        return Err(error.help("prepare into a new folder, or remove what was prepared before"));
    }
    Ok(files)
}

/// Writes the [`files`] of these tasks, on as many threads as the call may use: what a file says hangs on no other.
pub(crate) fn write(tasks: &[RawTask], config: &Config, files: &[PathBuf], ctx: &Context<'_>) -> Result<()> {
    for folder in files.chunk_by(|a, b| a.parent() == b.parent()).filter_map(|files| files[0].parent()) {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    }
    let sheets: Vec<Columns<'_>> =
        tasks.iter().map(|task| Columns::of(&task.sheets, config.split(), config.delimiter)).collect();
    let parts = tasks.iter().zip(&sheets).flat_map(|(RawTask { split, .. }, columns)| {
        [&split.train[..], &split.test].into_iter().chain(split.site_rows()).map(move |rows| (columns, rows))
    });
    let jobs: Vec<_> = files.iter().zip(parts).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let some = || {
        while let Some((path, (columns, rows))) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            // After a failure nobody begins another file.
            columns.write(path, rows, ctx).inspect_err(|_| next.store(jobs.len(), Ordering::Relaxed))?;
            ctx.progress(done.fetch_add(1, Ordering::Relaxed) as u64 + 1, jobs.len() as u64);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..ctx.threads().min(jobs.len())).map(|_| scope.spawn(some)).collect();
        let mine = some();
        let theirs = others.into_iter().map(|other| other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        theirs.fold(mine, Result::and)
    })
}

/// The columns of all files of a task.
struct Columns<'a> {
    sheets: &'a RawTables,
    split: SplitMethod,
    /// Their names, in the order in which they first appear, and then `combined`.
    names: Vec<String>,
    heavy: Option<usize>,
    light: Option<usize>,
    combined: usize,
    delimiter: u8,
    /// For each file and each column of the task the column there and what it is taken for, if there is one.
    places: Vec<Vec<Option<(usize, PandasType)>>>,
}

impl<'a> Columns<'a> {
    fn of(sheets: &'a RawTables, split: SplitMethod, delimiter: u8) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in sheets.sheets.iter().flat_map(|sheet| &sheet.names).map(String::as_str).chain(["combined"]) {
            if !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
        }
        let place = |name: &str| names.iter().position(|other| other == name);
        let [heavy, light, combined] = ["heavy", "light", "combined"].map(place);
        let combined = combined.unwrap_or_default();
        let mut places = vec![Vec::new(); sheets.sheets.len()];
        for name in &names {
            for (places, found) in places.iter_mut().zip(column_types(sheets, name, split)) {
                places.push(found);
            }
        }
        Self { sheets, split, names, heavy, light, combined, delimiter, places }
    }

    fn write(&self, path: &Path, rows: &[usize], ctx: &Context<'_>) -> Result<()> {
        write_csv(path, self.delimiter, &self.names, rows.len(), ctx, |row, fields| {
            if row.is_multiple_of(FETCHED) {
                self.sheets.fetch(&rows[row..rows.len().min(row + FETCHED)]);
            }
            self.write_row(rows[row], fields);
        })
    }

    fn write_row(&self, row: usize, fields: &mut RowWriter) {
        let (place, row) = self.sheets.find(row);
        let (sheet, places) = (&self.sheets.sheets[place], &self.places[place]);
        let text = |column: usize| match (places[column], self.split) {
            (None, _) => Cow::Borrowed(""),
            (Some((place, _)), SplitMethod::Random) => Cow::Borrowed(sheet.field(row, place)),
            (Some((place, kind)), SplitMethod::Reference) => kind.printed(sheet.field(row, place)),
        };
        for column in 0..self.names.len() {
            if column == self.combined {
                let chain = |place: Option<usize>| place.map_or(Cow::Borrowed(""), text);
                self.combine(&chain(self.heavy), &chain(self.light), fields);
            } else {
                fields.push(&[&text(column)]);
            }
        }
    }

    /// The reference joins the chains as they stand, and has nothing where one is missing.
    fn combine(&self, heavy: &str, light: &str, fields: &mut RowWriter) {
        match self.split {
            // Every row of a random split is usable.
            SplitMethod::Random => match self.sheets.chains.combine(heavy, light) {
                Ok(combined) => fields.push(&combined.parts()),
                Err(_) => fields.push(&[]),
            },
            SplitMethod::Reference if heavy.is_empty() || light.is_empty() => fields.push(&[]),
            SplitMethod::Reference => fields.push(&[heavy, "|", light]),
        }
    }
}

/// Finds a column in every file, and what pandas would take its values for where that matters.
fn column_types(sheets: &RawTables, name: &str, split: SplitMethod) -> Vec<Option<(usize, PandasType)>> {
    let sheets = &sheets.sheets;
    let places: Vec<Option<usize>> =
        sheets.iter().map(|sheet| sheet.names.iter().position(|other| other == name)).collect();
    if split == SplitMethod::Random {
        return places.into_iter().map(|place| place.map(|place| (place, PandasType::Text))).collect();
    }
    let kind = |(sheet, place): (&crate::raw_tables::RawTable, &Option<usize>)| {
        place.map(|place| PandasType::of((0..sheet.rows()).map(|row| sheet.field(row, place))))
    };
    let mut kinds: Vec<Option<PandasType>> = sheets.iter().zip(&places).map(kind).collect();
    pandas::joined(&mut kinds);
    places.into_iter().zip(kinds).map(|(place, kind)| place.zip(kind)).collect()
}
