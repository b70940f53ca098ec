//! A client in this process: a model and its data.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use plugin_api::{Context, Evaluation, Message, Params, Received, State, Table, Task};

use crate::artefacts::tracking::{Scalar, now};
use crate::federation::client::{Client, ClientState, EvaluationOutcome, Failed, Judgement, Order, Outcome, Progress};
use crate::federation::filters::FilterChain;
use crate::federation::model_store::{ModelHandle, SpillableMessage, Store};
use crate::federation::predictions::{Predicted, Rows};
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::federation::trace::Trace;
use crate::federation::usage::Spent;
use crate::plugins::validate;
use crate::terminal::signals::Pause;

mod round;

/// The identity of a local client: whom its calls are made for, and on which device.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The client's index in the order of clients.
    pub index: usize,
    /// The client's name.
    pub name: String,
    /// The device on which it computes.
    pub device: String,
    /// The name of the model's plugin.
    pub plugin: String,
}

impl Identity {
    fn scope<'a>(&'a self, services: &'a HostServices<'a>, round: Option<u64>) -> CallScope<'a> {
        CallScope::new(services, &self.plugin, Some((self.index, &self.name)), round).on(&self.device)
    }

    fn fault(&self, error: plugin_api::Error) -> ComponentError {
        ComponentError::new(format!("model `{}`", self.plugin), error)
    }
}

/// A client in this process.
pub(crate) struct LocalClient {
    identity: Arc<Identity>,
    model: ModelHandle,
    tasks: Vec<Task>,
    /// Filters on incoming messages.
    input: FilterChain,
    /// Filters on outgoing messages.
    output: FilterChain,
    /// The current step on the x axis of the client's scalars: the number of optimiser steps, with one for each epoch
    /// without any. So the curves of a client without data also advance.
    position: u64,
    /// The global model of the round, as the client's model received it.
    base: Option<Message>,
    /// The filters' states at the start of the current round.
    opening: Option<Result<[Vec<State>; 2], ComponentError>>,
    /// Progress in the current round, without the trace.
    progress: Option<Progress>,
    trace: Arc<Mutex<Trace>>,
    /// The model's message of this round, before the filters.
    sent: SpillableMessage,
    failed: Option<Failed>,
    /// How long the model has computed in this round so far.
    spent: Spent,
    /// The last round in which this client's update was aggregated into the global model.
    taken: Option<u64>,
}

impl LocalClient {
    /// Creates a client that has done nothing yet.
    pub(crate) fn new(
        identity: Arc<Identity>,
        model: ModelHandle,
        tasks: Vec<Task>,
        [input, output]: [FilterChain; 2],
        store: Arc<Store>,
    ) -> Self {
        Self {
            sent: SpillableMessage::new(store, &format!("sent/{}", identity.index)),
            identity,
            model,
            tasks,
            input,
            output,
            position: 0,
            base: None,
            opening: None,
            progress: None,
            trace: Arc::default(),
            failed: None,
            spent: Spent::default(),
            taken: None,
        }
    }

    /// Passes the filtered global model to the client's model.
    fn receive(&mut self, base: &Message, ctx: &Context<'_>) -> Result<(), ComponentError> {
        let model = self.model.get_mut(ctx);
        let received = model.and_then(|model| model.receive(base, ctx)).map_err(|e| self.identity.fault(e))?;
        tell(&received, ctx);
        Ok(())
    }

    /// Evaluates another model in place of the client's own, unless the result would say nothing about that model.
    fn evaluate_shown(&mut self, shown: &Message, ctx: &Context<'_>) -> Result<Judgement, ComponentError> {
        let model = self.model.get(ctx);
        let received = model.and_then(|model| model.receive(shown, ctx)).map_err(|e| self.identity.fault(e))?;
        tell(&received, ctx);
        let unsupported = |what: &str| Err(ComponentError::new(String::new(), plugin_api::Error::unsupported(what)));
        if received.unexpected.len() == shown.params.len() {
            return unsupported("none of its parameters are sent");
        }
        // Untrained parameters still have their initial values and would make any model look bad.
        if !received.missing.is_empty() && self.position == 0 {
            return unsupported("the client has not trained, so it has no parameters to complete the model with");
        }
        Ok(Judgement { evaluations: self.evaluation(ctx)?, own: received.missing })
    }

