//! Models, which clients train.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Context, Error, Message, Params, Result, State, Table, Task, TaskSpec};

/// What a model is created for. A later interface may add fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelSetup {
    /// Every task of the experiment, in the dataset's order. A task's index in this list is its number at every client.
    pub tasks: Vec<TaskSpec>,
    /// The names of the tasks that this instance trains. The server's instance has all of them.
    pub held: Vec<String>,
    /// The number of rounds in the whole run.
    pub rounds: u64,
    /// The number of epochs that a client trains per round.
    pub local_epochs: u64,
}

impl ModelSetup {
    /// A setup that holds every task.
    pub fn new(tasks: Vec<TaskSpec>, rounds: u64, local_epochs: u64) -> Self {
        Self { held: tasks.iter().map(|task| task.name.clone()).collect(), tasks, rounds, local_epochs }
    }

    /// The same setup for an instance that holds only these tasks.
    #[must_use]
    pub fn holding(&self, held: Vec<String>) -> Self {
        Self { held, ..self.clone() }
    }

    /// The number of a task.
    ///
    /// # Errors
    /// If the experiment has no such task.
    pub fn number(&self, task: &str) -> Result<usize> {
        self.tasks
            .iter()
            .position(|spec| spec.name == task)
            .ok_or_else(|| Error::data(format!("the experiment has no task `{task}`")))
    }
}

/// The pass over the training data that a call of [`Model::train`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The round, from zero.
    pub round: u64,
    /// The epoch within the round, from zero.
    pub epoch: u64,
}

/// The amount of work that a call of [`Model::train`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trained {
    /// Optimiser steps.
    pub steps: u64,
    /// Examples seen, summed over all tasks.
    pub examples: u64,
}

/// The tensors of a message that a model ignored, and the model's tensors that the message lacked. Neither is an error:
/// a private head, for example, is missing by design. The host reports both once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The model's parameters that the message lacked.
    pub missing: Vec<String>,
    /// The message's tensors that the model does not have.
    pub unexpected: Vec<String>,
}

/// Which direction of a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Lower is better.
    Lower,
    /// Higher is better.
    Higher,
}

/// One number that measures a model's quality.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, as shown in tags and tables: `RMSE`.
    pub name: String,
    /// Its value. NaN means undefined on this data.
    pub value: f64,
    /// Which direction is better.
    pub goal: Goal,
}

/// A model's quality on the test data of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The task.
    pub task: String,
    /// The number of examples it was evaluated on. If 0, loss and metrics are NaN.
    pub examples: u64,
    /// The loss that training minimises, averaged over the examples.
    pub loss: f64,
    /// The score that selects the best global model. Higher is better; the host averages it over tasks and clients. So
    /// it must not depend on the target's unit; [`metrics::score`](crate::metrics::score) does not. NaN means undefined
    /// on this data, and is ignored.
    pub score: f64,
    /// The metrics, the most important ones first: a terminal shows the first two, files have all.
    pub metrics: Vec<Metric>,
}

