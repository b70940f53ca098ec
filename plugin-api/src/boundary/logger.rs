//! Forwards lines from the `log` crate to the host's log, and those of `tracing` with its feature `log`.
//!
//! A plugin's library has its own copy of `log`, which has no logger. So the host's first call installs one that
//! forwards lines to the context of the current thread's call. Lines from other threads, and from plugins that install
//! their own logger, go where they would without a host.

use std::cell::Cell;
use std::sync::Once;

use log::{LevelFilter, Log, Metadata, Record};

use crate::context::Host;
use crate::{Context, Level};

thread_local! {
    /// The host of this thread's innermost call.
    static CALL: Cell<Option<*const (dyn Host + 'static)>> = const { Cell::new(None) };
}

struct Forward;

/// Forwards lines of this library's `log` to the host.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Forward).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
    });
}

/// Runs `call` while lines go to this host.
pub(super) fn within<R>(ctx: &Context<'_>, call: impl FnOnce() -> R) -> R {
    /// Restores the previous host, even if the call panics.
    struct Back(Option<*const (dyn Host + 'static)>);
    impl Drop for Back {
        fn drop(&mut self) {
            CALL.set(self.0);
        }
    }
    let host: *const (dyn Host + '_) = ctx.host();
    // SAFETY: only the lifetime changes, and `Back` removes the pointer before that lifetime ends.
    let host: *const (dyn Host + 'static) = unsafe { std::mem::transmute(host) };
    let _back = Back(CALL.replace(Some(host)));
    call()
}

/// Calls `with` with the host of this thread's current call, if there is one.
fn with_host<R>(with: impl FnOnce(&dyn Host) -> R) -> Option<R> {
    // SAFETY: while the pointer is here, `within` lends the host to this thread.
    CALL.get().map(|host| with(unsafe { &*host }))
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

impl Log for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        with_host(|host| host.enabled(level(metadata.level()))).unwrap_or_default()
    }

    fn log(&self, record: &Record<'_>) {
        with_host(|host| {
            let level = level(record.level());
            if host.enabled(level) {
                host.log(level, &format!("{}: {}", record.target(), record.args()));
            }
        });
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::context::Silent;

    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl Host for Noting {
        fn enabled(&self, level: Level) -> bool {
            level <= Level::Info
        }
        fn log(&self, level: Level, line: &str) {
            self.0.lock().unwrap().push(format!("{level:?} {line}"));
        }
        fn scalar(&self, _: &str, _: u64, _: f64) {}
        fn progress(&self, _: u64, _: u64) {}
        fn cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn lines_go_to_the_host_of_the_call_that_the_thread_is_in() {
        install();
        let (host, inner) = (Noting::default(), Noting::default());
        log::error!("nobody hears this");
        within(&Context::new(&host), || {
            log::info!(target: "mine", "{} rows", 3);
            log::debug!("not shown");
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                within(&Context::new(&inner), || -> () {
                    log::warn!(target: "mine", "inside");
                    std::panic::resume_unwind(Box::new(()))
                })
            }));
            assert!(panicked.is_err());
            within(&Context::new(&Silent), || log::error!("nor this"));
            std::thread::scope(|scope| drop(scope.spawn(|| log::error!("nor another thread")).join()));
            log::error!(target: "mine", "after");
        });
        log::error!("nor what comes later");
        assert_eq!(*host.0.lock().unwrap(), ["Info mine: 3 rows", "Error mine: after"]);
        assert_eq!(*inner.0.lock().unwrap(), ["Warn mine: inside"]);
    }
}
