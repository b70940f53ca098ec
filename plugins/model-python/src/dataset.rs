//! Datasets.

use std::path::Path;

use plugin_api::{ClientSpec, Context, Dataset, Description, Error, Kind, Result, Source, Table, Task};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::decode::{read, spec};
use crate::object::Object;

/// A dataset in Python.
#[derive(Debug)]
pub(crate) struct PythonDataset(Object);

impl PythonDataset {
    /// Makes an object of the class.
    ///
    /// # Errors
    /// If it cannot be made.
    #[expect(clippy::needless_pass_by_value, reason = "as `Component` calls it")]
    pub(crate) fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        Object::new(Kind::Dataset, &config, &Value::Null, ctx).map(Self)
    }
}

impl Dataset for PythonDataset {
    fn describe(&mut self, ctx: &Context<'_>) -> Result<Description> {
        #[derive(Deserialize)]
        struct Given {
            tasks: Vec<Value>,
            clients: Vec<ClientSpec>,
            sources: Vec<Source>,
        }
        let answer = self.0.call("describe", json!({}), self.0.memory(), ctx)?;
        let given: Given = read(&answer.value, "a description")?;
        let tasks = given.tasks.iter().map(spec).collect::<Result<_>>()?;
        Ok(Description::new(tasks, given.clients, given.sources))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        let answer = self.0.call("load", json!({ "client": client }), self.0.memory(), ctx)?;
        let tasks: Vec<Value> = read(&answer.value, "tasks")?;
        tasks.iter().map(|task| answer.task(task)).collect()
    }

    fn open_rows(&mut self, file: &Path, ctx: &Context<'_>) -> Result<()> {
        if let Err(error) = std::fs::metadata(file) {
            return Err(Error::io(file, &error));
        }
        self.0.call("open_rows", json!({ "file": file }), self.0.memory(), ctx).map(drop)
    }

    fn next_rows(&mut self, at_most: u64, ctx: &Context<'_>) -> Result<Table> {
        let answer = self.0.call("next_rows", json!({ "at_most": at_most }), self.0.memory(), ctx)?;
        answer.table(&answer.value)
    }
}