    /// Returns an error if the client was lost permanently before this round.
    fn lost_before(&self, round: Option<u64>) -> Result<(), ComponentError> {
        match &self.failed {
            Some(failed) if failed.for_good && (round.is_none() || failed.round != round) => {
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
        call: impl FnOnce(&mut Self) -> Result<T, ComponentError>,
    ) -> Result<T, ComponentError> {
        self.lost_before(round)?;
        call(self).inspect_err(|fault| {
            if fault.is_panic() {
                self.failed = Some(Failed { round, for_good: true, fault: fault.clone() });
            }
        })
    }

    fn evaluation(&mut self, ctx: &Context<'_>) -> Result<Vec<Evaluation>, ComponentError> {
        let model = self.model.get(ctx).map_err(|e| self.identity.fault(e))?;
        let begun = Instant::now();
        let found = model.evaluate(&self.tasks, ctx);
        self.spent.evaluation += begun.elapsed().as_secs_f64();
        found.and_then(|found| validate::evaluations(&self.tasks, found)).map_err(|e| self.identity.fault(e))
    }

    /// Reports an evaluation under `Loss/WHERE`, `RMSE/WHERE` and so on. With several tasks, the task's name is
    /// appended.
    fn report(&self, evaluations: &[Evaluation], place: &str, round: u64, services: &HostServices<'_>) {
        let several = self.tasks.len() > 1;
        for evaluation in evaluations {
            let suffix = if several { format!("_{}", evaluation.task) } else { String::new() };
            let scalar = |name: &str, value: f64| {
                let tag = validate::tag(&format!("{name}/{place}{suffix}")).into_owned();
                let (client, step, time) = (Some(self.identity.index), self.position, now());
                // Only scalars of a round may have to be reported again after a resume.
                if self.opening.is_some() {
                    let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
                    trace.push(&tag, step, value, time);
                }
                services.reporter.scalar_of(Scalar { client, round, tag, step, value }, time);
            };
            scalar("Loss", evaluation.loss);
            for metric in &evaluation.metrics {
                scalar(&metric.name, metric.value);
            }
        }
    }
}

/// Logs which tensors of a message the model ignored and which were missing.
fn tell(received: &Received, ctx: &Context<'_>) {
    ctx.debug(format_args!("ignored {:?} and did not get {:?}", received.unexpected, received.missing));
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
        let outcome = self.work(order, pause, services);
        match &outcome {
            Ok(None) => return outcome,
            // The process is about to end. It will resume from its checkpoint.
            Err(fault) if fault.is_cancelled() => return outcome,
            Err(fault) => {
                let (round, for_good) = (Some(order.round), fault.is_panic());
                self.failed = Some(Failed { round, for_good, fault: fault.clone() });
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
        (self.opening, self.progress, self.trace) = (None, None, Arc::default());
        self.sent.clear();
    }

    fn evaluate(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Vec<Evaluation>, ComponentError> {
        self.guarded(None, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, Some(order.round));
            let base = client.input.apply(order.global.clone(), &order.global, &scope)?;
            client.receive(&base, &scope.context())?;
            let global = client.evaluation(&scope.context())?;
            client.report(&global, "global_test", order.round, services);
            Ok(global)
        })
    }

    fn evaluate_aside(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        self.guarded(Some(order.round), |client| client.judge_aside(order, services))
    }

    fn predict(&mut self, services: &HostServices<'_>) -> Result<Vec<Predicted>, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        let ctx = scope.context();
        let model = self.model.get(&ctx).map_err(|e| me.fault(e))?;
        let predicted = |Task { spec, train, test }: &Task| {
            let values = match test.rows() {
                0 => Table::new(),
                _ => validate::predictions(&spec.name, test, model.predict(&spec.name, test, &ctx)?)?,
            };
            let (train, test) = (Rows::of(train, &spec.target)?, Rows::of(test, &spec.target)?);
            Ok(Predicted { task: spec.name.clone(), train, test, values })
        };
        self.tasks.iter().map(predicted).collect::<plugin_api::Result<_>>().map_err(|e| me.fault(e))
    }

    fn answer(
        &mut self,
        question: &Message,
        round: u64,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError> {
        self.guarded(Some(round), |client| {
            let me = client.identity.clone();
            client.output.answer(question, &me.scope(services, Some(round)))
        })
    }

    fn publish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Message, ComponentError> {
        let params = self.parameters(services)?;
        self.guarded(None, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, Some(order.round));
            let base = client.input.apply(order.global.clone(), &order.global, &scope)?;
            client.output.apply(params.into(), &base, &scope)
        })
    }

    fn judge(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Judgement, ComponentError> {
        self.guarded(None, |client| {
            let me = client.identity.clone();
            let shown =
                client.input.apply(order.global.clone(), &order.global, &me.scope(services, Some(order.round)))?;
            let scope = me.scope(services, None);
            let ctx = scope.context();
            // Call `get` and not `get_mut`: the model is restored below, so its state on disk stays valid.
            let model = client.model.get(&ctx).map_err(|e| me.fault(e))?;
            let own = model.state(&ctx).map_err(|e| me.fault(e))?;
            let found = client.evaluate_shown(&shown, &ctx);
            client.model.get(&ctx).and_then(|model| model.restore(&own, &ctx)).map_err(|e| me.fault(e))?;
            found
        })
    }

    fn taken(&mut self, round: u64) {
        self.taken = Some(round);
    }

    fn parameters(&mut self, services: &HostServices<'_>) -> Result<Params, ComponentError> {
        self.guarded(None, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, None);
            let ctx = scope.context();
            client.model.get(&ctx).and_then(|model| model.parameters(&ctx)).map_err(|e| me.fault(e))
        })
    }

    fn export(&mut self, folder: &Path, services: &HostServices<'_>) -> Result<Vec<String>, ComponentError> {
        self.guarded(None, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, None);
            let ctx = scope.context();
            client.model.get(&ctx).and_then(|model| model.export(folder, &ctx)).map_err(|e| me.fault(e))
        })
    }

    fn save(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        self.kept(services)
    }

    fn restore(&mut self, saved: ClientState, services: &HostServices<'_>) -> Result<(), ComponentError> {
        self.go_back(saved, services)
    }

    fn release(&mut self, services: &HostServices<'_>) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        self.base = None;
        self.model.release(&me.scope(services, None)).map_err(|e| me.fault(e))
    }

    fn retire(&mut self, services: &HostServices<'_>) {
        let me = self.identity.clone();
        self.base = None;
        self.model.retire(&me.scope(services, None));
    }
}
