//! What the aggregator asks and the filters answer. The small part of a question stands under the key `secure` of the
//! message's values; bytes are tensors beside it, so that no number passes through decimal text.

use plugin_api::{Error, Message, Result, Tensor};
use serde::{Deserialize, Serialize};

/// The key of the message's values under which a question stands.
const KEY: &str = "secure";

/// The one tensor of a question or an answer.
const BYTES: &str = "bytes";

/// The tensor with [`Grid::clip`](crate::fixed::Grid), which has to be the same bits at all clients.
const CLIP: &str = "clip";

/// What both sides note where masks come from the seed.
pub(crate) const NO_PROTECTION: &str =
    "the masks come from the experiment's seed (`reproducible = true`): they are no protection";

/// The value of an answer with keys that come from the seed.
const REPRODUCIBLE: &str = "reproducible";

/// What the aggregator asks. A client is spoken of by its place in the list of members, counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Question {
    /// Your public keys? The answer is `[2, 32]`: the one to seal shares with, the one for masks.
    Keys,
    /// Your shares for the members, whose public keys are `[members, 64]`? The answer is `[members, 80]`, sealed, with
    /// zeros in the client's own row.
    Shares { members: Vec<String>, terms: Terms },
    /// Keep these shares, `[senders, 80]`; those who sent them are masked with. The answer holds nothing.
    Keep { senders: Vec<usize> },
    /// The updates of these arrived. The answer is `[senders, 32]`: for each sender the share of its seed if its update
    /// arrived, else the share of its secret.
    Unmask { arrived: Vec<usize> },
}

/// What holds for a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// How many clients it takes to unmask.
    pub(crate) threshold: usize,
    /// Bits of a fixed-point number.
    pub(crate) bits: u32,
}

impl Terms {
    /// The number of members, if the threshold suits it: more than a half, so that two groups without a common client
    /// can never both unmask, and not more than there are.
    pub(crate) fn check(self, members: usize) -> Result<u8> {
        let least = members / 2 + 1;
        if !(least..=members).contains(&self.threshold) {
            let message = format!("{} of {members} clients cannot be the least that unmask", self.threshold);
            return Err(Error::config(message).help(format!("from {least} to {members} are possible")));
        }
        u8::try_from(members).map_err(|_| Error::config(format!("{members} clients are more than 255")))
    }
}

impl Question {
    /// The message to send.
    pub(crate) fn message(&self) -> Result<Message> {
        let mut message = Message::default();
        let value = serde_json::to_value(self).map_err(|e| Error::other("a question cannot be written").because(&e))?;
        message.values.insert(KEY.to_owned(), value);
        Ok(message)
    }

    /// The question of a message, if it is one of these.
    ///
    /// # Errors
    /// If it is one, but cannot be understood.
    pub(crate) fn of(message: &Message) -> Result<Option<Self>> {
        let read = |value: &serde_json::Value| serde_json::from_value(value.clone());
        message
            .values
            .get(KEY)
            .map(read)
            .transpose()
            .map_err(|e| Error::other("the question is not one of this version of secure aggregation").because(&e))
    }
}

/// Adds rows of bytes.
pub(crate) fn with_rows<const N: usize>(mut message: Message, rows: &[[u8; N]]) -> Result<Message> {
    message.extra.insert(BYTES, Tensor::from_slice(&[rows.len(), N], rows.as_flattened())?);
    Ok(message)
}

/// So many rows of bytes.
///
/// # Errors
/// If there are others.
pub(crate) fn rows<const N: usize>(message: &Message, count: usize) -> Result<&[[u8; N]]> {
    Ok(message.extra.elements::<u8>(BYTES, &[count, N])?.as_chunks().0)
}

/// Adds the largest absolute value of the grid.
pub(crate) fn with_clip(mut message: Message, clip: f64) -> Message {
    message.extra.insert(CLIP, Tensor::build(&[], |one| one[0] = clip));
    message
}

/// The largest absolute value of the grid.
pub(crate) fn clip(message: &Message) -> Result<f64> {
    Ok(message.extra.elements::<f64>(CLIP, &[])?[0])
}

/// Says that a client's keys come from the experiment's seed.
pub(crate) fn mark_reproducible(message: &mut Message) {
    message.values.insert(REPRODUCIBLE.to_owned(), true.into());
}

/// Whether a client's keys come from the experiment's seed.
pub(crate) fn is_reproducible(message: &Message) -> bool {
    message.values.contains_key(REPRODUCIBLE)
}
