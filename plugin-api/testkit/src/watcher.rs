//! The host that calls a component under test. It records what the component reports, and can ask it to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::verdict::{Found, fail};
use plugin_api::context::Host;
use plugin_api::{ErrorKind, Level, Result};

/// The longest line, in bytes. A host truncates longer lines.
pub const LONGEST_LINE: usize = 10_000;
/// The most bytes of log lines in one call.
pub const LINES_OF_A_CALL: usize = 1 << 18;
/// The most scalars in one call.
pub const SCALARS_OF_A_CALL: usize = 100_000;
/// The longest tag of a scalar, in bytes.
pub const LONGEST_TAG: usize = 200;
/// How many more times a call may ask whether to stop, after it was asked to stop.
pub const FURTHER_STEPS: u64 = 4;

/// Records what one call reports.
#[derive(Debug)]
pub(crate) struct Watcher {
    asked: AtomicU64,
    stop_after: u64,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    scalars: usize,
    /// The first thing beyond a limit, with the limit.
    beyond: Option<(String, String)>,
    warnings: String,
}

impl Watcher {
    /// Never asks to stop.
    pub(crate) fn new() -> Self {
        Self::stopping_after(u64::MAX)
    }

    /// Asks to stop after this many questions were answered with no.
    pub(crate) fn stopping_after(noes: u64) -> Self {
        Self { asked: AtomicU64::new(0), stop_after: noes, account: Mutex::default() }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the component asked whether to stop.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Fails if the component reported something beyond a limit.
    pub(crate) fn was_moderate(&self, call: &str) -> Found {
        match self.account().beyond.take() {
            Some((bound, came)) => fail(bound, format!("in `{call}`, {came}")),
            None => Ok(()),
        }
    }

    /// Fails if a call did not stop when asked.
    pub(crate) fn was_obeyed<T>(&self, call: &str, outcome: Result<T>) -> Found {
        let expected = format!(
            "`{call}` to return `Error::cancelled()` at most {FURTHER_STEPS} questions after it is told to stop"
        );
        let after = self.asked().saturating_sub(self.stop_after.saturating_add(1));
        match outcome {
            Err(error) if *error.kind() == ErrorKind::Cancelled && after <= FURTHER_STEPS => Ok(()),
            Err(error) if *error.kind() == ErrorKind::Cancelled => {
                fail(expected, format!("it asked {after} times more before it stopped"))
            }
            Err(error) => fail(expected, super::verdict::told(&error)),
            Ok(_) => fail(expected, format!("it asked {after} times more, and ended as if it had not been told")),
        }
    }
}

impl Account {
    fn note(&mut self, bound: impl FnOnce() -> String, came: impl FnOnce() -> String) {
        if self.beyond.is_none() {
            self.beyond = Some((bound(), came()));
        }
    }
}

impl Host for Watcher {
    fn enabled(&self, _: Level) -> bool {
        true
    }

    fn log(&self, level: Level, line: &str) {
        let mut account = self.account();
        account.bytes += line.len();
        if line.len() > LONGEST_LINE {
            let start: String = line.chars().take(40).collect();
            let came = || format!("one line has {} bytes: `{start}…`", line.len());
            account.note(|| format!("lines of at most {LONGEST_LINE} bytes"), came);
        }
        if account.bytes > LINES_OF_A_CALL {
            let bytes = account.bytes;
            account.note(
                || format!("at most {LINES_OF_A_CALL} bytes of lines in one call"),
                || format!("{bytes} bytes and more were logged"),
            );
        }
        if level <= Level::Warn && account.warnings.len() < LINES_OF_A_CALL {
            account.warnings.push_str(line);
            account.warnings.push('\n');
        }
    }

    fn scalar(&self, tag: &str, _: u64, value: f64) {
        let mut account = self.account();
        account.scalars += 1;
        if account.scalars > SCALARS_OF_A_CALL {
            account.note(
                || format!("at most {SCALARS_OF_A_CALL} scalars in one call"),
                || format!("the scalar `{tag}` exceeds that"),
            );
        }
        if tag.is_empty() || tag.len() > LONGEST_TAG || tag.chars().any(char::is_control) {
            account.note(
                || format!("tags of 1 to {LONGEST_TAG} bytes without control characters"),
                || format!("a scalar has the tag {tag:?} and the value {value}"),
            );
        }
    }

    fn progress(&self, done: u64, total: u64) {
        if done > total {
            self.account()
                .note(|| "progress of at most the total".to_owned(), || format!("progress of {done} of {total}"));
        }
    }

    fn note(&self, key: &str, text: &str) {
        if key.is_empty() || key.len() + text.len() > LONGEST_LINE {
            self.account().note(
                || format!("notes with a key and at most {LONGEST_LINE} bytes"),
                || format!("a note under {key:?} has {} bytes", text.len()),
            );
        }
    }

    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed) >= self.stop_after
    }
}
