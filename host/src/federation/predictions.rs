//! What a run's models say of the clients' rows: `predictions.csv` in its directory.
//!
//! A line for each row of each client's tasks, in the clients' order: the rows to test on with what was measured and what
//! the last global model and the client's own last model predict, and the rows to train on with what was measured alone.
//! All values are in the targets' own units. The models are those of `summary.json`'s last values and give the same RMSE.
//!
//! The client's own model is the one in `clients/NAME`. The global model is as the client evaluates it: where heads are
//! private, the global trunk with the client's own heads. Rows to train on have no predictions, since those would cost as
//! much as an epoch does for each of the two models, and say nothing of how good a model is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use plugin_api::{Column, ORIGIN, Scale, Table};

use crate::artefacts::names;
use crate::artefacts::run_dir::RunDir;
use crate::artefacts::safetensors::partial;
use crate::error::CliError;

/// What a model predicts of a task at a client.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// The task.
    pub task: String,
    /// The rows that were trained on.
    pub train: Rows,
    /// The rows to test on.
    pub test: Rows,
    /// What is predicted of these, in their order.
    pub values: Vec<f32>,
}

/// Rows as they are told of: the columns are the tables' own and copy nothing.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Where each came from, if the dataset says so.
    origin: Option<Column>,
    /// What was measured.
    measured: Column,
}

impl Rows {
    /// Those of a table.
    ///
    /// # Errors
    /// If it has no column of this name.
    pub fn of(table: &Table, target: &str) -> plugin_api::Result<Self> {
        let measured = table.column(target).cloned();
        let lacks = || plugin_api::Error::data(format!("there is no column `{target}`"));
        Ok(Self { origin: table.column(ORIGIN).cloned(), measured: measured.ok_or_else(lacks)? })
    }

    /// `FILE:LINE` of a row, or its number in the table, from 1.
    fn name(&self, row: usize) -> String {
        match &self.origin {
            Some(Column::Text(origin)) => origin.get(row).to_owned(),
            _ => (row + 1).to_string(),
        }
    }
}

/// A value in the target's own unit.
pub fn restored(value: f32, scale: Option<&Scale>) -> f32 {
    scale.map_or(value, |scale| scale.restore(value.into()) as f32)
}

/// The file while it is written. Under its name it appears when it is whole.
pub struct Writer<'a> {
    path: PathBuf,
    part: PathBuf,
    lines: csv::Writer<BufWriter<File>>,
    scales: &'a BTreeMap<String, Scale>,
}

impl<'a> Writer<'a> {
    /// A file without lines. `scales` are those of the tasks whose targets are standardised.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(run_dir: &RunDir, scales: &'a BTreeMap<String, Scale>) -> Result<Self, CliError> {
        let path = run_dir.path().join(names::PREDICTIONS);
        let part = partial(&path);
        let file = File::create(&part).map_err(|e| CliError::io(&part, "write the predictions", &e))?;
        let lines = csv::Writer::from_writer(BufWriter::new(file));
        let mut writer = Self { path, part, lines, scales };
        writer.line(&["client", "task", "row", "split", "measured", "global_predicted", "own_predicted"])?;
        Ok(writer)
    }

    /// Adds the rows of the next client, of which both models give predictions.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&mut self, client: &str, own: &[Predicted], global: &[Predicted]) -> Result<(), CliError> {
        for (own, global) in own.iter().zip(global) {
            let scale = self.scales.get(&own.task);
            let text = |value: &f32| restored(*value, scale).to_string();
            for (rows, split, predicted) in [(&own.train, "train", false), (&own.test, "test", true)] {
                for (row, measured) in numbers(&rows.measured).iter().enumerate() {
                    let of = |values: &[f32]| values.get(row).filter(|_| predicted).map(text).unwrap_or_default();
                    let (name, measured) = (rows.name(row), text(measured));
                    let [global, own_text] = [&global.values, &own.values].map(|values| of(values));
                    self.line(&[client, &own.task, &name, split, &measured, &global, &own_text])?;
                }
            }
        }
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<(), CliError> {
        let written = self.lines.flush().and_then(|()| std::fs::rename(&self.part, &self.path));
        written.map_err(|e| CliError::io(&self.path, "write the predictions", &e))
    }

    fn line(&mut self, fields: &[&str]) -> Result<(), CliError> {
        self.lines.write_record(fields).map_err(|e| CliError::io(&self.part, "write the predictions", &e.into()))
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Of a whole file there is no part left; any other is of no use.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn numbers(column: &Column) -> Vec<f32> {
    column.numbers().into_iter().map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicted(task: &str, values: &[f32]) -> Predicted {
        let train = Table::new().with("y", Column::f32(&[0.5, -1.0])).unwrap();
        let origin = Column::text(["a b.csv:2", "a,b.csv:9"]);
        let test = Table::new().with("y", Column::f32(&[1.0, f32::NAN])).unwrap().with(ORIGIN, origin).unwrap();
        let (train, test) = (Rows::of(&train, "y").unwrap(), Rows::of(&test, "y").unwrap());
        Predicted { task: task.to_owned(), train, test, values: values.to_vec() }
    }

    #[test]
    fn lines_are_in_the_targets_own_units_and_the_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir =
            RunDir::claim(folder.path(), "x", crate::artefacts::run_dir::Existing::Refuse, &mut |_| {}).unwrap();
        let scales = BTreeMap::from([("tm".to_owned(), Scale { mean: 60.0, deviation: 4.0 })]);
        let mut writer = Writer::new(&run_dir, &scales).unwrap();
        let two = |values: &[f32]| [predicted("tm", values), predicted("kd", values)];
        writer.add("c", &two(&[0.25, 2.0]), &two(&[-1.5, f32::NAN])).unwrap();
        let files = || {
            let names = std::fs::read_dir(run_dir.path()).unwrap().map(|file| file.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).filter(|name| name != "run.lock").collect::<Vec<_>>()
        };
        assert_eq!(files(), ["predictions.csv.part"]);
        writer.finish().unwrap();
        assert_eq!(files(), [names::PREDICTIONS]);
        let text = std::fs::read_to_string(run_dir.path().join(names::PREDICTIONS)).unwrap();
        let wanted = "client,task,row,split,measured,global_predicted,own_predicted\n\
            c,tm,1,train,62,,\nc,tm,2,train,56,,\nc,tm,a b.csv:2,test,64,54,61\nc,tm,\"a,b.csv:9\",test,NaN,NaN,68\n\
            c,kd,1,train,0.5,,\nc,kd,2,train,-1,,\nc,kd,a b.csv:2,test,1,-1.5,0.25\nc,kd,\"a,b.csv:9\",test,NaN,NaN,2\n";
        assert_eq!(text, wanted);
        drop(Writer::new(&run_dir, &scales).unwrap());
        assert_eq!(files(), [names::PREDICTIONS], "a part was left");
    }
}
