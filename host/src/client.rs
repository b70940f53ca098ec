//! A client as the federation sees it, and the one kind there is today: a model and its data in this process.
//!
//! What crosses [`Client`] is plain data, so that a client in another process or on another machine can stand behind it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use plugin_api::{Context, Epoch, Evaluation, Message, Params, Received, State, Task, Trained};
use serde::{Deserialize, Serialize};

use crate::filters::Chain;
use crate::idle::Resident;
use crate::link::{Fault, Line, Link};
use crate::predictions::{Predicted, Rows};
use crate::tracking::Scalar;
use crate::trust;

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
pub struct Saved {
    /// The model's state; none of a model that is as it was made.
    pub model: Option<State>,
    /// The states of the filters on what it gets, and on what it sends.
    pub filters: [Vec<State>; 2],
    /// Where it stands on the axis of its scalars.
    pub position: u64,
}

/// A client of the federation.
pub trait Client: Send {
    /// Its name.
    fn name(&self) -> &str;
    /// Evaluates the global model, trains, evaluates, and gives its update.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn round(&mut self, order: &Order, link: &Link<'_>) -> Result<Outcome, Fault>;
    /// Evaluates a global model and does nothing else. Its own model is replaced by it where they meet.
    ///
    /// # Errors
    /// If its model or one of its filters fails.
    fn evaluate(&mut self, order: &Order, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault>;
    /// Predicts its test rows with its model as it is, a task each.
    ///
    /// # Errors
    /// If its model fails.
    fn predict(&mut self, link: &Link<'_>) -> Result<Vec<Predicted>, Fault>;
    /// Answers what the aggregator asks in a round.
    ///
    /// # Errors
    /// If no filter of its has an answer.
    fn answer(&mut self, question: &Message, round: u64, link: &Link<'_>) -> Result<Message, Fault>;
    /// Evaluates a complete model of another client on its own data, and goes back to its own. What else the last global
    /// model holds comes with it, since a method may expect it.
    ///
    /// # Errors
    /// If the model does not fit its own.
    fn judge(&mut self, message: &Message, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault>;
    /// Its own complete model.
    ///
    /// # Errors
    /// If the model cannot tell.
    fn parameters(&mut self, link: &Link<'_>) -> Result<Params, Fault>;
    /// Writes its own complete model in the formats of its field.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn export(&mut self, folder: &Path, link: &Link<'_>) -> Result<Vec<String>, Fault>;
    /// All that a resumed run needs of it.
    ///
    /// # Errors
    /// If a component cannot tell.
    fn save(&mut self, link: &Link<'_>) -> Result<Saved, Fault>;
    /// Goes back to where it was.
    ///
    /// # Errors
    /// If what was saved does not fit.
    fn restore(&mut self, saved: Saved, link: &Link<'_>) -> Result<(), Fault>;
    /// Ends its work for now: it keeps no more memory than it must. A round does so by itself.
    ///
    /// # Errors
    /// If what it has learnt cannot be written to disk.
    fn rest(&mut self, link: &Link<'_>) -> Result<(), Fault>;
    /// Ends its work for good.
    fn retire(&mut self, link: &Link<'_>);
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
    fn line<'a>(&'a self, link: &'a Link<'a>, round: Option<u64>) -> Line<'a> {
        Line::new(link, &self.plugin, Some((self.index, &self.name)), round).on(&self.device)
    }

    fn fault(&self, error: plugin_api::Error) -> Fault {
        Fault::new(format!("model `{}`", self.plugin), error)
    }
}

/// A client in this process.
pub struct LocalClient {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Its model.
    pub model: Resident,
    /// Its data.
    pub tasks: Vec<Task>,
    /// What filters the messages that it gets.
    pub input: Chain,
    /// What filters the messages that it sends.
    pub output: Chain,
    /// Where it stands on the axis of its scalars: its optimiser steps, and one for each epoch without any, so that
    /// the curves of a client without data go on as well.
    pub position: u64,
    /// The global model of the round, as its model received it.
    pub base: Message,
    /// How long its model computed in this round so far.
    pub spent: Spent,
}

impl LocalClient {
    fn receive(&mut self, order: &Order, line: &Line<'_>) -> Result<Received, Fault> {
        self.base = self.input.apply(order.global.clone(), &order.global, line)?;
        let ctx = line.context();
        let model = self.model.change(&ctx);
        let received = model.and_then(|model| model.receive(&self.base, &ctx)).map_err(|e| self.identity.fault(e))?;
        ctx.debug(format_args!("had no use for {:?} and did not get {:?}", received.unexpected, received.missing));
        Ok(received)
    }

    /// A round's work, before the rest.
    fn work(&mut self, order: &Order, link: &Link<'_>) -> Result<Outcome, Fault> {
        self.spent = Spent::default();
        let global = self.evaluate(order, link)?;
        let me = self.identity.clone();
        let line = me.line(link, Some(order.round)).with_progress();
        let ctx = line.context();
        let (mut all, mut local) = (Trained::default(), Vec::new());
        for epoch in 0..order.epochs {
            let epoch = Epoch { round: order.round, epoch };
            let model = self.model.change(&ctx).map_err(|e| me.fault(e))?;
            let begun = Instant::now();
            let trained = model.train(&self.tasks, epoch, &ctx).map_err(|e| me.fault(e))?;
            self.spent.training += begun.elapsed().as_secs_f64();
            all = trust::trained(all, trained).map_err(|e| me.fault(e))?;
            self.position += trained.steps.max(1);
            link.console.epoch_done(me.index);
            let evaluations = self.evaluation(&me.line(link, Some(order.round)).context())?;
            self.report(&evaluations, "local_test", order.round, link);
            local.push(evaluations);
        }
        let message = self.model.change(&ctx).and_then(|model| model.send(&ctx)).map_err(|e| me.fault(e))?;
        let message = self.output.apply(message, &std::mem::take(&mut self.base), &line)?;
        let traffic = Traffic { received: order.global.bytes() as u64, sent: message.bytes() as u64 };
        for (tag, bytes) in [("Bytes/received", traffic.received), ("Bytes/sent", traffic.sent)] {
            ctx.scalar(tag, self.position, bytes as f64);
        }
        let Trained { steps, examples } = all;
        Ok(Outcome { message, steps, examples, global, local, traffic, spent: self.spent })
    }

    fn evaluation(&mut self, ctx: &Context<'_>) -> Result<Vec<Evaluation>, Fault> {
        let model = self.model.look(ctx).map_err(|e| self.identity.fault(e))?;
        let begun = Instant::now();
        let found = model.evaluate(&self.tasks, ctx);
        self.spent.evaluation += begun.elapsed().as_secs_f64();
        found.and_then(|found| trust::evaluations(&self.tasks, found)).map_err(|e| self.identity.fault(e))
    }

    /// Reports an evaluation under `Loss/WHERE`, `RMSE/WHERE` …, with the task's name behind where there are several.
    fn report(&self, evaluations: &[Evaluation], place: &str, round: u64, link: &Link<'_>) {
        let several = self.tasks.len() > 1;
        for evaluation in evaluations {
            let suffix = if several { format!("_{}", evaluation.task) } else { String::new() };
            let scalar = |name: &str, value: f64| {
                let tag = trust::tag(&format!("{name}/{place}{suffix}")).into_owned();
                let client = Some(self.identity.index);
                link.reporter.scalar(Scalar { client, round, tag, step: self.position, value });
            };
            scalar("Loss", evaluation.loss);
            for metric in &evaluation.metrics {
                scalar(&metric.name, metric.value);
            }
        }
    }
}

impl Client for LocalClient {
    fn name(&self) -> &str {
        &self.identity.name
    }

    fn round(&mut self, order: &Order, link: &Link<'_>) -> Result<Outcome, Fault> {
        let outcome = self.work(order, link);
        if outcome.as_ref().is_err_and(Fault::is_cancelled) {
            return outcome; // The process is about to end, and goes on from its checkpoint.
        }
        // A client that failed rests as well, and its first fault is the one that is told.
        let rested = self.rest(link);
        outcome.and_then(|outcome| rested.map(|()| outcome))
    }

    fn evaluate(&mut self, order: &Order, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, Some(order.round));
        let ctx = line.context();
        self.receive(order, &line)?;
        let global = self.evaluation(&ctx)?;
        self.report(&global, "global_test", order.round, link);
        Ok(global)
    }

    fn predict(&mut self, link: &Link<'_>) -> Result<Vec<Predicted>, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        let model = self.model.look(&ctx).map_err(|e| me.fault(e))?;
        let predicted = |Task { spec, train, test }: &Task| {
            let values = if test.rows() == 0 { Vec::new() } else { model.predict(&spec.name, test, &ctx)? };
            let values = trust::predictions(&spec.name, test, values)?;
            let (train, test) = (Rows::of(train, &spec.target)?, Rows::of(test, &spec.target)?);
            Ok(Predicted { task: spec.name.clone(), train, test, values })
        };
        self.tasks.iter().map(predicted).collect::<plugin_api::Result<_>>().map_err(|e| me.fault(e))
    }

    fn answer(&mut self, question: &Message, round: u64, link: &Link<'_>) -> Result<Message, Fault> {
        let me = self.identity.clone();
        self.output.answer(question, &me.line(link, Some(round)))
    }

    fn judge(&mut self, message: &Message, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        // It is its own again at the end, so for its place on disk it has not changed.
        let model = self.model.look(&ctx).map_err(|e| me.fault(e))?;
        let own = model.state(&ctx).map_err(|e| me.fault(e))?;
        model.receive(message, &ctx).map_err(|e| me.fault(e))?;
        let found = self.evaluation(&ctx);
        self.model.look(&ctx).and_then(|model| model.restore(&own, &ctx)).map_err(|e| me.fault(e))?;
        found
    }

    fn parameters(&mut self, link: &Link<'_>) -> Result<Params, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        self.model.look(&ctx).and_then(|model| model.parameters(&ctx)).map_err(|e| me.fault(e))
    }

    fn export(&mut self, folder: &Path, link: &Link<'_>) -> Result<Vec<String>, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        self.model.look(&ctx).and_then(|model| model.export(folder, &ctx)).map_err(|e| me.fault(e))
    }

    fn save(&mut self, link: &Link<'_>) -> Result<Saved, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        let filters = [self.input.states(&line)?, self.output.states(&line)?];
        Ok(Saved { model: self.model.state(&ctx).map_err(|e| me.fault(e))?, filters, position: self.position })
    }

    fn restore(&mut self, saved: Saved, link: &Link<'_>) -> Result<(), Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        self.input.restore(&saved.filters[0], &line)?;
        self.output.restore(&saved.filters[1], &line)?;
        self.position = saved.position;
        saved.model.map_or(Ok(()), |state| self.model.restore(state, &line)).map_err(|e| me.fault(e))
    }

    fn rest(&mut self, link: &Link<'_>) -> Result<(), Fault> {
        let me = self.identity.clone();
        self.base = Message::default();
        self.model.rest(&me.line(link, None)).map_err(|e| me.fault(e))
    }

    fn retire(&mut self, link: &Link<'_>) {
        let me = self.identity.clone();
        self.base = Message::default();
        self.model.retire(&me.line(link, None));
    }
}
