//! Numbers of orders.

use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::send::Outgoing;
use super::state::LastOrder;
use super::{Phase, Shared};
use crate::envelope::Place;
use crate::error::Error;
use crate::hex;
use crate::pack::Pack;
use crate::parallel::lock;

/// An order that is to be sent.
pub(super) struct Numbered<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) place: Place,
}

impl Shared {
    /// Gives each order its number, on disk before anything is sent. Leaves out orders that were sent by an earlier
    /// process of this server and may be answered.
    pub(super) fn number<'a>(&self, batch: &'a [Outgoing], pack: &mut Pack) -> Result<Vec<Numbered<'a>>, Error> {
        let mut digests = Vec::with_capacity(batch.len());
        for outgoing in batch {
            let request = &outgoing.request;
            let content = pack.content(&request.content)?.digest("");
            let digest = Sha256::new().chain_update(content).chain_update(&request.kind).chain_update([0]);
            digests.push(hex::encode(&digest.chain_update(&request.key).finalize()[..16]));
        }
        let orders = self.state.change(|state| {
            let orders = batch.iter().zip(&digests).map(|(outgoing, digest)| {
                let last = state.sites.get(&outgoing.site);
                let same = last.filter(|last| last.digest == *digest && outgoing.number == 0);
                if outgoing.number > 0 {
                    return (outgoing.number, Vec::new());
                }
                if let Some(last) = same {
                    return (last.number, last.messages.clone());
                }
                state.number += 1;
                let order = LastOrder { digest: digest.clone(), number: state.number, messages: Vec::new() };
                state.sites.insert(outgoing.site.clone(), order);
                (state.number, Vec::new())
            });
            orders.collect::<Vec<_>>()
        })?;
        let mut table = lock(&self.table);
        let mut left = Vec::with_capacity(batch.len());
        for ((outgoing, digest), (number, messages)) in batch.iter().zip(digests).zip(orders) {
            let Some(call) = table.call(&outgoing.site, outgoing.call) else { continue };
            (call.number, call.digest) = (number, digest.clone());
            if messages.is_empty() {
                left.push(Numbered { outgoing, place: self.place(number, &digest) });
            } else {
                call.messages = messages;
                call.phase = Phase::Sent;
                call.heard = Instant::now();
            }
        }
        drop(table);
        self.changed.notify_all();
        Ok(left)
    }
}
