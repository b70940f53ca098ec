//! Checks for models.

mod behaviour;
mod calls;
mod inputs;

use serde_json::Value;

use super::subject::{SEED, Subject, context};
use super::verdict::Verdict;
use super::watcher::Watcher;
use plugin_api::{
    Component, Context, Epoch, ErrorKind, Evaluation, Message, Model, ModelSetup, Params, Result, State, Table, Task,
    Trained,
};

/// The checks for a model, and their inputs.
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `check` is called"]
pub struct ModelCheck {
    subject: Subject,
    tasks: Vec<Task>,
    setup: ModelSetup,
    device: String,
}

impl ModelCheck {
    /// Checks this component with this configuration, as the model of a client that holds all of these tasks. Each task
    /// needs rows to train on and rows to test on.
    pub fn new(component: &Component, config: &Value, tasks: &[Task]) -> Self {
        let setup = ModelSetup::new(tasks.iter().map(|task| task.spec.clone()).collect(), 3, 1);
        Self { subject: Subject::new(component, config), tasks: tasks.to_vec(), setup, device: "cpu".to_owned() }
    }

    /// Runs on a device other than the CPU.
    pub fn on_device(mut self, device: &str) -> Self {
        device.clone_into(&mut self.device);
        self
    }

    /// Runs the checks in order.
    pub fn check(&self) -> Verdict {
        self.subject.verdict(|verdict| {
            let made = "the host makes an instance for the server and one for each client";
            if !verdict.run("new", made, || Ok(self.make(SEED).map(drop)?)) {
                verdict.skip(&calls::NAMES, "no instance could be made");
                verdict.skip(&behaviour::NAMES, "no instance could be made");
            } else if !self.calls(verdict) {
                verdict.skip(&behaviour::NAMES, "the calls before it have to work");
            } else {
                self.behaviour(verdict);
            }
        })
    }

    /// A client's instance, in an experiment with this seed.
    fn make(&self, seed: u64) -> Result<Box<dyn Model>> {
        self.make_for(&self.setup, seed)
    }

    fn make_for(&self, setup: &ModelSetup, seed: u64) -> Result<Box<dyn Model>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, seed).with_client("client").with_device(&self.device);
        self.subject.component.new_model(&self.subject.config, setup, &ctx)
    }

    /// The context of a client's call in a round.
    fn ctx<'a>(&'a self, watcher: &'a Watcher, round: u64) -> Context<'a> {
        context(watcher, SEED).with_client("client").with_round(round).with_device(&self.device)
    }

    /// Plays a client's round, and returns everything observable.
    fn round(&self, model: &mut dyn Model, global: &Message, round: u64) -> Result<Round> {
        let watcher = Watcher::new();
        let ctx = self.ctx(&watcher, round);
        model.receive(global, &ctx)?;
        let mut evaluations = model.evaluate(&self.tasks, &ctx)?;
        let trained = model.train(&self.tasks, Epoch { round, epoch: 0 }, &ctx)?;
        evaluations.extend(model.evaluate(&self.tasks, &ctx)?);
        let sent = model.send(&ctx)?;
        let predict = |task: &Task| predictions(model, task, &ctx).transpose();
        let predicted = self.tasks.iter().filter_map(predict).collect::<Result<_>>()?;
        Ok(Round { evaluations, trained, sent, predicted, params: model.parameters(&ctx)?, state: model.state(&ctx)? })
    }

    /// The tasks, with all rows removed.
    fn empty_tasks(&self) -> Vec<Task> {
        let empty =
            |task: &Task| Task { spec: task.spec.clone(), train: task.train.select(&[]), test: task.test.select(&[]) };
        self.tasks.iter().map(empty).collect()
    }
}

/// A model's predictions of the test rows. None if the model does not predict, as one that learns without targets.
fn predictions(model: &mut dyn Model, task: &Task, ctx: &Context<'_>) -> Result<Option<Table>> {
    match model.predict(&task.spec.name, &task.test, ctx) {
        Err(error) if *error.kind() == ErrorKind::Unsupported => Ok(None),
        found => found.map(Some),
    }
}

/// Everything observable of a model in a round.
struct Round {
    evaluations: Vec<Evaluation>,
    trained: Trained,
    sent: Message,
    predicted: Vec<Table>,
    params: Params,
    state: State,
}

impl Round {
    /// The first difference from another round.
    fn difference(&self, other: &Self) -> Option<String> {
        use super::compare;
        let trained = (self.trained != other.trained)
            .then(|| format!("training did {:?}, and did {:?}", other.trained, self.trained));
        let predicted = || {
            let pairs = self.predicted.iter().zip(&other.predicted);
            pairs.into_iter().find_map(|(a, b)| compare::tables(a, b).map(|what| format!("predictions: {what}")))
        };
        trained
            .or_else(|| compare::params(&self.params, &other.params))
            .or_else(|| compare::evaluations(&self.evaluations, &other.evaluations))
            .or_else(predicted)
            .or_else(|| compare::messages(&self.sent, &other.sent).map(|what| format!("sent: {what}")))
            .or_else(|| compare::states(&self.state, &other.state).map(|what| format!("state: {what}")))
    }
}
