//! `predictions.csv`: what a run's models predict for the clients' rows.
//!
//! The file has one line for each row of each client's tasks, in the order of clients. A test row has the measured
//! value and the predictions of the last global model and of the client's own last model. A training row has only the
//! measured value. A model that predicts more than one number has more columns, each for both models. All values are in
//! the targets' own units. The models are those of the last values in `summary.json` and give the same RMSE.
//!
//! The client's own model is the one in `clients/NAME`. The global model is as the client evaluates it: if heads are
//! private, it is the global trunk with the client's own heads. Training rows have no predictions: they would cost as
//! much as an epoch for each of the two models, and would not show how good a model is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use plugin_api::{Column, DEVIATION, ORIGIN, PREDICTED, Scale, Table};
use serde::{Deserialize, Serialize};

use crate::artefacts::names;
use crate::artefacts::safetensors::partial;
use crate::error::CliError;
use crate::federation::exact;

/// A model's predictions for a task at a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Predicted {
    /// The task's name.
    pub task: String,
    /// The training rows.
    pub train: Rows,
    /// The test rows.
    pub test: Rows,
    /// The predictions for the test rows, in order: one column of numbers, or other columns that the model gives.
    #[serde(with = "exact")]
    pub values: Table,
}

/// The origin and the measured value of each row. Columns are shared with the dataset's table, not copied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rows {
    /// The origin of each row, if the dataset gives it.
    #[serde(with = "exact")]
    origin: Option<Column>,
    /// The measured values.
    #[serde(with = "exact")]
    measured: Column,
}

impl Rows {
    /// Takes the rows of a table, with `target` as the column of measured values.
    ///
    /// # Errors
    /// If the table has no such column.
    pub(crate) fn of(table: &Table, target: &str) -> plugin_api::Result<Self> {
        let measured = table.column(target).cloned();
        let lacks = || plugin_api::Error::data(format!("there is no column `{target}`"));
        Ok(Self { origin: table.column(ORIGIN).cloned(), measured: measured.ok_or_else(lacks)? })
    }

    /// `FILE:LINE` of a row, or its number in the table, starting at 1.
    fn name(&self, row: usize) -> String {
        match &self.origin {
            Some(Column::Text(origin)) => origin.get(row).to_owned(),
            _ => (row + 1).to_string(),
        }
    }
}

/// Converts predictions to the target's own unit. Scales back the predicted number and its deviation and leaves other
/// columns unchanged.
///
/// # Errors
/// Never in practice, since the columns already formed a table.
pub(crate) fn restored(table: &Table, scale: Option<&Scale>) -> plugin_api::Result<Table> {
    let Some(scale) = scale else { return Ok(table.clone()) };
    let restored = |column: &Column, restore: &dyn Fn(f64) -> f64| {
        let numbers = column.numbers().into_iter().map(restore);
        match column {
            Column::F32(_) => Column::f32(&numbers.map(|x| x as f32).collect::<Vec<_>>()),
            Column::F64(_) => Column::f64(&numbers.collect::<Vec<_>>()),
            other => other.clone(),
        }
    };
    table.columns().try_fold(Table::new(), |table, (name, column)| {
        let column = match name {
            PREDICTED => restored(column, &|x| scale.restore(x)),
            DEVIATION => restored(column, &|x| scale.deviation * x),
            _ => column.clone(),
        };
        table.with(name, column)
    })
}

/// The value of a column in a row as text; empty if there is none.
pub(crate) fn cell(column: &Column, row: usize) -> String {
    match column {
        Column::Text(column) => column.get(row).to_owned(),
        Column::Nullable(column) if !column.is_present(row) => String::new(),
        Column::Nullable(column) => cell(column.values(), row),
        // Print the digits of the 32-bit value, not those of its 64-bit conversion.
        Column::F32(buffer) => buffer.try_cast::<f32>().map(|all| all[row].to_string()).unwrap_or_default(),
        Column::I64(buffer) => buffer.try_cast::<i64>().map(|all| all[row].to_string()).unwrap_or_default(),
        Column::Bool(buffer) => (buffer.as_slice()[row] != 0).to_string(),
        other => other.select(&[row]).numbers().first().copied().unwrap_or(f64::NAN).to_string(),
    }
}

