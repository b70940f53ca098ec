//! A client as the federation sees it, and the one kind there is today: a model and its data in this process.
//!
//! What crosses [`Client`] is plain data, so that a client in another process or on another machine can stand behind it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plugin_api::context::Host;
use plugin_api::{Context, Epoch, Evaluation, Level, Message, Model, Params, Received, Seed, State, Task, Trained};
use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::error::Report;
use crate::filters::Chain;
use crate::notes::Notes;
use crate::tracking::{Reporter, Scalar};
use crate::trust;

/// A component that failed, and how.
#[derive(Clone, Debug)]
pub struct Fault {
    who: String,
    error: plugin_api::Error,
}

impl Fault {
    /// `who` failed.
    pub fn new(who: String, error: plugin_api::Error) -> Self {
        Self { who, error }
    }

    /// Whether it did so because it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Cancelled
    }

    /// What a person reads: `round 3, client `tm`, model `amplify`: …`.
    pub fn report(&self, place: &str) -> Report {
        let comma = if place.is_empty() || self.who.is_empty() { "" } else { ", " };
        Report::from(self.error.clone()).within(&format!("{place}{comma}{}", self.who))
    }
}

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
    /// The model's state.
    pub model: State,
    /// The states of the filters on what it gets, and on what it sends.
    pub filters: [Vec<State>; 2],
    /// Where it stands on the axis of its scalars.
    pub position: u64,
}

