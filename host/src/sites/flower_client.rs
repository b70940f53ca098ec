//! A plain Flower client in a run of fedplug: a SuperNode that runs an app of its user's.
//!
//! Such a client trains and evaluates, and can do nothing else: it has no filters, no state that a checkpoint covers, and
//! it describes no data. So what an experiment would need of it beyond that is an error.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fedplug_superlink::{Content, Dialect, Evaluated, Value};
use indexmap::IndexMap;
use plugin_api::{Error, Evaluation, Goal, Level, Message, Metric, Trained};

use crate::artefacts::tracking::Scalar;
use crate::error::Diagnostic;
use crate::experiment::config::Experiment;
use crate::federation::admission::Admission;
use crate::federation::client::{
    Client, ClientState, CrossEvaluation, EvaluationOutcome, LastEvaluation, Order, Outcome,
};
use crate::federation::component_error::ComponentError;
use crate::federation::services::HostServices;
use crate::federation::usage::{Spent, Traffic};
use crate::plugins::validate;
use crate::sites::flower::{FlowerModel, ROUND};
use crate::sites::transport::{TransportError, never};
use crate::terminal::signals::Pause;

/// The metric of a reply that counts optimiser steps.
const STEPS: &str = "steps";

/// Parts of the names of metrics of which less is better.
const LOWER: [&str; 7] = ["loss", "error", "mse", "mae", "perplexity", "deviance", "distance"];

/// An order to a plain Flower client.
#[derive(Clone, Debug)]
pub(crate) struct PlainOrder<'a> {
    /// The site's name.
    pub site: &'a str,
    /// `train` or `evaluate`.
    pub kind: &'a str,
    /// The group of the message: the round.
    pub group: String,
    /// The records.
    pub content: Content,
}

/// Delivers orders to plain Flower clients and brings back their replies.
pub(crate) trait FlowerTransport: Send + Sync {
    /// Sends an order and waits for the reply. `cancelled` and `admit` are those of
    /// [`Transport::call`](crate::sites::transport::Transport::call).
    ///
    /// # Errors
    /// If the site cannot be reached or fails, or the wait was ended.
    fn order(
        &self,
        order: PlainOrder<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Content, TransportError>;
}

/// What the plain Flower clients of a run have in common.
pub(crate) struct FlowerClients {
    /// How orders reach them.
    pub transport: Arc<dyn FlowerTransport>,
    /// The order in which replies are taken.
    pub admission: Arc<Admission>,
    /// The model's parameters.
    pub model: FlowerModel,
    /// The run's task, if it has only one. Without it such a client evaluates nothing.
    pub task: Option<String>,
}

/// A plain Flower client.
pub(crate) struct FlowerClient {
    name: String,
    index: usize,
    dialect: Dialect,
    common: Arc<FlowerClients>,
    /// The current step on the x axis of the client's scalars.
    position: u64,
    /// Whether it was logged that examples count as steps.
    counts_examples: bool,
}

/// Why an experiment cannot run with plain Flower clients, if it has any: with positions in its file.
pub(crate) fn problems(experiment: &Experiment) -> Vec<Diagnostic> {
    let sites = experiment.federation.site_list();
    let Some(plain) = sites.iter().find(|site| site.flower.is_some()) else { return Vec::new() };
    let mut reports = Vec::new();
    if sites.iter().all(|site| site.flower.is_some()) {
        let what = "all sites are plain Flower clients, which describe no tasks: at least one must run `fedplug join`";
        let path = ["federation", "sites"].map(str::to_owned);
        reports.push(experiment.document.locate_table(Diagnostic::new(what), &path));
    }
    let mut filters: Vec<_> = experiment.filters.iter().filter(|filter| filter.position.is_at_client()).collect();
    filters.dedup_by(|one, other| one.plugin.table == other.plugin.table);
    for filter in filters {
        let what = format!(
            "site `{}` is a plain Flower client, which applies no filters: what this one protects or encodes would \
             leave it unchanged",
            plain.name
        );
        let report = experiment.document.locate_table(Diagnostic::new(what), &filter.plugin.table);
        reports
            .push(report.hint("remove the filter, or the site; sites of fedplug can have filters in their own files"));
    }
    reports
}

impl FlowerClient {
    /// Creates the client of a site.
    pub(crate) fn new(name: String, index: usize, dialect: Dialect, common: Arc<FlowerClients>) -> Self {
        Self { name, index, dialect, common, position: 0, counts_examples: false }
    }

