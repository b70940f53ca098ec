//! Fetches an answer, in the thread of the call, and judges it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::calls::{Call, Delay};
use super::{Answer, CallError, Peer, Shared};
use crate::bundle::unfold;
use crate::endpoint::Scope;
use crate::envelope::{Place, RECORD, Status, open_answer};
use crate::error::Error;
use crate::events::Event;
use crate::object::ObjectId;
use crate::parallel::{Abort, lock};
use crate::unpack::{FetchError, Fetcher, Pulled};
use crate::wire::{Message, Metadata, SUPERLINK};

/// Codes in a message's error: the message is unavailable, its answer is, the node is.
pub(super) const UNAVAILABLE: std::ops::RangeInclusive<i64> = 3..=5;
const NODE_UNAVAILABLE: i64 = 5;

/// How many answers to an order may be unreadable.
const UNREADABLE: u32 = 5;

impl Shared {
    /// Fetches an answer. `None`: it was none, and the order is sent again.
    pub(super) fn receive(
        &self,
        site: &str,
        message: &Message,
        cancel: &(dyn Fn() -> bool + Sync),
    ) -> Option<Result<Answer, CallError>> {
        let metadata = message.metadata.as_ref()?;
        let (peer, pem, place, counter) = {
            let mut guard = lock(&self.table);
            let table = &mut *guard;
            let (call, entry) = (table.calls.get_mut(site)?, table.sites.get(site)?);
            call.fetched = Instant::now();
            (
                entry.peer.clone(),
                entry.public_pem.clone(),
                self.place(call.number, &call.digest),
                std::sync::Arc::clone(&call.counter),
            )
        };
        let number = place.number;
        if let Some(error) = &message.error {
            return self.receive_error(site, &peer, number, metadata, error.code, &error.reason);
        }
        let run = self.run.load(Ordering::Relaxed);
        let abort = || cancel() || self.stopped();
        let pull = |id: &_, abort: Abort<'_>| self.pull_from(site, run, id, Scope { abort, counter: &counter });
        let http = &self.runtime.http;
        let fetcher = Fetcher { pull: &pull, prepare: &|_| (), threads: http.transfers, limits: &http.limits };
        let mut received = match fetcher.content(&metadata.message_id, &abort) {
            Ok(received) => received,
            Err(failure) => return self.not_fetched(site, &peer, number, metadata, run, failure),
        };
        if let Peer::Fedplug(_) = peer {
            if Place::of(metadata).as_ref() != Some(&place) {
                return self.forged(site, number, metadata, "it answers another order");
            }
            let digest = received.packed.digest(RECORD);
            let opened = open_answer(&pem, &place, &metadata.reply_to_message_id, &mut received.content, &digest);
            let (status, text) = match opened {
                Ok(opened) => opened,
                Err(reason) => return self.forged(site, number, metadata, reason),
            };
            if let Err(error) = unfold(&mut received.content, &http.limits) {
                return self.unreadable(site, &peer, number, metadata, &error.to_string());
            }
            self.forget(metadata);
            if !matches!(status, Status::Answer) {
                return self.no_answer(site, status, text);
            }
        } else {
            received.content.shift_remove(RECORD);
            self.forget(metadata);
        }
        if let Some(failed) = self.answered(site, true) {
            return Some(failed);
        }
        let sends = lock(&self.table).calls.get(site).map_or(1, |call| call.sends.max(1));
        Some(Ok(Answer { content: received.content, traffic: counter.get(), sends }))
    }

    /// Asks for an object of a site's answer. If the site says that it has pushed its answer, and no object comes, none ever
    /// will: the SuperLink refused the push, whose first try it had taken without the site's learning of it. An object that
    /// answers of several sites share may still come from another one, so each that comes is waited for longer.
    fn pull_from(&self, site: &str, run: u64, id: &ObjectId, scope: Scope<'_>) -> Result<Pulled, Error> {
        let silence = self.options.policy.silence;
        // Before the object is asked for, so that it is there if the site has pushed it.
        let is_lost = |call: &Call| call.done && call.fetched.elapsed() > silence;
        let lost = lock(&self.table).calls.get(site).is_some_and(is_lost);
        let pulled = self.runtime.pull_object(SUPERLINK, run, id, scope)?;
        match (&pulled, lock(&self.table).calls.get_mut(site)) {
            (Pulled::NotYet, _) if lost => return Ok(Pulled::Gone),
            (Pulled::Object(_), Some(call)) => {
                call.fetched = Instant::now();
                call.heard = call.fetched;
            }
            _ => {}
        }
        Ok(pulled)
    }

