//! What a person sees while a run goes on: log lines and progress, on stderr. Bars on a terminal, plain lines in a log.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plugin_api::Level;

use crate::error::tell;

/// How far apart plain progress lines are where no round ends in between.
const QUIET_SPELL: Duration = Duration::from_secs(30);

/// A bar's positions for one client's epoch.
const EPOCH: u64 = 1000;

/// The stderr of a run.
#[derive(Debug)]
pub struct Console {
    level: Level,
    bar: ProgressBar,
    plain: bool,
    /// Of each client, how much of its present epoch is done, in thousandths.
    partial: Vec<AtomicU64>,
    /// All of this, and the epochs that are done. It is kept beside, so that a step with 10,000 clients costs no more.
    position: AtomicU64,
    last_line: Mutex<Instant>,
    /// What was told before, where each line is shown for the first client alone.
    told: Option<Mutex<BTreeSet<String>>>,
}

impl Console {
    /// Shows log lines down to `level`; below `Info` no progress either.
    pub fn new(level: Level) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let last_line = Mutex::new(Instant::now());
        let (partial, position) = (Vec::new(), AtomicU64::new(0));
        Self { level, bar: ProgressBar::hidden(), plain, partial, position, last_line, told: None }
    }

    /// The same, but shows what components say for the first client alone that they say it of.
    #[must_use]
    pub fn without_repetition(self) -> Self {
        Self { told: Some(Mutex::default()), ..self }
    }

    /// Begins to show the progress of a run with this many clients and epochs of clients, some of them done before.
    pub fn start(&mut self, clients: usize, epochs: u64, done: u64) {
        self.partial = (0..clients).map(|_| AtomicU64::new(0)).collect();
        self.position.store(done * EPOCH, Ordering::Relaxed);
        if self.plain || self.level < Level::Info {
            self.bar = ProgressBar::hidden();
            self.bar.set_length(epochs * EPOCH);
            return;
        }
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {elapsed_precise}, {eta} left  {msg}");
        self.bar = ProgressBar::with_draw_target(Some(epochs * EPOCH), ProgressDrawTarget::stderr());
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.enable_steady_tick(Duration::from_millis(200));
        self.bar.set_position(done * EPOCH);
        self.bar.reset_eta();
    }

    /// Notes how far a client has come in its epoch.
    pub fn progress(&self, client: usize, done: u64, total: u64) {
        self.advance(client, (done.min(total) * EPOCH).checked_div(total).unwrap_or(0), 0);
    }

    /// Notes that a client has ended an epoch.
    pub fn epoch_done(&self, client: usize) {
        self.advance(client, 0, EPOCH);
    }

    fn advance(&self, client: usize, now: u64, done: u64) {
        let before = self.partial.get(client).map_or(now, |partial| partial.swap(now, Ordering::Relaxed));
        // It may fall for a moment; unsigned sums come out right as they wrap.
        let change = done.wrapping_add(now).wrapping_sub(before);
        let position = self.position.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        self.bar.set_position(position);
        if self.plain && self.level >= Level::Info {
            let Ok(mut last) = self.last_line.try_lock() else { return };
            if last.elapsed() >= QUIET_SPELL {
                *last = Instant::now();
                let all = self.bar.length().unwrap_or(1).max(1);
                tell(format_args!("{} % of all epochs done", position * 100 / all));
            }
        }
    }

    /// Shows how a round ended: beside the bar, or as a line.
    pub fn round(&self, line: &str) {
        if self.plain {
            self.log(Level::Info, line);
        } else {
            self.bar.set_message(line.to_owned());
        }
    }

    /// Takes the bar away.
    pub fn stop(&self) {
        self.bar.finish_and_clear();
    }

    /// Whether a line of this level is shown.
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Shows what a component says, after whom it says it of.
    pub fn tell(&self, level: Level, whom: &str, line: &str) {
        if !self.enabled(level) {
            return;
        }
        let told = self.told.as_ref().map(|told| told.lock().unwrap_or_else(PoisonError::into_inner));
        if told.is_none_or(|mut told| told.insert(line.to_owned())) {
            self.log(level, &format!("{whom}{line}"));
        }
    }

    /// Shows a line.
    pub fn log(&self, level: Level, line: &str) {
        if !self.enabled(level) {
            return;
        }
        if let Ok(mut last) = self.last_line.lock() {
            *last = Instant::now();
        }
        let start = match level {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Debug => "debug: ",
            Level::Trace => "trace: ",
            _ => "",
        };
        self.bar.suspend(|| tell(format_args!("{start}{line}")));
    }
}
