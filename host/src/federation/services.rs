//! The host services that components may call, and errors of components.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use plugin_api::context::Host;
use plugin_api::{Context, Level, Seed};
use serde_json::Value;

use crate::artefacts::journal::Journal;
use crate::artefacts::tracking::{Reporter, Scalar, now};
use crate::error::Diagnostic;
use crate::experiment::config::{FilterPosition, Terms};
use crate::experiment::document::Document;
use crate::federation::notes::Notes;
use crate::federation::trace::Trace;
use crate::plugins::validate;
use crate::terminal::console::Console;
use crate::terminal::crash;

/// The suffix of scalar tags that a run without reports keeps: privacy accounts do not depend on any client's data.
const EPSILON: &str = "/epsilon";

/// A component's error, with the component's name.
#[derive(Clone, Debug)]
pub struct ComponentError {
    who: String,
    error: plugin_api::Error,
    /// The key path of the component's table in the experiment file; empty if unknown.
    table: Vec<String>,
}

impl ComponentError {
    /// Creates an error of the component `who`.
    pub fn new(who: String, error: plugin_api::Error) -> Self {
        Self { who, error, table: Vec::new() }
    }

    /// Sets the key path of the component's table in the experiment file.
    #[must_use]
    pub fn of_table(self, table: &[String]) -> Self {
        Self { table: table.to_vec(), ..self }
    }

    /// The key path of the component's table in the experiment file; empty if unknown.
    pub fn table(&self) -> &[String] {
        &self.table
    }

    /// The error without the component's name.
    pub fn error(&self) -> &plugin_api::Error {
        &self.error
    }

    /// Whether the component failed because it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Cancelled
    }

    /// Whether the component does not support the call.
    pub fn is_unsupported(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Unsupported
    }

    /// Whether a plugin panicked. Its instance cannot be called again.
    pub fn is_panic(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Panic
    }

    /// The component's name and the error.
    pub fn parts(&self) -> (&str, &plugin_api::Error) {
        (&self.who, &self.error)
    }

    /// Formats the error for people: `round 3, client `tm`, model `amplify`: …`.
    pub fn report(&self, place: &str) -> Diagnostic {
        let comma = if place.is_empty() || self.who.is_empty() { "" } else { ", " };
        Diagnostic::from(self.error.clone()).within(&format!("{place}{comma}{}", self.who))
    }

    /// As [`report`](Self::report), with the position in the experiment file: the key that the error names, or else the
    /// component's table.
    pub fn placed(&self, place: &str, document: &Document) -> Diagnostic {
        let (report, mut way) = (self.report(place), self.table.clone());
        match self.error.place() {
            Some(plugin_api::Place::Key(key)) => {
                way.extend(key.split('.').map(str::to_owned));
                document.place(report, &way)
            }
            _ => document.place_table(report, &way),
        }
    }
}

/// The host services that a client may call: log lines, scalars, progress and stop requests.
#[derive(Clone, Debug)]
pub struct HostServices<'a> {
    /// Shows log lines and progress.
    pub console: &'a Console,
    /// Receives scalars.
    pub reporter: Reporter,
    /// Collects notes for the summary.
    pub notes: &'a Notes,
    /// The journal of started rounds.
    pub journal: &'a Journal,
    /// Whether the run should stop.
    pub stop: &'a AtomicBool,
    /// The experiment's seed.
    pub seed: Seed,
    /// The experiment's settings for draws and reports.
    pub terms: Terms,
    /// The number of threads that a client may use.
    pub threads: usize,
}

/// The host services for calls of one component. They know the component, its client and the round.
#[derive(Clone, Copy)]
pub struct CallScope<'a> {
    services: &'a HostServices<'a>,
    who: &'a str,
    client: Option<(usize, &'a str)>,
    round: Option<u64>,
    device: &'a str,
    position: Option<FilterPosition>,
    /// The last round in which the client's update was aggregated into the global model, if that is known.
    taken: Option<Option<u64>>,
    progress: bool,
    trace: Option<&'a Mutex<Trace>>,
}

