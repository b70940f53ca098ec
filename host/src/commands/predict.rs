//! `fedplug predict`: copies the input rows and adds one column per task with the model's predictions.

use std::io::{BufWriter, Write};

use plugin_api::{Column, Context, Level, Model, Scale, Table, cell_name};

use crate::commands::trained::{Options, Trained, inputs, with_trained};
use crate::error::{CliError, Diagnostic};
use crate::federation::predictions::{cell, restored};
use crate::plugins::validate;
use crate::terminal::console::Console;

/// Predicts each row of the input and writes the row with its predictions as CSV, in the order of the input.
/// Predictions are in the units of the targets. Returns the number of rows.
///
/// # Errors
/// If the run or the input cannot be read, or the output cannot be written.
pub(crate) fn predict(options: &Options, console: &Console, output: &mut dyn Write) -> Result<u64, CliError> {
    with_trained(options, console, |mut trained| {
        trained.require_whole()?;
        if trained.scales.is_none() {
            let line = "the run's manifest does not say whether targets were standardised; predictions are in the model's unit";
            console.log(Level::Warn, line);
        }
        write(&mut trained, output)
    })
}

/// The predictions of some rows for each task, in the target's own unit.
fn predictions(trained: &mut Trained<'_>, rows: &Table) -> Result<Vec<Table>, CliError> {
    let mut all = Vec::with_capacity(trained.tasks.len());
    for task in &trained.tasks {
        let scale = trained.scales.as_ref().and_then(|scales| scales.get(task));
        let found = task_predictions(&mut *trained.model, task, rows, scale, &trained.ctx);
        all.push(found.map_err(|error| trained.model_error(error))?);
    }
    Ok(all)
}

/// A model's predictions of some rows for one task, in the target's own unit.
fn task_predictions(
    model: &mut dyn Model,
    task: &str,
    rows: &Table,
    scale: Option<&Scale>,
    ctx: &Context<'_>,
) -> plugin_api::Result<Table> {
    let found = model.predict(task, rows, ctx).and_then(|found| validate::predictions(task, rows, found))?;
    let numbers = found.columns().flat_map(|(_, column)| match column {
        // In a nullable column, missing values are intentional.
        Column::Nullable(_) => Vec::new(),
        column => column.numbers(),
    });
    if let Some(value) = numbers.into_iter().find(|value| !value.is_finite()) {
        return Err(plugin_api::Error::other(format!("task `{task}`: a prediction is {value}")));
    }
    restored(&found, scale)
}

fn write(trained: &mut Trained<'_>, output: &mut dyn Write) -> Result<u64, CliError> {
    let failed = |e: csv::Error| CliError::run(Diagnostic::new("cannot write the predictions").cause(e));
    let mut writer = csv::Writer::from_writer(BufWriter::new(output));
    let (mut count, mut columns) = (0, None);
    loop {
        let table = trained.next_rows()?;
        let (inputs, cells) = apart(&table)?;
        if columns.is_some() && table.rows() == 0 {
            break;
        }
        let predictions = predictions(trained, &inputs)?;
        let predicted = column_names(&trained.tasks, &predictions);
        match &columns {
            None => {
                let header = header(&cells, &predicted)?;
                writer.write_record(header).map_err(failed)?;
                columns = Some(predicted);
            }
            Some(columns) if *columns != predicted => return Err(changed(columns, &predicted)),
            Some(_) => {}
        }
        if table.rows() == 0 {
            break;
        }
        for row in 0..table.rows() {
            let kept = cells.iter().map(|(_, column)| cell(column, row));
            let found = predictions.iter().flat_map(Table::columns);
            writer.write_record(kept.chain(found.map(|(_, column)| cell(column, row)))).map_err(failed)?;
        }
        count += table.rows() as u64;
    }
    writer.flush().map_err(|e| failed(e.into()))?;
    Ok(count)
}

/// The names of the columns of predictions in the output.
fn column_names(tasks: &[String], predictions: &[Table]) -> Vec<String> {
    let of_task = |(task, found): (&String, &Table)| -> Vec<String> {
        found.columns().map(|(name, _)| format!("{task}_{name}")).collect()
    };
    tasks.iter().zip(predictions).flat_map(of_task).collect()
}

/// The header of the output.
fn header<'h>(cells: &Cells<'h>, predicted: &'h [String]) -> Result<Vec<&'h str>, CliError> {
    let mut header: Vec<&str> = cells.iter().map(|(name, _)| *name).collect();
    if let Some(twice) = predicted.iter().find(|name| header.contains(&name.as_str())) {
        let report = Diagnostic::new(format!(
            "the input already has a column `{twice}`, which is the name of a column of predictions"
        ));
        return Err(CliError::usage(report.hint("rename it, or choose other tasks with --task")));
    }
    header.extend(predicted.iter().map(String::as_str));
    Ok(header)
}

/// The error if a model predicts other columns than for earlier rows.
fn changed(before: &[String], now: &[String]) -> CliError {
    let (now, before) = (now.join(", "), before.join(", "));
    CliError::run(Diagnostic::new(format!("the model predicts {now}, but predicted {before} for earlier rows")))
}

/// Columns with their names in the file.
type Cells<'a> = Vec<(&'a str, &'a Column)>;

/// Splits a table into the model's inputs and the columns written before the predictions: the file's own columns, or
/// the inputs if it has none.
fn apart(table: &Table) -> Result<(Table, Cells<'_>), CliError> {
    let inputs = inputs(table)?;
    if let Some((name, column)) = table.columns().find(|(_, column)| !validate::is_written(column)) {
        let what = format!("column `{name}` holds {}, which cannot be written as text", column.kind());
        return Err(CliError::run(Diagnostic::new(what)));
    }
    let cells: Cells<'_> = table.columns().filter_map(|(name, column)| Some((cell_name(name)?, column))).collect();
    Ok((inputs, if cells.is_empty() { table.columns().collect() } else { cells }))
}
