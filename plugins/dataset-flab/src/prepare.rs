//! Writing a task's rows as they are split and dealt, with all their columns.

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fedplug_tables::text::{Texts, visible};
use fedplug_tables::write_csv;
use plugin_api::{Context, Error, Result};

use crate::config::{Config, Split};
use crate::folders::{self, TEST, TRAIN, client_file};
use crate::load::{check_usable, form};
use crate::pandas::{self, Kind};
use crate::read::read;
use crate::split;

/// Writes `folder/TASK/train_data.csv`, `test_data.csv` and, for clients of a number, `clientK_train_data.csv`.
pub(crate) fn prepare(config: &Config, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
    let raw = folders::of_tasks(&config.root, &config.tasks)?;
    if folders::are_prepared(&config.root, &config.tasks, &raw)? {
        let error = Error::data("the data is prepared already").in_file(&config.root, None);
        return Err(error.help("`root` is to name the folder of the measurements"));
    }
    let clients = config.sites().map_or(0, |sites| sites.count.get());
    let names: Vec<String> =
        [TRAIN.to_owned(), TEST.to_owned()].into_iter().chain((1..=clients).map(client_file)).collect();
    let paths = |task| names.iter().map(move |name| folder.join(task).join(name));
    let files: Vec<PathBuf> = config.tasks.iter().flat_map(paths).collect();
    if let Some(taken) = files.iter().find(|path| path.exists()) {
        let error = Error::data("there is such a file already").in_file(taken, None);
        return Err(error.help("prepare into a new folder, or remove what was prepared before"));
    }

    for (k, (task, raw)) in config.tasks.iter().zip(&raw).enumerate() {
        let sheets = Sheets::read(task, raw, config, ctx)?;
        let deal = split::deal(sheets.rows(), task, config, ctx)?;
        let task_folder = folder.join(task);
        fs::create_dir_all(&task_folder).map_err(|e| Error::io(&task_folder, &e))?;
        let files = &files[k * names.len()..][..names.len()];
        let rows = [&deal.train[..], &deal.test].into_iter().chain(deal.parts());
        for (i, (path, rows)) in files.iter().zip(rows).enumerate() {
            sheets.write(path, rows, ctx)?;
            ctx.progress((k * names.len() + i + 1) as u64, (config.tasks.len() * names.len()) as u64);
        }
    }
    Ok(files)
}

/// All files of a task with all their columns.
struct Sheets {
    split: Split,
    /// The names of the columns, in the order in which they first appear, and then `combined`.
    columns: Vec<String>,
    heavy: usize,
    light: usize,
    combined: usize,
    sheets: Vec<Sheet>,
}

/// One file.
struct Sheet {
    names: Vec<String>,
    /// The fields of all rows, row after row.
    fields: Texts,
    /// The number of its first row among all files' rows.
    first: usize,
    /// For each column of the task the column here and what it is taken for, if there is one.
    columns: Vec<Option<(usize, Kind)>>,
}

impl Sheet {
    fn rows(&self) -> usize {
        self.fields.len() / self.names.len()
    }

    fn field(&self, row: usize, column: usize) -> &str {
        self.fields.get(row * self.names.len() + column)
    }
}

impl Sheets {
    fn read(task: &str, folder: &Path, config: &Config, ctx: &Context<'_>) -> Result<Self> {
        let (mut sheets, mut sources, mut first) = (Vec::new(), Vec::new(), 0);
        for path in folders::csv_files(folder)? {
            let (mut fields, mut widths) = (Texts::default(), Vec::new());
            let (names, source) = read(&path, &config.target, form(config), ctx, |record, _| {
                record.iter().for_each(|field| fields.push(&[field]));
                widths.push(record.len());
            })?;
            sources.push(source);
            let fields = padded(fields, &widths, names.len());
            if !names.is_empty() {
                let sheet = Sheet { names: distinct(names), fields, first, columns: Vec::new() };
                first += sheet.rows();
                sheets.push(sheet);
            }
        }
        check_usable(task, folder, config, &sources)?;
        let mut columns: Vec<String> = Vec::new();
        for name in sheets.iter().flat_map(|sheet| &sheet.names).map(String::as_str).chain(["combined"]) {
            if !columns.iter().any(|column| column == name) {
                columns.push(name.to_owned());
            }
        }
        let place = |name: &str| columns.iter().position(|column| column == name).unwrap_or_default();
        let [heavy, light, combined] = ["heavy", "light", "combined"].map(place);
        let split = config.split();
        for name in &columns {
            match_up(&mut sheets, name, split);
        }
        Ok(Self { split, columns, heavy, light, combined, sheets })
    }

    fn rows(&self) -> usize {
        self.sheets.iter().map(Sheet::rows).sum()
    }

    fn write(&self, path: &Path, rows: &[usize], ctx: &Context<'_>) -> Result<()> {
        write_csv(path, b',', &self.columns, rows.len(), ctx, |row, writer| self.write_row(rows[row], writer))
    }

    fn write_row(&self, row: usize, writer: &mut csv::Writer<File>) -> csv::Result<()> {
        let sheet = &self.sheets[self.sheets.partition_point(|sheet| sheet.first <= row) - 1];
        let row = row - sheet.first;
        let text = |column: usize| match (sheet.columns[column], self.split) {
            (None, _) => Cow::Borrowed(""),
            (Some((place, _)), Split::Random) => Cow::Borrowed(sheet.field(row, place)),
            (Some((place, kind)), Split::Reference) => kind.printed(sheet.field(row, place)),
        };
        for column in 0..self.columns.len() {
            if column == self.combined {
                let combined = self.combine(&text(self.heavy), &text(self.light));
                writer.write_field(combined)?;
            } else {
                writer.write_field(&*text(column))?;
            }
        }
        writer.write_record(None::<&[u8]>)
    }

    /// The reference joins the chains as they stand, and has nothing where one is missing.
    fn combine(&self, heavy: &str, light: &str) -> String {
        match self.split {
            Split::Random => format!("{}|{}", visible(heavy), visible(light)),
            Split::Reference if heavy.is_empty() || light.is_empty() => String::new(),
            Split::Reference => format!("{heavy}|{light}"),
        }
    }
}

/// Finds a column in every sheet, and what pandas would take its values for where that matters.
fn match_up(sheets: &mut [Sheet], name: &str, split: Split) {
    let kind = |sheet: &Sheet, place: usize| match split {
        Split::Random => Kind::Text,
        Split::Reference => Kind::of((0..sheet.rows()).map(|row| sheet.field(row, place))),
    };
    let places: Vec<Option<usize>> =
        sheets.iter().map(|sheet| sheet.names.iter().position(|other| other == name)).collect();
    let mut kinds: Vec<Option<Kind>> =
        sheets.iter().zip(&places).map(|(sheet, place)| place.map(|place| kind(sheet, place))).collect();
    pandas::joined(&mut kinds);
    for ((sheet, place), kind) in sheets.iter_mut().zip(places).zip(kinds) {
        sheet.columns.push(place.zip(kind));
    }
}

/// The fields with empty ones added to rows that have too few.
fn padded(fields: Texts, widths: &[usize], width: usize) -> Texts {
    if widths.iter().all(|&w| w == width) {
        return fields;
    }
    let (mut padded, mut next) = (Texts::default(), 0);
    for &w in widths {
        (next..next + w).for_each(|field| padded.push(&[fields.get(field)]));
        (w..width).for_each(|_| padded.push(&[]));
        next += w;
    }
    padded
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
mod tests;
