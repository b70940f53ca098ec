//! The pulling thread: takes messages from the SuperLink as they come, also while an order is worked on.

use std::time::{Duration, Instant};

use super::{Shared, SiteOptions};
use crate::endpoint::Scope;
use crate::envelope::{Place, STATUS, Status};
use crate::error::Error;
use crate::events::Event;
use crate::parallel::{self, lock};
use crate::wire::{FleetPull, FleetPulled, Message, Metadata, Node, SUPERLINK};

/// Orders that may wait. More are dropped; the server asks again.
const WAITING: usize = 64;
/// A site pauses for one part in so many of the time that it has waited.
const LATE: u32 = 20;

/// Pulls until the site stops.
pub(super) fn run(shared: &Shared) {
    while !shared.stopped() {
        let node = shared.node();
        let pause = match shared.pull(node) {
            Ok(Some(message)) => {
                shared.arrived(message);
                Duration::ZERO
            }
            Ok(None) => pace(lock(&shared.table).active.elapsed(), &shared.options),
            Err(error) if error.is_unauthorised() => {
                shared.join_again(node);
                Duration::ZERO
            }
            Err(Error::Stopped) => return,
            Err(error) => {
                shared.trouble("pull", &error);
                Duration::from_secs(2)
            }
        };
        parallel::pause(pause, &|| shared.stopped());
    }
}

/// How long to pause when nothing has come or gone for some time. A SuperLink answers one request after the other, so a hundred
/// sites that wait for each other must not ask several times a second.
fn pace(idle: Duration, options: &SiteOptions) -> Duration {
    (idle / LATE).max(options.poll).min(options.idle_poll)
}

impl Shared {
    fn pull(&self, node: u64) -> Result<Option<Message>, Error> {
        let abort = || self.stopped();
        let scope = Scope { abort: &abort, counter: &self.other };
        let pulled: FleetPulled =
            self.fleet.call("pull-messages", &FleetPull { node: Some(Node { node_id: node }) }, scope)?;
        Ok(pulled.messages.into_iter().next())
    }

    fn arrived(&self, message: Message) {
        let Some(metadata) = message.metadata else { return };
        lock(&self.table).active = Instant::now();
        if metadata.src_node_id != SUPERLINK || message.error.is_some() {
            self.drop_message(&metadata, "it is no order");
        } else if metadata.message_type == STATUS {
            self.answer_status(&metadata);
        } else if let Some(place) = Place::of(&metadata) {
            self.order(place, metadata);
        } else {
            self.enqueue(metadata);
        }
    }

    /// Decides what to do with an order, by its number.
    fn order(&self, place: Place, metadata: Metadata) {
        let answered = self.store.last(&place.session);
        let mut table = lock(&self.table);
        let same = table.working.values_mut().find(|working| working.place.as_ref() == Some(&place));
        if let Some(working) = same {
            // Being fetched or worked on: this is the message to answer.
            let old = std::mem::replace(&mut working.newest, metadata);
            drop(table);
            self.confirm(&old);
        } else if let Some(waiting) =
            table.pending.iter_mut().find(|waiting| Place::of(waiting).as_ref() == Some(&place))
        {
            let old = std::mem::replace(waiting, metadata);
            drop(table);
            self.confirm(&old);
        } else if answered.as_ref() == Some(&place) {
            // An older message with the same order has expired, or its answer was lost.
            table.wanted.retain(|(wanted, _)| *wanted != place);
            table.wanted.push_back((place, metadata));
            drop(table);
            self.changed.notify_all();
        } else if answered.is_some_and(|answered| answered.number >= place.number) {
            drop(table);
            let reason = "the site has answered another order of this number or a later one: is the server's state folder an old copy?";
            if let Err(error) = self.deliver(&metadata, Some(&place), Status::Failed, reason) {
                self.trouble("answer an old order", &error);
            }
            self.drop_message(&metadata, "a later order has been answered");
        } else {
            drop(table);
            self.enqueue(metadata);
        }
    }

    fn enqueue(&self, metadata: Metadata) {
        let mut table = lock(&self.table);
        if table.pending.len() >= WAITING {
            drop(table);
            self.drop_message(&metadata, "too many orders are waiting");
            return;
        }
        table.pending.push_back(metadata);
        drop(table);
        self.changed.notify_all();
    }

    /// Says what the site does about an order. The query has no content to be fetched.
    fn answer_status(&self, metadata: &Metadata) {
        let Some(place) = Place::of(metadata) else { return self.drop_message(metadata, "a query without an order") };
        let status = self.status(&place);
        if let Err(error) = self.deliver(metadata, Some(&place), status, "") {
            self.trouble("answer a status query", &error);
        }
        self.confirm(metadata);
    }

    fn status(&self, place: &Place) -> Status {
        let table = lock(&self.table);
        let is = |other: Option<&Place>| other == Some(place);
        if table.working.values().any(|working| is(working.place.as_ref()))
            || table.pending.iter().any(|waiting| is(Place::of(waiting).as_ref()))
        {
            Status::Working
        } else if is(table.pushing.as_ref()) || table.wanted.iter().any(|(wanted, _)| is(Some(wanted))) {
            Status::Pushing
        } else if self.store.last(&place.session).as_ref() == Some(place) {
            Status::Done
        } else {
            Status::Unknown
        }
    }

    pub(super) fn drop_message(&self, metadata: &Metadata, reason: &str) {
        self.tell(Event::Dropped { reason: reason.to_owned() });
        self.confirm(metadata);
    }

    /// Has the SuperLink delete a message.
    pub(super) fn confirm(&self, metadata: &Metadata) {
        let abort = || self.stopped();
        let scope = Scope { abort: &abort, counter: &self.other };
        match self.fleet.confirm(self.node(), metadata.run_id, &metadata.message_id, scope) {
            // The run is over.
            Ok(()) | Err(Error::Stopped | Error::Refused { .. }) => {}
            Err(error) => self.trouble("confirm a message", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_asks_less_often_the_longer_it_waits() {
        let connection = crate::Connection::new("http://127.0.0.1:9092");
        let options = SiteOptions::new(connection, crate::Identity::generate().unwrap(), "state");
        for (idle, pause) in
            [(0, 200), (3_900, 200), (20_000, 1_000), (60_000, 3_000), (120_000, 5_000), (900_000, 5_000)]
        {
            let [idle, pause] = [idle, pause].map(Duration::from_millis);
            assert_eq!(pace(idle, &options), pause, "{idle:?}");
        }
    }
}
