//! Filters.

mod behaviour;

use serde_json::Value;

use super::subject::{SEED, Subject, context};
use super::verdict::Verdict;
use super::watcher::Watcher;
use super::{configuration, sample};
use plugin_api::{Component, Context, Filter, Message, Result};

/// The checks of a filter, with what they are made with.
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `check` is called"]
pub struct FilterCheck {
    subject: Subject,
    message: Message,
    base: Message,
    at_server: bool,
    /// The filter at the other end of the way, and how far an element may be from what it was.
    restored: Option<(Subject, f64)>,
}

impl FilterCheck {
    /// Of this component, made of this configuration, at a client, for the update of a small model with the parameters of
    /// [`message`](super::message).
    pub fn new(component: &Component, config: &Value) -> Self {
        let (message, base) = (sample::message(1), sample::message(0));
        Self { subject: Subject::new(component, config), message, base, at_server: false, restored: None }
    }

    /// With this message, and the global model that it is relative to.
    pub fn with_message(mut self, message: Message, base: Message) -> Self {
        (self.message, self.base) = (message, base);
        self
    }

    /// At the server, for what a client of which the context tells has sent.
    pub fn at_server(mut self) -> Self {
        self.at_server = true;
        self
    }

    /// With the filter at the other end of the way, which gives back what this one got: the same tensors and values, each
    /// element at most so far from what it was.
    pub fn restored_by(mut self, component: &Component, config: &Value, tolerance: f64) -> Self {
        self.restored = Some((Subject::new(component, config), tolerance));
        self
    }

    /// Makes the checks, one after the other.
    pub fn check(&self) -> Verdict {
        let _alone = super::alone();
        let mut verdict = Verdict::new(self.subject.title());
        configuration::check(&self.subject, &mut verdict);
        if !verdict
            .run("new", "the host makes one at the server and one for each client", || Ok(self.make().map(drop)?))
        {
            verdict.skip(&behaviour::CALLS, "no instance could be made");
            verdict.skip(&behaviour::NAMES, "no instance could be made");
        } else if self.calls(&mut verdict) {
            self.behaviour(&mut verdict);
        } else {
            verdict.skip(&behaviour::NAMES, "the calls before it have to work");
        }
        let why = "the process goes on after an instance is gone, and nobody hears of the panic";
        verdict.run("drop", why, || self.subject.drops_well());
        verdict
    }

    fn make(&self) -> Result<Box<dyn Filter>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let ctx = if self.at_server { ctx } else { ctx.with_client("client") };
        self.subject.component.new_filter(&self.subject.config, &ctx)
    }

    /// The filter at the other end.
    fn make_other(&self, other: &Subject) -> Result<Box<dyn Filter>> {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let ctx = if self.at_server { ctx.with_client("client") } else { ctx };
        other.component.new_filter(&other.config, &ctx)
    }

    /// The context of a call in a round: at both ends it is known whose message it is.
    fn ctx<'a>(watcher: &'a Watcher, round: u64) -> Context<'a> {
        context(watcher, SEED).with_client("client").with_round(round)
    }
}
