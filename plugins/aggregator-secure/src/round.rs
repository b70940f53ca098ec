//! The aggregator's state of a round, and how the masks are removed.

use plugin_api::{Error, Message, Result, Update};

use crate::secrets::{Pair, Public};
use crate::shamir::Secret;
use crate::stream::{Sign, Stream};
use crate::terms::Terms;

/// A round at the server.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) global: Message,
    pub(crate) cohort: Vec<String>,
    pub(crate) terms: Terms,
    /// Whether the clients sign.
    pub(crate) signed: bool,
    /// The clients that sent their keys, with the keys. A client's position is its index here.
    pub(crate) members: Vec<(String, [Public; 2])>,
    /// The positions of the clients that dealt shares; each masks its update with all the others.
    pub(crate) senders: Vec<usize>,
    /// The positions of the clients whose updates were added.
    pub(crate) arrived: Vec<usize>,
    /// How many of these trained.
    pub(crate) trained: usize,
    /// The sum of updates and masks modulo 2³², by name, with the shapes.
    pub(crate) sum: Vec<(String, Vec<usize>, Vec<u32>)>,
}

impl Round {
    pub(crate) fn enough(&self, count: usize, did: &str) -> Result<()> {
        if count >= self.terms.threshold {
            return Ok(());
        }
        let (cohort, threshold) = (self.cohort.len(), self.terms.threshold);
        Err(Error::other(format!("only {count} of the round's {cohort} clients {did}, but {threshold} are needed"))
            .help("`threshold` says how many clients have to stay; see why the others failed"))
    }

    /// Checks that enough clients whose updates arrived trained: a sum over fewer reveals too much about each.
    pub(crate) fn enough_trained(&self) -> Result<()> {
        let (trained, minimum, cohort) = (self.trained, self.terms.minimum, self.cohort.len());
        if trained >= minimum {
            return Ok(());
        }
        Err(Error::other(format!(
            "only {trained} of the round's {cohort} clients trained and sent an update, but {minimum} are needed"
        ))
        .help("the sum stays masked; `minimum` of the aggregator and of the filters says how many are enough"))
    }

    /// The largest absolute value that a sum of the arrived updates can have.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number, and saturating")]
    pub(crate) fn largest_sum(&self) -> Result<u32> {
        let clients = self.arrived.len();
        let values = self.sum.iter().map(|(_, _, sum)| sum.len()).sum();
        Ok(match self.terms.plan(self.members.len())? {
            Some(plan) => plan.largest_sum(clients, values).ceil() as u32,
            None => self.terms.grid().largest_sum(clients).unwrap_or_default(),
        })
    }

    pub(crate) fn place(&self, client: &str) -> Result<usize> {
        let place = self.members.iter().position(|(name, _)| name == client);
        place.ok_or_else(|| Error::other(format!("client `{client}` has not sent its keys in this round")))
    }

    /// The masks in the sum that a client that dealt shares still accounts for, and how to remove them: if its update
    /// arrived, its own mask by its seed; otherwise the others' halves of the pairwise masks by its secret.
    pub(crate) fn masks_of(&self, sender: usize, secret: &Secret) -> Result<Vec<(Stream, Sign)>> {
        if self.arrived.contains(&sender) {
            return Ok(vec![(Stream::new(secret), Sign::Minus)]);
        }
        let pair = Pair::of(secret);
        let (name, [_, public]) = &self.members[sender];
        if pair.public != *public {
            return Err(of(name, Error::other("the shares are not of the secret of its public key")));
        }
        // The sign with which the dropped client would have added the mask, which removes the other client's half.
        let mask = |&place: &usize| {
            Ok((Stream::new(&pair.mask_key(&self.members[place].1[1])?), Sign::between(sender, place)))
        };
        self.arrived.iter().map(mask).collect()
    }

    /// Checks that an update has the summed parameters, each with the name and shape of one in the global model.
    pub(crate) fn check(&self, update: &Update) -> Result<()> {
        let client = &update.client;
        for (name, tensor) in update.message.params.iter() {
            tensor.elements::<i32>().map_err(|_| {
                Error::tensor(name, format!("client `{client}` sends {tensor:?}, which is not masked")).help(
                    "a `[[filter]]` table with `plugin = \"secure\"` belongs at `client-output`, after all others",
                )
            })?;
            let global = self.global.params.get(name);
            if global.is_none_or(|global| global.shape() != tensor.shape()) {
                let message =
                    format!("client `{client}` sends {:?}, not a parameter of the global model", tensor.shape());
                return Err(Error::tensor(name, message));
            }
        }
        if self.arrived.is_empty() {
            return Ok(());
        }
        let (sent, first) = (update.message.params.names(), self.sum.iter().map(|(name, _, _)| name.as_str()));
        if sent.eq(first) {
            return Ok(());
        }
        let (a, b) = (&self.members[self.arrived[0]].0, client);
        Err(Error::config(format!("client `{b}` sends other parameters than client `{a}`"))
            .help("all must send the same: `exclude-params` before the filter `secure` withholds private ones"))
    }
}

/// Adds the client's name to an error.
pub(crate) fn of(client: &str, error: Error) -> Error {
    Error::other(format!("client `{client}`: {error}"))
}
