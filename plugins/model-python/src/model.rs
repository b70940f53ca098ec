//! Models.

use std::path::Path;

use plugin_api::{
    Context, Epoch, Evaluation, Goal, Kind, Message, Metric, Model, ModelSetup, Params, Received, Result, State, Table,
    Task, TaskSpec, Trained, metrics,
};
use serde::Deserialize;
use serde_json::json;

use crate::config::Config;
use crate::decode::read;
use crate::encode;
use crate::object::Object;

/// A model in Python.
#[derive(Debug)]
pub(crate) struct PythonModel {
    object: Object,
    setup: ModelSetup,
}

impl PythonModel {
    /// Makes an object of the class.
    ///
    /// # Errors
    /// If a task has a target that no class in Python learns, or the object cannot be made.
    #[expect(clippy::needless_pass_by_value, reason = "as `Component` calls it")]
    pub(crate) fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        setup.tasks.iter().try_for_each(|task| task.outputs().map(drop))?;
        let object = Object::new(Kind::Model, &config, &json!({ "setup": encode::setup(setup) }), ctx)?;
        Ok(Self { object, setup: setup.clone() })
    }

    fn predict_for(&self, spec: &TaskSpec, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        if rows.rows() == 0 {
            return spec.predictions(&[]);
        }
        let mut memory = self.object.memory();
        let args = json!({ "spec": encode::spec(spec), "rows": memory.table(rows)? });
        let answer = self.object.call("predict", args, memory, ctx)?;
        answer.table(&answer.value)
    }

    /// The evaluation by the class's own method.
    fn evaluate_by_class(&self, task: &Task, ctx: &Context<'_>) -> Result<Evaluation> {
        #[derive(Deserialize)]
        struct Given {
            loss: String,
            score: String,
            metrics: Vec<(String, String, String)>,
        }
        // Python writes `nan`, `inf` and all else as Rust reads it.
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        let mut memory = self.object.memory();
        let args = json!({ "task": memory.task(task)? });
        let answer = self.object.call("evaluate", args, memory, ctx)?;
        let given: Given = read(&answer.value, "an evaluation")?;
        let metric = |(name, value, better): (String, String, String)| Metric {
            name,
            value: number(&value),
            goal: if better == "lower" { Goal::Lower } else { Goal::Higher },
        };
        Ok(Evaluation {
            task: task.spec.name.clone(),
            examples: task.test.rows() as u64,
            loss: number(&given.loss),
            score: number(&given.score),
            metrics: given.metrics.into_iter().map(metric).collect(),
        })
    }
}

impl Model for PythonModel {
    fn parameters(&mut self, ctx: &Context<'_>) -> Result<Params> {
        let answer = self.object.call("parameters", json!({}), self.object.memory(), ctx)?;
        answer.params(&answer.value)
    }

    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        let mut memory = self.object.memory();
        let args = json!({ "message": memory.message(global)? });
        read(&self.object.call("receive", args, memory, ctx)?.value, "what was received")
    }

    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let mut memory = self.object.memory();
        let args = json!({ "tasks": memory.tasks(tasks)?, "epoch": [epoch.round, epoch.epoch] });
        let seed = ctx.seed().of("train").at(epoch.epoch);
        read(&self.object.call_with(seed, "train", args, memory, ctx)?.value, "what was trained")
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let own = self.object.has.iter().any(|name| name == "evaluate");
        let one = |task: &Task| match own {
            true => self.evaluate_by_class(task, ctx),
            false => metrics::evaluate(task, &self.predict_for(&task.spec, &task.test, ctx)?),
        };
        tasks.iter().map(one).collect()
    }

    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let answer = self.object.call("send", json!({}), self.object.memory(), ctx)?;
        answer.message(&answer.value)
    }

    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        let spec = &self.setup.tasks[self.setup.number(task)?];
        self.predict_for(spec, rows, ctx)
    }

    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Given {
            files: Vec<String>,
        }
        let answer = self.object.call("export", json!({ "folder": folder }), self.object.memory(), ctx)?;
        read(&answer.value, "the names of files").map(|Given { files }| files)
    }

    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        self.object.state(ctx)
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        self.object.restore(state, ctx)
    }
}
