//! Fetches an order, in the caller's thread.

use std::collections::{BTreeMap, BTreeSet};

use super::Shared;
use crate::bundle::unfold;
use crate::content::Content;
use crate::endpoint::Scope;
use crate::envelope::{OrderNote, Place, RECORD, Status};
use crate::error::Error;
use crate::http::Counter;
use crate::pack::Pack;
use crate::parallel::{Abort, lock};
use crate::unpack::{FetchError, Fetcher, Received};
use crate::wire::Metadata;

/// An order's content, and what it says of itself. Foreign orders have no note.
pub(super) struct Fetched {
    pub(super) metadata: Metadata,
    pub(super) content: Content,
    pub(super) note: Option<OrderNote>,
}

impl Shared {
    /// Fetches an order, from the newest message that brings it. `None`: there is nothing to do.
    pub(super) fn fetch(&self, ticket: u64, counter: &Counter) -> Option<Fetched> {
        loop {
            let (metadata, place) = {
                let table = lock(&self.table);
                let working = table.working.get(&ticket)?;
                (working.newest.clone(), working.place.clone())
            };
            let superseded = || {
                let table = lock(&self.table);
                table.working.get(&ticket).is_none_or(|working| working.newest.message_id != metadata.message_id)
            };
            let abort = || self.stopped() || superseded();
            let pull = |id: &_, abort: Abort<'_>| {
                self.fleet.pull_object(self.node(), metadata.run_id, id, Scope { abort, counter })
            };
            let http = &self.fleet.http;
            let prepare = |values: &Content| self.release_kept(place.as_ref(), values);
            let fetcher = Fetcher { pull: &pull, prepare: &prepare, threads: http.transfers, limits: &http.limits };
            let result = fetcher.content(&metadata.message_id, &abort);
            if self.stopped() {
                return None;
            }
            match result {
                Ok(received) => {
                    self.confirm(&metadata);
                    return self.open(metadata, place, received);
                }
                // The server has sent the order again.
                Err(_) if superseded() => {}
                Err(FetchError::Gone) => {
                    self.drop_message(&metadata, "it was not pushed to the end");
                    return None;
                }
                Err(FetchError::Failed(error @ Error::Protocol { .. })) => {
                    self.confirm(&metadata);
                    self.reply(
                        &metadata,
                        place.as_ref(),
                        Status::Failed,
                        &format!("the order cannot be read: {error}"),
                    );
                    return None;
                }
                Err(FetchError::Failed(error)) => {
                    if error.is_unauthorised() {
                        self.join_again(self.node());
                    }
                    self.trouble("fetch an order", &error);
                    return None;
                }
            }
        }
    }

    /// Before an order that replaces the kept arrays is fetched, frees those that it does not need: else the last global
    /// model would lie beside the next one.
    fn release_kept(&self, place: Option<&Place>, values: &Content) {
        let record = values.get(RECORD).map(|record| (RECORD.to_owned(), record.clone()));
        let note = OrderNote::take(&mut record.into_iter().collect());
        let (Some(place), Ok(note)) = (place, note) else { return };
        let Ok(ids) = note.kept_ids() else { return };
        let mut kept = lock(&self.kept);
        if note.keep {
            let (same, ids) = (kept.0 == place.session, BTreeSet::from_iter(ids));
            kept.1.retain(|id, _| same && ids.contains(id));
        }
    }

    /// Reads what the order says of itself and fills in what was left out.
    fn open(&self, metadata: Metadata, place: Option<Place>, received: Received) -> Option<Fetched> {
        let Received { mut content, arrays, .. } = received;
        let Some(place) = place else { return Some(Fetched { metadata, content, note: None }) };
        let unfolded = unfold(&mut content, &self.fleet.http.limits);
        let opened = unfolded.and_then(|unfolded| {
            let note = OrderNote::take(&mut content)?;
            let mut kept = lock(&self.kept);
            let none = BTreeMap::new();
            let have = if kept.0 == place.session { &kept.1 } else { &none };
            if note.fill_in(&mut content, have)?.is_none() {
                return Ok(None);
            }
            if note.keep {
                let ids = note.kept_ids()?;
                let mut next: BTreeMap<_, _> = arrays.into_iter().collect();
                let mut pack = Pack::default();
                next.extend(unfolded.into_iter().map(|array| (pack.array(&array), array)));
                next.extend(ids.into_iter().filter_map(|id| Some((id, have.get(&id)?.clone()))));
                *kept = (place.session.clone(), next);
            }
            Ok(Some(note))
        });
        match opened {
            Ok(Some(note)) => Some(Fetched { metadata, content, note: Some(note) }),
            Ok(None) => {
                self.reply(&metadata, Some(&place), Status::Lacks, "");
                None
            }
            Err(error) => {
                self.reply(&metadata, Some(&place), Status::Failed, &format!("the order cannot be read: {error}"));
                None
            }
        }
    }

    /// An answer without content.
    fn reply(&self, metadata: &Metadata, place: Option<&Place>, status: Status, text: &str) {
        if let Err(error) = self.deliver(metadata, place, status, text) {
            self.trouble("answer", &error);
        }
    }
}