    fn fault(&self, error: Error) -> ComponentError {
        ComponentError::new(format!("site `{}`", self.name), error)
    }

    fn unsupported(&self, what: &str) -> ComponentError {
        self.fault(Error::unsupported(format!("a plain Flower client {what}")))
    }

    /// Sends an order with the global model. `round` is the number of the round, from one, or the number of rounds that
    /// the model was trained for.
    fn send(
        &self,
        kind: &str,
        (round, order): (u64, &Order),
        stops: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
        services: &HostServices<'_>,
    ) -> Result<Content, ComponentError> {
        let Message { params, extra, values, .. } = &order.global;
        if let Some(name) = extra.names().chain(values.keys().map(String::as_str)).next() {
            return Err(self.unsupported(&format!("knows parameters only, and this run also sends `{name}`")));
        }
        let arrays = self.common.model.arrays(self.dialect, params).map_err(|e| self.fault(e))?;
        let whole = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let mut config = IndexMap::from([(ROUND.to_owned(), whole(round))]);
        let content = if kind == "train" {
            config.insert("local-epochs".to_owned(), whole(order.epochs));
            self.dialect.train(&arrays, config)
        } else {
            self.dialect.evaluate(&arrays, config)
        };
        let cancelled = || services.stop.load(Ordering::Relaxed) || stops();
        let order = PlainOrder { site: &self.name, kind, group: round.to_string(), content };
        self.common.transport.order(order, &cancelled, admit).map_err(|e| self.fault(e.into_error()))
    }

    fn unreadable(&self, error: &fedplug_superlink::Error) -> ComponentError {
        self.fault(Error::data("its app's reply cannot be used").because(error))
    }

    /// Evaluates the global model, if the run has one task and clients report.
    fn evaluate(
        &self,
        order: &Order,
        stops: &(dyn Fn() -> bool + Sync),
        services: &HostServices<'_>,
    ) -> Result<Vec<Evaluation>, ComponentError> {
        let Some(task) = self.common.task.as_ref().filter(|_| services.terms.reports) else { return Ok(Vec::new()) };
        let content = self.send("evaluate", (order.round, order), stops, &|| (), services)?;
        let evaluated = self.dialect.read_evaluated(content).map_err(|e| self.unreadable(&e))?;
        let evaluation = evaluation(task, &evaluated);
        let numbers = evaluation.metrics.iter().map(|metric| (metric.name.as_str(), metric.value));
        for (name, value) in [("Loss", evaluation.loss)].into_iter().chain(numbers) {
            self.report(&format!("{name}/global_test"), value, order.round, services);
        }
        Ok(vec![evaluation])
    }

    fn report(&self, tag: &str, value: f64, round: u64, services: &HostServices<'_>) {
        let tag = validate::tag(tag).into_owned();
        services.reporter.scalar(Scalar { client: Some(self.index), round, tag, step: self.position, value });
    }

