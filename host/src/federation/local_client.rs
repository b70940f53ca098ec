//! A client in this process: a model and its data.

use std::path::Path;
use std::sync::{Arc, Mutex};

use plugin_api::{Message, Params};

use crate::artefacts::{durable, safetensors};
use crate::federation::client::{
    BothModels, Client, ClientState, CrossEvaluation, EvaluationOutcome, Failed, LastEvaluation, Order, Outcome,
    Progress,
};
use crate::federation::component_error::ComponentError;
use crate::federation::filters::{FilterStates, Filters};
use crate::federation::model_evaluation::ClientTasks;
use crate::federation::model_handle::ModelHandle;
use crate::federation::model_store::{Store, as_error};
use crate::federation::services::HostServices;
use crate::federation::spillable_message::SpillableMessage;
use crate::federation::trace::Trace;
use crate::federation::usage::Spent;
use crate::federation::{absent, activity};
use crate::plugins::validate::Layout;
use crate::terminal::signals::Pause;

mod evaluation;
mod identity;
mod round;
mod state;

pub(crate) use identity::Identity;

/// A client in this process.
pub(crate) struct LocalClient {
    identity: Arc<Identity>,
    model: ModelHandle,
    tasks: ClientTasks,
    filters: Filters,
    /// The current step on the x axis of the client's scalars: the number of optimiser steps, with one for each epoch
    /// without any. So the curves of a client without data also advance.
    position: u64,
    /// The global model of the round, as the client's model received it.
    base: Option<Message>,
    /// The filters' states at the start of the current round.
    round_start: Option<Result<FilterStates, ComponentError>>,
    /// Progress in the current round, without the trace.
    progress: Option<Progress>,
    trace: Arc<Mutex<Trace>>,
    /// The model's message of this round, before the filters.
    sent: SpillableMessage,
    failed: Option<Failed>,
    /// How long the model has computed in this round so far.
    spent: Spent,
    /// The last round in which this client's update was aggregated into the global model.
    last_aggregated: Option<u64>,
}

impl LocalClient {
    /// Creates a client that has done nothing yet.
    pub(crate) fn new(
        identity: Arc<Identity>,
        model: ModelHandle,
        tasks: ClientTasks,
        filters: Filters,
        store: Arc<Store>,
    ) -> Self {
        Self {
            sent: SpillableMessage::new(store, &format!("sent/{}", identity.index)),
            identity,
            model,
            tasks,
            filters,
            position: 0,
            base: None,
            round_start: None,
            progress: None,
            trace: Arc::default(),
            failed: None,
            spent: Spent::default(),
            last_aggregated: None,
        }
    }

    /// Returns an error if the client was lost permanently before this round.
    fn lost_before(&self, round: Option<u64>) -> Result<(), ComponentError> {
        match &self.failed {
            Some(failed) if failed.permanent && (round.is_none() || failed.round != round) => {
                let (who, error) = failed.fault.parts();
                let message = format!("it is no longer called, since {error}");
                Err(ComponentError::new(who.to_owned(), plugin_api::Error::new(error.kind().clone(), message)))
            }
            _ => Ok(()),
        }
    }

    /// Makes a call unless the client is lost. A panic loses the client permanently.
    fn guarded<T>(
        &mut self,
        round: Option<u64>,
        services: &HostServices<'_>,
        call: impl FnOnce(&mut Self) -> Result<T, ComponentError>,
    ) -> Result<T, ComponentError> {
        self.lost_before(round)?;
        let index = self.identity.index;
        activity::of_client(services.activity, index, || call(self)).inspect_err(|fault| {
            if fault.is_panic() {
                self.failed = Some(Failed { round, permanent: true, fault: fault.clone() });
            }
        })
    }
}

impl LocalClient {
    /// Checks that the client's model has only parameters of this layout, which all clients have agreed on.
    ///
    /// # Errors
    /// If a parameter is unknown or has another type or shape, or the model fails.
    pub(crate) fn check_layout(&mut self, layout: &Layout, services: &HostServices<'_>) -> Result<(), ComponentError> {
        let params = self.parameters(services)?;
        layout.holds(&params).map_err(|e| self.identity.fault(e))
    }

    /// The parameters that the client's model sends and its filters withhold.
    ///
    /// # Errors
    /// If the model or a filter fails.
    pub(crate) fn withheld(&mut self, services: &HostServices<'_>) -> Result<Vec<String>, ComponentError> {
        self.guarded(None, services, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, None);
            let ctx = scope.context();
            let message = client.model.get(&ctx).and_then(|model| model.send(&ctx)).map_err(|e| me.fault(e))?;
            let sent = absent::names(&message.params);
            let states = client.filters.output.states(&scope)?;
            let filtered = client.filters.output.apply(message.clone(), &message, &scope);
            client.filters.output.restore(&states, &scope)?;
            Ok(absent::missing(sent, &filtered?.params))
        })
    }

    /// The current states of the filters.
    ///
    /// # Errors
    /// If a filter cannot return its state.
    pub(crate) fn filter_states(&mut self, services: &HostServices<'_>) -> Result<FilterStates, ComponentError> {
        let me = self.identity.clone();
        self.filters.states(&me.scope(services, None))
    }

    /// Restores the states of the filters.
    ///
    /// # Errors
    /// If a state does not fit.
    pub(crate) fn restore_filters(
        &mut self,
        states: &FilterStates,
        services: &HostServices<'_>,
    ) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        self.filters.input.restore(&states.input, &scope)?;
        self.filters.output.restore(&states.output, &scope)
    }

    /// A complete copy of the client's own model.
    ///
    /// # Errors
    /// If the model fails.
    pub(crate) fn parameters(&mut self, services: &HostServices<'_>) -> Result<Params, ComponentError> {
        self.guarded(None, services, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, None);
            let ctx = scope.context();
            client.model.get(&ctx).and_then(|model| model.parameters(&ctx)).map_err(|e| me.fault(e))
        })
    }
}

