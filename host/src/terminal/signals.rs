//! Stopping on request: Ctrl-C, SIGTERM, SIGHUP, and what other schedulers send: SIGUSR1, SIGUSR2, SIGXCPU.
//!
//! A model's state is complete only between epochs, so a run that is asked to stop finishes the current epochs, writes a
//! checkpoint and ends. A second Ctrl-C ends the process; other signals may be repeated, as schedulers do. Before the first
//! round there is nothing to save, and plugins are asked to stop at once.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{CliError, Diagnostic, Exit};

/// How often the watching thread looks for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Signals closer together than this count as one: `timeout` and terminals signal a process and its group.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Whether the run should stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    /// Whether plugins should stop within a call.
    pub cancel: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
    /// Whether the next Ctrl-C ends the process.
    armed: Arc<AtomicBool>,
}

impl Stop {
    /// Watches for signals: the first asks to stop, a later Ctrl-C ends the process.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn on_signals() -> Result<Self, CliError> {
        let stop = Self::default();
        let failed = |e| CliError::run(Diagnostic::new("cannot watch for signals").cause(e));
        signal_hook::flag::register_conditional_shutdown(SIGINT, Exit::Stopped as i32, stop.armed.clone())
            .map_err(failed)?;
        for signal in signals() {
            signal_hook::flag::register(signal, stop.asked.clone()).map_err(failed)?;
        }
        let watched = stop.clone();
        let watch = move || {
            while !watched.asked() {
                // Only this thread is left.
                if Arc::strong_count(&watched.begun) == 1 {
                    return;
                }
                std::thread::sleep(LOOK_EVERY);
            }
            let line = if watched.begun.load(Ordering::SeqCst) {
                "stopping after this epoch, with a checkpoint; press Ctrl-C again to stop now"
            } else {
                watched.cancel.store(true, Ordering::SeqCst);
                "stopping; press Ctrl-C again to stop now"
            };
            let _ = writeln!(std::io::stderr(), "{line}");
            std::thread::sleep(ONE_SIGNAL);
            watched.armed.store(true, Ordering::SeqCst);
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
        Ok(stop)
    }

    /// Whether a signal came.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The rounds start: from now on there is something to save.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }
}

/// The signals that ask to stop. SIGHUP is left alone if it is ignored, as under `nohup`.
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    signals.extend([signal_hook::consts::SIGUSR1, signal_hook::consts::SIGUSR2, signal_hook::consts::SIGXCPU]);
    #[cfg(target_os = "linux")]
    if let Some(ignored) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(ignored)
        && ignored & 1 == 0
    {
        signals.push(signal_hook::consts::SIGHUP);
    }
    signals
}

/// The mask of ignored signals in `/proc/self/status`: bit 0 is signal 1, SIGHUP.
#[cfg(target_os = "linux")]
fn ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// With several clients at a time, pauses are at least this many times the longest epoch apart: all wait for the slowest
/// client's epoch.
const EPOCHS_PER_PAUSE: u64 = 10;

/// When the clients of a round pause between epochs for a checkpoint: on a request to stop, and in a long round from time to
/// time.
#[derive(Debug)]
pub(crate) struct Pause {
    stop: Stop,
    /// The time between pauses; none if there is no limit.
    every: Option<Duration>,
    workers: usize,
    since: Mutex<Instant>,
    longest: AtomicU64,
    /// Whether an epoch was finished since then, so that even a run that pauses after every epoch makes progress.
    moved: AtomicBool,
    due: AtomicBool,
}

impl Pause {
    /// Pauses on `stop`, and every `every`, with `workers` clients at a time.
    pub(crate) fn new(stop: Stop, every: Option<Duration>, workers: usize) -> Self {
        let since = Mutex::new(Instant::now());
        let (longest, moved, due) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Self { stop, every, workers, since, longest, moved, due }
    }

    /// Never pauses.
    pub(crate) fn never() -> Self {
        Self::new(Stop::default(), None, 1)
    }

    /// Whether a signal asked the run to stop.
    pub(crate) fn is_stop(&self) -> bool {
        self.stop.asked()
    }

    /// A client has finished an epoch.
    pub(crate) fn epoch_took(&self, time: Duration) {
        self.longest.fetch_max(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Whether clients should pause; once true, until [`restart`](Self::restart).
    pub(crate) fn is_due(&self) -> bool {
        if self.is_stop() || self.due.load(Ordering::Relaxed) {
            return true;
        }
        let Some(every) = self.every.filter(|_| self.moved.load(Ordering::Relaxed)) else { return false };
        let longest = if self.workers > 1 { self.longest.load(Ordering::Relaxed) } else { 0 };
        let every = every.max(Duration::from_millis(longest.saturating_mul(EPOCHS_PER_PAUSE)));
        let due = self.since.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= every;
        if due {
            self.due.store(true, Ordering::Relaxed);
        }
        due
    }

    /// A round starts, or a checkpoint was written in it: the clock restarts.
    pub(crate) fn restart(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.moved.store(false, Ordering::Relaxed);
        self.due.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn an_ignored_signal_is_recognised() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), Some(0x1001));
        assert_eq!(ignored("Name:\tx\n"), None);
    }

    #[test]
    fn a_pause_is_due_after_its_time_and_not_before_ten_of_the_longest_epochs() {
        let pause = Pause::new(Stop::default(), Some(Duration::ZERO), 2);
        assert!(!pause.is_due(), "nothing was done yet");
        pause.epoch_took(Duration::ZERO);
        assert!(pause.is_due());
        pause.restart();
        assert!(!pause.is_due());
        pause.epoch_took(Duration::from_secs(60));
        assert!(!pause.is_due());
        // One client alone waits for nobody.
        let alone = Pause::new(Stop::default(), Some(Duration::ZERO), 1);
        alone.epoch_took(Duration::from_secs(60));
        assert!(alone.is_due());
        assert!(!Pause::new(Stop::default(), None, 1).is_due());
        let stop = Stop::default();
        stop.asked.store(true, Ordering::SeqCst);
        assert!(Pause::new(stop, None, 1).is_due());
    }
}
