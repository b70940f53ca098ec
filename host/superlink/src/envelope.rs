//! What orders and answers carry besides their content, between two ends of this crate.
//!
//! An order's session, number and digest stand in its group id, so that a site can tell which order it is before it fetches
//! anything. The rest is a record of its own. An answer's record holds its status and a signature by the site's key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use indexmap::IndexMap;
use sha2::{Digest as _, Sha256};

use crate::content::{Array, Content, Record, Value};
use crate::error::Error;
use crate::identity::{self, Identity};
use crate::object::ObjectId;
use crate::pack::Pack;
use crate::{hex, wire};

/// The name of the record.
pub(crate) const RECORD: &str = "fedplug.superlink";
/// The type of the messages that ask a site what it does.
pub(crate) const STATUS: &str = "query.fedplug_status";
const GROUP: &str = "fedplug.";

/// A piece of work at one site: once for each session and number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) session: String,
    pub(crate) number: u64,
    /// Of key, kind and content, so that a server with an old state folder does not get the answer to another order.
    pub(crate) digest: String,
}

impl Place {
    pub(crate) fn group(&self) -> String {
        format!("{GROUP}{}.{}.{}", self.session, self.number, self.digest)
    }

    /// The place of a message, if it is one of this crate's.
    pub(crate) fn of(metadata: &wire::Metadata) -> Option<Self> {
        let (session, rest) = metadata.group_id.strip_prefix(GROUP)?.split_once('.')?;
        let (number, digest) = rest.split_once('.')?;
        hex::decode::<16>(session)?;
        hex::decode::<16>(digest)?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        Some(Self { session: session.to_owned(), number, digest: digest.to_owned() })
    }
}

/// An array that the site has from the last order that it was to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    record: String,
    position: usize,
    name: String,
    id: String,
}

/// What an order says besides its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrderNote {
    pub(crate) key: String,
    /// The site shall keep the arrays, since the next order may leave them out.
    pub(crate) keep: bool,
    pub(crate) kept: Vec<Kept>,
}

impl OrderNote {
    /// The record, with a new random number: a message's id is a secret of its site.
    pub(crate) fn to_record(&self) -> Result<Record, Error> {
        let mut values = IndexMap::from([
            ("nonce".to_owned(), Value::Text(hex::random()?)),
            ("key".to_owned(), Value::Text(self.key.clone())),
            ("keep".to_owned(), Value::Bool(self.keep)),
        ]);
        if !self.kept.is_empty() {
            let texts =
                |field: fn(&Kept) -> &String| Value::Texts(self.kept.iter().map(|kept| field(kept).clone()).collect());
            values.insert("kept-records".into(), texts(|kept| &kept.record));
            values.insert("kept-names".into(), texts(|kept| &kept.name));
            values.insert("kept-ids".into(), texts(|kept| &kept.id));
            let positions = self.kept.iter().map(|kept| kept.position as u64).collect();
            values.insert("kept-positions".into(), Value::Uints(positions));
        }
        Ok(Record::Config(values))
    }

    /// Takes the record out of an order's content.
    pub(crate) fn take(content: &mut Content) -> Result<Self, Error> {
        let wrong = || Error::protocol("order", format!("its record `{RECORD}` is not complete"));
        let Some(Record::Config(values)) = content.shift_remove(RECORD) else { return Err(wrong()) };
        let texts = |name: &str| match values.get(name) {
            Some(Value::Texts(texts)) => texts.clone(),
            _ => Vec::new(),
        };
        let key = values.get("key").and_then(Value::as_text).ok_or_else(wrong)?.to_owned();
        let keep = values.get("keep") == Some(&Value::Bool(true));
        let positions = match values.get("kept-positions") {
            Some(Value::Uints(positions)) => positions.clone(),
            _ => Vec::new(),
        };
        let (records, names, ids) = (texts("kept-records"), texts("kept-names"), texts("kept-ids"));
        if records.len() != names.len() || names.len() != ids.len() || ids.len() != positions.len() {
            return Err(wrong());
        }
        let kept = records.into_iter().zip(names).zip(ids).zip(positions).map(|(((record, name), id), position)| {
            Ok(Kept { record, name, id, position: usize::try_from(position).map_err(|_| wrong())? })
        });
        Ok(Self { key, keep, kept: kept.collect::<Result<_, _>>()? })
    }

