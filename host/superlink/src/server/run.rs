//! The run on the SuperLink: made, continued, replaced if it is lost, ended.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{Phase, Shared};
use crate::endpoint::Caller;
use crate::error::Error;
use crate::events::Event;
use crate::parallel::{self, lock};
use crate::wire::{
    AcquireTask, Fab, ListRuns, Nothing, Run, RunId, RunList, RunStarted, StartRun, Success, TaskAcquired, TaskOutput,
};
use crate::{fab, hex};

/// How often a run's heart beats. After 60 s without a beat the SuperLink ends it.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How long to try for the task of a run. If the SuperLink's answer is lost, it gives the task back after 30 s.
const CLAIM: Duration = Duration::from_secs(45);

/// Codes of Flower's errors.
const TASK_RUNS: i64 = 3002;

/// Keeps the run alive until the server stops.
pub(super) fn beat(shared: &Shared) {
    loop {
        parallel::pause(HEARTBEAT, &|| shared.stopped());
        if shared.stopped() {
            return;
        }
        let run = shared.run.load(Ordering::Relaxed);
        match shared.heartbeat() {
            Ok(true) | Err(Error::Stopped) => {}
            Ok(false) => shared.renew_or_fail(run),
            Err(error) if error.is_unauthorised() => shared.renew_or_fail(run),
            Err(error) => shared.trouble("heartbeat", &error),
        }
    }
}

impl Shared {
    fn heartbeat(&self) -> Result<bool, Error> {
        let scope = crate::endpoint::Scope { abort: &|| self.stopped(), counter: &self.other };
        self.runtime.call::<Success>("send-task-heartbeat", &Nothing {}, scope).map(|answer| answer.success)
    }

    fn set_token(&self, run: u64, value: &str) {
        if let Caller::Server { token } = &self.runtime.caller {
            value.clone_into(&mut token.write().unwrap_or_else(PoisonError::into_inner));
        }
        self.run.store(run, Ordering::Relaxed);
    }

    /// Continues the run of the state folder, if its token is still good; else makes one.
    pub(super) fn begin(&self) -> Result<(), Error> {
        if let Some(version) = self.control.http.version() {
            let known = ["1.40.", "1.41.", "1.42."].iter().any(|known| version.starts_with(known));
            if !version.starts_with("1.") {
                let reason = format!("version {version} is not supported\nhint: use flwr 1.40 to 1.42");
                return Err(Error::protocol("SuperLink", reason));
            }
            if !known {
                self.tell(Event::UntriedVersion { version });
            }
        }
        if let Some((run, token)) = self.state.get(|state| state.run.clone()) {
            self.set_token(run, &token);
            match self.heartbeat() {
                Ok(true) => {
                    self.tell(Event::RunResumed { run });
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) if error.is_unauthorised() => {}
                Err(error) => return Err(error),
            }
        }
        self.make()
    }

    /// Makes a run and takes the place of its ServerApp.
    fn make(&self) -> Result<(), Error> {
        let bundle = match &self.options.bundle {
            Some(bundle) => bundle.clone(),
            None => fab::make(&self.options.title)?,
        };
        let hash = hex::encode(&Sha256::digest(&bundle));
        let fab = Some(Fab { hash: hash.clone(), content: bundle.into() });
        let (started, repeated): (RunStarted, bool) =
            self.control.exchange("start-run", &StartRun { fab }, self.scope())?;
        let Some(started) = started.run_id else {
            return Err(Error::protocol("start-run", "the SuperLink took no run: is the bundle larger than 10 MiB?"));
        };
        let claimed = self.claim(&hash, started);
        let kept = claimed.as_ref().ok().map(|(run, _)| *run);
        // A run that nobody serves would wait for ever: ours if it could not be claimed, and another of the same bundle if
        // an answer was lost and the run was started twice.
        if kept != Some(started) {
            self.stop_run(started);
        }
        if repeated {
            let runs = self.control.call::<RunList>("list-runs", &ListRuns { run_id: None }, self.scope());
            let runs = runs.map(|list| list.runs.into_values().collect::<Vec<Run>>()).unwrap_or_default();
            let orphan = |run: &&Run| run.fab_hash == hash && Some(run.run_id) != kept && is_pending(run);
            runs.iter().filter(orphan).for_each(|run| self.stop_run(run.run_id));
        }
        let (run, token) = claimed?;
        self.set_token(run, &token);
        match self.runtime.call::<Nothing>("pull-task-input", &Nothing {}, self.scope()) {
            Ok(_) => {}
            // The answer to the first try was lost.
            Err(error) if error.has_code(TASK_RUNS) => {}
            Err(error) => {
                self.stop_run(run);
                return Err(error);
            }
        }
        self.state.change(|state| {
            state.run = Some((run, token));
            // Their messages went with the last run.
            state.sites.values_mut().for_each(|order| order.messages.clear());
        })?;
        self.tell(Event::RunStarted { run });
        Ok(())
    }

