//! Who is at work, and since when without a sign of progress.
//!
//! A plugin's call may hang: in a deadlock, on a network file, or in a loop that never ends. A call can be neither
//! interrupted nor left behind, since it borrows the client. So it is reported after a while, and, past a limit that the
//! experiment sets, asked to stop. If it stops, its client has failed; if it does not, the process ends and says why.
//!
//! A log line, a scalar, progress and the start of another call are signs of progress. To ask whether to stop is none.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{Error, Level};

use crate::error::{CliError, Diagnostic};
use crate::federation::component_error::ComponentError;
use crate::terminal::console::Console;
use crate::terminal::crash;

/// When a silent call is reported first; then each time that its silence has doubled.
const FIRST_REPORT: Duration = Duration::from_secs(60);

/// How long a call that was asked to stop may go on.
const GRACE: Duration = Duration::from_secs(30);

/// The shortest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The server's and all clients' activity.
#[derive(Debug)]
pub struct Activity {
    /// One for each client, in order, and one for the server.
    slots: Vec<(String, Mutex<Option<Doing>>)>,
    /// The longest time without a sign of progress.
    limit: Option<Duration>,
    over: Mutex<bool>,
    ended: Condvar,
}

/// What is being done.
#[derive(Clone, Debug)]
struct Doing {
    /// The component that was called last, and how.
    who: String,
    call: &'static str,
    round: Option<u64>,
    /// The last sign of progress.
    sign: Instant,
    /// The silence after which it is reported.
    report: Duration,
    /// When it was asked to stop.
    asked: Option<Instant>,
}

/// Work that ends when this is dropped.
pub(crate) struct Working<'a> {
    slot: &'a Mutex<Option<Doing>>,
    limit: Option<Duration>,
}

impl Activity {
    /// Nobody is at work yet.
    pub(crate) fn new(clients: &[String], limit: Option<Duration>) -> Self {
        let clients = clients.iter().map(|name| format!("client `{name}`"));
        let slots = clients.chain(["server".to_owned()]).map(|name| (name, Mutex::default())).collect();
        Self { slots, limit, over: Mutex::default(), ended: Condvar::new() }
    }

    /// The slot of a client or of the server.
    fn slot(&self, client: Option<usize>) -> &Mutex<Option<Doing>> {
        let server = self.slots.len() - 1;
        &self.slots[client.unwrap_or(server).min(server)].1
    }

    /// A client, or the server, starts to work.
    pub(crate) fn enter(&self, client: Option<usize>) -> Working<'_> {
        let slot = self.slot(client);
        *lock(slot) = Some(Doing {
            who: String::new(),
            call: "",
            round: None,
            sign: Instant::now(),
            report: self.limit.map_or(FIRST_REPORT, |limit| FIRST_REPORT.min(limit / 2)),
            asked: None,
        });
        Working { slot, limit: self.limit }
    }

    /// A component is called.
    pub(crate) fn call(&self, client: Option<usize>, who: &str, call: &'static str, round: Option<u64>) {
        if let Some(doing) = &mut *lock(self.slot(client)) {
            who.clone_into(&mut doing.who);
            (doing.call, doing.round, doing.sign) = (call, round, Instant::now());
        }
    }

    /// A component shows progress.
    pub(crate) fn sign(&self, client: Option<usize>) {
        if let Some(doing) = &mut *lock(self.slot(client)) {
            doing.sign = Instant::now();
        }
    }

    /// Whether a component should stop because it shows no progress.
    pub(crate) fn must_stop(&self, client: Option<usize>) -> bool {
        lock(self.slot(client)).as_ref().is_some_and(|doing| doing.asked.is_some())
    }

    /// Watches while `work` is done.
    pub(crate) fn watched<T>(&self, console: &Console, work: impl FnOnce() -> T) -> T {
        /// Ends the watch, also after a panic.
        struct End<'a>(&'a Activity);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *lock(&self.0.over) = true;
                self.0.ended.notify_all();
            }
        }
        std::thread::scope(|scope| {
            scope.spawn(|| self.watch(console));
            let _end = End(self);
            work()
        })
    }

    fn watch(&self, console: &Console) {
        let every = self.limit.map_or(FIRST_REPORT / 10, |limit| (limit / 10).clamp(LOOK_EVERY, FIRST_REPORT / 10));
        let mut over = lock(&self.over);
        while !*over {
            over = self.ended.wait_timeout(over, every).unwrap_or_else(PoisonError::into_inner).0;
            for (name, slot) in &self.slots {
                self.look(name, slot, console);
            }
        }
    }

    /// Reports a silent call, asks it to stop, or ends the process.
    fn look(&self, name: &str, slot: &Mutex<Option<Doing>>, console: &Console) {
        let mut found = lock(slot);
        let Some(doing) = &mut *found else { return };
        let silence = doing.sign.elapsed();
        if silence >= doing.report {
            doing.report = silence * 2;
            console.log(Level::Warn, &format!("{}: no progress for {}", doing.place(name), seconds(silence)));
        }
        let Some(limit) = self.limit.filter(|limit| silence >= *limit) else { return };
        let asked = *doing.asked.get_or_insert_with(Instant::now);
        if asked.elapsed() >= GRACE.min(limit) {
            let what = format!("{}: no progress for {}, and it does not stop", doing.place(name), seconds(silence));
            let report =
                Diagnostic::new(what).hint("resume it with --resume, from the last checkpoint if there is one");
            console.stop();
            CliError::run(report.hint(KEY)).print();
            crash::end();
        }
    }
}

