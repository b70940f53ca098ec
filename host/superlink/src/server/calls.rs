//! The calls that are under way, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Answer, CallError, KeptIds, Peer, Request, Shared};
use crate::content;
use crate::envelope::STATUS;
use crate::error::Error;
use crate::events::Event;
use crate::http::Counter;
use crate::object::ObjectId;
use crate::parallel::lock;
use crate::wire;

/// How many messages without a call are remembered.
const ORPHANS: usize = 64;

/// All calls and sites.
#[derive(Default)]
pub(super) struct Table {
    pub(super) sites: BTreeMap<String, SiteEntry>,
    /// By site: each has one at most.
    pub(super) calls: BTreeMap<String, Call>,
    /// The calls so far.
    pub(super) count: u64,
    /// Messages of calls that are over, which may still be answered. The answers would stay on the SuperLink.
    pub(super) orphans: Vec<String>,
    /// When it was last asked who is online.
    pub(super) refreshed: Option<Instant>,
    /// The run was ended by others, so no call can succeed.
    pub(super) ended: Option<Arc<Error>>,
}

pub(super) struct SiteEntry {
    pub(super) peer: Peer,
    /// Its node, while it is online.
    pub(super) node: Option<u64>,
    /// When the node last came online, in the SuperLink's words.
    pub(super) activated: Option<String>,
    pub(super) public_pem: Bytes,
    pub(super) away_since: Instant,
    /// Arrays that it has from the last order that it was to keep.
    pub(super) kept: KeptIds,
}

impl Table {
    /// A site's call, if it is still this one.
    pub(super) fn call(&mut self, site: &str, id: u64) -> Option<&mut Call> {
        self.calls.get_mut(site).filter(|call| call.id == id)
    }
}

impl SiteEntry {
    pub(super) fn new(peer: Peer, now: Instant) -> Self {
        Self { peer, node: None, activated: None, public_pem: Bytes::new(), away_since: now, kept: KeptIds::new() }
    }
}

/// A call, from its begin until it returns.
pub(super) struct Call {
    /// Which call it is: the sending thread may still have an earlier one of the same site, which was cancelled.
    pub(super) id: u64,
    pub(super) request: Arc<Request>,
    /// 0 until it is first sent.
    pub(super) number: u64,
    /// Of key, kind and content; empty until it is first sent.
    pub(super) digest: String,
    pub(super) phase: Phase,
    /// When it was begun.
    pub(super) since: Instant,
    /// In `Queued`: not to be sent before.
    pub(super) not_before: Instant,
    /// Messages that may be answered.
    pub(super) messages: Vec<String>,
    /// The site says that it has answered. If the next look at the SuperLink shows no answer, or not all of it, it was lost.
    pub(super) done: bool,
    /// A status query that may be answered.
    pub(super) query: Option<String>,
    /// When something was last heard of the order, or it was sent or asked for.
    pub(super) heard: Instant,
    /// When its answer began to be fetched, or an object of it last came.
    pub(super) fetched: Instant,
    pub(super) sends: u32,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Answers that could not be read.
    pub(super) unreadable: u32,
    /// Nothing may be left out: the site does not have it.
    pub(super) whole: bool,
    /// The arrays of the order.
    pub(super) arrays: Vec<ObjectId>,
    pub(super) counter: Arc<Counter>,
}

/// What is being done about a call.
pub(super) enum Phase {
    /// It waits to be sent.
    Queued,
    /// The sending thread has it.
    Sending,
    /// It waits for its answer.
    Sent,
    /// The answer is on the SuperLink.
    Answered(Box<wire::Message>),
    /// The calling thread fetches the answer.
    Receiving,
    Failed(CallError),
}

impl Call {
    fn new(id: u64, request: Request) -> Self {
        let now = Instant::now();
        Self {
            id,
            request: Arc::new(request),
            number: 0,
            digest: String::new(),
            phase: Phase::Queued,
            since: now,
            not_before: now,
            messages: Vec::new(),
            done: false,
            query: None,
            heard: now,
            fetched: now,
            sends: 0,
            failures: 0,
            unreadable: 0,
            whole: false,
            arrays: Vec::new(),
            counter: Arc::new(Counter::default()),
        }
    }

    /// Puts it back in the queue, to be sent after `delay`.
    pub(super) fn again(&mut self, delay: Duration) {
        self.phase = Phase::Queued;
        self.not_before = Instant::now() + delay;
    }

    /// How long to wait after another failure: longer each time.
    pub(super) fn backoff(&mut self) -> Duration {
        let delay = Duration::from_millis(250) * 2u32.pow(self.failures.min(7));
        self.failures += 1;
        delay.min(Duration::from_secs(20))
    }
}

/// What the calling thread does next.
enum Step {
    Wait,
    Receive(wire::Message),
    Fail(CallError),
}

