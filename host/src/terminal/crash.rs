//! The last words of a process that a plugin ends: by a crash, by `abort`, or by `exit`.
//!
//! Plugins are native code in this process, so neither can be prevented. What can be said is which component was called
//! last on the thread that died. Whatever else handles the signal still does so afterwards: Rust's message on a stack
//! overflow, a core file where the user's limits allow one.

use std::cell::Cell;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crash_handler::{CrashEventResult, CrashHandler, make_crash_event};

use crate::error::{CliError, Diagnostic, Exit};

/// Bytes kept of a call's name.
const LONGEST: usize = 160;

thread_local! {
    /// The component called last on this thread. No destructor and no lazy start, so that a signal handler may read it.
    static CALL: Cell<(usize, [u8; LONGEST])> = const { Cell::new((0, [0; LONGEST])) };
}

/// Whether `main` has come to its end.
static FINISHED: AtomicBool = AtomicBool::new(false);

/// Notes which component is called next on this thread, for which client and in which round.
pub fn note_call(component: &str, client: Option<&str>, round: Option<u64>) {
    let mut bytes = [0; LONGEST];
    let mut left = &mut bytes[..];
    // What finds no room is cut off.
    let _ = write!(left, "`{component}`");
    if let Some(client) = client {
        let _ = write!(left, " for client `{client}`");
    }
    if let Some(round) = round {
        let _ = write!(left, " in round {}", round + 1);
    }
    let length = LONGEST - left.len();
    CALL.set((length, bytes));
}

/// Watches until the process ends. Keep what is returned.
///
/// # Errors
/// If the system does not let us.
pub fn watch() -> Result<CrashHandler, CliError> {
    // SAFETY: the callback neither allocates nor locks: it reads a thread-local without destructor and writes to stderr.
    let event = unsafe {
        make_crash_event(|context| {
            last_words(format_args!("killed by signal {}", context.siginfo.ssi_signo));
            CrashEventResult::Handled(false)
        })
    };
    // SAFETY: the function is `extern "C"`, lives as long as the process, and does not unwind.
    unsafe { libc::atexit(at_exit) };
    CrashHandler::attach(event)
        .map_err(|error| CliError::run(Diagnostic::new("cannot watch for plugin crashes").cause(error)))
}

/// `main` is about to return, so that the process may end.
pub fn finished() {
    FINISHED.store(true, Ordering::SeqCst);
}

/// Ends the process with code 1 although a plugin's call still runs, whose thread cannot be ended: without destructors,
/// which could wait for it.
pub(crate) fn end() -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(Exit::Failure as i32) }
}

extern "C" fn at_exit() {
    if !FINISHED.load(Ordering::SeqCst) {
        last_words(format_args!("ended by a call to `exit`"));
        end();
    }
}

/// One write, without memory from the heap.
fn last_words(what: std::fmt::Arguments<'_>) {
    let mut bytes = [0; 2 * LONGEST];
    let mut left = &mut bytes[..];
    let (length, call) = CALL.get();
    let call = std::str::from_utf8(&call[..length]).unwrap_or_else(|e| {
        let valid = e.valid_up_to();
        std::str::from_utf8(&call[..valid]).unwrap_or_default()
    });
    let _ = match call {
        "" => writeln!(left, "error: the process was {what}, outside any plugin call on this thread"),
        call => writeln!(left, "error: the process was {what}; the last component called on this thread: {call}"),
    };
    let length = 2 * LONGEST - left.len();
    let _ = std::io::stderr().write_all(&bytes[..length]);
}
