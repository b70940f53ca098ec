//! A client as the federation sees it: [`Client`], and the plain data that cross it.
//!
//! A client in this process is behind it today; one in another process or on another machine can be.
//! Parameters leave through the filters at `client-output` alone, in [`Client::round`] and [`Client::publish`]. What else
//! leaves, and what a client on a machine of its own would keep, is
//!
//! | what | leaves | passes filters |
//! |---|---|---|
//! | updates; the model for cross-site evaluation | yes | all at `client-output`, with what methods send besides parameters |
//! | answers to an aggregator's questions | yes | they are a filter's own |
//! | losses, metrics and scores; numbers of steps and examples; times; faults | yes | none |
//! | scalars, log lines and notes of models and filters, such as norms of updates before noise | yes | none |
//! | names of tasks, numbers of rows, scales and files of a dataset | yes | none |
//! | [predictions](Client::predict) with measured values and the rows' other columns (`predictions.csv`) | no | none |
//! | its [own model](Client::parameters), private heads included, and its export (`clients/`) | no | none |
//! | states of model and filters, and what its model sent before filters (`checkpoint/`, `idle/`) | no | none |
//! | the journal of the rounds that it has begun (`attempts.jsonl`) | no | none |
//!
//! Here one process holds server and clients, so the run's directory has all of it.

use std::path::Path;

use plugin_api::{Evaluation, Message, Params, State, Trained};

use crate::federation::predictions::Predicted;
use crate::federation::services::{ComponentError, HostServices};
use crate::federation::trace::Trace;
use crate::federation::usage::{Spent, Traffic};
use crate::terminal::signals::Pause;

/// What a client is to do in a round.
#[derive(Clone, Debug)]
pub struct Order {
    /// The round, from zero.
    pub round: u64,
    /// How many epochs to train.
    pub epochs: u64,
    /// The global model, after the server's filters.
    pub global: Message,
}

/// What a client did in a round.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it sends, after its own filters.
    pub message: Message,
    /// The parameters that its model has sent and its filters took out.
    pub withheld: Vec<String>,
    /// Optimiser steps.
    pub steps: u64,
    /// Examples seen.
    pub examples: u64,
    /// How good the global model is on its test data, a task each.
    pub global: Vec<Evaluation>,
    /// How good its own model is after each epoch.
    pub local: Vec<Vec<Evaluation>>,
    /// Bytes of tensors that it got and that it sent, as they crossed.
    pub traffic: Traffic,
    /// How long its model computed.
    pub spent: Spent,
}

/// What a client found that only evaluates in a round.
#[derive(Clone, Debug)]
pub struct EvaluationOutcome {
    /// How good the global model is on its test data, a task each.
    pub global: Vec<Evaluation>,
    /// Bytes of tensors that it got.
    pub traffic: Traffic,
    /// How long its model computed.
    pub spent: Spent,
}

/// What a client has to keep for a resumed run.
#[derive(Clone, Debug, Default)]
pub struct ClientState {
    /// The model's state; none of a model that is as it was made.
    pub model: Option<State>,
    /// The states of the filters on what it gets, and on what it sends; within a round, as they were at its beginning.
    pub filters: [Vec<State>; 2],
    /// Where it stands on the axis of its scalars.
    pub position: u64,
    /// Within a round that it has begun: how far it is.
    pub progress: Option<Progress>,
    /// What its model sent in this round, before its filters, once it has done all epochs.
    pub sent: Option<Message>,
    /// How it failed, if it is out for this round or for good.
    pub failed: Option<Failed>,
    /// The last round of which the global model has its update.
    pub taken: Option<u64>,
}

/// How a client failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// In which round; none outside of them.
    pub round: Option<u64>,
    /// Whether nothing can be had of it any more: an instance that panicked answers no call.
    pub for_good: bool,
    /// What happened.
    pub fault: ComponentError,
}

/// What a client makes of a model that it is shown.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// How good it is on its test data, a task each.
    pub evaluations: Vec<Evaluation>,
    /// The parameters that did not come with the model, and are the client's own.
    pub own: Vec<String>,
}

/// How far a client is in a round.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The round.
    pub round: u64,
    /// How many epochs are done.
    pub epochs: u64,
    /// What they did.
    pub trained: Trained,
    /// How good the global model is; none before the client's model has it.
    pub global: Option<Vec<Evaluation>>,
    /// How good the client's own is after each epoch.
    pub local: Vec<Vec<Evaluation>>,
    /// How long the model computed.
    pub spent: Spent,
    /// What the model reported.
    pub trace: Trace,
}

impl Progress {
    /// Of a client that has done nothing yet.
    pub fn new(round: u64) -> Self {
        let (trained, spent) = (Trained::default(), Spent::default());
        Self { round, epochs: 0, trained, global: None, local: Vec::new(), spent, trace: Trace::default() }
    }
}

/// A client of the federation.
pub trait Client: Send {
    /// Its name.
    fn name(&self) -> &str;
    /// A round begins in which it takes part.
    fn open(&mut self, round: u64, services: &HostServices<'_>);
    /// Evaluates the global model, trains, evaluates, and gives its update; nothing if it pauses before it is done, and
    /// then the call is made again.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn round(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError>;
    /// The round is over, and what was kept for the case that it would be interrupted goes.
    fn close(&mut self);
    /// Evaluates a global model and does nothing else. Its own model is replaced by it where they meet.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn evaluate(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Vec<Evaluation>, ComponentError>;
    /// Evaluates the global model of a round in which it does not train, and is then as it was before.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn evaluate_aside(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError>;
    /// Predicts its test rows with its model as it is, a task each.
    ///
    /// # Errors
    /// If its model fails.
    fn predict(&mut self, services: &HostServices<'_>) -> Result<Vec<Predicted>, ComponentError>;
    /// Answers what the aggregator asks in a round.
    ///
    /// # Errors
    /// If no filter of its has an answer.
    fn answer(
        &mut self,
        question: &Message,
        round: u64,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError>;
    /// Its own model as others may have it: after its filters, as an update to the order's global model.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn publish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Message, ComponentError>;
    /// Evaluates the order's model on its own data, and goes back to its own. Parameters that do not come with it are its
    /// own.
    ///
    /// # Errors
    /// If the model does not fit its own, or one of its filters fails; unsupported if there is nothing to evaluate.
    fn judge(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Judgement, ComponentError>;
    /// Its update of this round is in the global model.
    fn taken(&mut self, round: u64);
    /// Its own complete model, which stays where it is.
    ///
    /// # Errors
    /// If the model cannot tell.
    fn parameters(&mut self, services: &HostServices<'_>) -> Result<Params, ComponentError>;
    /// Writes its own complete model in the formats of its field.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn export(&mut self, folder: &Path, services: &HostServices<'_>) -> Result<Vec<String>, ComponentError>;
    /// All that a resumed run needs of it.
    ///
    /// # Errors
    /// If a component cannot tell.
    fn save(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError>;
    /// Goes back to where it was.
    ///
    /// # Errors
    /// If what was saved does not fit.
    fn restore(&mut self, saved: ClientState, services: &HostServices<'_>) -> Result<(), ComponentError>;
    /// Ends its work for now: it keeps no more memory than it must. A round does so by itself.
    ///
    /// # Errors
    /// If what it has learnt cannot be written to disk.
    fn release(&mut self, services: &HostServices<'_>) -> Result<(), ComponentError>;
    /// Ends its work for good.
    fn retire(&mut self, services: &HostServices<'_>);
}
