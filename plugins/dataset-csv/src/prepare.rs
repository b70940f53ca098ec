//! Writes the clients' tables as CSV files.

use std::fs;
use std::path::{Path, PathBuf};

use fedplug_tables::write_csv;
use plugin_api::{Column, Context, Error, ORIGIN, Result, Table, VALIDATION};

use crate::clients::Data;
use crate::config::Config;

/// Writes `folder/TASK/CLIENT/train.csv` and `test.csv` for tables with rows, and returns their paths.
///
/// # Errors
/// If a file exists or cannot be written, or the call is cancelled.
pub(crate) fn prepare(data: &Data, config: &Config, folder: &Path, ctx: &Context<'_>) -> Result<Vec<PathBuf>> {
    let tables = data.clients.iter().flat_map(|(client, tasks)| {
        tasks.iter().flat_map(move |task| {
            let folder = folder.join(&task.spec.name).join(client);
            [(folder.join("train.csv"), &task.train), (folder.join("test.csv"), &task.test)]
        })
    });
    let tables: Vec<(PathBuf, &Table)> = tables.filter(|(_, table)| table.rows() > 0).collect();
    if let Some((taken, _)) = tables.iter().find(|(path, _)| path.exists()) {
        let error = Error::data("the file already exists").in_file(taken, None);
        return Err(error.help("prepare into a new folder, or remove the old files"));
    }
    for (done, (path, table)) in tables.iter().enumerate() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
        }
        write(path, config, table, ctx)?;
        ctx.progress(done as u64 + 1, tables.len() as u64);
    }
    Ok(tables.into_iter().map(|(path, _)| path).collect())
}

fn write(path: &Path, config: &Config, table: &Table, ctx: &Context<'_>) -> Result<()> {
    enum Cells<'a> {
        Texts(&'a plugin_api::TextColumn),
        Numbers(&'a [f32]),
    }
    let cells = |(name, column): (&str, &'_ Column)| match column {
        Column::Text(_) => table.text(name).map(Cells::Texts),
        _ => table.f32(name).map(Cells::Numbers),
    };
    let written = || table.columns().filter(|(name, _)| ![ORIGIN, VALIDATION].contains(name));
    let columns: Vec<Cells<'_>> = written().map(cells).collect::<Result<_>>()?;
    let header: Vec<String> = written().map(|(name, _)| name.to_owned()).collect();
    write_csv(path, config.delimiter, &header, table.rows(), ctx, |row, fields| {
        for column in &columns {
            match column {
                Cells::Texts(texts) => fields.push(&[texts.get(row)]),
                Cells::Numbers(numbers) => fields.push(&[&config.decimal.format(numbers[row])]),
            }
        }
    })
}
