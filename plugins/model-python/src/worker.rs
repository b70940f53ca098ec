//! A process, and the calls to what is in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plugin_api::{Context, Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::config::Launch;
use crate::encode::Outgoing;
use crate::frame::{self, Broken, TICK};
use crate::link::{Answer, Call, End, Link, with_causes};
use crate::process::Process;

/// The modules of the package `fedplug`.
macro_rules! modules {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../python/fedplug/", $name, ".py")))),*]
    };
}

const MODULES: [(&str, &str); 17] = modules![
    "__init__",
    "_aggregator",
    "_calls",
    "_channel",
    "_component",
    "_config",
    "_context",
    "_data",
    "_dataset",
    "_errors",
    "_failure",
    "_filter",
    "_model",
    "_seed",
    "_tensors",
    "_wire",
    "_worker"
];

/// A worker: a process that holds objects, one call at a time.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) launch: Launch,
    state: Mutex<State>,
    /// Wakes who waits for the end of a call.
    free: Condvar,
    /// How many objects it holds.
    pub(crate) objects: AtomicUsize,
    /// Objects that the process can let go of.
    dropped: Mutex<Vec<u64>>,
}

#[derive(Debug)]
enum State {
    Idle(Box<Link>),
    Busy,
    /// How it ended, and during whose call.
    Dead(String),
}

impl Worker {
    /// Starts a process and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, has no NumPy, or is too old.
    pub(crate) fn start(launch: Launch, ctx: &Context<'_>) -> Result<Self> {
        let (mut process, stream) = Process::start(&launch)?;
        let failed = |error: &std::io::Error| Error::other("the connection to Python cannot be used").because(error);
        let (mut reader, mut writer) = frame::split(stream).map_err(|error| failed(&error))?;
        let module = |(name, text): (&str, &str)| match name {
            "__init__" => ("fedplug".to_owned(), text.into()),
            _ => (format!("fedplug.{name}"), text.into()),
        };
        let modules: serde_json::Map<String, Value> = MODULES.into_iter().map(module).collect();
        let settings = json!({
            "parent": std::process::id(), "shared": launch.shared, "deterministic": launch.deterministic,
        });
        let mut tick = || ctx.check();
        let first = json!({ "modules": modules, "settings": settings });
        let sent = writer.send(&first, &[], &[], &mut tick);
        let answer = match sent.and_then(|()| reader.receive(&mut tick)) {
            Ok(frame) => frame.value,
            Err(Broken::Given(error)) => return Err(error),
            Err(Broken::Closed(why)) => {
                let (how, words) = process.obituary(&why);
                let what = format!("{} is no Python that can run plugins: {how}", launch.python.display());
                return Err(with_causes(Error::config(what).at_key("python"), words));
            }
        };
        if let Some(refusal) = answer["refused"].as_str() {
            return Err(Error::config(refusal).at_key("python").help(answer["hint"].as_str().unwrap_or_default()));
        }
        let link = Link::new(process, reader, writer);
        ctx.debug(format_args!("started {} as process {}", launch.python.display(), link.process()));
        Ok(Self {
            launch,
            state: Mutex::new(State::Idle(Box::new(link))),
            free: Condvar::new(),
            objects: AtomicUsize::new(0),
            dropped: Mutex::new(Vec::new()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it waits for a call.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(*self.state(), State::Idle(_))
    }

    /// Whether it can be called.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(*self.state(), State::Dead(_))
    }

    /// Lets go of an object, with the next call.
    pub(crate) fn release(&self, object: u64) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(object);
        self.objects.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call without memory, by a caller that has no object.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) fn ask(&self, request: Value, ctx: &Context<'_>) -> Result<Value> {
        let call = Call { request, memory: Outgoing::new(self.launch.shared), ctx, grace: Duration::from_secs(5) };
        let answer = self.call(call);
        self.objects.fetch_sub(1, Ordering::Relaxed);
        Ok(answer?.value)
    }

    /// Makes a call, after those of others.
    ///
    /// # Errors
    /// What the call raised; how the process ended; that it was asked to stop.
    pub(crate) fn call(&self, call: Call<'_, '_>) -> Result<Answer> {
        call.ctx.check()?;
        let mut link = self.take(call.ctx)?;
        let (ctx, by) =
            (call.ctx, call.ctx.client().map_or("the server".to_owned(), |client| format!("client `{client}`")));
        let outcome =
            link.call(call, std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner)));
        let (state, outcome) = match outcome {
            Ok(answer) => (State::Idle(link), Ok(answer)),
            Err(End::Failed(error)) => (State::Idle(link), Err(error)),
            Err(End::Died(how, error)) => {
                // What it said last belongs into the log of a run that goes on without the client.
                link.tell(ctx);
                (State::Dead(format!("{how} while {by} was at work")), Err(error))
            }
        };
        *self.state() = state;
        self.free.notify_one();
        // A call that never asks whether to stop has not stopped all the same.
        let asked = ctx.check();
        outcome.and_then(|answer| asked.map(|()| answer))
    }

    fn take(&self, ctx: &Context<'_>) -> Result<Box<Link>> {
        let mut state = self.state();
        loop {
            match std::mem::replace(&mut *state, State::Busy) {
                State::Idle(link) => return Ok(link),
                State::Dead(how) => {
                    let error =
                        Error::new(ErrorKind::Other("python".to_owned()), format!("{how}, and this object was in it"));
                    *state = State::Dead(how);
                    return Err(error.help("with more `workers`, objects do not share a process"));
                }
                State::Busy => state = self.free.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0,
            }
            if let State::Busy = *state {
                drop(state);
                ctx.check()?;
                state = self.state();
            }
        }
    }
}