    /// Leaves out the arrays that the site has. Returns the rest.
    pub(crate) fn leave_out(&mut self, content: &Content, known: &BTreeSet<ObjectId>, pack: &mut Pack) -> Content {
        let mut rest = Content::with_capacity(content.len());
        for (record_name, record) in content {
            let Record::Arrays(arrays) = record else {
                rest.insert(record_name.clone(), record.clone());
                continue;
            };
            let mut left = IndexMap::with_capacity(arrays.len());
            for (position, (name, array)) in arrays.iter().enumerate() {
                let id = pack.array(array);
                if known.contains(&id) {
                    let (record, name, id) = (record_name.clone(), name.clone(), id.to_string());
                    self.kept.push(Kept { record, position, name, id });
                } else {
                    left.insert(name.clone(), array.clone());
                }
            }
            rest.insert(record_name.clone(), Record::Arrays(left));
        }
        rest
    }

    /// The ids of what was left out.
    pub(crate) fn kept_ids(&self) -> Result<Vec<ObjectId>, Error> {
        self.kept.iter().map(|kept| ObjectId::parse(&kept.id)).collect()
    }

    /// Fills in what was left out. `None` if an array is not there any more.
    pub(crate) fn fill_in(&self, content: &mut Content, have: &BTreeMap<ObjectId, Array>) -> Result<Option<()>, Error> {
        // In order of positions, as they were written, so that each insertion is in its final place.
        for Kept { record, position, name, id } in &self.kept {
            let wrong = |reason: &str| Error::protocol("order", format!("`{name}` of `{record}`: {reason}"));
            let Some(array) = have.get(&ObjectId::parse(id)?) else { return Ok(None) };
            let Some(Record::Arrays(arrays)) = content.get_mut(record) else {
                return Err(wrong("there is no such record of arrays"));
            };
            if *position > arrays.len() || arrays.contains_key(name) {
                return Err(wrong("it cannot stand there"));
            }
            arrays.shift_insert(*position, name.clone(), array.clone());
        }
        Ok(Some(()))
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The work is done; this is its result.
    Answer,
    /// The site does not allow it.
    Refused,
    /// The work failed.
    Failed,
    /// Arrays that were left out are not there.
    Lacks,
    /// To a status query: the order is here and being worked on.
    Working,
    /// To a status query: the order is answered, and its answer is on the way.
    Pushing,
    /// To a status query: the order was answered.
    Done,
    /// To a status query: there is no such order here.
    Unknown,
}

const STATUSES: [(Status, &str); 8] = [
    (Status::Answer, "answer"),
    (Status::Refused, "refused"),
    (Status::Failed, "failed"),
    (Status::Lacks, "lacks"),
    (Status::Working, "working"),
    (Status::Pushing, "pushing"),
    (Status::Done, "done"),
    (Status::Unknown, "unknown"),
];

impl Status {
    pub(crate) fn name(self) -> &'static str {
        STATUSES.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        STATUSES.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// The record of an answer.
pub(crate) fn answer_record(
    identity: &Identity,
    place: &Place,
    reply_to: &str,
    status: Status,
    text: &str,
    digest: &[u8; 32],
) -> Result<Record, Error> {
    let signature = identity.sign(&signed(place, reply_to, status, text, digest))?;
    Ok(Record::Config(IndexMap::from([
        ("status".to_owned(), Value::Text(status.name().to_owned())),
        ("text".to_owned(), Value::Text(text.to_owned())),
        ("signature".to_owned(), Value::Bytes(Bytes::from(signature))),
    ])))
}

/// Takes the record out of an answer's content and checks its signature. Errors are reasons to ignore the answer.
pub(crate) fn open_answer(
    public_pem: &[u8],
    place: &Place,
    reply_to: &str,
    content: &mut Content,
    digest: &[u8; 32],
) -> Result<(Status, String), &'static str> {
    let Some(Record::Config(values)) = content.shift_remove(RECORD) else { return Err("it is not signed") };
    let text = values.get("text").and_then(Value::as_text).ok_or("its record is not complete")?;
    let status = values.get("status").and_then(Value::as_text).and_then(Status::from_name);
    let status = status.ok_or("its status is unknown")?;
    let Some(Value::Bytes(signature)) = values.get("signature") else { return Err("it is not signed") };
    if identity::verify(public_pem, &signed(place, reply_to, status, text, digest), signature) {
        Ok((status, text.to_owned()))
    } else {
        Err("its signature is not the site's")
    }
}

/// What is signed: everything that the answer says, and what it answers. The message's id stands for its nonce too.
fn signed(place: &Place, reply_to: &str, status: Status, text: &str, digest: &[u8; 32]) -> Vec<u8> {
    let (order, status) = (place.group(), status.name());
    let (text, digest) = (hex::encode(&Sha256::digest(text)), hex::encode(digest));
    format!("fedplug-superlink 1\n{reply_to}\n{order}\n{status}\n{text}\n{digest}").into_bytes()
}
