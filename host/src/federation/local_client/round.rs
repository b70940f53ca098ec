//! A local client's round: from the global model to the update, with pauses and checkpoints.

use std::sync::PoisonError;
use std::time::Instant;

use plugin_api::{Context, Epoch, Message, Trained};

use super::LocalClient;
use crate::artefacts::tracking::Scalar;
use crate::federation::absent;
use crate::federation::client::{Client as _, Order, Outcome, Progress};
use crate::federation::component_error::ComponentError;
use crate::federation::model_store::as_error;
use crate::federation::services::{CallScope, HostServices};
use crate::federation::thinning::Thinning;
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
        if self.failed.as_ref().is_some_and(|failed| !failed.permanent && failed.round != Some(round)) {
            self.failed = None;
        }
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        self.round_start = Some(self.filters.states(&scope));
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
            self.base = Some(self.filters.input.apply(order.global.clone(), &order.global, &scope)?);
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
        let quiet = me.scope(services, Some(round)).after(self.last_aggregated).recording(&trace);
        let mut progress = self.progress.take().unwrap_or_else(|| Progress::new(round));
        let done = self.train(&mut progress, order, pause, (&quiet, services));
        self.progress = Some(progress);
        if !done? {
            return Ok(None);
        }
        let message = self.send(&quiet.with_progress().calling("send").context()).map_err(|e| me.fault(e))?;
        let sent = absent::names(&message.params);
        let message = self.filters.output.apply(message, &self.base.take().unwrap_or_default(), &scope)?;
        let withheld = absent::missing(sent, &message.params);
        let traffic = Traffic { received: order.global.bytes() as u64, sent: message.bytes() as u64 };
        for (tag, bytes) in [("Bytes/received", traffic.received), ("Bytes/sent", traffic.sent)] {
            scope.context().scalar(tag, self.position, bytes as f64);
        }
        let Progress { trained, global, local, .. } = self.progress.clone().unwrap_or_else(|| Progress::new(round));
        let (global, spent) = (global.unwrap_or_default(), self.spent);
        let Trained { steps, examples } = trained;
        Ok(Some(Outcome { message, withheld, steps, examples, global, local, traffic, spent, place: None }))
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
            self.receive(&base, &quiet.calling("receive").context())?;
            progress.global = Some(self.evaluate_in_round("global", quiet, services)?);
        }
        let thinning = Thinning::new(services.terms.scalars_every);
        let scope = quiet.with_progress().thinned(&thinning).calling("train");
        while progress.epochs < order.epochs {
            if pause.is_due() {
                return Ok(false);
            }
            let ctx = scope.context();
            let model = self.model.get_mut(&ctx).map_err(|e| me.fault(e))?;
            let begun = Instant::now();
            let trained = model.train(&self.tasks.all, Epoch { round, epoch: progress.epochs }, &ctx);
            // Also if it has failed, since the last loss may say why.
            scope.end_epoch();
            let trained = trained.map_err(|e| me.fault(e))?;
            self.spent.training += begun.elapsed().as_secs_f64();
            progress.trained = validate::trained(progress.trained, trained).map_err(|e| me.fault(e))?;
            self.position += trained.steps.max(1);
            services.console.epoch_done(me.index);
            let epochs = progress.epochs + 1;
            if epochs.is_multiple_of(services.terms.local_evaluation_every) || epochs == order.epochs {
                progress.local.push(self.evaluate_in_round("local", quiet, services)?);
            }
            progress.epochs = epochs;
            pause.epoch_took(begun.elapsed());
        }
        Ok(true)
    }
}
