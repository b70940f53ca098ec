//! A limit on the account, for a run or for all runs together.
//!
//! For all runs together the account is kept in a file, the ledger. Each message is in it, and on the disk, before it
//! leaves. Gaussian mechanisms compose exactly whatever their noise: the lifetime's epsilon is one closed formula over all
//! messages, and not a sum of the runs' epsilons. It holds as well if each round, and the noise of each, was chosen after
//! seeing all earlier ones: with a limit on the sum of `1 / σ²`, which a limit on epsilon at a delta is, refusing what
//! would exceed it keeps the guarantee (Smith and Thakurta, *Fully Adaptive Composition for Gaussian Differential
//! Privacy*, 2022).

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use plugin_api::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::counts::Count;
use crate::gaussian::{Gaussian, rounds_of};

/// The most that an account may reach.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Budget {
    /// The largest epsilon; above 0.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub epsilon: f64,
    /// The delta at which it is computed; by default that of the filter.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub delta: Option<f64>,
    /// A file that keeps the account over all runs; created if it does not exist. It counts every message of every
    /// client that uses it, so each protected site needs its own. Without it the budget is that of one run and client.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub ledger: Option<PathBuf>,
}

/// A budget that is checked before each message.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    epsilon: f64,
    delta: f64,
    ledger: Option<PathBuf>,
}

/// The file of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    messages: Vec<Messages>,
}

/// Messages with the same noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Messages {
    noise_multiplier: f64,
    count: u64,
}

impl Limit {
    /// The limit of a budget for this mechanism.
    ///
    /// # Errors
    /// If the mechanism gives no guarantee.
    pub(crate) fn new(budget: &Budget, gaussian: &Gaussian, reproducible: bool) -> Result<Self> {
        let nothing = |what: &str| Error::config(format!("cannot be kept: {what}")).at_key("budget");
        if gaussian.noise_multiplier() <= 0.0 {
            return Err(nothing("with `noise-multiplier = 0` epsilon is infinite"));
        }
        if reproducible {
            return Err(nothing("with `reproducible = true` nothing is protected"));
        }
        let delta = budget.delta.unwrap_or(gaussian.delta());
        Ok(Self { epsilon: budget.epsilon, delta, ledger: budget.ledger.clone() })
    }

    /// Spends one more message, after which the run has sent `count`. In a rehearsal, where nothing leaves, it only checks.
    /// When this returns, the message is in the ledger, and the ledger is on disk.
    ///
    /// # Errors
    /// If the budget would be exceeded, or the ledger is damaged or cannot be written. The message must not leave then.
    pub(crate) fn spend(&self, gaussian: &Gaussian, count: Count, ctx: &Context<'_>) -> Result<()> {
        let rehearsal = ctx.property::<bool>("rehearsal")?.unwrap_or(false);
        let Some(path) = &self.ledger else {
            let rounds = [rounds_of(gaussian.noise_multiplier(), count.rounds)];
            return self.check(fedplug_dp::epsilon(&rounds, self.delta), count.rounds, "in this run");
        };
        let _lock = lock(path)?;
        let mut ledger = Ledger::read(path)?;
        ledger.add(gaussian.noise_multiplier());
        let epsilon = ledger.epsilon(self.delta);
        self.check(epsilon, ledger.count(), "in all runs")?;
        if !rehearsal {
            ledger.write(path)?;
            let (most, delta, count) = (self.epsilon, self.delta, ledger.count());
            let plural = if count == 1 { "" } else { "s" };
            ctx.note(
                "privacy.budget",
                format_args!("epsilon {epsilon:.4} of {most} at delta {delta:e} is spent, for {count} message{plural} in all runs"),
            );
        }
        Ok(())
    }

    fn check(&self, epsilon: f64, count: u64, whose: &str) -> Result<()> {
        if epsilon <= self.epsilon {
            return Ok(());
        }
        let (most, delta, plural) = (self.epsilon, self.delta, if count == 1 { "" } else { "s" });
        let text = format!(
            "the privacy budget is spent: epsilon would be {epsilon:.4} at delta {delta:e} after {count} message{plural} {whose}, \
             and at most {most} is allowed"
        );
        Err(Error::other(text).at_key("budget"))
    }
}

impl Ledger {
    fn read(path: &Path) -> Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(failed(path, "cannot be read", &e)),
        };
        let ledger: Self = serde_json::from_slice(&text).map_err(|e| damaged(path).because(&e))?;
        // What is no number of a real account must not make it smaller.
        let real = |m: &Messages| m.noise_multiplier.is_finite() && m.noise_multiplier > 0.0;
        if ledger.messages.iter().all(real) { Ok(ledger) } else { Err(damaged(path)) }
    }

    fn add(&mut self, noise_multiplier: f64) {
        let same = |m: &&mut Messages| m.noise_multiplier.to_bits() == noise_multiplier.to_bits();
        match self.messages.iter_mut().find(same) {
            Some(messages) => messages.count = messages.count.saturating_add(1),
            None => self.messages.push(Messages { noise_multiplier, count: 1 }),
        }
    }

    fn count(&self) -> u64 {
        self.messages.iter().fold(0, |sum, messages| sum.saturating_add(messages.count))
    }

    fn epsilon(&self, delta: f64) -> f64 {
        let rounds: Vec<_> = self.messages.iter().map(|m| rounds_of(m.noise_multiplier, m.count)).collect();
        fedplug_dp::epsilon(&rounds, delta)
    }

    /// Replaces the file: afterwards it is the old one or the new one, whatever happens in between.
    fn write(&self, path: &Path) -> Result<()> {
        let part = beside(path, ".part");
        let write = || {
            let text = serde_json::to_vec(self)?;
            let mut file = File::create(&part)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&part, path)?;
            // Only on Unix can a folder be opened as a file.
            if cfg!(unix) { File::open(folder(path))?.sync_all() } else { Ok(()) }
        };
        write().map_err(|e: std::io::Error| failed(path, "cannot be written", &e))
    }
}

/// Locks a ledger against other processes, and other clients of this one, until the file is dropped.
fn lock(path: &Path) -> Result<File> {
    let path = beside(path, ".lock");
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock().map(|()| file)
    };
    open().map_err(|e| failed(&path, "cannot be locked", &e))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Error {
    Error::other(format!("{}: the privacy ledger {what}", path.display())).at_key("budget.ledger").because(error)
}

fn damaged(path: &Path) -> Error {
    Error::other(format!("{}: the privacy ledger is damaged", path.display()))
        .at_key("budget.ledger")
        .help("without it nobody knows what was sent before: restore it, or start with a new site")
}
