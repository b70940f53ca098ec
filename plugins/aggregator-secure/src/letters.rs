//! The messages between the aggregator and the filters. The small part of a query is under the key `secure` of the
//! message's values; bytes travel as tensors beside it.

use plugin_api::{Error, Message, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::terms::Terms;

/// The key of the message's values that holds a query.
const KEY: &str = "secure";

/// The tensor with a query's or an answer's bytes.
const BYTES: &str = "bytes";

/// The tensor of the members' signatures.
const SIGNATURES: &str = "signatures";

/// What both sides report if masks come from the seed.
pub(crate) const NO_PROTECTION: &str =
    "no protection: the masks come from the experiment's seed (`reproducible = true`)";

/// A flag in an answer that describes a client's keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// They come from the experiment's seed.
    Reproducible,
    /// The client signs them.
    Signed,
}

/// The aggregator's queries. They refer to a client by its position in the list of members, counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(crate) enum Question {
    /// Asks for public keys. The answer is `[2, 32]`: the key to seal shares with, then the key for masks.
    Keys,
    /// If clients sign: asks for a signature of these members, their public keys `[members, 64]` and these terms. The
    /// answer is `[1, 64]`.
    Sign { members: Vec<String>, terms: Terms },
    /// Asks for shares for the members, whose public keys are `[members, 64]`. The answer is `[members, 80]`, sealed,
    /// with zeros in the client's own row. If clients sign, the query carries the signatures `[members, 64]`, with
    /// zeros for members that did not sign; their rows in the answer are zero too.
    Shares { members: Vec<String>, terms: Terms },
    /// Delivers shares to keep, `[senders, 80]`; updates are masked with these senders. The answer is empty.
    Keep { senders: Vec<usize> },
    /// If clients sign: asks for a signature that these updates arrived, and whether the client trained. The answer is
    /// `[1, 65]`, the signature and 1 or 0.
    Agree { arrived: Vec<usize> },
    /// These updates arrived; asks for shares. The answer is `[senders, 32]`: for each sender the share of its seed if
    /// its update arrived, otherwise the share of its secret. If clients sign, the query carries their answers to
    /// `Agree`, `[arrived, 65]`, with zeros for clients that gave none.
    Unmask { arrived: Vec<usize> },
}

impl Question {
    /// The message to send.
    pub(crate) fn message(&self) -> Result<Message> {
        let mut message = Message::default();
        let value =
            serde_json::to_value(self).map_err(|e| Error::other("the query cannot be serialised").because(&e))?;
        message.values.insert(KEY.to_owned(), value);
        Ok(message)
    }

    /// Reads the query of a message; `None` if it holds none.
    ///
    /// # Errors
    /// If the query cannot be parsed.
    pub(crate) fn of(message: &Message) -> Result<Option<Self>> {
        let read = |value: &serde_json::Value| serde_json::from_value(value.clone());
        message
            .values
            .get(KEY)
            .map(read)
            .transpose()
            .map_err(|e| Error::other("the query is not known to this version of secure aggregation").because(&e))
    }
}

/// Adds rows of bytes.
pub(crate) fn with_rows<const N: usize>(message: Message, rows: &[[u8; N]]) -> Result<Message> {
    with(message, BYTES, rows)
}

/// Adds the members' signatures, or their signatures with the byte that says whether they trained.
pub(crate) fn with_signatures<const N: usize>(message: Message, rows: &[[u8; N]]) -> Result<Message> {
    with(message, SIGNATURES, rows)
}

fn with<const N: usize>(mut message: Message, name: &str, rows: &[[u8; N]]) -> Result<Message> {
    message.extra.insert(name, Tensor::from_slice(&[rows.len(), N], rows.as_flattened())?);
    Ok(message)
}

/// Reads `count` rows of bytes.
///
/// # Errors
/// If the number or length of the rows differs.
pub(crate) fn rows<const N: usize>(message: &Message, count: usize) -> Result<&[[u8; N]]> {
    Ok(message.extra.elements::<u8>(BYTES, &[count, N])?.as_chunks().0)
}

/// Reads `count` signatures.
///
/// # Errors
/// If the number or length of the signatures differs, or there are none.
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

    /// Sets the flag.
    pub(crate) fn set(self, message: &mut Message) {
        message.values.insert(self.key().to_owned(), true.into());
    }

    /// Whether the flag is set.
    pub(crate) fn is_on(self, message: &Message) -> bool {
        message.values.contains_key(self.key())
    }
}
