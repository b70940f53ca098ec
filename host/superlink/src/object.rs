//! Flower's objects: `TYPE child,child LENGTH\0BODY`, named by the SHA-256 of all of it.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::hex;

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId(pub(crate) [u8; 32]);

impl ObjectId {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        hex::decode(text).map(Self).ok_or_else(|| Error::protocol("object", "an id is not 64 hexadecimal digits"))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An object to send: `head` followed by `data`, which is somebody else's memory.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) head: Vec<u8>,
    pub(crate) data: Bytes,
}

impl Object {
    /// An object whose body is `start` followed by `data`.
    pub(crate) fn new(kind: &str, children: &[ObjectId], start: &[u8], data: Bytes) -> Self {
        let children: Vec<String> = children.iter().map(ObjectId::to_string).collect();
        let mut head = format!("{kind} {} {}\0", children.join(","), start.len() + data.len()).into_bytes();
        head.extend(start);
        Self { head, data }
    }

    pub(crate) fn id(&self) -> ObjectId {
        ObjectId(Sha256::new().chain_update(&self.head).chain_update(&self.data).finalize().into())
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.data.len()
    }
}

/// An object that was received, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) kind: String,
    pub(crate) children: Vec<ObjectId>,
    pub(crate) body: Bytes,
}

impl Parsed {
    /// Checks that it is of this kind.
    pub(crate) fn expect(self, kind: &str) -> Result<Self, Error> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(Error::protocol("object", format!("`{kind}` was expected, not `{}`", self.kind)))
        }
    }
}

/// Checks an object's name and takes it apart.
pub(crate) fn parse(id: ObjectId, content: &Bytes) -> Result<Parsed, Error> {
    let wrong = |reason: String| Error::protocol(format!("object {id}"), reason);
    if Sha256::digest(content)[..] != id.0 {
        return Err(wrong("its content has another hash".into()));
    }
    let end = content.iter().position(|byte| *byte == 0).ok_or_else(|| wrong("no head".into()))?;
    let head = std::str::from_utf8(&content[..end]).map_err(|_| wrong("the head is not text".into()))?;
    let [kind, children, length] = head.split(' ').collect::<Vec<_>>()[..] else {
        return Err(wrong("the head has not three parts".into()));
    };
    let body = content.slice(end + 1..);
    if length.parse() != Ok(body.len()) {
        return Err(wrong("the body is not as long as the head says".into()));
    }
    let children =
        children.split(',').filter(|child| !child.is_empty()).map(ObjectId::parse).collect::<Result<_, _>>()?;
    Ok(Parsed { kind: kind.chars().take(40).collect(), children, body })
}
