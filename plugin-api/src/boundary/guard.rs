//! Stops panics at the boundary, where they would abort the process.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use fedplug_abi::{RResult, WireError, Wired};

use crate::{Error, ErrorKind, Result};

thread_local! {
    /// How many guarded calls this thread is in, and the origin of the last panic inside them: its source location and,
    /// with `RUST_BACKTRACE`, the calls that led there.
    static GUARDED: RefCell<(usize, Origin)> = const { RefCell::new((0, Origin { place: String::new(), calls: None })) };
    /// Panics of this thread that no call could report, since they happened while an instance was dropped.
    static UNTOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The origin of a panic.
#[derive(Default)]
struct Origin {
    place: String,
    calls: Option<String>,
}

/// The most panics kept until someone asks for them.
const KEPT: usize = 16;

/// Takes the panics that occurred on this thread during drops since the last call.
pub fn mishaps() -> Vec<String> {
    UNTOLD.take()
}

/// Installs a hook that records the location of a panic inside a guarded call instead of printing it. Other panics
/// print as usual. Every library has its own standard library, and so its own hook.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = GUARDED.with_borrow_mut(|(depth, origin)| {
                origin.place = info.location().map(ToString::to_string).unwrap_or_default();
                if *depth > 0 {
                    origin.calls = calls(&Backtrace::capture());
                }
                *depth > 0
            });
            if !noted {
                before(info);
            }
        }));
    });
}

/// Runs `call`, and turns a panic into an error that names the call.
pub fn run<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    GUARDED.with_borrow_mut(|(depth, _)| *depth += 1);
    let outcome = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let Origin { place, calls } = GUARDED.with_borrow_mut(|(_, origin)| std::mem::take(origin));
        let error = Error::new(ErrorKind::Panic, format!("`{name}` panicked: {}", words(payload.as_ref())));
        discard(payload);
        let error =
            if place.is_empty() { error } else { error.because_of(format!("at {place} of the plugin's source")) };
        Err(calls.into_iter().fold(error, Error::because_of))
    });
    GUARDED.with_borrow_mut(|(depth, origin)| {
        *depth -= 1;
        *origin = Origin::default();
    });
    outcome
}

/// The calls in a backtrace between the panic machinery and the guard; `None` if no backtrace was captured.
fn calls(backtrace: &Backtrace) -> Option<String> {
    if backtrace.status() != BacktraceStatus::Captured {
        return None;
    }
    let text = backtrace.to_string();
    let lines: Vec<&str> = text.lines().collect();
    // A call is a numbered line, usually followed by a line with its location. The machinery ends with the function
    // that starts the panic.
    let machinery = |line: &&str| {
        ["core::panicking::", "std::panicking::", "rust_begin_unwind", "panic_any"]
            .iter()
            .any(|name| line.contains(name))
            // A plugin may itself catch panics further out.
            && !["catch_unwind", "panicking::try"].iter().any(|name| line.contains(name))
    };
    let is_call = |line: &str| line.trim_start().split(':').next().is_some_and(|n| n.parse::<usize>().is_ok());
    let guard =
        |line: &&str| ["boundary::guard::run", "boundary::guard::Guarded"].iter().any(|name| line.contains(name));
    let end = lines.iter().position(guard).unwrap_or(lines.len());
    let after = lines[..end].iter().rposition(machinery).map_or(0, |last| last + 1);
    let first = lines[after..end].iter().position(|line| is_call(line)).map_or(after, |further| after + further);
    Some(format!("its calls, most recent first:\n{}", lines[first..end].join("\n")))
}

/// Drops a panic's payload. If its destructor panics too, this catches that panic and leaks its payload.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// [`run`] for a call that returns a result across the boundary.
pub fn answer<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Wired<T> {
    match run(name, call) {
        Ok(value) => RResult::ROk(value),
        Err(error) => RResult::RErr(WireError::from(error)),
    }
}

/// Runs a call that cannot report failure. A panic yields the type's default.
pub fn quietly<T: Default>(call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        discard(payload);
        T::default()
    })
}

fn words(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "without a message"
    }
}

/// A component behind the boundary. A panic may leave it in any state, so it refuses all calls after one.
pub(crate) struct Guarded<T: ?Sized> {
    poisoned: Option<&'static str>,
    inner: ManuallyDrop<Box<T>>,
}

impl<T: ?Sized> Guarded<T> {
    pub fn new(inner: Box<T>) -> Self {
        Self { poisoned: None, inner: ManuallyDrop::new(inner) }
    }

    pub fn call<R>(&mut self, name: &'static str, call: impl FnOnce(&mut T) -> Result<R>) -> Wired<R> {
        if let Some(earlier) = self.poisoned {
            let message = format!("`{name}` was not called, since `{earlier}` of this instance panicked before");
            return RResult::RErr(Error::new(ErrorKind::Panic, message).into());
        }
        let outcome = run(name, || call(&mut self.inner));
        if let Err(error) = &outcome
            && *error.kind() == ErrorKind::Panic
        {
            self.poisoned = Some(name);
        }
        outcome.map_err(WireError::from).into()
    }
}

impl<T: ?Sized> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: `inner` is taken only here, and the guard is not used afterwards.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        let outcome = run("drop", || {
            drop(inner);
            Ok(())
        });
        if let Err(error) = outcome {
            let told = error.causes().iter().fold(error.message().to_owned(), |told, cause| format!("{told}, {cause}"));
            UNTOLD.with_borrow_mut(|untold| {
                if untold.len() < KEPT {
                    untold.push(told);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("while dropping");
        }
    }

    #[test]
    fn a_payload_that_panics_while_it_is_dropped_ends_in_the_guard() {
        let error = run("train", || -> Result<()> { std::panic::panic_any(Bomb) }).unwrap_err();
        assert_eq!(error.message(), "`train` panicked: without a message");
        assert_eq!(quietly(|| -> u8 { std::panic::panic_any(Bomb) }), 0);
        assert_eq!(run("send", || Ok(1)).unwrap(), 1);
    }

    #[test]
    fn the_calls_of_a_panic_end_at_the_guard() {
        fn inner_call() -> Result<String> {
            Ok(calls(&Backtrace::force_capture()).unwrap())
        }
        let told = run("train", inner_call).unwrap();
        assert!(told.starts_with("its calls, most recent first:\n") && told.contains("inner_call"), "{told}");
        assert!(!told.contains("guard::run"), "{told}");
        assert_eq!(calls(&Backtrace::disabled()), None);
    }

    #[test]
    fn a_panic_becomes_an_error_and_poisons_the_instance() {
        let mut guarded = Guarded::new(Box::new(Bomb));
        let RResult::RErr(error) = guarded.call("train", |_| -> Result<()> { panic!("lost {}", 1) }) else { panic!() };
        let error = Error::from(error);
        assert_eq!((error.kind(), error.message()), (&ErrorKind::Panic, "`train` panicked: lost 1"));
        let RResult::RErr(error) = guarded.call("send", |_| Ok(())) else { panic!() };
        assert_eq!(
            Error::from(error).message(),
            "`send` was not called, since `train` of this instance panicked before"
        );
        drop(guarded); // the panic of its drop ends here
        assert!(mishaps()[0].starts_with("`drop` panicked: while dropping"));
        assert!(mishaps().is_empty());
    }
}