impl Shared {
    pub(super) fn call(
        &self,
        site: &str,
        request: Request,
        cancel: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Answer, CallError> {
        if let Err(reason) = check(&request) {
            return Err(CallError::Protocol { site: site.to_owned(), reason });
        }
        self.enter(site, request, cancel)?;
        let result = loop {
            match self.step(site, cancel) {
                Step::Wait => {}
                Step::Fail(error) => break Err(error),
                Step::Receive(message) => {
                    admit();
                    if let Some(result) = self.receive(site, &message, cancel) {
                        break result;
                    }
                }
            }
        };
        let mut table = lock(&self.table);
        if let Some(call) = table.calls.remove(site) {
            table.orphans.extend(call.messages.into_iter().chain(call.query));
            let old = table.orphans.len().saturating_sub(ORPHANS);
            table.orphans.drain(..old);
        }
        drop(table);
        self.changed.notify_all();
        result
    }

    /// Waits for the site's turn and registers the call.
    fn enter(&self, site: &str, request: Request, cancel: &(dyn Fn() -> bool + Sync)) -> Result<(), CallError> {
        let mut table = lock(&self.table);
        loop {
            if !table.sites.contains_key(site) {
                let reason = "there is no site of this name".to_owned();
                return Err(CallError::Protocol { site: site.to_owned(), reason });
            }
            if cancel() || self.stopped() {
                return Err(CallError::Cancelled);
            }
            if !table.calls.contains_key(site) {
                table.count += 1;
                let call = Call::new(table.count, request);
                table.calls.insert(site.to_owned(), call);
                drop(table);
                self.changed.notify_all();
                return Ok(());
            }
            let waited = self.changed.wait_timeout(table, Duration::from_millis(100));
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits a moment for a change of a call, and says what to do about it.
    fn step(&self, site: &str, cancel: &(dyn Fn() -> bool + Sync)) -> Step {
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        if cancel() || self.stopped() {
            return Step::Fail(CallError::Cancelled);
        }
        if let Some(error) = &table.ended {
            return Step::Fail(CallError::Lost(Arc::clone(error)));
        }
        let (Some(call), Some(entry)) = (table.calls.get_mut(site), table.sites.get(site)) else {
            return Step::Fail(CallError::Cancelled);
        };
        match std::mem::replace(&mut call.phase, Phase::Receiving) {
            Phase::Answered(message) => return Step::Receive(*message),
            Phase::Failed(error) => return Step::Fail(error),
            phase => call.phase = phase,
        }
        if let (None, Some(most)) = (entry.node, self.options.policy.away) {
            let time = entry.away_since.max(call.since).elapsed();
            if time > most {
                return Step::Fail(CallError::Away { site: site.to_owned(), time });
            }
        }
        let _ = self.changed.wait_timeout(guard, Duration::from_millis(100));
        Step::Wait
    }

    /// Has an order sent again. `delay`: at once, or after a while that grows.
    pub(super) fn send_again(&self, site: &str, reason: &str, delay: Delay) {
        let mut table = lock(&self.table);
        let Some(call) = table.calls.get_mut(site) else { return };
        let time = if matches!(delay, Delay::None) { Duration::ZERO } else { call.backoff() };
        call.again(time);
        (call.query, call.done) = (None, false);
        let number = call.number;
        if let (Delay::UntilSeen, Some(entry)) = (delay, table.sites.get_mut(site)) {
            // The next look shows whether it is back.
            if entry.node.take().is_some() {
                entry.away_since = Instant::now();
            }
        }
        drop(table);
        self.changed.notify_all();
        self.tell(Event::SendAgain { site: site.to_owned(), number, reason: reason.to_owned() });
    }

    /// All calls under way fail.
    pub(super) fn fail_all(&self, error: Error) {
        let error = Arc::new(error);
        let mut table = lock(&self.table);
        if matches!(*error, Error::RunEnded { .. }) {
            table.ended = Some(Arc::clone(&error));
        }
        for call in table.calls.values_mut() {
            call.phase = Phase::Failed(CallError::Lost(Arc::clone(&error)));
        }
        drop(table);
        self.changed.notify_all();
    }
}

/// Whether an order can be sent at all. One that cannot would hold up those that go with it.
fn check(request: &Request) -> Result<(), String> {
    let kind = &request.kind;
    let (base, action) = kind.split_once('.').unwrap_or((kind, "any"));
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let identifier = action.chars().all(letters) && action.starts_with(|c: char| letters(c) && !c.is_ascii_digit());
    if !["train", "evaluate", "query"].contains(&base) || !identifier || kind == STATUS {
        return Err(format!("`{kind}` is no message type for orders"));
    }
    content::check(&request.content)
}

/// When to send an order again.
#[derive(Clone, Copy)]
pub(super) enum Delay {
    None,
    /// After a while that grows with each failure.
    Grows,
    /// The same, and once the site is seen online.
    UntilSeen,
}