/// A model that clients train. The host creates one instance for the server, whose parameters are the first global
/// parameters, and one for each client. An instance is called by one thread at a time, though not always the same
/// thread.
///
/// In each round the host calls [`receive`](Self::receive) and [`evaluate`](Self::evaluate) on a client's instance,
/// then for each local epoch [`train`](Self::train) and [`evaluate`](Self::evaluate), and finally [`send`](Self::send).
///
/// ```no_run
/// //! Predicts one number for everything, whatever the task: the mean of what was seen.
/// use plugin_api::*;
/// /// The keys of the experiment's `[model]` table: none.
/// #[derive(serde::Deserialize, JsonSchema)]
/// #[schemars(crate = "plugin_api::schemars")]
/// #[serde(deny_unknown_fields)]
/// struct Config {}
/// struct Constant(f32);
///
/// impl Model for Constant {
///     fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
///         Ok([("mean", Tensor::from_slice(&[1], &[self.0])?)].into_iter().collect())
///     }
///     fn receive(&mut self, global: &Message, _: &Context<'_>) -> Result<Received> {
///         self.0 = global.params.elements::<f32>("mean", &[1])?[0];
///         Ok(Received::default())
///     }
///     fn train(&mut self, tasks: &[Task], _: Epoch, ctx: &Context<'_>) -> Result<Trained> {
///         ctx.check()?;
///         let columns: Vec<&[f32]> = tasks.iter().map(|t| t.train.f32(&t.spec.target)).collect::<Result<_>>()?;
///         let all = columns.concat();
///         self.0 = all.iter().sum::<f32>() / all.len().max(1) as f32;
///         Ok(Trained { steps: 1, examples: all.len() as u64 })
///     }
///     fn evaluate(&mut self, tasks: &[Task], _: &Context<'_>) -> Result<Vec<Evaluation>> {
///         let one = |task: &Task| metrics::evaluate(task, &Table::predicted(&vec![self.0; task.test.rows()]));
///         tasks.iter().map(one).collect()
///     }
///     fn predict(&mut self, _: &str, rows: &Table, _: &Context<'_>) -> Result<Table> {
///         Ok(Table::predicted(&vec![self.0; rows.rows()]))
///     }
/// }
///
/// fn component() -> Component {
///     Component::model("constant", "One number for all", |_: Config, _, _| Ok(Constant(0.0))).scored_by(metrics::SCORE)
/// }
/// export_plugin!(component());
/// # fn main() {}
/// ```
pub trait Model: Send {
    /// Returns all parameters, including private ones.
    ///
    /// # Errors
    /// If they cannot be read.
    fn parameters(&mut self, ctx: &Context<'_>) -> Result<Params>;

    /// Loads the parameters that it has from a message. Accepts missing and unexpected names, and reports them. After
    /// an error the model is unchanged.
    ///
    /// # Errors
    /// If a tensor that it knows has another shape or type.
    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received>;

    /// Trains one epoch over the training tables of all tasks.
    ///
    /// # Errors
    /// If a table lacks a column, or the context asks to stop.
    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained>;

    /// Evaluates on the test tables of all tasks. Returns one result per task, in order.
    ///
    /// # Errors
    /// If a table lacks a column, or the context asks to stop.
    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>>;

    /// Returns what goes to the server at the end of a round, before filters: the parameters, unless the method sends
    /// more. A model that has not trained must send tensors of the same names and shapes as one that has, for example
    /// control variates of zeros. Before a run the host passes these through filters and aggregator, to check that they
    /// work together.
    ///
    /// # Errors
    /// As [`parameters`](Self::parameters).
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        Ok(self.parameters(ctx)?.into())
    }

    /// Predicts one task's target for each row of a table, in row order. The columns must have the same names for all
    /// rows. At the end of a run the host calls this for the test rows.
    ///
    /// A model of numbers returns the column [`PREDICTED`](crate::PREDICTED), as [`Table::predicted`] makes it, and
    /// [`DEVIATION`](crate::DEVIATION) if it knows its uncertainty. If targets are standardised, the host converts both
    /// to the target's own unit. Other columns are written unchanged: a classifier returns one column per class with
    /// the class's probability, named after the class.
    ///
    /// # Errors
    /// If there is no such task, or the table lacks a column. [`Unsupported`](crate::ErrorKind::Unsupported) if the
    /// model does not predict: the run then has no predictions, and a warning says so.
    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table>;

    /// Exports the model in its field's usual formats into an empty folder, for other programs. Returns the names of
    /// the files. By default there are none, and the host removes the folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        let _ = (folder, ctx);
        Ok(Vec::new())
    }

    /// Returns everything that [`restore`](Self::restore) needs to continue as if nothing had happened: parameters,
    /// optimiser, step. A run may be interrupted between two epochs of a round. So within a round the state must
    /// include whatever the rest of the round needs from the message that the round started with. By default it is only
    /// the parameters, which suits a model that keeps nothing else between two epochs.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        Ok(State { tensors: self.parameters(ctx)?, ..State::default() })
    }

    /// Restores the state of an instance with the same configuration and setup.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let received = self.receive(&state.tensors.clone().into(), ctx)?;
        match received.missing.first() {
            Some(name) => Err(Error::tensor(name, "is missing from the checkpoint")),
            None => Ok(()),
        }
    }

    /// A call that this trait does not define: tensors and values in, tensors and values out. It lets later or custom
    /// hosts ask for more without a new interface. No names are known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for unknown names.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this model does not know the extension `{name}`")))
    }
}
