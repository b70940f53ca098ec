//! The polling thread: asks for answers, for who is online, and sites that say nothing for what they do.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::calls::Delay;
use super::receive::UNAVAILABLE;
use super::{Peer, Phase, Shared};
use crate::content::{Content, Record};
use crate::endpoint::{Push, Scope};
use crate::envelope::{OrderNote, Place, RECORD, STATUS, Status, open_answer};
use crate::error::Error;
use crate::events::Event;
use crate::pack::Pack;
use crate::parallel::lock;
use crate::unpack::Fetcher;
use crate::wire::{Message, Metadata, RuntimePull, RuntimePulled, RuntimePush, RuntimePushed, SUPERLINK};

/// How often to look who is online while there are calls.
const LOOK: Duration = Duration::from_secs(2);
/// After an order the answer may come soon.
const BUSY: Duration = Duration::from_secs(5);
/// How long to wait for the objects of a status. They are small.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// Polls until the server stops.
pub(super) fn run(shared: &Shared) {
    while !shared.stopped() {
        let run = shared.run.load(Ordering::Relaxed);
        let mut pause = shared.pace();
        match shared.poll() {
            Ok(()) | Err(Error::Stopped) => {}
            Err(error) if error.is_unauthorised() => shared.renew_or_fail(run),
            Err(error @ Error::Unreachable { .. }) => shared.fail_all(error),
            Err(error) => {
                shared.trouble("poll", &error);
                pause = pause.max(Duration::from_secs(1));
            }
        }
        let guard = lock(&shared.table);
        // Whatever has changed can wait as long, but the first call after a pause should not.
        let idle = guard.calls.is_empty();
        let wait = if idle { Duration::from_millis(500) } else { pause };
        let until = Instant::now() + wait;
        let mut guard = guard;
        while !shared.stopped() && Instant::now() < until && guard.calls.is_empty() == idle {
            let left = until.saturating_duration_since(Instant::now());
            guard = shared.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn pace(&self) -> Duration {
        let poll = self.options.policy.poll;
        let busy = lock(&self.table).calls.values().any(|call| call.heard.elapsed() < BUSY);
        if busy { poll.min(Duration::from_millis(100)) } else { poll }
    }

    fn poll(&self) -> Result<(), Error> {
        let (ids, done, look) = {
            let table = lock(&self.table);
            let done = table.calls.iter().filter(|(_, call)| call.done).map(|(site, call)| (site.clone(), call.number));
            let done: Vec<(String, u64)> = done.collect();
            let calls = table.calls.values();
            let ids = calls.flat_map(|call| call.messages.iter().chain(&call.query)).chain(&table.orphans);
            let ids: Vec<String> = ids.cloned().collect();
            let due = table.refreshed.is_none_or(|refreshed| refreshed.elapsed() > LOOK);
            (ids, done, due && !table.calls.is_empty())
        };
        if look {
            self.refresh_sites()?;
        }
        if !ids.is_empty() {
            let abort = || self.stopped();
            let scope = Scope { abort: &abort, counter: &self.other };
            let pulled: RuntimePulled = self.runtime.call("pull-messages", &RuntimePull { message_ids: ids }, scope)?;
            for message in pulled.messages {
                self.arrived(message);
            }
        }
        for (site, number) in done {
            let lost = lock(&self.table)
                .calls
                .get(&site)
                .is_some_and(|call| call.done && call.number == number && matches!(call.phase, Phase::Sent));
            if lost {
                self.send_again(&site, "the site has answered, and its answer is not there", Delay::None);
            }
        }
        self.ask_the_silent()
    }

    /// Gives an answer to its call.
    fn arrived(&self, message: Message) {
        let Some(metadata) = message.metadata.clone() else { return };
        let mut table = lock(&self.table);
        let reply_to = &metadata.reply_to_message_id;
        table.orphans.retain(|id| id != reply_to);
        let mut calls = table.calls.iter_mut();
        let found = calls.find(|(_, call)| call.query.as_ref() == Some(reply_to) || call.messages.contains(reply_to));
        let Some((site, call)) = found else {
            drop(table);
            self.forget(&metadata);
            return;
        };
        let site = site.clone();
        if call.query.as_ref() == Some(reply_to) {
            call.query = None;
            drop(table);
            self.status(&site, &message, &metadata);
            return;
        }
        // The SuperLink hands out each answer once, and then forgets the order.
        call.messages.retain(|id| id != reply_to);
        let lost = message.error.as_ref().is_some_and(|error| UNAVAILABLE.contains(&error.code));
        match call.phase {
            // The order was sent again since, so that one may still be answered.
            _ if lost && !call.messages.is_empty() => {
                drop(table);
                self.forget(&metadata);
            }
            Phase::Queued | Phase::Sending | Phase::Sent => {
                call.phase = Phase::Answered(Box::new(message));
                call.heard = Instant::now();
                drop(table);
                self.changed.notify_all();
            }
            // A second answer to an order that was sent twice.
            Phase::Answered(_) | Phase::Receiving | Phase::Failed(_) => {
                drop(table);
                self.forget(&metadata);
            }
        }
    }

    /// Has the SuperLink delete a message that is of no use.
    pub(super) fn forget(&self, metadata: &Metadata) {
        let run = self.run.load(Ordering::Relaxed);
        if let Err(error) = self.runtime.confirm(SUPERLINK, run, &metadata.message_id, self.scope()) {
            self.trouble("confirm an answer", &error);
        }
    }

    /// Asks sites that are online and have said nothing for some time.
    fn ask_the_silent(&self) -> Result<(), Error> {
        let policy = &self.options.policy;
        let mut silent = Vec::new();
        let mut repeat = Vec::new();
        {
            let mut guard = lock(&self.table);
            let table = &mut *guard;
            for (site, call) in &mut table.calls {
                let Some(entry) = table.sites.get(site) else { continue };
                let Some(node) = entry.node else { continue };
                match (&entry.peer, &call.phase) {
                    // Also while its answer is fetched: if the SuperLink has refused it in part, the objects never come.
                    (Peer::Fedplug(_), Phase::Sent | Phase::Receiving) if call.heard.elapsed() > policy.silence => {
                        call.heard = Instant::now();
                        silent.push((site.clone(), node, self.place(call.number, &call.digest)));
                    }
                    (Peer::Flower(_), Phase::Sent)
                        if policy.repeat.is_some_and(|repeat| call.heard.elapsed() > repeat) =>
                    {
                        repeat.push(site.clone());
                    }
                    _ => {}
                }
            }
        }
        for site in repeat {
            self.send_again(&site, "the node says nothing", Delay::Grows);
        }
        for (site, node, place) in silent {
            let number = place.number;
            let query = self.ask(node, &place)?;
            if let Some(call) = lock(&self.table).calls.get_mut(&site) {
                call.query = Some(query);
            }
            self.tell(Event::AskedStatus { site, number });
        }
        Ok(())
    }

    /// Sends a status query; returns its id.
    fn ask(&self, node: u64, place: &Place) -> Result<String, Error> {
        let run = self.run.load(Ordering::Relaxed);
        let mut pack = Pack::default();
        let content = Content::from([(RECORD.to_owned(), OrderNote::default().to_record()?)]);
        let packed = pack.content(&content)?;
        let mut metadata = Metadata {
            run_id: run,
            src_node_id: SUPERLINK,
            dst_node_id: node,
            group_id: place.group(),
            ttl: 600.0,
            message_type: STATUS.to_owned(),
            created_at: self.runtime.http.now(),
            ..Metadata::default()
        };
        let (message, tree) = pack.message(&mut metadata, &packed);
        let request = RuntimePush { messages: vec![message], trees: vec![tree] };
        let abort = || self.stopped();
        let scope = Scope { abort: &abort, counter: &self.other };
        let pushed: RuntimePushed = self.runtime.call("push-messages", &request, scope)?;
        self.runtime.push_objects(
            &Push { node: SUPERLINK, run, session: &pushed.session },
            &pack,
            &pushed.wanted,
            scope,
        )?;
        Ok(metadata.message_id)
    }

    /// Reads the answer to a status query, and sends an order again that the site does not have.
    fn status(&self, site: &str, message: &Message, metadata: &Metadata) {
        let (place, pem) = {
            let table = lock(&self.table);
            let (Some(call), Some(entry)) = (table.calls.get(site), table.sites.get(site)) else { return };
            (self.place(call.number, &call.digest), entry.public_pem.clone())
        };
        if message.error.is_some() {
            return; // Asked again after a while.
        }
        let until = Instant::now() + STATUS_PATIENCE;
        let abort = || self.stopped() || Instant::now() > until;
        let run = self.run.load(Ordering::Relaxed);
        let pull = |id: &_, abort: crate::parallel::Abort<'_>| {
            self.runtime.pull_object(SUPERLINK, run, id, Scope { abort, counter: &self.other })
        };
        let fetcher = Fetcher { pull: &pull, prepare: &|_| (), threads: 1, limits: &self.runtime.http.limits };
        let Ok(mut received) = fetcher.content(&metadata.message_id, &abort) else { return };
        self.forget(metadata);
        let digest = received.packed.digest(RECORD);
        let reply_to = &metadata.reply_to_message_id;
        let status = match open_answer(&pem, &place, reply_to, &mut received.content, &digest) {
            Ok((status, _)) => status,
            Err(reason) => {
                let (site, number, reason) = (site.to_owned(), place.number, reason.to_owned());
                self.tell(Event::Forged { site, number, reason });
                return;
            }
        };
        debug_assert!(!matches!(received.content.get(RECORD), Some(Record::Config(_))));
        let (name, number) = (site.to_owned(), place.number);
        self.tell(Event::Status { site: name, number, status: status.name().to_owned() });
        let unknown = match lock(&self.table).calls.get_mut(site) {
            Some(call) if call.number == place.number => {
                call.heard = Instant::now();
                call.done = status == Status::Done;
                status == Status::Unknown && matches!(call.phase, Phase::Sent)
            }
            _ => false,
        };
        if unknown {
            self.send_again(site, "the site does not know it", Delay::None);
        }
    }
}
