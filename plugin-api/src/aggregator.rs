//! Aggregators: how the clients' updates become the next global model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Error, Message, Result, State};

/// What one client sends at the end of a round, after all filters.
///
/// The host has checked it: it has parameters, each of which the model knows and which has the model's shape and type;
/// other tensors that the global model has as well have its shapes and types; and every value is finite. Only where an
/// aggregator [asks](Aggregator::ask) the clients before their work may types differ, since its filter may encode.
#[derive(Clone, Debug)]
pub struct Update {
    /// The client.
    pub client: String,
    /// Its parameters, and what else its method sends.
    pub message: Message,
    /// Optimiser steps of the round.
    pub steps: u64,
    /// Examples seen in the round.
    pub examples: u64,
}

impl Update {
    /// How much the update counts: 0 for a client that did not train in the round, whatever it is weighed by.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 steps")]
    pub fn weight(&self, by: WeightBy) -> f64 {
        match by {
            WeightBy::Steps => self.steps as f64,
            WeightBy::Examples => self.examples as f64,
            WeightBy::Uniform => f64::from(u8::from(self.steps > 0)),
        }
    }

    /// For an aggregator that has no use for tensors besides parameters: what a method sends there would be lost.
    ///
    /// # Errors
    /// If there are such tensors.
    pub fn expect_only_parameters(&self) -> Result<()> {
        match self.message.extra.names().next() {
            None => Ok(()),
            Some(name) => {
                let message = format!("client `{}` sends it besides its parameters, and it would be lost", self.client);
                let error = Error::tensor(name, message);
                Err(error.help("the method that the model follows takes an aggregator of its own"))
            }
        }
    }
}

/// What a client's update is weighed by: the type of a key `weight-by`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightBy {
    /// The optimiser steps of the round.
    #[default]
    Steps,
    /// The examples seen in the round.
    Examples,
    /// Nothing: every client that trained counts the same.
    Uniform,
}

/// Who takes part in a round. A later interface may add to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cohort {
    /// The clients of this round, in the order in which their updates will come. Some may fail on the way.
    pub clients: Vec<String>,
    /// How many clients the experiment has.
    pub population: usize,
}

impl Cohort {
    /// These clients of a population.
    pub fn new(clients: Vec<String>, population: usize) -> Self {
        Self { clients, population }
    }
}

/// When in a round an aggregator asks the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the clients get the global model: all of the [`Cohort`] can be asked.
    Opening,
    /// After the last update was added: those whose updates came can be asked.
    Closing,
}

/// A question to a client, or the answer from it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The client.
    pub client: String,
    /// What is asked or answered.
    pub message: Message,
}

/// Makes one message of many. In each round the host calls [`begin`](Self::begin), [`ask`](Self::ask) until there is
/// nothing to ask, then [`add`](Self::add) for one client after the other in the experiment's order of clients, again
/// [`ask`](Self::ask), then [`finish`](Self::finish), all from one thread.
pub trait Aggregator: Send {
    /// A round begins, with this global model and these clients.
    ///
    /// # Errors
    /// If the method cannot work with so many clients or such parameters.
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()>;

    /// What the method has to ask the clients besides their updates, such as keys for masks: the filters at
    /// `client-output` [answer](crate::Filter::answer). The first call of a stage comes without answers; as long as it
    /// asks, it is called again with the answers in the order of the questions. A client that fails is missing there.
    ///
    /// # Errors
    /// If the method cannot go on with these answers.
    fn ask(&mut self, stage: Stage, answers: Vec<Letter>, ctx: &Context<'_>) -> Result<Vec<Letter>> {
        let _ = (stage, answers, ctx);
        Ok(Vec::new())
    }

    /// Takes one client's update. What it refuses must leave no trace: the client has failed then, and with
    /// `on-client-failure = "leave-out"` the round goes on without it.
    ///
    /// # Errors
    /// If it does not fit the others, or is not of the method.
    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()>;

    /// The next global model. A parameter that it does not hold keeps its global value, since its holders may only be
    /// absent, unless a client whose update arrived kept it to itself: then it has no global value any more.
    ///
    /// # Errors
    /// If there was nothing to aggregate.
    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message>;

    /// What lives from round to round; nothing by default.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        let _ = ctx;
        Ok(State::default())
    }

    /// Goes back to a state between two rounds.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let _ = ctx;
        state.expect_empty()
    }
}
