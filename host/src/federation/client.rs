//! A client as the federation sees it, and the one kind there is today: a model and its data in this process.
//!
//! What crosses [`Client`] is plain data, so that a client in another process or on another machine can stand behind it.
//! Parameters leave through the filters at `client-output` alone, in [`Client::round`] and [`Client::release`]. What else
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use plugin_api::{Context, Evaluation, Message, Params, Received, State, Table, Task};
use serde::{Deserialize, Serialize};

use crate::artefacts::tracking::{Scalar, now};
use crate::federation::filters::FilterChain;
use crate::federation::model_store::{ModelHandle, SpillableMessage, Store};
use crate::federation::predictions::{Predicted, Rows};
use crate::federation::round_progress::{Progress, Trace};
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::plugins::validate;
use crate::terminal::signals::Pause;

mod round;

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

/// Seconds that a model trained and evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// In [`plugin_api::Model::train`].
    pub training: f64,
    /// In [`plugin_api::Model::evaluate`].
    pub evaluation: f64,
}

/// Bytes of tensors that crossed between server and clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From the server.
    pub received: u64,
    /// To the server.
    pub sent: u64,
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

/// Who a local client is: what its calls are made for, and where.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its place in the order of clients.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Where it computes.
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
pub struct LocalClient {
    identity: Arc<Identity>,
    model: ModelHandle,
    tasks: Vec<Task>,
    /// What filters the messages that it gets.
    input: FilterChain,
    /// What filters the messages that it sends.
    output: FilterChain,
    /// Where it stands on the axis of its scalars: its optimiser steps, and one for each epoch without any, so that
    /// the curves of a client without data go on as well.
    position: u64,
    /// The global model of the round, as its model received it.
    base: Option<Message>,
    /// Within a round: its filters' states at the beginning.
    opening: Option<Result<[Vec<State>; 2], ComponentError>>,
    /// Within a round: how far it is, but for the trace.
    progress: Option<Progress>,
    trace: Arc<Mutex<Trace>>,
    /// What its model sent in this round.
    sent: SpillableMessage,
    failed: Option<Failed>,
    /// How long its model computed in this round so far.
    spent: Spent,
    /// The last round of which the global model has its update.
    taken: Option<u64>,
}

impl LocalClient {
    /// A client that has done nothing yet.
    pub fn new(
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

    /// Lets the model take over a global one, as the filters left it.
    fn receive(&mut self, base: &Message, ctx: &Context<'_>) -> Result<(), ComponentError> {
        let model = self.model.get_mut(ctx);
        let received = model.and_then(|model| model.receive(base, ctx)).map_err(|e| self.identity.fault(e))?;
        tell(&received, ctx);
        Ok(())
    }

    /// Evaluates a model in the place of its own, if that says something of the model.
    fn evaluate_shown(&mut self, shown: &Message, ctx: &Context<'_>) -> Result<Judgement, ComponentError> {
        let model = self.model.get(ctx);
        let received = model.and_then(|model| model.receive(shown, ctx)).map_err(|e| self.identity.fault(e))?;
        tell(&received, ctx);
        let unsupported = |what: &str| Err(ComponentError::new(String::new(), plugin_api::Error::unsupported(what)));
        if received.unexpected.len() == shown.params.len() {
            return unsupported("none of its parameters are sent");
        }
        // What it has not trained is as it was made, and would make any model look bad.
        if !received.missing.is_empty() && self.position == 0 {
            return unsupported("the client has not trained, so it has no parameters to complete the model with");
        }
        Ok(Judgement { evaluations: self.evaluation(ctx)?, own: received.missing })
    }

    /// An error if it was lost for good before this round.
    fn lost_before(&self, round: Option<u64>) -> Result<(), ComponentError> {
        match &self.failed {
            Some(failed) if failed.for_good && (round.is_none() || failed.round != round) => {
                let (who, error) = failed.fault.parts();
                let message = format!("it is not called any more, since {error}");
                Err(ComponentError::new(who.to_owned(), plugin_api::Error::new(error.kind().clone(), message)))
            }
            _ => Ok(()),
        }
    }

    /// Makes a call, unless the client is lost; one that panics loses it.
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

    /// Reports an evaluation under `Loss/WHERE`, `RMSE/WHERE` …, with the task's name behind where there are several.
    fn report(&self, evaluations: &[Evaluation], place: &str, round: u64, services: &HostServices<'_>) {
        let several = self.tasks.len() > 1;
        for evaluation in evaluations {
            let suffix = if several { format!("_{}", evaluation.task) } else { String::new() };
            let scalar = |name: &str, value: f64| {
                let tag = validate::tag(&format!("{name}/{place}{suffix}")).into_owned();
                let (client, step, time) = (Some(self.identity.index), self.position, now());
                // Outside of a round there is nobody to ask for it again.
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

/// What a model made of a message.
fn tell(received: &Received, ctx: &Context<'_>) {
    ctx.debug(format_args!("had no use for {:?} and did not get {:?}", received.unexpected, received.missing));
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
            // The process is about to end, and goes on from its checkpoint.
            Err(fault) if fault.is_cancelled() => return outcome,
            Err(fault) => {
                let (round, for_good) = (Some(order.round), fault.is_panic());
                self.failed = Some(Failed { round, for_good, fault: fault.clone() });
            }
            Ok(Some(_)) => {}
        }
        // A client that failed rests as well, and its first fault is the one that is told.
        let rested = self.release(services);
        // The model finds its place first.
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
            // It is its own again at the end, so for its place on disk it has not changed.
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