impl<'a> CallScope<'a> {
    /// Creates the scope of the component `who`, called for a client or for the server, on the CPU.
    pub fn new(
        services: &'a HostServices<'a>,
        who: &'a str,
        client: Option<(usize, &'a str)>,
        round: Option<u64>,
    ) -> Self {
        Self { services, who, client, round, device: "cpu", position: None, taken: None, progress: false, trace: None }
    }

    /// Sets the device.
    #[must_use]
    pub fn on(self, device: &'a str) -> Self {
        Self { device, ..self }
    }

    /// Sets the position of a filter.
    #[must_use]
    pub fn at(self, position: FilterPosition) -> Self {
        Self { position: Some(position), ..self }
    }

    /// Sets the last round in which the client's update was aggregated into the global model; `None` if there was none.
    #[must_use]
    pub fn after(self, taken: Option<u64>) -> Self {
        Self { taken: Some(taken), ..self }
    }

    /// Returns the same scope for another component.
    #[must_use]
    pub fn of<'b>(&self, who: &'b str) -> CallScope<'b>
    where
        'a: 'b,
    {
        CallScope { who, ..*self }
    }

    /// Also records scalars in `trace`, for a round that may be resumed.
    #[must_use]
    pub fn recording(self, trace: &'a Mutex<Trace>) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// Shows the component's progress.
    #[must_use]
    pub fn with_progress(self) -> Self {
        Self { progress: true, ..self }
    }

    /// Logs a line from the host itself.
    pub fn tell(&self, level: Level, line: &str) {
        self.services.console.log(level, line);
    }

    /// Creates the context of a call, and notes the call for crash messages.
    pub fn context(&self) -> Context<'_> {
        crash::note_call(self.who, self.client.map(|(_, name)| name), self.round);
        let ctx = Context::new(self)
            .with_seed(self.services.seed)
            .with_threads(self.services.threads)
            .with_device(self.device);
        let ctx = self.client.map_or(ctx.clone(), |(_, name)| ctx.with_client(name));
        self.round.map_or(ctx.clone(), |round| ctx.with_round(round))
    }
}

impl CallScope<'_> {
    /// Whether the component's output could reveal a client's data in an experiment without reports.
    fn is_confidential(&self) -> bool {
        self.round.is_some() && !self.services.terms.reports
    }
}

impl Host for CallScope<'_> {
    fn enabled(&self, level: Level) -> bool {
        let most = if self.is_confidential() { Level::Warn } else { Level::Trace };
        level <= most && self.services.console.enabled(level)
    }
    fn log(&self, level: Level, line: &str) {
        if !self.enabled(level) {
            return;
        }
        let client = self.client.map(|(_, name)| format!("client {name}, ")).unwrap_or_default();
        self.services.console.tell(level, &client, &format!("{}: {}", self.who, validate::line(line)));
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        if self.is_confidential() && !tag.ends_with(EPSILON) {
            return;
        }
        let (client, round) = (self.client.map(|(index, _)| index), self.round.unwrap_or_default());
        let scalar = Scalar { client, round, tag: validate::tag(tag).into_owned(), step, value };
        match self.trace {
            None => self.services.reporter.scalar(scalar),
            Some(trace) => {
                let time = now();
                trace.lock().unwrap_or_else(PoisonError::into_inner).push(&scalar.tag, step, value, time);
                self.services.reporter.scalar_of(scalar, time);
            }
        }
    }
    fn progress(&self, done: u64, total: u64) {
        if let (true, Some((index, _))) = (self.progress, self.client) {
            self.services.console.progress(index, done, total);
        }
    }
    fn note(&self, key: &str, text: &str) {
        let client = self.client.map_or(crate::artefacts::tracking::SERVER, |(_, name)| name);
        self.services.notes.set(client, self.who, &validate::tag(key), &validate::line(text));
    }
    fn property(&self, key: &str) -> Option<Value> {
        match key {
            "filter.position" => self.position.and_then(|position| serde_json::to_value(position).ok()),
            "attempts" => self.services.journal.attempts(self.client.map(|(_, name)| name)).map(Value::from),
            "update.taken" => self.taken.map(Value::from),
            "sampling" => serde_json::to_value(self.services.terms.sampling).ok(),
            _ => None,
        }
    }
    fn cancelled(&self) -> bool {
        self.services.stop.load(Ordering::Relaxed)
    }
}