/// Collects the file's contents. The file is written at the end, since its header depends on all clients' predictions.
pub(crate) struct Writer<'a> {
    path: PathBuf,
    scales: &'a BTreeMap<String, Scale>,
    /// The tasks of each client, with the predictions of its own and of the global model.
    clients: Vec<(String, Vec<(Predicted, Table)>)>,
}

impl<'a> Writer<'a> {
    /// Creates a writer without rows for a file in this folder. `scales` are those of the tasks with standardised targets.
    pub(crate) fn new(folder: &Path, scales: &'a BTreeMap<String, Scale>) -> Self {
        Self { path: folder.join(names::PREDICTIONS), scales, clients: Vec::new() }
    }

    /// Adds the rows of the next client, with the predictions of both models.
    pub(crate) fn add(&mut self, client: &str, own: Vec<Predicted>, global: Vec<Predicted>) {
        let tasks = own.into_iter().zip(global).map(|(own, global)| (own, global.values)).collect();
        self.clients.push((client.to_owned(), tasks));
    }

    /// Writes the file, unless no client was added. It appears under its name only when it is complete.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn finish(self) -> Result<(), CliError> {
        if self.clients.is_empty() {
            return Ok(());
        }
        let part = partial(&self.path);
        let written = self.write(&part).and_then(|()| std::fs::rename(&part, &self.path));
        written.map_err(|e| {
            // The incomplete file is of no use.
            let _ = std::fs::remove_file(&part);
            CliError::io(&self.path, "write the predictions", &e)
        })
    }

    fn write(&self, part: &Path) -> std::io::Result<()> {
        let mut lines = csv::Writer::from_writer(BufWriter::new(File::create(part)?));
        let names = self.names();
        let columns = names.iter().flat_map(|name| ["global", "own"].map(|model| format!("{model}_{name}")));
        let first = ["client", "task", "row", "split", "measured"].map(str::to_owned);
        lines.write_record(first.into_iter().chain(columns))?;
        for (client, tasks) in &self.clients {
            for (own, global) in tasks {
                let scale = self.scales.get(&own.task);
                let in_unit = |table: &Table| restored(table, scale).map_err(std::io::Error::other);
                let models = [in_unit(global)?, in_unit(&own.values)?];
                for (rows, split, predicted) in [(&own.train, "train", false), (&own.test, "test", true)] {
                    let measured =
                        Table::new().with(PREDICTED, rows.measured.clone()).and_then(|t| restored(&t, scale));
                    let measured = measured.map_err(std::io::Error::other)?;
                    let of = |table: &Table, name: &str, row| {
                        table.column(name).filter(|_| predicted).map(|column| cell(column, row)).unwrap_or_default()
                    };
                    for row in 0..measured.rows() {
                        let found = names.iter().flat_map(|name| models.each_ref().map(|table| of(table, name, row)));
                        let value = measured.column(PREDICTED).map(|column| cell(column, row)).unwrap_or_default();
                        let first = [client.clone(), own.task.clone(), rows.name(row), split.to_owned(), value];
                        lines.write_record(first.into_iter().chain(found))?;
                    }
                }
            }
        }
        lines.flush()
    }

    /// The columns that any model gives, in order of first appearance. If there are none, the column of predicted
    /// numbers.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let tables = self.clients.iter().flat_map(|(_, tasks)| tasks).flat_map(|(own, global)| [&own.values, global]);
        for (name, _) in tables.flat_map(Table::columns) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() { vec![PREDICTED] } else { names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artefacts::run_dir::RunDir;

    fn predicted(task: &str, values: &[f32]) -> Predicted {
        let train = Table::new().with("y", Column::f32(&[0.5, -1.0])).unwrap();
        let origin = Column::text(["a b.csv:2", "a,b.csv:9"]);
        let test = Table::new().with("y", Column::f32(&[1.0, f32::NAN])).unwrap().with(ORIGIN, origin).unwrap();
        let (train, test) = (Rows::of(&train, "y").unwrap(), Rows::of(&test, "y").unwrap());
        Predicted { task: task.to_owned(), train, test, values: Table::predicted(values) }
    }

    #[test]
    fn lines_are_in_the_targets_own_units_and_the_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir =
            RunDir::claim(folder.path(), "x", crate::artefacts::run_dir::Existing::Refuse, &mut |_| {}).unwrap();
        let scales = BTreeMap::from([("tm".to_owned(), Scale { mean: 60.0, deviation: 4.0 })]);
        let mut writer = Writer::new(run_dir.path(), &scales);
        let two = |values: &[f32]| vec![predicted("tm", values), predicted("kd", values)];
        writer.add("c", two(&[0.25, 2.0]), two(&[-1.5, f32::NAN]));
        let files = || {
            let names = std::fs::read_dir(run_dir.path()).unwrap().map(|file| file.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).filter(|name| name != "run.lock").collect::<Vec<_>>()
        };
        writer.finish().unwrap();
        assert_eq!(files(), [names::PREDICTIONS]);
        let text = std::fs::read_to_string(run_dir.path().join(names::PREDICTIONS)).unwrap();
        let wanted = "client,task,row,split,measured,global_predicted,own_predicted\n\
            c,tm,1,train,62,,\nc,tm,2,train,56,,\nc,tm,a b.csv:2,test,64,54,61\nc,tm,\"a,b.csv:9\",test,NaN,NaN,68\n\
            c,kd,1,train,0.5,,\nc,kd,2,train,-1,,\nc,kd,a b.csv:2,test,1,-1.5,0.25\nc,kd,\"a,b.csv:9\",test,NaN,NaN,2\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn models_that_predict_more_than_a_number_have_columns_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir =
            RunDir::claim(folder.path(), "x", crate::artefacts::run_dir::Existing::Refuse, &mut |_| {}).unwrap();
        let scales = BTreeMap::from([("tm".to_owned(), Scale { mean: 60.0, deviation: 4.0 })]);
        let sure = |values: &[f32], deviations: &[f64]| Predicted {
            values: Table::predicted(values).with(plugin_api::DEVIATION, Column::f64(deviations)).unwrap(),
            ..predicted("tm", &[])
        };
        let classes = |likely: [f32; 2], named: [&str; 2]| Predicted {
            values: Table::new()
                .with("high", Column::f32(&likely))
                .unwrap()
                .with("class", Column::text(named))
                .unwrap(),
            ..predicted("kd", &[])
        };
        let mut writer = Writer::new(run_dir.path(), &scales);
        writer.add("a", vec![sure(&[0.25, 2.0], &[0.5, 1.0])], vec![sure(&[0.5, 1.0], &[0.25, 2.0])]);
        writer.add("b", vec![classes([0.5, 0.75], ["low", "high"])], vec![classes([0.25, 1.0], ["low", "high"])]);
        writer.finish().unwrap();
        let text = std::fs::read_to_string(run_dir.path().join(names::PREDICTIONS)).unwrap();
        let tests: Vec<&str> = text.lines().filter(|line| !line.contains(",train,")).collect();
        assert_eq!(
            tests,
            [
                "client,task,row,split,measured,global_predicted,own_predicted,global_deviation,own_deviation,\
                 global_high,own_high,global_class,own_class",
                "a,tm,a b.csv:2,test,64,62,61,1,2,,,,",
                "a,tm,\"a,b.csv:9\",test,NaN,64,68,8,4,,,,",
                "b,kd,a b.csv:2,test,1,,,,,0.25,0.5,low,low",
                "b,kd,\"a,b.csv:9\",test,NaN,,,,,1,0.75,high,high",
            ]
        );
    }
}
