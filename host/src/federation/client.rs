//! A client as the federation sees it: [`Client`], and the plain data exchanged with it.
//!
//! Today a client runs in this process, but the trait also allows one in another process or on another machine.
//! Parameters leave a client only through the filters at `client-output`, in [`Client::round`] and [`Client::publish`].
//! The table shows what else leaves a client, and what a client on its own machine would keep:
//!
//! | what | leaves | passes filters |
//! |---|---|---|
//! | updates; the model for cross-site evaluation | yes | all at `client-output`, with what methods send besides parameters |
//! | answers to an aggregator's questions | yes | they come from a filter |
//! | losses, metrics and scores; numbers of steps and examples; times; errors | yes | none |
//! | scalars, log lines and notes of models and filters, such as norms of updates before noise | yes | none |
//! | names of tasks, numbers of rows, scales and files of a dataset | yes | none |
//! | [predictions](BothModels) with measured values and the rows' other columns (`predictions.csv`) | no | none |
//! | its [own model](Client::save_model), private heads included, and its export (`clients/`) | no | none |
//! | states of model and filters, and what its model sent before filters (`checkpoint/`, `idle/`) | no | none |
//! | the journal of the rounds that it has started (`attempts.jsonl`) | no | none |
//!
//! What crosses is serialised to JSON to the bit, with the tensors of messages beside it.
//!
//! Here one process runs the server and all clients, so the run's directory contains all of this.

use std::path::Path;
use std::sync::Arc;

use plugin_api::{Evaluation, Message, State, Trained};
use serde::{Deserialize, Serialize};

use crate::federation::admission::Place;
use crate::federation::component_error::ComponentError;
use crate::federation::exact;
use crate::federation::filters::FilterStates;
use crate::federation::model_evaluation::ModelEvaluation;
use crate::federation::predictions::Predicted;
use crate::federation::services::HostServices;
use crate::federation::trace::Trace;
use crate::federation::usage::{Spent, Traffic};
use crate::terminal::signals::Pause;

/// A client's task in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The round, from zero.
    pub round: u64,
    /// The number of epochs to train.
    pub epochs: u64,
    /// The global model, after the server's filters.
    #[serde(with = "exact::without_tensors")]
    pub global: Message,
}

/// A client's results of a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The client's update, after its own filters.
    #[serde(with = "exact::without_tensors")]
    pub message: Message,
    /// The names of the parameters that the model sent and the filters removed.
    pub withheld: Vec<String>,
    /// The number of optimiser steps.
    pub steps: u64,
    /// The number of examples seen.
    pub examples: u64,
    /// The evaluation of the global model on the client's data.
    pub global: ModelEvaluation,
    /// The evaluations of the client's own model, one for each epoch.
    pub local: Vec<ModelEvaluation>,
    /// Bytes of tensors that the client received and sent.
    pub traffic: Traffic,
    /// How long the model trained and evaluated.
    pub spent: Spent,
    /// Keeps the updates of later clients away, if the client is at its own site.
    #[serde(skip)]
    pub place: Option<Arc<Place>>,
}

/// The results of a client that only evaluates in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EvaluationOutcome {
    /// The evaluation of the global model on the client's data.
    pub global: ModelEvaluation,
    /// Bytes of tensors that the client received.
    pub traffic: Traffic,
    /// How long the model evaluated.
    pub spent: Spent,
}

/// A client's state for a resumed run.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientState {
    /// The model's state; `None` if the model has not changed since its construction.
    pub model: Option<State>,
    /// The states of the filters. Within a round, their states when it started.
    pub filters: FilterStates,
    /// The client's current step on the x axis of its scalars.
    pub position: u64,
    /// The client's progress in an unfinished round that it has started.
    pub progress: Option<Progress>,
    /// The model's message of this round before the filters, once all epochs are done.
    pub sent: Option<Message>,
    /// The client's failure, if it is excluded from this round or from the rest of the run.
    pub failed: Option<Failed>,
    /// The last round in which this client's update was aggregated into the global model.
    pub last_aggregated: Option<u64>,
    /// For a client at another site, which keeps all other state itself: after how many rounds it last trained.
    pub trained_at_site: Option<u64>,
}

/// A client's failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// The round of the failure; `None` if it failed outside a round.
    pub round: Option<u64>,
    /// Whether the client is lost for the rest of the run: an instance that panicked cannot be called again.
    #[serde(rename = "for_good")]
    pub permanent: bool,
    /// The error.
    #[serde(flatten)]
    pub fault: ComponentError,
}

