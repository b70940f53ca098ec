//! Log lines and progress of a run, on stderr: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plugin_api::Level;

use crate::error::write_stderr;

/// The time between plain progress lines while no round ends.
const QUIET_SPELL: Duration = Duration::from_secs(30);

/// Positions of the bar per epoch of a client.
const EPOCH: u64 = 1000;

/// The stderr of a run.
#[derive(Debug)]
pub struct Console {
    level: Level,
    bar: ProgressBar,
    plain: bool,
    /// For each client, how much of its current epoch is done, in thousandths.
    partial: Vec<AtomicU64>,
    /// The sum of these and of the finished epochs, kept up to date so that a step costs the same with 10,000 clients.
    position: AtomicU64,
    last_line: Mutex<Instant>,
    /// Lines shown before, if each is shown only for the first client.
    shown: Option<Mutex<BTreeSet<String>>>,
}

impl Console {
    /// Shows log lines up to `level`; below `Info` no progress either.
    pub fn new(level: Level) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let last_line = Mutex::new(Instant::now());
        let (partial, position) = (Vec::new(), AtomicU64::new(0));
        Self { level, bar: ProgressBar::hidden(), plain, partial, position, last_line, shown: None }
    }

    /// Shows a component's line only for the first client that it is about.
    #[must_use]
    pub fn without_repetition(self) -> Self {
        Self { shown: Some(Mutex::default()), ..self }
    }

    /// Starts to show the progress of a run with this many clients and epochs over all clients, of which `done` are done.
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

    /// Records how far a client is in its epoch.
    pub fn progress(&self, client: usize, done: u64, total: u64) {
        self.advance(client, (done.min(total) * EPOCH).checked_div(total).unwrap_or(0), 0);
    }

    /// Records that a client has finished an epoch.
    pub fn epoch_done(&self, client: usize) {
        self.advance(client, 0, EPOCH);
    }

    fn advance(&self, client: usize, now: u64, done: u64) {
        let before = self.partial.get(client).map_or(now, |partial| partial.swap(now, Ordering::Relaxed));
        // It may decrease for a moment; wrapping sums come out right.
        let change = done.wrapping_add(now).wrapping_sub(before);
        let position = self.position.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        self.bar.set_position(position);
        if self.plain && self.level >= Level::Info {
            let Some(percent) = percent(position, self.bar.length()) else { return };
            let Ok(mut last) = self.last_line.try_lock() else { return };
            if last.elapsed() >= QUIET_SPELL {
                *last = Instant::now();
                write_stderr(format_args!("{percent} % of all epochs done"));
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

    /// Removes the bar.
    pub fn stop(&self) {
        self.bar.finish_and_clear();
    }

    /// Whether a line of this level is shown.
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Shows a component's line, prefixed with the client it is about.
    pub fn log_from(&self, level: Level, whom: &str, line: &str) {
        if !self.enabled(level) {
            return;
        }
        let shown = self.shown.as_ref().map(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner));
        if shown.is_none_or(|mut shown| shown.insert(line.to_owned())) {
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
        self.bar.suspend(|| write_stderr(format_args!("{start}{line}")));
    }
}

/// How much of the run is done; `None` where no number of epochs is known, as at a site, which stays for many runs.
fn percent(position: u64, all: Option<u64>) -> Option<u64> {
    all.filter(|all| *all > 0).map(|all| position.saturating_mul(100) / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_without_a_run_has_no_percentage() {
        assert_eq!(percent(5 * EPOCH, Console::new(Level::Info).bar.length()), None);
        assert_eq!(percent(5 * EPOCH, Some(10 * EPOCH)), Some(50));
        assert_eq!(percent(5, Some(0)), None);
    }
}