    /// Claims the task of this very bundle, whatever else is waiting. Returns the run and its token.
    fn claim(&self, hash: &str, run: u64) -> Result<(u64, String), Error> {
        let request = AcquireTask { fab_hashes: vec![hash.to_owned()] }.encode_to_vec();
        let until = Instant::now() + CLAIM;
        loop {
            let headers = |now| self.secret_headers(&request, now);
            let answer = self.runtime.http.post("runtime/acquire-task", &[&request], &headers, 1 << 20, &|| false)?;
            let answer: TaskAcquired = answer.decode("runtime/acquire-task")?;
            if let (Some(task), false) = (answer.task, answer.token.is_empty()) {
                return Ok((task.run_id, answer.token));
            }
            if Instant::now() > until {
                return Err(Error::Taken { run });
            }
            // Soon at first, since with the wrong isolation another process polls each second.
            parallel::pause(Duration::from_millis(200), &|| false);
        }
    }

    /// What `--superexec-auth-secret-file` asks for.
    fn secret_headers(&self, body: &[u8], now: SystemTime) -> Result<Vec<(&'static str, String)>, Error> {
        let Some(secret) = &self.options.secret else { return Ok(Vec::new()) };
        let mac = |key: &[u8], text: &[u8]| -> Result<Vec<u8>, Error> {
            let mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| Error::Key(error.to_string()))?;
            Ok(mac.chain_update(text).finalize().into_bytes().to_vec())
        };
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (nonce, digest) = (hex::random()?, hex::encode(&Sha256::digest(body)));
        let text = format!("method=/flwr.proto.Runtime/AcquireTask\nts={seconds}\nnonce={nonce}\nbody_sha256={digest}");
        let signature = hex::encode(&mac(&mac(secret, b"superexec-auth-v1")?, text.as_bytes())?);
        Ok(vec![
            ("flwr-superexec-ts", seconds.to_string()),
            ("flwr-superexec-nonce", nonce),
            ("flwr-superexec-body-sha256", digest),
            ("flwr-superexec-signature", signature),
        ])
    }

    fn stop_run(&self, run: u64) {
        if let Err(error) = self.control.call::<Success>("stop-run", &RunId { run_id: run }, self.scope()) {
            self.trouble(&format!("stop run {run}"), &error);
        }
    }

    /// After the token of `run` was refused: makes another run, in which all open orders are sent again. The sites know
    /// them by session and number. If somebody ended the run, all calls fail instead.
    pub(super) fn renew_or_fail(&self, run: u64) {
        if self.stopped() {
            return;
        }
        match self.renew(run) {
            Ok(()) => {}
            Err(error @ (Error::RunEnded { .. } | Error::Taken { .. } | Error::Unreachable { .. })) => {
                self.fail_all(error)
            }
            Err(error) => self.trouble("new run", &error),
        }
    }

    fn renew(&self, lost: u64) -> Result<(), Error> {
        let _one = lock(&self.renewing);
        if self.run.load(Ordering::Relaxed) != lost || lock(&self.table).ended.is_some() {
            return Ok(());
        }
        let list = self.control.call::<RunList>("list-runs", &ListRuns { run_id: Some(lost) }, self.scope());
        let status = match list {
            Ok(list) => list.runs.into_values().next().and_then(|run| run.status),
            Err(Error::Refused { status: 404, .. }) => None,
            Err(error) => return Err(error),
        };
        let text = status.as_ref().map_or("forgotten".to_owned(), |status| {
            let parts = [&status.status, &status.sub_status, &status.details];
            parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ")
        });
        if status.is_some_and(|status| status.sub_status == "stopped") {
            return Err(Error::RunEnded { run: lost, status: text });
        }
        self.tell(Event::RunLost { run: lost, status: text });
        self.make()?;
        let mut table = lock(&self.table);
        for site in table.sites.values_mut() {
            site.node = None;
            site.away_since = Instant::now();
        }
        for call in table.calls.values_mut() {
            call.messages.clear();
            call.query = None;
            if matches!(call.phase, Phase::Sent | Phase::Sending | Phase::Answered(_)) {
                call.again(Duration::ZERO);
            }
        }
        table.orphans.clear();
        table.refreshed = None;
        drop(table);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends the run.
    pub(super) fn end(&self, completed: bool, details: &str) -> Result<(), Error> {
        let sub_status = if completed { "completed" } else { "failed" }.to_owned();
        let output = TaskOutput { sub_status, details: details.to_owned() };
        match self.runtime.call::<Nothing>("push-task-output", &output, self.scope()) {
            Ok(_) => {}
            // It is over: an answer was lost, or somebody else ended it.
            Err(error) if error.is_unauthorised() => {}
            Err(error) => return Err(error),
        }
        self.state.change(|state| state.run = None)
    }
}

fn is_pending(run: &Run) -> bool {
    run.status.as_ref().is_some_and(|status| status.status == "pending")
}
