//! A local client's round: from the global model to the update, with pauses and checkpoints.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use plugin_api::{Context, Epoch, Evaluation, Message, Trained};

use super::LocalClient;
use crate::artefacts::tracking::Scalar;
use crate::federation::absent;
use crate::federation::client::{Client as _, ClientState, EvaluationOutcome, Failed, Order, Outcome, Progress};
use crate::federation::model_store::as_error;
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::federation::usage::{Spent, Traffic};
use crate::plugins::validate;
use crate::terminal::signals::Pause;

impl LocalClient {
    /// Starts a round.
    pub(super) fn begin(&mut self, round: u64, services: &HostServices<'_>) {
        // If the round resumes from a checkpoint, the stored progress belongs to this round and is kept.
        if self.progress.as_ref().is_none_or(|progress| progress.round != round) {
            self.close();
        }
        if self.failed.as_ref().is_some_and(|failed| !failed.for_good && failed.round != Some(round)) {
            self.failed = None;
        }
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        let states = self.input.states(&scope);
        self.opening = Some(states.and_then(|input| Ok([input, self.output.states(&scope)?])));
    }

    /// Does the work of a round, without the release at the end. Returns `None` if the client pauses.
    pub(super) fn work(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError> {
        let (me, trace, round) = (self.identity.clone(), self.trace.clone(), order.round);
        let scope = me.scope(services, Some(round)).with_progress();
        if self.base.is_none() {
            self.base = Some(self.input.apply(order.global.clone(), &order.global, &scope)?);
            // If the round resumes from a checkpoint, report the model's earlier scalars again.
            for (tag, step, value, time) in trace.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let scalar = Scalar { client: Some(me.index), round, tag: tag.to_owned(), step, value };
                services.reporter.scalar_of(scalar, time);
            }
        }
        if let Some(failed) = &self.failed {
            return Err(failed.fault.clone());
        }
        // Record only what the model reports: in a resumed round, filters run again.
        let quiet = me.scope(services, Some(round)).after(self.taken).recording(&trace);
        let mut progress = self.progress.take().unwrap_or_else(|| Progress::new(round));
        let done = self.train(&mut progress, order, pause, (&quiet, services));
        self.progress = Some(progress);
        if !done? {
            return Ok(None);
        }
        let message = self.send(&quiet.with_progress().context()).map_err(|e| me.fault(e))?;
        let sent = absent::names(&message.params);
        let message = self.output.apply(message, &self.base.take().unwrap_or_default(), &scope)?;
        let withheld = absent::missing(sent, &message.params);
        let traffic = Traffic { received: order.global.bytes() as u64, sent: message.bytes() as u64 };
        for (tag, bytes) in [("Bytes/received", traffic.received), ("Bytes/sent", traffic.sent)] {
            scope.context().scalar(tag, self.position, bytes as f64);
        }
        let Progress { trained, global, local, .. } = self.progress.clone().unwrap_or_else(|| Progress::new(round));
        let (global, spent) = (global.unwrap_or_default(), self.spent);
        let Trained { steps, examples } = trained;
        Ok(Some(Outcome { message, withheld, steps, examples, global, local, traffic, spent }))
    }

