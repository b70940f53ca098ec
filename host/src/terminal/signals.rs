//! Stopping on request: Ctrl-C, and what schedulers and closing terminals send.
//!
//! A model's state is only whole between two epochs, so a run that is asked to stop finishes the epochs that are under
//! way, writes a checkpoint and ends; cutting an epoch short would save nothing. The second signal ends the process.
//! Before the rounds begin there is nothing to save, and plugins are told to stop at once.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::{CliError, Diagnostic, Exit};

/// How soon a signal is answered with a line.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Signals that come closer together than this are one: `timeout` and terminals send theirs to a process and to its group.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Whether the run shall stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    /// Whether plugins shall stop within their calls.
    pub cancel: Arc<AtomicBool>,
    begun: Arc<AtomicBool>,
    /// Whether the next signal ends the process.
    armed: Arc<AtomicBool>,
}

impl Stop {
    /// Watches for signals: the first asks to stop, the second ends the process.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn on_signals() -> Result<Self, CliError> {
        let stop = Self::default();
        let failed = |e| CliError::run(Diagnostic::new("cannot watch for signals").cause(e));
        for signal in signals() {
            signal_hook::flag::register_conditional_shutdown(signal, Exit::Stopped as i32, stop.armed.clone())
                .and_then(|_| signal_hook::flag::register(signal, stop.asked.clone()))
                .map_err(failed)?;
        }
        let watched = stop.clone();
        let watch = move || {
            while !watched.asked() {
                // Nobody is left who could ask, or be told.
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
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The rounds begin: from now on there is something to save.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }
}

/// Which signals ask to stop. A closed terminal's is left alone where somebody had it ignored, as `nohup` does.
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
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

/// How many times the longest epoch a round goes on between two pauses where several clients work: a pause waits for the
/// slowest one's epoch, and the others do nothing meanwhile.
const EPOCHS_PER_PAUSE: u64 = 10;

/// When the clients of a round pause between two epochs, so that a checkpoint can be written: when somebody asked to
/// stop, and in a long round from time to time.
#[derive(Debug)]
pub struct Pause {
    stop: Stop,
    /// How long a round goes on without; for ever if there is none.
    every: Option<Duration>,
    workers: usize,
    since: Mutex<Instant>,
    longest: AtomicU64,
    /// Whether an epoch was done since then, so that a run with a pause after every one comes to its end.
    moved: AtomicBool,
    due: AtomicBool,
}

impl Pause {
    /// Pauses for `stop`, and after `every` so much time, with so many clients at a time.
    pub fn new(stop: Stop, every: Option<Duration>, workers: usize) -> Self {
        let since = Mutex::new(Instant::now());
        let (longest, moved, due) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Self { stop, every, workers, since, longest, moved, due }
    }

    /// No pauses: of a round that nobody waits for.
    pub fn never() -> Self {
        Self::new(Stop::default(), None, 1)
    }

    /// Whether a signal asked the run to stop.
    pub fn is_stop(&self) -> bool {
        self.stop.asked()
    }

    /// A client has ended an epoch.
    pub fn epoch_took(&self, time: Duration) {
        self.longest.fetch_max(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Whether clients shall pause. It stays so until [`restart`](Self::restart).
    pub fn is_due(&self) -> bool {
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

    /// A round begins, or a checkpoint was written in it: time counts from here.
    pub fn restart(&self) {
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
    fn a_signal_that_somebody_had_ignored_is_found() {
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
