//! The sending thread: gathers orders and sends them together, so that what they share is stored and sent once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::number::Numbered;
use super::{KeptIds, Peer, Phase, Request, Shared};
use crate::bundle::fold;
use crate::content::{Content, Record, Value};
use crate::endpoint::{Push, Scope};
use crate::envelope::{OrderNote, RECORD};
use crate::error::Error;
use crate::events::Event;
use crate::hex;
use crate::http::Counter;
use crate::object::ObjectId;
use crate::pack::Pack;
use crate::parallel::{self, lock};
use crate::wire::{Message, Metadata, ObjectTree, RuntimePush, RuntimePushed, SUPERLINK};
use indexmap::IndexMap;

/// An order on its way out.
pub(super) struct Outgoing {
    pub(super) site: String,
    /// The call's id.
    pub(super) call: u64,
    pub(super) peer: Peer,
    pub(super) node: u64,
    pub(super) request: Arc<Request>,
    /// 0 if it was never sent.
    pub(super) number: u64,
    /// Arrays that the site has.
    pub(super) known: KeptIds,
    pub(super) counter: Arc<Counter>,
}

/// A message that is ready to go.
struct Packed {
    message: Message,
    tree: ObjectTree,
    id: String,
}

/// Sends orders until the server stops.
pub(super) fn run(shared: &Shared) {
    while let Some(batch) = shared.next_batch() {
        let run = shared.run.load(Ordering::Relaxed);
        if let Err(error) = shared.send(run, &batch) {
            if shared.stopped() {
                return;
            }
            match &error {
                Error::Unreachable { .. } => {
                    shared.fail_all(error);
                    continue;
                }
                error if error.is_unauthorised() => shared.renew_or_fail(run),
                error => shared.trouble("send orders", error),
            }
            shared.requeue(&batch);
        }
    }
}

