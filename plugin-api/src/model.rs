//! Models: what is trained at the clients.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Context, Error, Message, Params, Result, State, Table, Task, TaskSpec};

/// What a model is made for. A later interface may add to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelSetup {
    /// Every task of the experiment, in the dataset's order; a task's place in this list is its number at every client.
    pub tasks: Vec<TaskSpec>,
    /// The names of the tasks that this instance trains: all of them for the server's instance.
    pub held: Vec<String>,
    /// Rounds of the whole run.
    pub rounds: u64,
    /// Epochs that a client trains in a round.
    pub local_epochs: u64,
}

impl ModelSetup {
    /// A setup in which every task is held.
    pub fn new(tasks: Vec<TaskSpec>, rounds: u64, local_epochs: u64) -> Self {
        Self { held: tasks.iter().map(|task| task.name.clone()).collect(), tasks, rounds, local_epochs }
    }

    /// The same for an instance that holds only these tasks.
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

/// Which pass over the training data a call of [`Model::train`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The round, from zero.
    pub round: u64,
    /// The epoch within the round, from zero.
    pub epoch: u64,
}

/// What a call of [`Model::train`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trained {
    /// Optimiser steps.
    pub steps: u64,
    /// Examples seen, over all tasks.
    pub examples: u64,
}

/// Which tensors of a message a model had no use for, and which of its own the message lacked. Neither is an error:
/// a private head is lacking by design. The host reports both once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Parameters of the model that the message did not hold.
    pub missing: Vec<String>,
    /// Tensors of the message that the model does not have.
    pub unexpected: Vec<String>,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Lower is better.
    Lower,
    /// Higher is better.
    Higher,
}

/// One number that says how good a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, as it shall stand in tags and tables: `RMSE`.
    pub name: String,
    /// Its value. NaN says that it is not defined on this data.
    pub value: f64,
    /// Which way it is better.
    pub goal: Goal,
}

/// How good a model is on the test data of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The task.
    pub task: String,
    /// How many examples it was evaluated on. With none, loss and metrics are NaN.
    pub examples: u64,
    /// The loss that training minimises, as a mean over the examples.
    pub loss: f64,
    /// What the best global model is chosen by: higher is better, and the mean over tasks and clients is taken. So it must
    /// not depend on the target's unit; [`metrics::score`](crate::metrics::score) does not. NaN says that it is not defined
    /// on this data, and counts for nothing.
    pub score: f64,
    /// The metrics, in the order in which a table shall show them.
    pub metrics: Vec<Metric>,
}

/// A model that a client trains. The host makes one instance for the server, whose parameters are the first global
/// ones, and one for each client; an instance is called by one thread at a time, not always the same.
///
/// In each round a client's instance gets [`receive`](Self::receive), [`evaluate`](Self::evaluate), then for each
/// local epoch [`train`](Self::train) and [`evaluate`](Self::evaluate), and [`send`](Self::send).
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
///         let one = |task: &Task| metrics::regression(task, &vec![self.0; task.test.rows()]);
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
    /// All parameters, private ones included.
    ///
    /// # Errors
    /// If they cannot be read.
    fn parameters(&mut self, ctx: &Context<'_>) -> Result<Params>;

    /// Takes over the parameters of a message that it has; tolerates missing and unexpected names and reports them.
    /// After an error it is as it was before.
    ///
    /// # Errors
    /// If a tensor that it knows has another shape or type.
    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received>;

    /// Trains one epoch over the training tables of all tasks.
    ///
    /// # Errors
    /// If a table lacks a column, or the context asks to stop.
    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained>;

    /// Evaluates on the test tables of all tasks: one result a task, in their order.
    ///
    /// # Errors
    /// If a table lacks a column, or the context asks to stop.
    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>>;

    /// What goes to the server at the end of a round, before filters: the parameters, unless a method has more to say.
    /// A model that has not trained sends tensors of the same names and shapes as one that has, such as control variates
    /// of zeros: before a run the host passes them through filters and aggregator, to see that these go together.
    ///
    /// # Errors
    /// As [`parameters`](Self::parameters).
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        Ok(self.parameters(ctx)?.into())
    }

    /// Predicts the target of one task for each row of a table, in the rows' order, in columns that have the same names for
    /// all rows. At the end of a run the host asks it for the test rows.
    ///
    /// A model of numbers gives the column [`PREDICTED`](crate::PREDICTED), as [`Table::predicted`] makes it, and
    /// [`DEVIATION`](crate::DEVIATION) where it knows how sure it is; the host turns both into the target's own unit if
    /// targets are standardised. Columns of other names are written as they are: a classifier has one of the probability of
    /// each class, named like the class.
    ///
    /// # Errors
    /// If there is no such task, or the table lacks a column. [`Unsupported`](crate::ErrorKind::Unsupported) from a model
    /// that predicts nothing: then a run has no predictions, and a warning says so.
    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table>;

    /// Writes the model in the formats of its field into an empty folder, for other programs. Returns the names of the
    /// files; none by default, and then the folder goes again.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        let _ = (folder, ctx);
        Ok(Vec::new())
    }

    /// All that [`restore`](Self::restore) needs to go on as if nothing had happened: parameters, optimiser, step. A run
    /// may be interrupted between two epochs of a round, so within a round it is also what the rest of the round needs of
    /// the message that it began with. By default the parameters alone, which is right for a model that keeps nothing
    /// else between two epochs.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        Ok(State { tensors: self.parameters(ctx)?, ..State::default() })
    }

    /// Goes back to a state of an instance with the same configuration and setup.
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

    /// A call that this trait does not name: tensors and values in, tensors and values out. So later hosts may ask for more,
    /// and plugins for one another's host, without another interface. No name is known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for names that it does not know.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this model does not know the extension `{name}`")))
    }
}
