//! Answers on their way: stored first, then pushed, and again if they are wanted again.

use std::sync::PoisonError;
use std::time::Duration;

use super::Shared;
use super::store::{StoredAnswer, StoredPush};
use crate::bundle::fold;
use crate::content::Content;
use crate::endpoint::{Push, Scope};
use crate::envelope::{Place, RECORD, Status, answer_record};
use crate::error::Error;
use crate::events::Event;
use crate::http::Counter;
use crate::pack::Pack;
use crate::parallel::lock;
use crate::wire::{self, FleetPush, FleetPushed, Metadata, Node, ObjectTree, SUPERLINK};

/// Flower's code for "the app raised an error".
const APP_RAISED: i64 = 2;
/// How often a push is taken up again.
const ATTEMPTS: usize = 5;

/// What is answered.
pub(super) struct Reply<'a> {
    pub(super) status: Status,
    pub(super) text: &'a str,
    pub(super) content: &'a Content,
    /// How long the work took.
    pub(super) time: Duration,
}

/// A message that is ready to go.
struct Packed {
    pack: Pack,
    message: wire::Message,
    tree: ObjectTree,
    metadata: Metadata,
    /// As much of the order's as its answer takes.
    order: Metadata,
}

/// Pushes stored answers that are wanted again, until the site stops; first of all, one whose push was interrupted.
pub(super) fn run(shared: &Shared) {
    if let Err(error) = shared.resume() {
        shared.trouble("resume the push of an answer", &error);
    }
    lock(&shared.table).end_push();
    loop {
        let (place, metadata) = {
            let mut table = lock(&shared.table);
            loop {
                if shared.stopped() {
                    return;
                }
                if let Some(wanted) = table.wanted.pop_front() {
                    table.pushing = Some(wanted.0.clone());
                    break wanted;
                }
                let waited = shared.changed.wait_timeout(table, Duration::from_millis(200));
                table = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        shared.tell(Event::AnsweredAgain { number: place.number });
        if let Err(error) = shared.answer_again(&place, &metadata) {
            shared.trouble("answer again", &error);
        }
        lock(&shared.table).end_push();
    }
}

impl Shared {
    fn answer_again(&self, place: &Place, metadata: &Metadata) -> Result<(), Error> {
        let _one = lock(&self.delivering);
        if self.store.last(&place.session).as_ref() != Some(place) {
            return Ok(()); // A later order has been answered meanwhile.
        }
        let Some(StoredAnswer { status, text, content, .. }) = self.store.load(&place.session)? else { return Ok(()) };
        let reply = Reply { status, text: &text, content: &content, time: Duration::ZERO };
        let packed = self.pack(metadata, self.now(), Some(place), &reply)?;
        let result = self.push(&packed, Some(place), None, Duration::ZERO, &self.other);
        // Not before: the server may still be pushing the order.
        self.confirm(metadata);
        result
    }

    /// Stores an order's answer and pushes it.
    pub(super) fn finish(&self, ticket: u64, reply: &Reply<'_>, counter: &Counter) -> Result<(), Error> {
        let place = lock(&self.table).working.get(&ticket).and_then(|working| working.place.clone());
        let _one = lock(&self.delivering);
        if let Some(place) = &place {
            self.store.save(place, reply.status, reply.text, reply.content)?;
        }
        // The newest message, as of now: later ones are answered from the store.
        let metadata = {
            let mut table = lock(&self.table);
            let Some(working) = table.working.remove(&ticket) else { return Ok(()) };
            table.pushing.clone_from(&place);
            working.newest
        };
        let packed = self.pack(&metadata, self.now(), place.as_ref(), reply);
        let result = packed.and_then(|packed| self.push(&packed, place.as_ref(), None, reply.time, counter));
        lock(&self.table).end_push();
        match result {
            Err(error @ Error::File { .. }) => Err(error),
            // It is stored, so it is not lost.
            Err(error) => {
                self.trouble("push an answer", &error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Pushes an answer that is not stored.
    pub(super) fn deliver(
        &self,
        order: &Metadata,
        place: Option<&Place>,
        status: Status,
        text: &str,
    ) -> Result<(), Error> {
        let reply = Reply { status, text, content: &Content::new(), time: Duration::ZERO };
        let packed = self.pack(order, self.now(), place, &reply)?;
        self.push(&packed, None, None, Duration::ZERO, &self.other)
    }

    fn now(&self) -> f64 {
        self.fleet.http.now()
    }

    /// Goes on with a push that an earlier process of this site began.
    fn resume(&self) -> Result<(), Error> {
        let _one = lock(&self.delivering);
        let Some(push) = self.store.push()? else { return Ok(()) };
        let Some((order, place)) = push.order.as_ref().and_then(|order| Some((order, Place::of(order)?))) else {
            return self.store.end_push();
        };
        if self.store.last(&place.session).as_ref() != Some(&place) || push.node != self.node() {
            return self.store.end_push();
        }
        let Some(stored) = self.store.load(&place.session)? else { return self.store.end_push() };
        let reply = Reply { status: stored.status, text: &stored.text, content: &stored.content, time: Duration::ZERO };
        let packed = self.pack(order, push.created_at, Some(&place), &reply)?;
        self.tell(Event::PushResumed { number: place.number });
        self.push(&packed, Some(&place), Some(&push), Duration::ZERO, &self.other)
    }

    /// Makes the message of an answer. The same order, time and content give the same message.
    fn pack(
        &self,
        order: &Metadata,
        created_at: f64,
        place: Option<&Place>,
        reply: &Reply<'_>,
    ) -> Result<Packed, Error> {
        let Reply { status, text, content, .. } = *reply;
        let mut pack = Pack::default();
        let mut metadata = Metadata {
            run_id: order.run_id,
            message_id: String::new(),
            src_node_id: self.node(),
            dst_node_id: SUPERLINK,
            reply_to_message_id: order.message_id.clone(),
            group_id: order.group_id.clone(),
            ttl: order.created_at + order.ttl - created_at,
            message_type: order.message_type.clone(),
            created_at,
        };
        let (message, tree) = match place {
            Some(place) => {
                let mut packed = pack.content(&fold(content))?;
                let digest = packed.digest(RECORD);
                let identity = &self.options.identity;
                let record = answer_record(identity, place, &order.message_id, status, text, &digest)?;
                packed.records.extend(pack.content(&Content::from([(RECORD.to_owned(), record)]))?.records);
                pack.message(&mut metadata, &packed)
            }
            None if status == Status::Answer => {
                let packed = pack.content(content)?;
                pack.message(&mut metadata, &packed)
            }
            None => pack.failure(&mut metadata, APP_RAISED, text),
        };
        let order = Metadata {
            run_id: order.run_id,
            message_id: order.message_id.clone(),
            group_id: order.group_id.clone(),
            ttl: order.ttl,
            message_type: order.message_type.clone(),
            created_at: order.created_at,
            ..Metadata::default()
        };
        Ok(Packed { pack, message, tree, metadata, order })
    }

    /// Pushes a message. `place`: it is a stored answer, and its push can be resumed. `begun`: an interrupted push of it.
    fn push(
        &self,
        packed: &Packed,
        place: Option<&Place>,
        begun: Option<&StoredPush>,
        time: Duration,
        counter: &Counter,
    ) -> Result<(), Error> {
        let result = self.push_all(packed, place, begun, time, counter);
        let over = match &result {
            // The run is over, or the SuperLink has forgotten it: the answer is not wanted.
            Err(Error::Refused { .. }) => true,
            Err(_) => false,
            Ok(_) => true,
        };
        if over && place.is_some() {
            self.store.end_push()?;
        }
        match result {
            Ok(true) => Ok(()),
            Err(error @ Error::Refused { .. }) if error.is_unauthorised() => {
                self.join_again(packed.metadata.src_node_id);
                Err(error)
            }
            Ok(false) | Err(Error::Refused { .. }) => {
                self.tell(Event::AnswerNotWanted { number: place.map(|place| place.number) });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the SuperLink has taken it.
    fn push_all(
        &self,
        packed: &Packed,
        place: Option<&Place>,
        begun: Option<&StoredPush>,
        time: Duration,
        counter: &Counter,
    ) -> Result<bool, Error> {
        let Packed { pack, message, tree, metadata, order } = packed;
        let abort = || self.stopped();
        let scope = Scope { abort: &abort, counter };
        let node = metadata.src_node_id;
        let request = FleetPush {
            node: Some(Node { node_id: node }),
            messages: vec![message.clone()],
            trees: vec![tree.clone()],
            seconds: vec![time.as_secs_f64()],
        };
        let mut pushed = match begun {
            Some(begun) => FleetPushed { wanted: begun.wanted.clone(), session: begun.push_session.clone() },
            None => {
                let pushed: FleetPushed = self.fleet.call("push-messages", &request, scope)?;
                // A message that is new and not wanted was refused.
                if !pushed.wanted.contains(&metadata.message_id) {
                    return Ok(false);
                }
                pushed
            }
        };
        for _ in 0..ATTEMPTS {
            if place.is_some() {
                self.store.begin_push(&StoredPush {
                    order: Some(order.clone()),
                    created_at: metadata.created_at,
                    node,
                    push_session: pushed.session.clone(),
                    wanted: pushed.wanted.clone(),
                })?;
            }
            let to = Push { node, run: metadata.run_id, session: &pushed.session };
            if self.fleet.push_objects(&to, pack, &pushed.wanted, scope)?.is_empty() {
                return Ok(true);
            }
            // Refused are objects that are there already and those of a session that is over. The same message again tells
            // which are missing; none, if the server has taken the answer meanwhile.
            pushed = self.fleet.call("push-messages", &request, scope)?;
            if pushed.wanted.is_empty() {
                return Ok(true);
            }
        }
        Err(Error::protocol("push-object", "the SuperLink does not take the answer's objects"))
    }
}
