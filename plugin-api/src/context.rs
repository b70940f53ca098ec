//! What the host lends to every call.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Whether the call should stop as soon as it can, with [`Error::cancelled`](crate::Error::cancelled).
    fn cancelled(&self) -> bool;
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
    ///
    /// | key | type | meaning |
    /// |---|---|---|
    /// | `filter.position` | `String` | to a filter's constructor: where it is applied, as in the experiment's `at` |
    /// | `sampling` | [`Sampling`] | how the clients of a round are selected |
    ///
    /// # Errors
    /// If the host knows the key and its value is of another type.
    pub fn property<T: DeserializeOwned>(&self, key: &str) -> crate::Result<Option<T>> {
        let Some(value) = self.host.property(key) else { return Ok(None) };
        let wrong = |e| crate::Error::other(format!("the host's property `{key}` is of another type")).because(&e);
        serde_json::from_value(value).map(Some).map_err(wrong)
    }

    /// Whether to stop as soon as possible. A long call asks this at every step.
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }

    /// An error if the call should stop: `ctx.check()?` in a loop is all that cancellation takes.
    ///
    /// # Errors
    /// If the host asked the call to stop.
    pub fn check(&self) -> crate::Result<()> {
        if self.cancelled() { Err(crate::Error::cancelled()) } else { Ok(()) }
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

/// A seed that others can be derived from, by name and by number. Every derivation is fixed: the same path gives the
/// same value on every machine and in every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// The seed at the root.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of something named.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        // FNV-1a over the name, then one step of SplitMix64, whose output function is a bijection with full avalanche.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mix(self.0 ^ hash.rotate_left(32)))
    }

    /// The seed of something numbered.
    #[must_use]
    pub fn at(self, number: u64) -> Self {
        Self(mix(mix(self.0).wrapping_add(number)))
    }

    /// The number to give to a generator.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// One output of SplitMix64 (Steele, Lea and Flood 2014).
const fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_seeds_are_fixed_for_ever_and_distinct() {
        // Recorded once: a change here changes every experiment's bits.
        assert_eq!(Seed::new(0).at(0).value(), 0xa706_dd2f_4d19_7e6f);
        assert_eq!(Seed::new(42).of("tm").at(3).value(), 4_795_672_531_119_795_240);
        let mut all: Vec<_> = (0..100)
            .flat_map(|round| ["a", "b", "ab", "ba"].map(|client| Seed::new(1).of(client).at(round)))
            .map(Seed::value)
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 400);
    }
}