    /// What becomes of an answer that could not be fetched.
    fn not_fetched(
        &self,
        site: &str,
        peer: &Peer,
        number: u64,
        metadata: &Metadata,
        run: u64,
        failure: FetchError,
    ) -> Option<Result<Answer, CallError>> {
        match failure {
            FetchError::Gone => self.send_again(site, "its answer was not pushed to the end", Delay::Grows),
            FetchError::Failed(Error::Stopped) => return Some(Err(CallError::Cancelled)),
            FetchError::Failed(error @ Error::Unreachable { .. }) => {
                return Some(Err(CallError::Lost(std::sync::Arc::new(error))));
            }
            FetchError::Failed(error) if error.is_unauthorised() => {
                self.renew_or_fail(run);
                self.send_again(site, "the run was lost", Delay::Grows);
            }
            FetchError::Failed(error) => return self.unreadable(site, peer, number, metadata, &error.to_string()),
        }
        None
    }

    /// What becomes of a signed message of the site that is no answer.
    fn no_answer(&self, site: &str, status: Status, reason: String) -> Option<Result<Answer, CallError>> {
        let name = site.to_owned();
        match status {
            Status::Refused => self.answered(site, false).or(Some(Err(CallError::Refused { site: name, reason }))),
            Status::Failed => self.answered(site, false).or(Some(Err(CallError::Failed { site: name, reason }))),
            Status::Lacks => {
                if let Some(call) = lock(&self.table).calls.get_mut(site) {
                    call.whole = true;
                }
                self.send_again(site, "the site has not kept what was left out", Delay::None);
                None
            }
            _ => {
                self.send_again(site, "its answer is none", Delay::Grows);
                None
            }
        }
    }

    /// Notes that an order is over. After a success, the same call again would be the same order.
    fn answered(&self, site: &str, success: bool) -> Option<Result<Answer, CallError>> {
        let mut table = lock(&self.table);
        if let Some(call) = table.calls.get(site)
            && success
            && call.request.keep
        {
            let arrays = call.arrays.iter().copied().collect();
            if let Some(entry) = table.sites.get_mut(site) {
                entry.kept = arrays;
            }
        }
        drop(table);
        let noted = self.state.change(|state| {
            if success {
                if let Some(order) = state.sites.get_mut(site) {
                    order.messages.clear();
                }
            } else {
                state.sites.remove(site);
            }
        });
        noted.err().map(|error| Err(CallError::Lost(std::sync::Arc::new(error))))
    }

    /// An error in place of an answer.
    fn receive_error(
        &self,
        site: &str,
        peer: &Peer,
        number: u64,
        metadata: &Metadata,
        code: i64,
        reason: &str,
    ) -> Option<Result<Answer, CallError>> {
        self.forget(metadata);
        if UNAVAILABLE.contains(&code) {
            let delay = if code == NODE_UNAVAILABLE { Delay::UntilSeen } else { Delay::Grows };
            self.send_again(site, &format!("the SuperLink says: {reason}"), delay);
            return None;
        }
        if let Peer::Fedplug(_) = peer {
            return self.forged(site, number, metadata, &format!("an error that is not signed: {reason}"));
        }
        let (site, reason) = (site.to_owned(), format!("error {code}: {reason}"));
        self.answered(&site, false).or(Some(Err(CallError::Failed { site, reason })))
    }

    /// An answer that cannot be read. One in the name of a site may be somebody else's, so it is ignored, a few times.
    fn unreadable(
        &self,
        site: &str,
        peer: &Peer,
        number: u64,
        metadata: &Metadata,
        reason: &str,
    ) -> Option<Result<Answer, CallError>> {
        let count = match lock(&self.table).calls.get_mut(site) {
            Some(call) => {
                call.unreadable += 1;
                call.unreadable
            }
            None => UNREADABLE,
        };
        if matches!(peer, Peer::Flower(_)) || count >= UNREADABLE {
            self.forget(metadata);
            return Some(Err(CallError::Protocol { site: site.to_owned(), reason: reason.to_owned() }));
        }
        self.forged(site, number, metadata, reason)
    }

    /// Ignores an answer that is not the site's.
    fn forged(&self, site: &str, number: u64, metadata: &Metadata, reason: &str) -> Option<Result<Answer, CallError>> {
        self.forget(metadata);
        self.tell(Event::Forged { site: site.to_owned(), number, reason: reason.to_owned() });
        self.send_again(site, "its answer was not valid", Delay::Grows);
        None
    }
}
