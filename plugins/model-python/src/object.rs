//! An object in a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plugin_api::{Context, Error, Kind, Result, Seed, State};
use serde_json::{Value, json};

use crate::config::{self, Config};
use crate::encode::{self, Outgoing};
use crate::link::{Answer, Call};
use crate::pool;
use crate::worker::Worker;

/// The value of a state with the script's SHA-256.
const SCRIPT: &str = "script";

/// An object of a class in Python.
#[derive(Debug)]
pub(crate) struct Object {
    worker: Arc<Worker>,
    number: u64,
    grace: Duration,
    script: String,
    digest: String,
    /// Which optional methods the class has.
    pub(crate) has: Vec<String>,
}

impl Object {
    /// Makes an object.
    ///
    /// # Errors
    /// If no process can be started, or the constructor raises an exception.
    pub(crate) fn new(kind: Kind, config: &Config, args: &Value, ctx: &Context<'_>) -> Result<Self> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let digest = config::digest(&config.script)?;
        let worker = pool::place(&config.launch(ctx.threads()), config.limit(), config.workers.is_none(), ctx)?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let grace = Duration::from_secs_f64(config.grace);
        // From here on the object is let go of, whatever happens.
        let mut object = Self { worker, number, grace, script: config.script.clone(), digest, has: Vec::new() };
        let request = json!({
            "do": "new", "object": number, "kind": kind, "script": config.script, "class": config.class,
            "keys": config.keys, "args": args, "ctx": encode::context(ctx, ctx.seed().of("new")),
        });
        let call = Call { request, memory: object.memory(), ctx, grace };
        let answer = object.worker.call(call)?;
        object.has = crate::decode::read(&answer.value["has"], "what a class has")?;
        Ok(object)
    }

    /// The memory for a call.
    pub(crate) fn memory(&self) -> Outgoing {
        Outgoing::new(self.worker.launch.shared)
    }

    /// Calls a method. Its random numbers come from a seed of the method's.
    ///
    /// # Errors
    /// What the method raised, or how the process ended.
    pub(crate) fn call(&self, method: &str, args: Value, memory: Outgoing, ctx: &Context<'_>) -> Result<Answer> {
        self.call_with(ctx.seed().of(method), method, args, memory, ctx)
    }

    /// Calls a method with this seed.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) fn call_with(
        &self,
        seed: Seed,
        method: &str,
        args: Value,
        memory: Outgoing,
        ctx: &Context<'_>,
    ) -> Result<Answer> {
        let request = json!({
            "do": method, "object": self.number, "script": self.script, "args": args, "ctx": encode::context(ctx, seed),
        });
        self.worker.call(Call { request, memory, ctx, grace: self.grace })
    }

    /// The state, with the script that it is of.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) fn state(&self, ctx: &Context<'_>) -> Result<State> {
        let mut state = self.call("state", json!({}), self.memory(), ctx)?.state()?;
        if !state.is_empty() {
            state.values.insert(SCRIPT.to_owned(), self.digest.clone().into());
        }
        Ok(state)
    }

    /// Restores a state.
    ///
    /// # Errors
    /// If it is of another script, or does not fit.
    pub(crate) fn restore(&self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let mut state = state.clone();
        match state.values.shift_remove(SCRIPT) {
            Some(Value::String(digest)) if digest != self.digest => {
                let error = Error::config(format!("{} has changed since the checkpoint", self.script)).at_key("script");
                return Err(error.help("put it back as it was, or start over with --force"));
            }
            None if !state.is_empty() => return Err(Error::config("the checkpoint is not of a class in Python")),
            _ => {}
        }
        let mut memory = self.memory();
        let args = json!({ "state": memory.state(&state)? });
        self.call("restore", args, memory, ctx).map(drop)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.worker.release(self.number);
    }
}
