//! What the host lends to every call.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Message, Result, Seed};

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is not as the user may think.
    Warn = 2,
    /// What a user wants to read.
    Info = 3,
    /// What someone who looks for a fault wants to read.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// What stands behind a [`Context`]: the host, or a test's stand-in. It may be called from several threads at once.
pub trait Host: Sync {
    /// Whether a line of this level would be shown.
    fn enabled(&self, level: Level) -> bool;
    /// Shows a line.
    fn log(&self, level: Level, line: &str);
    /// Records a number under a tag at a step.
    fn scalar(&self, tag: &str, step: u64, value: f64);
    /// Says how far the call has come, of how much.
    fn progress(&self, done: u64, total: u64);
    /// Keeps a sentence for the run's summary, in place of an earlier one under the same key. Nothing by default.
    fn note(&self, key: &str, text: &str) {
        let _ = (key, text);
    }
    /// What is known under a key of [`Context::property`]. Nothing by default.
    fn property(&self, key: &str) -> Option<Value> {
        let _ = key;
        None
    }
    /// Whether the call should stop as soon as it can, with [`Error::cancelled`].
    fn cancelled(&self) -> bool;
    /// What [`Context::extension`] asks for. Nothing is known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for names that the host does not know.
    fn extension(&self, name: &str, input: &Message) -> Result<Message> {
        let _ = input;
        Err(unknown_extension(name))
    }
}

/// What a host says to a name of [`Context::extension`] that it does not know.
pub(crate) fn unknown_extension(name: &str) -> Error {
    Error::unsupported(format!("the host does not know the extension `{name}`"))
}

/// A host that shows nothing, records nothing and never cancels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Host for Silent {
    fn enabled(&self, _: Level) -> bool {
        false
    }
    fn log(&self, _: Level, _: &str) {}
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Lent to every call: where log lines, scalars and progress go, whether to stop, for whom the call is made, where it
/// runs, and the seed of its randomness. A plugin keeps nothing of it beyond the call.
///
/// ```
/// use plugin_api::{Context, Seed};
/// use plugin_api::context::Silent;
///
/// let ctx = Context::new(&Silent).with_seed(Seed::new(42)).with_client("tm").with_round(3);
/// ctx.info(format_args!("hello from {}", ctx.client().unwrap()));
/// let mine = ctx.seed().of("dropout"); // the same on every run, another for each client and round
/// assert_ne!(mine, ctx.seed());
/// ```
#[derive(Clone)]
pub struct Context<'a> {
    host: &'a dyn Host,
    client: Option<&'a str>,
    round: Option<u64>,
    device: &'a str,
    threads: usize,
    seed: Seed,
}

