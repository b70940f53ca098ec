//! Aggregators: how the clients' updates become the next global model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Error, Message, Result, State};

/// What one client sends at the end of a round, after all filters.
///
/// The host has validated it. It has parameters, each of which the model has with the same shape and type. Other tensors
/// that the global model also has match its shapes and types. Every value is finite. There is one exception: if the
/// aggregator [asks](Aggregator::ask) the clients before they train, types may differ, since its filter may encode.
#[derive(Clone, Debug)]
pub struct Update {
    /// The client.
    pub client: String,
    /// Its parameters, and anything else its method sends.
    pub message: Message,
    /// Optimiser steps in the round.
    pub steps: u64,
    /// Examples seen in the round.
    pub examples: u64,
}

impl Update {
    /// How much the update counts. A client that did not train in the round has weight 0, whatever `by` is.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 steps")]
    pub fn weight(&self, by: WeightBy) -> f64 {
        match by {
            WeightBy::Steps => self.steps as f64,
            WeightBy::Examples => self.examples as f64,
            WeightBy::Uniform => f64::from(u8::from(self.steps > 0)),
        }
    }

    /// Refuses tensors other than parameters. Call this in an aggregator that ignores them, since whatever a method
    /// sends in them would be lost.
    ///
    /// # Errors
    /// If there are such tensors.
    pub fn expect_only_parameters(&self) -> Result<()> {
        match self.message.extra.names().next() {
            None => Ok(()),
            Some(name) => {
                let message = format!(
                    "client `{}` sends it besides its parameters, but this aggregator does not use it",
                    self.client
                );
                let error = Error::tensor(name, message);
                Err(error.help("the model's method needs an aggregator that supports it"))
            }
        }
    }
}

/// What weights a client's update; the type of a `weight-by` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightBy {
    /// The optimiser steps of the round.
    #[default]
    Steps,
    /// The examples seen in the round.
    Examples,
    /// Nothing: every client that trained has the same weight.
    Uniform,
}

/// The clients that take part in a round. A later interface may add fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cohort {
    /// The clients of this round, in the order in which their updates arrive. Some may fail during the round.
    pub clients: Vec<String>,
    /// The number of clients in the experiment.
    pub population: usize,
}

impl Cohort {
    /// A cohort of these clients, from a population of this size.
    pub fn new(clients: Vec<String>, population: usize) -> Self {
        Self { clients, population }
    }
}

/// When in a round an aggregator asks the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the clients get the global model. Every client in the [`Cohort`] can be asked.
    Opening,
    /// After the last update was added. Only clients whose updates arrived can be asked.
    Closing,
}

/// What an aggregator asks one client.
#[derive(Clone, Debug)]
pub struct Query {
    /// The client.
    pub client: String,
    /// The question.
    pub message: Message,
}

/// What one client answers to a [`Query`].
#[derive(Clone, Debug)]
pub struct Reply {
    /// The client.
    pub client: String,
    /// The answer.
    pub message: Message,
}

/// Combines many messages into one. In each round the host calls [`begin`](Self::begin), then [`ask`](Self::ask) until
/// there are no more queries, then [`add`](Self::add) for each client in the experiment's order, then
/// [`ask`](Self::ask) again, then [`finish`](Self::finish). All calls come from one thread.
pub trait Aggregator: Send {
    /// Starts a round with this global model and these clients.
    ///
    /// # Errors
    /// If the method cannot work with this many clients or with these parameters.
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()>;

    /// Returns what the method needs to ask the clients besides their updates, such as keys for masks. The filters at
    /// `client-output` [answer](crate::Filter::answer). The first call of a stage has no replies. As long as the method
    /// returns queries, it is called again with the replies, in the order of the queries. A client that fails has no
    /// reply.
    ///
    /// # Errors
    /// If the method cannot continue with these replies.
    fn ask(&mut self, stage: Stage, replies: Vec<Reply>, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let _ = (stage, replies, ctx);
        Ok(Vec::new())
    }

    /// Adds one client's update. A refused update must leave no trace: that client counts as failed, and with
    /// `on-client-failure = "leave-out"` the round continues without it.
    ///
    /// # Errors
    /// If the update does not match the others or does not belong to this method.
    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()>;

    /// Returns the next global model. A parameter that the result lacks keeps its global value, since the clients that
    /// hold it may just be absent. If a client whose update arrived kept the parameter private, though, the parameter
    /// no longer has a global value.
    ///
    /// # Errors
    /// If there was nothing to aggregate.
    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message>;

    /// The state to keep from round to round; empty by default.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        let _ = ctx;
        Ok(State::default())
    }

    /// Restores a state between two rounds.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let _ = ctx;
        state.expect_empty()
    }

    /// A call that this trait does not define: tensors and values in, tensors and values out. It lets later or custom
    /// hosts ask for more without a new interface. No names are known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for unknown names.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this aggregator does not know the extension `{name}`")))
    }
}
