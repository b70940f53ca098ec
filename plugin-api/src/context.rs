//! The services that the host lends to every call.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Message, Result, Seed};

/// The level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something may not be as the user expects.
    Warn = 2,
    /// What a user wants to read.
    Info = 3,
    /// Details for debugging.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// The host behind a [`Context`], or a stand-in for it in a test. It may be called from several threads at once.
pub trait Host: Sync {
    /// Whether a line of this level would be shown.
    fn enabled(&self, level: Level) -> bool;
    /// Logs a line.
    fn log(&self, level: Level, line: &str);
    /// Records a number under a tag at a step.
    fn scalar(&self, tag: &str, step: u64, value: f64);
    /// Reports progress: `done` of `total`.
    fn progress(&self, done: u64, total: u64);
    /// Stores a sentence for the run's summary, replacing an earlier one under the same key. Does nothing by default.
    fn note(&self, key: &str, text: &str) {
        let _ = (key, text);
    }
    /// The value of a key of [`Context::property`]. `None` by default.
    fn property(&self, key: &str) -> Option<Value> {
        let _ = key;
        None
    }
    /// Whether the call should stop as soon as it can, with [`Error::cancelled`].
    fn cancelled(&self) -> bool;
    /// Answers [`Context::extension`]. No names are known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for unknown names.
    fn extension(&self, name: &str, input: &Message) -> Result<Message> {
        let _ = input;
        Err(unknown_extension(name))
    }
}

/// A host's answer to an unknown name in [`Context::extension`].
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