impl Client for LocalClient {
    fn name(&self) -> &str {
        &self.identity.name
    }

    fn open(&mut self, round: u64, services: &HostServices<'_>) {
        self.begin(round, services);
    }

    fn round(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError> {
        self.lost_before(Some(order.round))?;
        if pause.is_due() {
            return Ok(None);
        }
        let index = self.identity.index;
        let outcome = activity::of_client(services.activity, index, || self.work(order, pause, services));
        match &outcome {
            Ok(None) => return outcome,
            // The process is about to end. It will resume from its checkpoint.
            Err(fault) if fault.is_cancelled() => return outcome,
            Err(fault) => {
                let (round, permanent) = (Some(order.round), fault.is_panic());
                self.failed = Some(Failed { round, permanent, fault: fault.clone() });
            }
            Ok(Some(_)) => {}
        }
        // Release the client even if it failed. The first error is the one to report.
        let rested = self.release(services);
        // Release the message after the model, so that the model is offered memory first.
        self.sent.release();
        outcome.and_then(|outcome| rested.map(|()| outcome))
    }

    fn close(&mut self) {
        (self.round_start, self.progress, self.trace) = (None, None, Arc::default());
        self.sent.clear();
    }

    fn evaluate_idle(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        self.guarded(Some(order.round), services, |client| client.evaluate_and_restore(order, services))
    }

    fn answer(
        &mut self,
        question: &Message,
        round: u64,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError> {
        self.guarded(Some(round), services, |client| {
            let me = client.identity.clone();
            client.filters.output.answer(question, &me.scope(services, Some(round)))
        })
    }

    fn publish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Message, ComponentError> {
        let params = self.parameters(services)?;
        self.guarded(None, services, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, Some(order.round));
            let base = client.filters.input.apply(order.global.clone(), &order.global, &scope)?;
            client.filters.output.apply(params.into(), &base, &scope)
        })
    }

    fn evaluate_other(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<CrossEvaluation, ComponentError> {
        self.guarded(None, services, |client| client.evaluate_in_place(order, services))
    }

    fn update_aggregated(&mut self, round: u64) {
        self.last_aggregated = Some(round);
    }

    fn save_model(&mut self, folder: &Path, services: &HostServices<'_>) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        let params = self.parameters(services)?;
        let export = folder.join("export");
        durable::empty_folder(&export)
            .and_then(|()| {
                safetensors::write(&folder.join("model.safetensors"), &params, &[("client", me.name.clone())])
            })
            .map_err(|failure| ComponentError::new(String::new(), as_error(failure)))?;
        drop(params);
        self.guarded(None, services, |client| {
            let scope = me.scope(services, None);
            let ctx = scope.context();
            let files =
                client.model.get(&ctx).and_then(|model| model.export(&export, &ctx)).map_err(|e| me.fault(e))?;
            if files.is_empty() {
                let _ = std::fs::remove_dir(&export);
            }
            Ok(())
        })?;
        self.release(services)
    }

    fn finish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<LastEvaluation, ComponentError> {
        let own = self.predictions(services);
        let found = match (own, self.evaluate_last(order, services)) {
            (Ok(own), Ok(evaluation)) => {
                let both = self.predictions(services).map(|global| BothModels { own, global });
                Ok(LastEvaluation { evaluation, predictions: Some(both) })
            }
            (Err(fault), Ok(evaluation)) => Ok(LastEvaluation { evaluation, predictions: Some(Err(fault)) }),
            // A model that panicked cannot be called again, so report its first error.
            (Err(fault), Err(_)) if !fault.is_unsupported() => Err(fault),
            (_, Err(fault)) => Err(fault),
        };
        self.leave(services);
        found
    }

    fn leave(&mut self, services: &HostServices<'_>) {
        let me = self.identity.clone();
        self.base = None;
        self.model.retire(&me.scope(services, None));
    }

    fn save(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        self.saved(services)
    }

    fn restore(&mut self, saved: ClientState, services: &HostServices<'_>) -> Result<(), ComponentError> {
        self.restore_saved(saved, services)
    }

    fn release(&mut self, services: &HostServices<'_>) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        self.base = None;
        self.model.release(&me.scope(services, None)).map_err(|e| me.fault(e))
    }
}
