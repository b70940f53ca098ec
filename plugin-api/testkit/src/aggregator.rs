//! Checks for aggregators.

mod behaviour;
mod round;

use serde_json::Value;

use super::sample;
use super::subject::{SEED, Subject, context};
use super::verdict::Verdict;
use super::watcher::Watcher;
use plugin_api::{Aggregator, Component, Filter, Message, Result};

/// The checks for an aggregator, and their inputs.
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `check` is called"]
pub struct AggregatorCheck {
    subject: Subject,
    clients: Vec<String>,
    global: Message,
    updates: Vec<Message>,
    filter: Option<Subject>,
}

impl AggregatorCheck {
    /// Checks this component with this configuration and six clients that send small f32 tensors.
    pub fn new(component: &Component, config: &Value) -> Self {
        let clients = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).to_vec();
        let updates = (1..=clients.len() as u64).map(sample::message).collect();
        Self { subject: Subject::new(component, config), clients, global: sample::message(0), updates, filter: None }
    }

    /// Uses this global model, and one update per client, before its filter. There are as many clients as updates, at
    /// least three. In a later round each client sends what its neighbour sent before.
    pub fn with_messages(mut self, global: Message, updates: Vec<Message>) -> Self {
        self.clients = (0..updates.len()).map(|k| format!("client-{k}")).collect();
        (self.global, self.updates) = (global, updates);
        self
    }

    /// Uses this filter, with one instance per client. It answers the aggregator's queries, and updates pass through
    /// it.
    pub fn with_filter(mut self, component: &Component, config: &Value) -> Self {
        self.filter = Some(Subject::new(component, config));
        self
    }

    /// Runs the checks in order.
    pub fn check(&self) -> Verdict {
        self.subject.verdict(|verdict| {
            if !verdict.run("new", "the host makes one instance", || Ok(self.make(SEED).map(drop)?)) {
                verdict.skip(&behaviour::CALLS, "no instance could be made");
                verdict.skip(&behaviour::NAMES, "no instance could be made");
            } else if self.calls(verdict) {
                self.behaviour(verdict);
            } else {
                verdict.skip(&behaviour::NAMES, "the calls before it have to work");
            }
        })
    }

    fn make(&self, seed: u64) -> Result<Box<dyn Aggregator>> {
        let watcher = Watcher::new();
        self.subject.component.new_aggregator(&self.subject.config, &context(&watcher, seed))
    }

    /// Each client's filter, if there is one.
    fn filters(&self) -> Result<Option<Vec<Box<dyn Filter>>>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let make = |filter: &Subject| {
            let one = |name: &String| filter.component.new_filter(&filter.config, &ctx.clone().with_client(name));
            self.clients.iter().map(one).collect::<Result<Vec<_>>>()
        };
        self.filter.as_ref().map(make).transpose()
    }

    /// What a client sends in a round.
    fn update(&self, client: usize, round: u64) -> Message {
        self.updates[(client + round as usize) % self.updates.len()].clone()
    }
}