/// Lent to every call. It takes log lines, scalars and progress, says whether to stop, and carries the client, the
/// device and the seed. A plugin must not keep anything from it beyond the call.
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
    /// A context on the CPU, with one thread and no client.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host, client: None, round: None, device: "cpu", threads: 1, seed: Seed::new(0) }
    }

    /// Sets the client that the call is made for.
    #[must_use]
    pub fn with_client(mut self, client: &'a str) -> Self {
        self.client = Some(client);
        self
    }

    /// Sets the round of the call, counted from zero.
    #[must_use]
    pub fn with_round(mut self, round: u64) -> Self {
        self.round = Some(round);
        self
    }

    /// Sets the device to compute on.
    #[must_use]
    pub fn with_device(mut self, device: &'a str) -> Self {
        self.device = device;
        self
    }

    /// Sets the number of threads that the call may use.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Sets the experiment's seed.
    #[must_use]
    pub fn with_seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// The client that the call is made for; `None` at the server.
    pub fn client(&self) -> Option<&str> {
        self.client
    }

    /// The round of the call, counted from zero; `None` outside the rounds.
    pub fn round(&self) -> Option<u64> {
        self.round
    }

    /// The device to compute on: `cpu` or `cuda:N`.
    pub fn device(&self) -> &str {
        self.device
    }

    /// The number of threads that the call may use. Results may depend on it, so the host keeps it constant for a whole
    /// run. An instance may be called from different threads, so a library with a per-thread setting must set it in
    /// every call.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The seed of this call, derived from the experiment, the client and the round. A plugin takes all its randomness
    /// from it.
    pub fn seed(&self) -> Seed {
        let seed = self.client.map_or(self.seed, |client| self.seed.of(client));
        self.round.map_or(seed, |round| seed.at(round))
    }

    /// The experiment's seed. It is the same in every call; use it for values that must be equal at all clients.
    pub fn experiment_seed(&self) -> Seed {
        self.seed
    }

    /// The value of a key, if the host knows it. Properties let later hosts provide more without a new interface. No
    /// key is guaranteed, so a plugin must work without it. These names are reserved:
    ///
    /// | key | type | meaning |
    /// |---|---|---|
    /// | `deadline` | `f64` | when the call should be done, in seconds from its start |
    /// | `memory` | `u64` | how many bytes the instance may use, besides its inputs |
    /// | `scratch` | `String` | an empty folder for this instance alone, for files that are not needed after the run |
    /// | `rank` | `u64` | if several processes compute one client: the index of this one, from 0 |
    /// | `ranks` | `u64` | the number of such processes |
    /// | `filter.position` | `String` | in a filter's constructor: where it is applied, as in the experiment's `at` |
    /// | `attempts` | `u64` | how many rounds the call's client has started in this run's directory, including this one and those that an interrupted process started and a resumed one repeats. At the server, how many rounds anyone has started. Unknown if there is no such directory, as in a rehearsal |
    /// | `rehearsal` | `bool` | whether this is a rehearsal: nothing that the call returns leaves the client, and nothing may be kept on disk |
    /// | `update.taken` | `Option<u64>` | to a model in a round: the last round, if any, whose global model includes this client's update |
    /// | `sampling` | [`Sampling`] | how the clients of a round are selected |
    ///
    /// # Errors
    /// If the host knows the key but its value has another type.
    pub fn property<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.host.property(key) else { return Ok(None) };
        let wrong = |e| Error::other(format!("the host's property `{key}` has another type")).because(&e);
        serde_json::from_value(value).map(Some).map_err(wrong)
    }

    /// Asks the host for something that this interface does not define: tensors and values in, tensors and values out.
    /// Later hosts may know names that today's hosts do not. The plugin decides what to do if a host does not know a
    /// name.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the host does not know the name; otherwise the host's error.
    pub fn extension(&self, name: &str, input: &Message) -> Result<Message> {
        self.host.extension(name, input)
    }

    /// Whether to stop as soon as possible. A long call should ask at every step.
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }

    /// Returns an error if the call should stop. Calling `ctx.check()?` in a loop is all that cancellation needs.
    ///
    /// # Errors
    /// If the host asked the call to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Records a number. The host prefixes the tag with the client's name. In a run without reports, where
    /// `federation.report = "none"`, the host keeps only tags that end in `/epsilon`, since a privacy account does not
    /// depend on the data.
    pub fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.host.scalar(tag, step, value);
    }

    /// Reports progress: `done` of `total`.
    pub fn progress(&self, done: u64, total: u64) {
        self.host.progress(done, total);
    }

    /// Stores a sentence for the run's summary, such as what a method guarantees so far. It replaces an earlier one
    /// under the same key. A run that is resumed after the last round only has what an earlier checkpoint stored, so
    /// store the sentence in every round.
    ///
    /// The host gives two keys a meaning. `privacy` holds what a method guarantees for the data. `privacy.clear` names
    /// what a component reveals about the data that no such guarantee covers, for example `norms of updates`. If a run
    /// has a note under `privacy`, its summary lists all of these in one sentence.
    pub fn note(&self, key: &str, text: fmt::Arguments<'_>) {
        self.host.note(key, &text.to_string());
    }

    /// Logs a line, which is formatted only if its level is enabled.
    pub fn log(&self, level: Level, line: fmt::Arguments<'_>) {
        if self.host.enabled(level) {
            match line.as_str() {
                Some(line) => self.host.log(level, line),
                None => self.host.log(level, &line.to_string()),
            }
        }
    }

    /// Logs a line at [`Level::Warn`].
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Warn, line);
    }

    /// Logs a line at [`Level::Info`].
    pub fn info(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Info, line);
    }

    /// Logs a line at [`Level::Debug`].
    pub fn debug(&self, line: fmt::Arguments<'_>) {
        self.log(Level::Debug, line);
    }

    pub(crate) fn host(&self) -> &'a dyn Host {
        self.host
    }
}

/// How the clients of a round are selected. The property `sampling` of a [`Context`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// A fixed number of clients, drawn from the experiment's seed. Anyone with the experiment file knows who takes
    /// part, so sampling adds no privacy.
    Fixed,
    /// Each client joins each round with this probability, independently of everything else, drawn from
    /// operating-system randomness that the host keeps secret.
    Poisson(f64),
}
