//! Aggregators: how the clients' updates become the next global model.

use crate::{Context, Message, Result, State};

/// What one client sends at the end of a round, after its filters.
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

/// Makes one message of many. In each round the host calls [`begin`](Self::begin), then [`add`](Self::add) for one
/// client after the other in the experiment's order of clients, then [`finish`](Self::finish), all from one thread.
pub trait Aggregator: Send {
    /// A round begins, with this global model and these clients.
    ///
    /// # Errors
    /// If the method cannot work with so many clients or such parameters.
    fn begin(&mut self, global: &Message, clients: &[String], ctx: &Context<'_>) -> Result<()>;

    /// Takes one client's update.
    ///
    /// # Errors
    /// If it does not fit the others.
    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()>;

    /// The next global model: what it does not hold has no global value any more.
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