/// A client's evaluation of a model that is not its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CrossEvaluation {
    /// Evaluations on the client's test data, one for each task.
    #[serde(with = "exact")]
    pub evaluations: Vec<Evaluation>,
    /// The names of the parameters that the model lacked, for which the client used its own.
    pub own: Vec<String>,
}

/// A client's evaluation of the last global model.
#[derive(Clone, Debug)]
pub(crate) struct LastEvaluation {
    /// The evaluation on the client's data.
    pub evaluation: ModelEvaluation,
    /// What the models predict for the client's rows; `None` if it stays at the client's site.
    pub predictions: Option<Result<BothModels, ComponentError>>,
}

/// The predictions of a client's own model and of the last global model.
#[derive(Clone, Debug)]
pub(crate) struct BothModels {
    /// Those of its own model.
    pub own: Vec<Predicted>,
    /// Those of the global model.
    pub global: Vec<Predicted>,
}

/// A client's progress in a round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The round, from zero.
    pub round: u64,
    /// The number of finished epochs.
    pub epochs: u64,
    /// Steps and examples of these epochs.
    #[serde(flatten)]
    pub trained: Trained,
    /// The evaluation of the global model; `None` until the client's model has received it.
    pub global: Option<ModelEvaluation>,
    /// The evaluations of the client's own model, one for each epoch.
    pub local: Vec<ModelEvaluation>,
    /// How long the model trained and evaluated.
    pub spent: Spent,
    /// Scalars that the model reported.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
}

impl Progress {
    /// Progress of a client that has done nothing in this round yet.
    pub(crate) fn new(round: u64) -> Self {
        let (trained, spent) = (Trained::default(), Spent::default());
        Self { round, epochs: 0, trained, global: None, local: Vec::new(), spent, trace: Trace::default() }
    }
}

/// A client of the federation.
pub(crate) trait Client: Send {
    /// The client's name.
    fn name(&self) -> &str;
    /// Starts a round in which this client takes part.
    fn open(&mut self, round: u64, services: &HostServices<'_>);
    /// Evaluates the global model, trains, evaluates, and returns the update. Returns `None` if the client pauses
    /// before it is done; the host then calls again.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn round(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError>;
    /// Ends the round and drops what was kept to resume it.
    fn close(&mut self);
    /// Evaluates the global model of a round in which the client does not train, then restores the client's previous
    /// state.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn evaluate_idle(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError>;
    /// Answers a question that the aggregator asks in a round.
    ///
    /// # Errors
    /// If a filter fails, or no filter has an answer.
    fn answer(
        &mut self,
        question: &Message,
        round: u64,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError>;
    /// Returns the client's own model as others may see it: filtered like an update to the order's global model.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn publish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Message, ComponentError>;
    /// Evaluates the order's model on the client's data, then restores the client's own model. The client's own
    /// parameters complete a model that lacks some.
    ///
    /// # Errors
    /// If the order's model does not fit the client's, or one of the filters fails. The error is `Unsupported` if there
    /// is nothing to evaluate.
    fn evaluate_other(&mut self, order: &Order, services: &HostServices<'_>)
    -> Result<CrossEvaluation, ComponentError>;
    /// Records that the global model includes this client's update of the round.
    fn update_aggregated(&mut self, round: u64);
    /// Writes the client's own complete model to the folder: `model.safetensors`, and in `export` the formats of its
    /// field. A client at another site writes it there instead.
    ///
    /// # Errors
    /// If the model cannot return its parameters, or a file cannot be written.
    fn save_model(&mut self, folder: &Path, services: &HostServices<'_>) -> Result<(), ComponentError>;
    /// Evaluates the last global model. Before and after it predicts the test rows, with its own model and with the
    /// global one. Then everything is released: the client is not called again.
    ///
    /// # Errors
    /// If its model or one of its filters fails to evaluate.
    fn finish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<LastEvaluation, ComponentError>;
    /// The run is over: the client is not called again.
    fn leave(&mut self, services: &HostServices<'_>);
    /// Returns the state that a resumed run needs.
    ///
    /// # Errors
    /// If a component cannot return its state.
    fn save(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError>;
    /// Restores a saved state.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, saved: ClientState, services: &HostServices<'_>) -> Result<(), ComponentError>;
    /// Releases memory between calls. [`round`](Self::round) does this itself.
    ///
    /// # Errors
    /// If the model's state cannot be written to disk.
    fn release(&mut self, services: &HostServices<'_>) -> Result<(), ComponentError>;
}

#[cfg(test)]
mod tests;
