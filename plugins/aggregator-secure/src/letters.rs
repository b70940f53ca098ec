//! What the aggregator asks and the filters answer. The small part of a question stands under the key `secure` of the
//! message's values; bytes are tensors beside it.

use plugin_api::{Error, Message, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::terms::Terms;

/// The key of the message's values under which a question stands.
const KEY: &str = "secure";

/// The tensor of a question's or an answer's bytes.
const BYTES: &str = "bytes";

/// The tensor of the members' signatures.
const SIGNATURES: &str = "signatures";

/// What both sides note where masks come from the seed.
pub(crate) const NO_PROTECTION: &str =
    "the masks come from the experiment's seed (`reproducible = true`): they are no protection";

/// What an answer says of a client's keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// They come from the experiment's seed.
    Reproducible,
    /// The client signs them.
    Signed,
}

/// What the aggregator asks. A client is spoken of by its place in the list of members, counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Question {
    /// Your public keys? The answer is `[2, 32]`: the one to seal shares with, the one for masks.
    Keys,
    /// Where clients sign: your signature of these members, their public keys `[members, 64]` and these terms? The answer
    /// is `[1, 64]`.
    Sign { members: Vec<String>, terms: Terms },
    /// Your shares for the members, whose public keys are `[members, 64]`? The answer is `[members, 80]`, sealed, with
    /// zeros in the client's own row. Where clients sign, the signatures `[members, 64]` come with it, zeros for those who
    /// gave none; those get zeros as well.
    Shares { members: Vec<String>, terms: Terms },
    /// Keep these shares, `[senders, 80]`; those who sent them are masked with. The answer holds nothing.
    Keep { senders: Vec<usize> },
    /// Where clients sign: your signature that the updates of these arrived, and whether you trained? The answer is
    /// `[1, 65]`, the signature and 1 or 0.
    Agree { arrived: Vec<usize> },
    /// The updates of these arrived. The answer is `[senders, 32]`: for each sender the share of its seed if its update
    /// arrived, else the share of its secret. Where clients sign, what they answered to `Agree` comes with it, `[arrived,
    /// 65]`, zeros for those who gave nothing.
    Unmask { arrived: Vec<usize> },
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
pub(crate) fn with_rows<const N: usize>(message: Message, rows: &[[u8; N]]) -> Result<Message> {
    with(message, BYTES, rows)
}

/// Adds the members' signatures, or what they signed with them.
pub(crate) fn with_signatures<const N: usize>(message: Message, rows: &[[u8; N]]) -> Result<Message> {
    with(message, SIGNATURES, rows)
}

fn with<const N: usize>(mut message: Message, name: &str, rows: &[[u8; N]]) -> Result<Message> {
    message.extra.insert(name, Tensor::from_slice(&[rows.len(), N], rows.as_flattened())?);
    Ok(message)
}

/// So many rows of bytes.
///
/// # Errors
/// If there are others.
pub(crate) fn rows<const N: usize>(message: &Message, count: usize) -> Result<&[[u8; N]]> {
    Ok(message.extra.elements::<u8>(BYTES, &[count, N])?.as_chunks().0)
}

/// So many signatures.
///
/// # Errors
/// If there are others, or none.
pub(crate) fn signatures<const N: usize>(message: &Message, count: usize) -> Result<&[[u8; N]]> {
    Ok(message.extra.elements::<u8>(SIGNATURES, &[count, N])?.as_chunks().0)
}

impl Mark {
    fn key(self) -> &'static str {
        match self {
            Self::Reproducible => "reproducible",
            Self::Signed => "signed",
        }
    }

    /// Says it.
    pub(crate) fn set(self, message: &mut Message) {
        message.values.insert(self.key().to_owned(), true.into());
    }

    /// Whether it is said.
    pub(crate) fn is_on(self, message: &Message) -> bool {
        message.values.contains_key(self.key())
    }
}