/// The host's end of what a client may call: lines, scalars, progress, and whether to stop.
#[derive(Clone, Debug)]
pub struct Link<'a> {
    /// Where lines and progress go.
    pub console: &'a Console,
    /// Where scalars go.
    pub reporter: Reporter,
    /// Where sentences for the summary go.
    pub notes: &'a Notes,
    /// Whether the run shall stop.
    pub stop: &'a AtomicBool,
    /// The experiment's seed.
    pub seed: Seed,
    /// How many threads a client may compute with.
    pub threads: usize,
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
    /// Answers what the aggregator asks in a round.
    ///
    /// # Errors
    /// If no filter of its has an answer.
    fn answer(&mut self, question: &Message, round: u64, link: &Link<'_>) -> Result<Message, Fault>;
    /// Evaluates a complete model of another client on its own data, and goes back to its own.
    ///
    /// # Errors
    /// If the model does not fit its own.
    fn judge(&mut self, params: &Params, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault>;
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
    fn restore(&mut self, saved: &Saved, link: &Link<'_>) -> Result<(), Fault>;
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
    pub model: Box<dyn Model>,
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
}

impl LocalClient {
    fn receive(&mut self, order: &Order, line: &Line<'_>) -> Result<Received, Fault> {
        self.base = self.input.apply(order.global.clone(), &order.global, line)?;
        let ctx = line.context();
        let received = self.model.receive(&self.base, &ctx).map_err(|e| self.identity.fault(e))?;
        ctx.debug(format_args!("had no use for {:?} and did not get {:?}", received.unexpected, received.missing));
        Ok(received)
    }

    fn evaluation(&mut self, ctx: &Context<'_>) -> Result<Vec<Evaluation>, Fault> {
        let found = self.model.evaluate(&self.tasks, ctx);
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
        let global = self.evaluate(order, link)?;
        let me = self.identity.clone();
        let line = me.line(link, Some(order.round)).with_progress();
        let ctx = line.context();
        let (mut all, mut local) = (Trained::default(), Vec::new());
        for epoch in 0..order.epochs {
            let epoch = Epoch { round: order.round, epoch };
            let trained = self.model.train(&self.tasks, epoch, &ctx).map_err(|e| me.fault(e))?;
            all = trust::trained(all, trained).map_err(|e| me.fault(e))?;
            self.position += trained.steps.max(1);
            link.console.epoch_done(me.index);
            let evaluations = self.evaluation(&me.line(link, Some(order.round)).context())?;
            self.report(&evaluations, "local_test", order.round, link);
            local.push(evaluations);
        }
        let message = self.model.send(&ctx).map_err(|e| me.fault(e))?;
        let message = self.output.apply(message, &std::mem::take(&mut self.base), &line)?;
        let traffic = Traffic { received: order.global.bytes() as u64, sent: message.bytes() as u64 };
        for (tag, bytes) in [("Bytes/received", traffic.received), ("Bytes/sent", traffic.sent)] {
            ctx.scalar(tag, self.position, bytes as f64);
        }
        let Trained { steps, examples } = all;
        Ok(Outcome { message, steps, examples, global, local, traffic })
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

    fn answer(&mut self, question: &Message, round: u64, link: &Link<'_>) -> Result<Message, Fault> {
        let me = self.identity.clone();
        self.output.answer(question, &me.line(link, Some(round)))
    }

    fn judge(&mut self, params: &Params, link: &Link<'_>) -> Result<Vec<Evaluation>, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        let own = self.model.state(&ctx).map_err(|e| me.fault(e))?;
        self.model.receive(&params.clone().into(), &ctx).map_err(|e| me.fault(e))?;
        let found = self.evaluation(&ctx);
        self.model.restore(&own, &ctx).map_err(|e| me.fault(e))?;
        found
    }

    fn parameters(&mut self, link: &Link<'_>) -> Result<Params, Fault> {
        let me = self.identity.clone();
        self.model.parameters(&me.line(link, None).context()).map_err(|e| me.fault(e))
    }

    fn export(&mut self, folder: &Path, link: &Link<'_>) -> Result<Vec<String>, Fault> {
        let me = self.identity.clone();
        self.model.export(folder, &me.line(link, None).context()).map_err(|e| me.fault(e))
    }

    fn save(&mut self, link: &Link<'_>) -> Result<Saved, Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        let filters = [self.input.states(&line)?, self.output.states(&line)?];
        Ok(Saved { model: self.model.state(&ctx).map_err(|e| me.fault(e))?, filters, position: self.position })
    }

    fn restore(&mut self, saved: &Saved, link: &Link<'_>) -> Result<(), Fault> {
        let me = self.identity.clone();
        let line = me.line(link, None);
        let ctx = line.context();
        self.input.restore(&saved.filters[0], &line)?;
        self.output.restore(&saved.filters[1], &line)?;
        self.position = saved.position;
        self.model.restore(&saved.model, &ctx).map_err(|e| me.fault(e))
    }
}

/// The host behind one component's calls: it knows whose they are.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    link: &'a Link<'a>,
    who: &'a str,
    client: Option<(usize, &'a str)>,
    round: Option<u64>,
    device: &'a str,
    progress: bool,
}

impl<'a> Line<'a> {
    /// For the component `who`, called for a client or for the server, on the CPU.
    pub fn new(link: &'a Link<'a>, who: &'a str, client: Option<(usize, &'a str)>, round: Option<u64>) -> Self {
        Self { link, who, client, round, device: "cpu", progress: false }
    }

    /// The same on a device.
    #[must_use]
    pub fn on(self, device: &'a str) -> Self {
        Self { device, ..self }
    }

    /// The same for another component.
    #[must_use]
    pub fn of<'b>(&self, who: &'b str) -> Line<'b>
    where
        'a: 'b,
    {
        Line { who, ..*self }
    }

    fn with_progress(self) -> Self {
        Self { progress: true, ..self }
    }

    /// The context of a call on this line.
    pub fn context(&self) -> Context<'_> {
        let ctx = Context::new(self).with_seed(self.link.seed).with_threads(self.link.threads).with_device(self.device);
        let ctx = self.client.map_or(ctx.clone(), |(_, name)| ctx.with_client(name));
        self.round.map_or(ctx.clone(), |round| ctx.with_round(round))
    }
}

impl Host for Line<'_> {
    fn enabled(&self, level: Level) -> bool {
        self.link.console.enabled(level)
    }
    fn log(&self, level: Level, line: &str) {
        let client = self.client.map(|(_, name)| format!("client {name}, ")).unwrap_or_default();
        self.link.console.log(level, &format!("{client}{}: {}", self.who, trust::line(line)));
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        let (client, round) = (self.client.map(|(index, _)| index), self.round.unwrap_or_default());
        self.link.reporter.scalar(Scalar { client, round, tag: trust::tag(tag).into_owned(), step, value });
    }
    fn progress(&self, done: u64, total: u64) {
        if let (true, Some((index, _))) = (self.progress, self.client) {
            self.link.console.progress(index, done, total);
        }
    }
    fn note(&self, key: &str, text: &str) {
        let client = self.client.map_or(crate::tracking::SERVER, |(_, name)| name);
        self.link.notes.set(client, self.who, &trust::tag(key), &trust::line(text));
    }
    fn cancelled(&self) -> bool {
        self.link.stop.load(Ordering::Relaxed)
    }
}