impl<'a> Context<'a> {
    /// A context on the CPU, with one thread, for nobody in particular.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host, client: None, round: None, device: "cpu", threads: 1, seed: Seed::new(0) }
    }

    /// Says for which client the call is made.
    #[must_use]
    pub fn with_client(mut self, client: &'a str) -> Self {
        self.client = Some(client);
        self
    }

    /// Says in which round the call is made, counted from zero.
    #[must_use]
    pub fn with_round(mut self, round: u64) -> Self {
        self.round = Some(round);
        self
    }

    /// Says on which device the call shall compute.
    #[must_use]
    pub fn with_device(mut self, device: &'a str) -> Self {
        self.device = device;
        self
    }

    /// Says how many threads the call may use.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Gives the experiment's seed.
    #[must_use]
    pub fn with_seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// The client for which the call is made; none at the server.
    pub fn client(&self) -> Option<&str> {
        self.client
    }

    /// The round in which the call is made, counted from zero; none outside the rounds.
    pub fn round(&self) -> Option<u64> {
        self.round
    }

    /// The device to compute on: `cpu` or `cuda:N`.
    pub fn device(&self) -> &str {
        self.device
    }

    /// How many threads the call may use. Results may depend on it, so the host keeps it the same for a whole run. Calls
    /// of an instance come from changing threads: a library that keeps the number by thread is told it in every call.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The seed of this call: of the experiment, the client and the round. All randomness of a plugin comes from it.
    pub fn seed(&self) -> Seed {
        let seed = self.client.map_or(self.seed, |client| self.seed.of(client));
        self.round.map_or(seed, |round| seed.at(round))
    }

    /// The experiment's seed: the same in every call, for what must be equal at all clients.
    pub fn experiment_seed(&self) -> Seed {
        self.seed
    }

    /// What the host knows under a key, if it knows the key: so that later hosts can say more without another interface.
    /// No key is promised; a plugin does without where there is none. The names below are taken:
    ///
    /// | key | type | meaning |
    /// |---|---|---|
    /// | `deadline` | `f64` | when the call should be done, in seconds from its begin |
    /// | `memory` | `u64` | how many bytes the instance may take, beside what it is given |
    /// | `scratch` | `String` | an empty folder of the instance's own, for files that nobody needs after the run |
    /// | `rank` | `u64` | of several processes that compute one client: which this is, from 0 |
    /// | `ranks` | `u64` | and how many there are |
    /// | `filter.position` | `String` | to a filter's constructor: where it is applied, as in the experiment's `at` |
    /// | `attempts` | `u64` | how many rounds the client of the call has begun in this run's directory: this one, and all that an interrupted process began and a resumed one repeats. At the server, how many anybody has begun. Not known where there is no such directory, as in a rehearsal |
    /// | `update.taken` | `Option<u64>` | to a model in a round: the last round of which the global model has the update of this client, if there is one |
    /// | `sampling` | [`Sampling`] | how the clients of a round are selected |
    ///
    /// # Errors
    /// If the host knows the key and its value is of another type.
    pub fn property<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.host.property(key) else { return Ok(None) };
        let wrong = |e| Error::other(format!("the host's property `{key}` is of another type")).because(&e);
        serde_json::from_value(value).map(Some).map_err(wrong)
    }

    /// Asks the host for something that this interface does not name: tensors and values in, tensors and values out. Later
    /// hosts may know names that today's do not, and what a plugin does where the host lacks one is up to the plugin.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the host does not know the name; else what the host says.
    pub fn extension(&self, name: &str, input: &Message) -> Result<Message> {
        self.host.extension(name, input)
    }

    /// Whether to stop as soon as possible. A long call asks this at every step.
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }

    /// An error if the call should stop: `ctx.check()?` in a loop is all that cancellation takes.
    ///
    /// # Errors
    /// If the host asked the call to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Records a number. The host puts the client's name before the tag. In a run without reports (`federation.report =
    /// "none"`) it keeps those alone whose tags end in `/epsilon`: what a privacy account says depends on no data.
    pub fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.host.scalar(tag, step, value);
    }

    /// Says how far the call has come, of how much.
    pub fn progress(&self, done: u64, total: u64) {
        self.host.progress(done, total);
    }

    /// Keeps a sentence for the run's summary, such as what a method guarantees so far, in place of an earlier one under
    /// the same key. A run that is resumed after the last round knows only what a checkpoint before it knew: say it in
    /// every round.
    ///
    /// Two keys are known to the host. Under `privacy` stands what a method guarantees for the data. Under
    /// `privacy.clear` a component names, as `norms of updates` for instance, what it reveals of the data that no such
    /// guarantee covers; where a run has one, its summary has a sentence with all of these.
    pub fn note(&self, key: &str, text: fmt::Arguments<'_>) {
        self.host.note(key, &text.to_string());
    }

    /// Shows a line, which is put together only if its level is on.
    pub fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        if self.host.enabled(level) {
            match line.as_str() {
                Some(line) => self.host.log(level, line),
                None => self.host.log(level, &line.to_string()),
            }
        }
    }

    /// Shows a line of level [`Level::Warn`].
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Warn, line);
    }

    /// Shows a line of level [`Level::Info`].
    pub fn info(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Info, line);
    }

    /// Shows a line of level [`Level::Debug`].
    pub fn debug(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Debug, line);
    }

    pub(crate) fn host(&self) -> &'a dyn Host {
        self.host
    }
}

/// How the clients of a round are selected: the property `sampling` of a [`Context`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// A fixed number of clients, drawn from the experiment's seed. Whoever has the experiment's file knows who takes part,
    /// so sampling protects nobody.
    Fixed,
    /// Each client joins each round with this probability, independently of all else, drawn from randomness of the
    /// operating system that the host keeps to itself.
    Poisson(f64),
}
