//! Checks for filters.

mod behaviour;

use serde_json::Value;

use super::sample;
use super::subject::{SEED, Subject, context};
use super::verdict::Verdict;
use super::watcher::Watcher;
use plugin_api::{Component, Context, Filter, Message, Result};

/// The checks for a filter, and their inputs.
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `check` is called"]
pub struct FilterCheck {
    subject: Subject,
    message: Message,
    base: Message,
    at_server: bool,
    /// The filter at the other end, and how far an element may be from its original value.
    restored: Option<(Subject, f64)>,
}

impl FilterCheck {
    /// Checks this component with this configuration at a client, for the update of a small model with the parameters
    /// of [`message`](super::message).
    pub fn new(component: &Component, config: &Value) -> Self {
        let (message, base) = (sample::message(1), sample::message(0));
        Self { subject: Subject::new(component, config), message, base, at_server: false, restored: None }
    }

    /// Uses this message, and the global model that it is relative to.
    pub fn with_message(mut self, message: Message, base: Message) -> Self {
        (self.message, self.base) = (message, base);
        self
    }

    /// Checks the filter at the server, for messages from the client that the context names.
    pub fn at_server(mut self) -> Self {
        self.at_server = true;
        self
    }

    /// Uses this filter at the other end, which must restore the original message: the same tensors and values, with
    /// each element at most `tolerance` from its original value.
    pub fn restored_by(mut self, component: &Component, config: &Value, tolerance: f64) -> Self {
        self.restored = Some((Subject::new(component, config), tolerance));
        self
    }

    /// Runs the checks in order.
    pub fn check(&self) -> Verdict {
        self.subject.verdict(|verdict| {
            let made = "the host makes one at the server and one for each client";
            if !verdict.run("new", made, || Ok(self.make().map(drop)?)) {
                verdict.skip(&behaviour::CALLS, "no instance could be made");
                verdict.skip(&behaviour::NAMES, "no instance could be made");
            } else if self.calls(verdict) {
                self.behaviour(verdict);
            } else {
                verdict.skip(&behaviour::NAMES, "the calls before it have to work");
            }
        })
    }

    fn make(&self) -> Result<Box<dyn Filter>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let ctx = if self.at_server { ctx } else { ctx.with_client("client") };
        self.subject.component.new_filter(&self.subject.config, &ctx)
    }

    /// Creates the filter at the other end.
    fn make_other(&self, other: &Subject) -> Result<Box<dyn Filter>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let ctx = if self.at_server { ctx.with_client("client") } else { ctx };
        other.component.new_filter(&other.config, &ctx)
    }

    /// The context of a call in a round. Both ends know whose message it is.
    fn ctx<'a>(watcher: &'a Watcher, round: u64) -> Context<'a> {
        context(watcher, SEED).with_client("client").with_round(round)
    }
}