    fn train(
        &mut self,
        order: &Order,
        stops: &(dyn Fn() -> bool + Sync),
        services: &HostServices<'_>,
    ) -> Result<Outcome, ComponentError> {
        let global = self.evaluate(order, stops, services)?.into();
        let admit = || self.common.admission.wait(self.index);
        let content = self.send("train", (order.round + 1, order), stops, &admit, services)?;
        let trained = self.dialect.read_trained(content).map_err(|e| self.unreadable(&e))?;
        let params = self.common.model.params(self.dialect, trained.arrays).map_err(|e| self.fault(e))?;
        let message = Message::from(params);
        let steps = trained.metrics.get(STEPS).and_then(Value::as_u64);
        if steps.is_none() && !std::mem::replace(&mut self.counts_examples, true) {
            let line = format!("site `{}` reports no metric `{STEPS}`, so its examples count as steps", self.name);
            services.console.log(Level::Info, &line);
        }
        let counts = Trained { steps: steps.unwrap_or(trained.examples), examples: trained.examples };
        let Trained { steps, examples } = validate::trained(Trained::default(), counts).map_err(|e| self.fault(e))?;
        self.position += steps.max(1);
        let traffic = Traffic { received: order.global.bytes() as u64, sent: message.bytes() as u64 };
        if services.terms.reports {
            for (name, value) in trained.metrics.iter().filter(|(name, _)| *name != STEPS) {
                if let Some(value) = value.as_f64() {
                    self.report(&format!("{name}/train"), value, order.round, services);
                }
            }
            self.report("Bytes/received", traffic.received as f64, order.round, services);
            self.report("Bytes/sent", traffic.sent as f64, order.round, services);
        }
        for _ in 0..order.epochs {
            services.console.epoch_done(self.index);
        }
        let (withheld, local, spent) = (Vec::new(), Vec::new(), Spent::default());
        Ok(Outcome { message, withheld, steps, examples, global, local, traffic, spent, place: None })
    }
}

/// A client's evaluation. Flower says nothing of a score, and not which direction of a metric is better.
fn evaluation(task: &str, evaluated: &Evaluated) -> Evaluation {
    let metric = |(name, value): (&String, &Value)| {
        let (name, lower) = (validate::tag(name).into_owned(), name.to_lowercase());
        let goal = if LOWER.iter().any(|part| lower.contains(part)) { Goal::Lower } else { Goal::Higher };
        value.as_f64().map(|value| Metric { name, value, goal })
    };
    let Evaluated { loss, examples, metrics } = evaluated;
    let (mut loss, mut metrics) = (loss.unwrap_or(f64::NAN), metrics.iter().filter_map(metric).collect::<Vec<_>>());
    if *examples == 0 {
        loss = f64::NAN;
        metrics.iter_mut().for_each(|metric| metric.value = f64::NAN);
    }
    Evaluation { task: task.to_owned(), examples: *examples, loss, score: f64::NAN, metrics }
}

impl Client for FlowerClient {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: u64, _: &HostServices<'_>) {}

    fn round(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError> {
        if pause.is_stop() {
            return Ok(None);
        }
        let place = self.common.admission.enter(self.index);
        match self.train(order, &|| pause.is_stop(), services) {
            Ok(outcome) => Ok(Some(Outcome { place: Some(Arc::new(place)), ..outcome })),
            Err(fault) if fault.is_cancelled() && pause.is_stop() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn close(&mut self) {}

    fn evaluate_idle(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        let global = self.evaluate(order, &never, services)?;
        let received = if global.is_empty() { 0 } else { order.global.bytes() as u64 };
        Ok(EvaluationOutcome { global: global.into(), traffic: Traffic { received, sent: 0 }, spent: Spent::default() })
    }

    fn answer(&mut self, _: &Message, _: u64, _: &HostServices<'_>) -> Result<Message, ComponentError> {
        Err(self.unsupported("answers no questions of an aggregator"))
    }

    fn publish(&mut self, _: &Order, _: &HostServices<'_>) -> Result<Message, ComponentError> {
        Err(self.unsupported("publishes no model of its own"))
    }

    fn evaluate_other(&mut self, _: &Order, _: &HostServices<'_>) -> Result<CrossEvaluation, ComponentError> {
        Err(self.unsupported("evaluates no models of other clients"))
    }

    fn update_aggregated(&mut self, _: u64) {}

    fn save_model(&mut self, _: &Path, _: &HostServices<'_>) -> Result<(), ComponentError> {
        // What its app keeps of a model is the app's affair.
        Ok(())
    }

    fn finish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<LastEvaluation, ComponentError> {
        Ok(LastEvaluation { evaluation: self.evaluate(order, &never, services)?.into(), predictions: None })
    }

    fn leave(&mut self, _: &HostServices<'_>) {
        // Its SuperNode learns of the run's end from the SuperLink.
    }

    fn save(&mut self, _: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        Ok(ClientState { position: self.position, ..ClientState::default() })
    }

    fn restore(&mut self, saved: ClientState, _: &HostServices<'_>) -> Result<(), ComponentError> {
        self.position = saved.position;
        Ok(())
    }

    fn release(&mut self, _: &HostServices<'_>) -> Result<(), ComponentError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
