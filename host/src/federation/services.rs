//! The host services that components may call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use plugin_api::context::Host;
use plugin_api::{Context, Level, Seed};
use serde_json::Value;

use crate::artefacts::journal::{self, Journal};
use crate::artefacts::tracking::{Reporter, Scalar, now};
use crate::experiment::config::{Experiment, FilterPosition, Terms};
use crate::federation::activity::Activity;
use crate::federation::notes::Notes;
use crate::federation::thinning::{Point, Thinning};
use crate::federation::trace::Trace;
use crate::plugins::validate;
use crate::terminal::console::Console;
use crate::terminal::crash;

/// The suffix of scalar tags that a run without reports keeps: privacy accounts do not depend on any client's data.
const EPSILON: &str = "/epsilon";

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
    /// Who is at work, in a run.
    pub activity: Option<&'a Activity>,
    /// The experiment's seed.
    pub seed: Seed,
    /// The experiment's settings for draws and reports.
    pub terms: Terms,
    /// The number of threads that a client may use.
    pub threads: usize,
}

impl<'a> HostServices<'a> {
    /// The services outside a run, where scalars are dropped and no rounds are started.
    pub(crate) fn new(
        console: &'a Console,
        notes: &'a Notes,
        stop: &'a AtomicBool,
        experiment: &Experiment,
        threads: usize,
    ) -> Self {
        Self {
            console,
            reporter: Reporter::nowhere(),
            notes,
            journal: &journal::NONE,
            stop,
            activity: None,
            seed: Seed::new(u64::from(experiment.seed)),
            terms: experiment.federation.terms(),
            threads,
        }
    }
}

/// A client of the run, to name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRef<'a> {
    /// Its index in the order of clients.
    pub index: usize,
    /// Its name.
    pub name: &'a str,
}

/// The host services for calls of one component. They know the component, its client and the round.
#[derive(Clone, Copy)]
pub struct CallScope<'a> {
    services: &'a HostServices<'a>,
    who: &'a str,
    client: Option<ClientRef<'a>>,
    round: Option<u64>,
    device: &'a str,
    position: Option<FilterPosition>,
    /// The last round in which the client's update was aggregated into the global model, if that is known.
    last_aggregated: Option<Option<u64>>,
    progress: bool,
    trace: Option<&'a Mutex<Trace>>,
    /// Which scalars of an epoch are kept; all if there is none.
    thinning: Option<&'a Thinning>,
    /// The name of the call, for a call that hangs.
    call: &'static str,
}

impl<'a> CallScope<'a> {
    /// Creates the scope of the component `who`, called for a client or for the server, on the CPU.
    pub fn new(
        services: &'a HostServices<'a>,
        who: &'a str,
        client: Option<ClientRef<'a>>,
        round: Option<u64>,
    ) -> Self {
        Self {
            services,
            who,
            client,
            round,
            device: "cpu",
            position: None,
            last_aggregated: None,
            progress: false,
            trace: None,
            thinning: None,
            call: "",
        }
    }

    /// Names the call that is made.
    #[must_use]
    pub(crate) fn calling(self, call: &'static str) -> Self {
        Self { call, ..self }
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
    pub fn after(self, last_aggregated: Option<u64>) -> Self {
        Self { last_aggregated: Some(last_aggregated), ..self }
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

    /// Keeps only some of the scalars.
    #[must_use]
    pub(crate) fn thinned(self, thinning: &'a Thinning) -> Self {
        Self { thinning: Some(thinning), ..self }
    }

    /// Shows the component's progress.
    #[must_use]
    pub fn with_progress(self) -> Self {
        Self { progress: true, ..self }
    }

    /// Logs a line from the host itself.
    pub fn log_line(&self, level: Level, line: &str) {
        self.services.console.log(level, line);
    }

    /// Creates the context of a call, and notes the call for crash messages.
    pub fn context(&self) -> Context<'_> {
        crash::note_call(self.who, self.client.map(|client| client.name), self.round);
        if let Some(activity) = self.services.activity {
            activity.call(self.index(), self.who, self.call, self.round);
        }
        let ctx = Context::new(self)
            .with_seed(self.services.seed)
            .with_threads(self.services.threads)
            .with_device(self.device);
        let ctx = self.client.map_or(ctx.clone(), |client| ctx.with_client(client.name));
        self.round.map_or(ctx.clone(), |round| ctx.with_round(round))
    }
}

impl CallScope<'_> {
    /// The index of the client, or none for the server.
    fn index(&self) -> Option<usize> {
        self.client.map(|client| client.index)
    }

    /// The component shows progress.
    fn sign(&self) {
        if let Some(activity) = self.services.activity {
            activity.sign(self.index());
        }
    }

    /// Reports the last scalars of an epoch that were held back.
    pub(crate) fn end_epoch(&self) {
        for (tag, point) in self.thinning.map(Thinning::take).unwrap_or_default() {
            self.report(tag, point);
        }
    }

    fn report(&self, tag: String, Point { step, value, time }: Point) {
        if let Some(trace) = self.trace {
            trace.lock().unwrap_or_else(PoisonError::into_inner).push(&tag, step, value, time);
        }
        let (client, round) = (self.index(), self.round.unwrap_or_default());
        self.services.reporter.scalar_of(Scalar { client, round, tag, step, value }, time);
    }

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
        self.sign();
        if !self.enabled(level) {
            return;
        }
        let client = self.client.map(|client| format!("client {}, ", client.name)).unwrap_or_default();
        self.services.console.log_from(level, &client, &format!("{}: {}", self.who, validate::line(line)));
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.sign();
        if self.is_confidential() && !tag.ends_with(EPSILON) {
            return;
        }
        let (tag, point) = (validate::tag(tag), Point { step, value, time: now() });
        if self.thinning.is_none_or(|thinning| thinning.keeps(&tag, point)) {
            self.report(tag.into_owned(), point);
        }
    }
    fn progress(&self, done: u64, total: u64) {
        self.sign();
        if let (true, Some(client)) = (self.progress, self.client) {
            self.services.console.progress(client.index, done, total);
        }
    }
    fn note(&self, key: &str, text: &str) {
        let client = self.client.map_or(crate::artefacts::tracking::SERVER, |client| client.name);
        self.services.notes.set(client, self.who, &validate::tag(key), &validate::line(text));
    }
    fn property(&self, key: &str) -> Option<Value> {
        match key {
            "filter.position" => self.position.and_then(|position| serde_json::to_value(position).ok()),
            "attempts" => self.services.journal.attempts(self.client.map(|client| client.name)).map(Value::from),
            // Messages are counted unless nothing leaves.
            "rehearsal" => Some(self.services.journal.attempts(None).is_none().into()),
            "update.taken" => self.last_aggregated.map(Value::from),
            "sampling" => serde_json::to_value(self.services.terms.sampling).ok(),
            _ => None,
        }
    }
    fn cancelled(&self) -> bool {
        self.services.stop.load(Ordering::Relaxed)
            || self.services.activity.is_some_and(|activity| activity.must_stop(self.index()))
    }
}