    /// Evaluates a global model, then restores the client's filters and model.
    pub(super) fn judge_aside(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, Some(order.round));
        let states = self.input.states(&scope)?;
        let base = self.input.apply(order.global.clone(), &order.global, &scope);
        self.input.restore(&states, &scope)?;
        let (base, tasks, mut spent) = (base?, &self.tasks, Spent::default());
        let found = self.model.aside(&scope, |model, ctx| {
            model.receive(&base, ctx)?;
            let begun = Instant::now();
            let found = model.evaluate(tasks, ctx);
            spent.evaluation = begun.elapsed().as_secs_f64();
            validate::evaluations(tasks, found?)
        });
        let global = found.map_err(|e| me.fault(e))?;
        self.report(&global, "global_test", order.round, services);
        let traffic = Traffic { received: order.global.bytes() as u64, sent: 0 };
        scope.context().scalar("ByteSize/received", self.position, traffic.received as f64);
        self.release(services)?;
        Ok(EvaluationOutcome { global, traffic, spent })
    }

    /// Returns the model's message of this round. The model is asked for it only once.
    fn send(&mut self, ctx: &Context<'_>) -> plugin_api::Result<Message> {
        if let Some(message) = self.sent.get().map_err(as_error)? {
            return Ok(message);
        }
        let message = self.model.get_mut(ctx)?.send(ctx)?;
        self.sent.put(message.clone()).map_err(as_error)?;
        Ok(message)
    }

    /// Trains the remaining epochs. Returns whether all are done; `false` means that the client pauses.
    fn train(
        &mut self,
        progress: &mut Progress,
        order: &Order,
        pause: &Pause,
        (quiet, services): (&CallScope<'_>, &HostServices<'_>),
    ) -> Result<bool, ComponentError> {
        let (me, round) = (self.identity.clone(), order.round);
        if progress.global.is_none() {
            self.spent = Spent::default();
            let base = self.base.clone().unwrap_or_default();
            self.receive(&base, &quiet.context())?;
            progress.global = Some(self.evaluate_in_round("global_test", quiet, services)?);
        }
        let scope = quiet.with_progress();
        let ctx = scope.context();
        while progress.epochs < order.epochs {
            if pause.is_due() {
                return Ok(false);
            }
            let model = self.model.get_mut(&ctx).map_err(|e| me.fault(e))?;
            let begun = Instant::now();
            let trained = model.train(&self.tasks, Epoch { round, epoch: progress.epochs }, &ctx);
            let trained = trained.map_err(|e| me.fault(e))?;
            self.spent.training += begun.elapsed().as_secs_f64();
            progress.trained = validate::trained(progress.trained, trained).map_err(|e| me.fault(e))?;
            self.position += trained.steps.max(1);
            services.console.epoch_done(me.index);
            progress.local.push(self.evaluate_in_round("local_test", quiet, services)?);
            progress.epochs += 1;
            pause.epoch_took(begun.elapsed());
        }
        Ok(true)
    }

    /// Evaluates and reports the current model, unless the experiment turns reports off.
    fn evaluate_in_round(
        &mut self,
        place: &str,
        scope: &CallScope<'_>,
        services: &HostServices<'_>,
    ) -> Result<Vec<Evaluation>, ComponentError> {
        if !services.terms.reports {
            return Ok(Vec::new());
        }
        let ctx = scope.context();
        let found = self.evaluation(&ctx)?;
        self.report(&found, place, ctx.round().unwrap_or_default(), services);
        Ok(found)
    }

    /// Returns the state that a resumed run needs.
    pub(super) fn kept(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let progress = self.progress.clone().map(|progress| Progress { trace, spent: self.spent, ..progress });
        let (position, failed, taken) = (self.position, self.failed.clone(), self.taken);
        let saved = ClientState { progress, position, failed, taken, ..ClientState::default() };
        if self.lost_before(None).is_err() {
            let filters = self.opening.clone().and_then(Result::ok).unwrap_or_default();
            return Ok(ClientState { filters, ..saved });
        }
        let all = |client: &mut Self| {
            let filters = match client.opening.clone() {
                Some(states) => states?,
                None => [client.input.states(&scope)?, client.output.states(&scope)?],
            };
            let model = client.model.state(&scope.context()).map_err(|e| me.fault(e))?;
            let sent = client.sent.get().map_err(|e| me.fault(as_error(e)))?;
            Ok(ClientState { model, filters, sent, ..saved })
        };
        // A client that cannot be saved would resume in a different state, so it is lost permanently.
        all(self).inspect_err(|fault: &ComponentError| {
            self.failed = Some(Failed { round: None, for_good: true, fault: fault.clone() });
        })
    }

    /// Restores a saved state.
    pub(super) fn go_back(&mut self, saved: ClientState, services: &HostServices<'_>) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        self.failed = saved.failed;
        let lost = self.lost_before(None).is_err();
        for (chain, states) in [&mut self.input, &mut self.output].into_iter().zip(&saved.filters) {
            if !lost || !states.is_empty() {
                chain.restore(states, &scope)?;
            }
        }
        (self.position, self.taken) = (saved.position, saved.taken);
        if let Some(mut progress) = saved.progress {
            self.spent = progress.spent;
            self.trace = Arc::new(Mutex::new(std::mem::take(&mut progress.trace)));
            self.progress = Some(progress);
        }
        if let Some(message) = saved.sent {
            self.sent.put(message).map_err(|e| me.fault(as_error(e)))?;
            self.sent.release();
        }
        saved.model.map_or(Ok(()), |state| self.model.restore(state, &scope)).map_err(|e| me.fault(e))
    }
}