/// Names the limit.
const KEY: &str = "`federation.progress-timeout` is the limit";

impl Doing {
    /// ``round 3, client `tm`, `train` of `linear` ``.
    fn place(&self, name: &str) -> String {
        let round = self.round.map(|round| format!("round {}, ", round + 1)).unwrap_or_default();
        let call = if self.call.is_empty() { String::new() } else { format!("`{}` of ", self.call) };
        let who = if self.who.is_empty() { String::new() } else { format!(", {call}`{}`", self.who) };
        format!("{round}{name}{who}")
    }
}

/// Does a client's work. If the client showed no progress and stopped when it was asked to, it has failed.
///
/// # Errors
/// Those of the work.
pub(crate) fn of_client<T>(
    activity: Option<&Activity>,
    client: usize,
    work: impl FnOnce() -> Result<T, ComponentError>,
) -> Result<T, ComponentError> {
    let Some(activity) = activity else { return work() };
    let working = activity.enter(Some(client));
    let outcome = work();
    working.outcome(outcome)
}

impl Working<'_> {
    /// The outcome of the work, which is a failure of the client if it was asked to stop and did.
    fn outcome<T>(self, outcome: Result<T, ComponentError>) -> Result<T, ComponentError> {
        let asked = lock(self.slot).as_ref().is_some_and(|doing| doing.asked.is_some());
        match (outcome, self.limit) {
            (Err(fault), Some(limit)) if asked && fault.is_cancelled() => {
                let error = Error::other(format!("no progress for {}, so it was stopped", seconds(limit))).help(KEY);
                Err(ComponentError::new(fault.parts().0.to_owned(), error))
            }
            (outcome, _) => outcome,
        }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        *lock(self.slot) = None;
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_no_progress_is_asked_to_stop_and_has_failed() {
        let activity = Activity::new(&["a".to_owned(), "b".to_owned()], Some(Duration::from_millis(200)));
        activity.watched(&Console::new(Level::Error), || {
            let (silent, busy) = (activity.enter(Some(0)), activity.enter(Some(1)));
            activity.call(Some(0), "m", "train", Some(2));
            while !activity.must_stop(Some(0)) {
                activity.sign(Some(1));
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!activity.must_stop(Some(1)) && !activity.must_stop(None));
            let cancelled = || Err::<(), _>(ComponentError::new("model `m`".to_owned(), Error::cancelled()));
            assert!(busy.outcome(cancelled()).unwrap_err().is_cancelled());
            let fault = silent.outcome(cancelled()).unwrap_err();
            assert!(
                fault.report("").message().contains("model `m`: no progress for 0 s"),
                "{}",
                fault.report("").message()
            );
        });
        assert!(!activity.must_stop(Some(0)), "its work has ended");
    }
}