impl Shared {
    /// Waits for orders that can be sent, and then a moment for more. `None`: the server stops.
    fn next_batch(&self) -> Option<Vec<Outgoing>> {
        let mut table = lock(&self.table);
        loop {
            if self.stopped() {
                return None;
            }
            let now = Instant::now();
            let ready = |site: &str, call: &super::Call| {
                matches!(call.phase, Phase::Queued)
                    && call.not_before <= now
                    && table.sites.get(site).is_some_and(|entry| entry.node.is_some())
            };
            if table.ended.is_none() && table.calls.iter().any(|(site, call)| ready(site, call)) {
                break;
            }
            let waited = self.changed.wait_timeout(table, Duration::from_millis(100));
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(table);
        parallel::pause(self.options.policy.window, &|| self.stopped());
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        let now = Instant::now();
        let mut batch = Vec::new();
        for (site, call) in &mut table.calls {
            let Some(entry) = table.sites.get(site) else { continue };
            let Some(node) = entry.node else { continue };
            if !matches!(call.phase, Phase::Queued) || call.not_before > now {
                continue;
            }
            call.phase = Phase::Sending;
            batch.push(Outgoing {
                site: site.clone(),
                call: call.id,
                peer: entry.peer.clone(),
                node,
                request: Arc::clone(&call.request),
                number: call.number,
                known: if call.whole { KeptIds::new() } else { entry.kept.clone() },
                counter: Arc::clone(&call.counter),
            });
        }
        Some(batch)
    }

    fn requeue(&self, batch: &[Outgoing]) {
        let mut table = lock(&self.table);
        for outgoing in batch {
            if let Some(call) = table.call(&outgoing.site, outgoing.call)
                && matches!(call.phase, Phase::Sending)
            {
                let delay = call.backoff();
                call.again(delay);
            }
        }
    }

    fn send(&self, run: u64, batch: &[Outgoing]) -> Result<(), Error> {
        let mut pack = Pack::default();
        let batch = self.number(batch, &mut pack)?;
        let mut messages = Vec::with_capacity(batch.len());
        for numbered in &batch {
            messages.push(self.pack(run, numbered, &mut pack)?);
        }
        if messages.is_empty() {
            return Ok(());
        }
        let abort = || self.stopped();
        let scope = |counter| Scope { abort: &abort, counter };
        let first = scope(&*batch[0].outgoing.counter);
        let mut pushed: RuntimePushed = self.runtime.call("push-messages", &push_request(messages.iter()), first)?;
        self.register(&batch, &messages, &pushed.message_ids);
        for attempt in 0.. {
            let mut wanted: BTreeSet<String> = std::mem::take(&mut pushed.wanted).into_iter().collect();
            let to = Push { node: SUPERLINK, run, session: &pushed.session };
            let mut refused = 0;
            for (Numbered { outgoing, .. }, packed) in batch.iter().zip(&messages) {
                let mut ids = Vec::new();
                take_wanted(&packed.tree, &mut wanted, &mut ids);
                refused += self.runtime.push_objects(&to, &pack, &ids, scope(&*outgoing.counter))?.len();
            }
            // Refused are objects that are there already, since an answer was lost, and those of a session that is over.
            // The same messages again tell which are missing; not those that have been answered meanwhile, which the
            // SuperLink would hand out once more.
            let open: Vec<&Packed> =
                batch.iter().zip(&messages).filter(|(n, m)| self.is_open(n, m)).map(|pair| pair.1).collect();
            if refused == 0 || open.is_empty() {
                break;
            }
            if attempt == 4 {
                return Err(Error::protocol("push-object", "the SuperLink does not take the order's objects"));
            }
            pushed = self.runtime.call("push-messages", &push_request(open.into_iter()), first)?;
        }
        self.sent(&batch, &messages)
    }

    /// Whether a message may still be answered.
    fn is_open(&self, numbered: &Numbered<'_>, packed: &Packed) -> bool {
        let Outgoing { site, call, .. } = numbered.outgoing;
        lock(&self.table).call(site, *call).is_some_and(|call| call.messages.contains(&packed.id))
    }

    /// Makes the message of an order.
    fn pack(&self, run: u64, numbered: &Numbered<'_>, pack: &mut Pack) -> Result<Packed, Error> {
        let Numbered { outgoing, place } = numbered;
        let request = &outgoing.request;
        let (content, group) = match &outgoing.peer {
            Peer::Flower(_) => {
                let nonce = IndexMap::from([("nonce".to_owned(), Value::Text(hex::random()?))]);
                let mut content = request.content.clone();
                content.insert(RECORD.to_owned(), Record::Config(nonce));
                (content, request.key.clone())
            }
            Peer::Fedplug(_) => {
                let mut note = OrderNote { key: request.key.clone(), keep: request.keep, kept: Vec::new() };
                let mut content = note.leave_out(&request.content, &outgoing.known, pack);
                content.insert(RECORD.to_owned(), note.to_record()?);
                (fold(&content), place.group())
            }
        };
        let arrays = array_ids(&request.content, pack);
        if let Some(call) = lock(&self.table).call(&outgoing.site, outgoing.call) {
            call.arrays = arrays;
        }
        let packed = pack.content(&content)?;
        let mut metadata = Metadata {
            run_id: run,
            src_node_id: SUPERLINK,
            dst_node_id: outgoing.node,
            group_id: group,
            ttl: self.options.policy.ttl.as_secs_f64(),
            message_type: request.kind.clone(),
            created_at: self.runtime.http.now(),
            ..Metadata::default()
        };
        let (message, tree) = pack.message(&mut metadata, &packed);
        Ok(Packed { message, tree, id: metadata.message_id })
    }

    /// After push-messages: from now on there may be answers.
    fn register(&self, batch: &[Numbered<'_>], messages: &[Packed], accepted: &[String]) {
        let mut table = lock(&self.table);
        for (index, (Numbered { outgoing, .. }, packed)) in batch.iter().zip(messages).enumerate() {
            let taken = accepted.get(index).is_some_and(|id| *id == packed.id);
            let Some(call) = table.call(&outgoing.site, outgoing.call) else { continue };
            if taken {
                call.sends += 1;
                call.messages.push(packed.id.clone());
            } else {
                // Its node was unregistered since it was last seen.
                let delay = call.backoff();
                call.again(delay);
                if let Some(entry) = table.sites.get_mut(&outgoing.site) {
                    entry.node = None;
                    entry.away_since = Instant::now();
                }
            }
        }
    }

    /// After all objects are pushed.
    fn sent(&self, batch: &[Numbered<'_>], messages: &[Packed]) -> Result<(), Error> {
        let mut table = lock(&self.table);
        let mut sent: BTreeMap<&String, (u64, &String)> = BTreeMap::new();
        for (Numbered { outgoing, place }, packed) in batch.iter().zip(messages) {
            let Some(call) = table.call(&outgoing.site, outgoing.call) else { continue };
            if matches!(call.phase, Phase::Sending) {
                call.phase = Phase::Sent;
                call.heard = Instant::now();
            }
            if call.messages.contains(&packed.id) {
                sent.insert(&outgoing.site, (place.number, &packed.id));
            }
        }
        drop(table);
        self.changed.notify_all();
        self.state.change(|state| {
            for (site, (number, id)) in &sent {
                if let Some(order) = state.sites.get_mut(*site).filter(|order| order.number == *number) {
                    order.messages.push((*id).clone());
                    // One of the last is answered, if any.
                    let old = order.messages.len().saturating_sub(8);
                    order.messages.drain(..old);
                }
            }
        })?;
        for Numbered { outgoing, place } in batch.iter().filter(|numbered| sent.contains_key(&numbered.outgoing.site)) {
            self.tell(Event::Sent { site: outgoing.site.clone(), number: place.number });
        }
        Ok(())
    }
}

fn push_request<'a>(messages: impl Iterator<Item = &'a Packed>) -> RuntimePush {
    let (messages, trees) = messages.map(|packed| (packed.message.clone(), packed.tree.clone())).unzip();
    RuntimePush { messages, trees }
}

/// Moves the ids of a tree that are wanted from `wanted` to `ids`, children first.
fn take_wanted(tree: &ObjectTree, wanted: &mut BTreeSet<String>, ids: &mut Vec<String>) {
    for child in &tree.children {
        take_wanted(child, wanted, ids);
    }
    if wanted.remove(&tree.object_id) {
        ids.push(tree.object_id.clone());
    }
}

fn array_ids(content: &Content, pack: &mut Pack) -> Vec<ObjectId> {
    let arrays = content.values().filter_map(|record| match record {
        Record::Arrays(arrays) => Some(arrays.values()),
        _ => None,
    });
    arrays.flatten().map(|array| pack.array(array)).collect()
}
