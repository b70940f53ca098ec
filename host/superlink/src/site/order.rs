//! An order in the caller's hands.

use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::deliver::Reply;
use super::fetch::Fetched;
use crate::content::{self, Content};
use crate::envelope::{Place, Status};
use crate::error::Error;
use crate::http::{Counter, Traffic};
use crate::parallel::lock;

/// A piece of work. Answer it with one of [`answer`](Self::answer), [`refuse`](Self::refuse) and [`fail`](Self::fail). If it
/// is dropped instead, it is as if the site had never had it: the server sends it again.
pub struct Order {
    /// The run on the SuperLink.
    pub run: u64,
    /// The server's session: 128 random bits that stay the same over runs and restarts. `None`: a plain Flower order.
    pub session: Option<String>,
    /// The order's number, which grows within a session. `None`: a plain Flower order, which has none and may come twice.
    pub number: Option<u64>,
    /// Flower's message type, such as `train`.
    pub kind: String,
    /// The server's name for this work. Of a plain Flower order: the group, which is the round.
    pub key: String,
    /// What came with it.
    pub content: Content,
    shared: Arc<Shared>,
    ticket: u64,
    begun: Instant,
    counter: Counter,
}

impl Order {
    pub(super) fn fetch(shared: &Arc<Shared>, ticket: u64) -> Result<Option<Self>, Error> {
        let counter = Counter::default();
        let fetched = shared.fetch(ticket, &counter);
        let Some(Fetched { metadata, content, note }) = fetched else {
            lock(&shared.table).working.remove(&ticket);
            return Ok(None);
        };
        let place = Place::of(&metadata);
        Ok(Some(Self {
            run: metadata.run_id,
            session: place.as_ref().map(|place| place.session.clone()),
            number: place.as_ref().map(|place| place.number),
            kind: metadata.message_type,
            key: note.map_or(metadata.group_id, |note| note.key),
            content,
            shared: Arc::clone(shared),
            ticket,
            begun: Instant::now(),
            counter,
        }))
    }

    /// What has gone over the wire for the order so far.
    pub fn traffic(&self) -> Traffic {
        self.counter.get()
    }

    /// Whether the server has sent a later order: nobody waits for this one any more.
    pub fn is_superseded(&self) -> bool {
        let later = |place: Place| Some(&place.session) == self.session.as_ref() && Some(place.number) > self.number;
        lock(&self.shared.table).pending.iter().filter_map(Place::of).any(later)
    }

    /// The work is done. Returns when the SuperLink has the answer, or does not want it; then the server asks again, and gets
    /// it from the store. Frees the order's content first. Returns what went over the wire for order and answer.
    ///
    /// # Errors
    /// If the answer cannot be stored; or if it cannot be sent, since a metric is no number or a record has a reserved name, in
    /// which case the order has failed.
    pub fn answer(self, content: Content) -> Result<Traffic, Error> {
        self.finish(Status::Answer, "", content)
    }

    /// The site does not allow what is asked. `reason` is for the server's user.
    ///
    /// # Errors
    /// If the answer cannot be stored.
    pub fn refuse(self, reason: &str) -> Result<Traffic, Error> {
        self.finish(Status::Refused, reason, Content::new())
    }

    /// The work failed. `reason` is for the server's user.
    ///
    /// # Errors
    /// If the answer cannot be stored.
    pub fn fail(self, reason: &str) -> Result<Traffic, Error> {
        self.finish(Status::Failed, reason, Content::new())
    }

    fn finish(mut self, status: Status, text: &str, content: Content) -> Result<Traffic, Error> {
        self.content = Content::new();
        if let Err(reason) = content::check(&content) {
            let (text, none) = (format!("the answer cannot be sent: {reason}"), Content::new());
            let reply = Reply { status: Status::Failed, text: &text, content: &none, time: self.begun.elapsed() };
            self.shared.finish(self.ticket, &reply, &self.counter)?;
            return Err(Error::protocol("answer", reason));
        }
        let reply = Reply { status, text, content: &content, time: self.begun.elapsed() };
        self.shared.finish(self.ticket, &reply, &self.counter)?;
        Ok(self.counter.get())
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        lock(&self.shared.table).working.remove(&self.ticket);
    }
}
