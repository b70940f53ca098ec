//! What outlives the site's process: its node id, the last answer of each session, and a push that has begun.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;

use crate::content::{Array, Content, DType, Record, size};
use crate::envelope::{Place, Status};
use crate::error::Error;
use crate::limits::Limits;
use crate::parallel::lock;
use crate::wire::{Metadata, NodeId};
use crate::{files, record};

/// How many sessions' answers are kept; the oldest go first.
const SESSIONS: usize = 4;
const MAGIC: &[u8; 16] = b"fedplug answer 1";
/// Magic, the order's number and digest, length of the head.
const START: usize = MAGIC.len() + 8 + 16 + 8;
const ALIGNMENT: usize = 64;

/// An answer of the store.
pub(super) struct StoredAnswer {
    pub(super) status: Status,
    pub(super) text: String,
    pub(super) content: Content,
}

/// A push that has begun.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredPush {
    /// As much of the order's metadata as its answer takes.
    #[prost(message, optional, tag = "1")]
    pub(super) order: Option<Metadata>,
    #[prost(double, tag = "2")]
    pub(super) created_at: f64,
    #[prost(uint64, tag = "3")]
    pub(super) node: u64,
    #[prost(string, tag = "6")]
    pub(super) push_session: String,
    #[prost(string, repeated, tag = "7")]
    pub(super) wanted: Vec<String>,
}

/// The head of an answer's file. The arrays' bytes follow, each at a multiple of 64.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, tag = "3")]
    text: String,
    #[prost(message, repeated, tag = "4")]
    records: Vec<HeadRecord>,
}

#[derive(Clone, PartialEq, Message)]
struct HeadRecord {
    #[prost(string, tag = "1")]
    name: String,
    /// Of metrics and of configs.
    #[prost(bytes = "bytes", optional, tag = "2")]
    metrics: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    config: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    arrays: Vec<HeadArray>,
}

#[derive(Clone, PartialEq, Message)]
struct HeadArray {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    dtype: String,
    #[prost(uint64, repeated, tag = "3")]
    shape: Vec<u64>,
}

pub(super) struct Store {
    _lock: File,
    folder: PathBuf,
    /// The order of each session's last answer.
    last: Mutex<BTreeMap<String, Place>>,
}

impl Store {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let store = Self { _lock: files::reserve(folder)?, folder: folder.to_owned(), last: Mutex::default() };
        files::folder(&store.answers())?;
        let mut last = BTreeMap::new();
        for session in store.sessions()? {
            last.insert(session.clone(), store.place(&session)?);
        }
        *lock(&store.last) = last;
        Ok(store)
    }

    /// The order of a session's answer.
    fn place(&self, session: &str) -> Result<Place, Error> {
        let path = self.answers().join(session);
        let read = || {
            let mut start = [0; START];
            File::open(&path)?.read_exact(&mut start)?;
            Ok(start)
        };
        let start = read().map_err(|source| Error::file(&path, source))?;
        let parts = start.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<8>());
        let Some((number, digest)) = parts else { return Err(damaged(path)) };
        let digest = crate::hex::encode(&digest[..16]);
        Ok(Place { session: session.to_owned(), number: u64::from_le_bytes(*number), digest })
    }

    fn answers(&self) -> PathBuf {
        self.folder.join("answers")
    }

    /// Sessions with answers, the oldest first.
    fn sessions(&self) -> Result<Vec<String>, Error> {
        let folder = self.answers();
        let entries = std::fs::read_dir(&folder).map_err(|source| Error::file(&folder, source))?;
        let mut sessions = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::file(&folder, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if crate::hex::decode::<16>(&name).is_some() {
                let time = entry.metadata().and_then(|about| about.modified());
                sessions.push((time.map_err(|source| Error::file(&entry.path(), source))?, name));
            }
        }
        sessions.sort();
        Ok(sessions.into_iter().map(|(_, name)| name).collect())
    }

    pub(super) fn node(&self) -> Result<Option<u64>, Error> {
        let path = self.folder.join("node");
        let Some(content) = files::read(&path)? else { return Ok(None) };
        let node = NodeId::decode(&content[..]);
        let node = node.map_err(|error| Error::Content { path, reason: error.to_string() })?;
        Ok(Some(node.node_id).filter(|node| *node > 0))
    }

    pub(super) fn set_node(&self, node: u64) -> Result<(), Error> {
        let content = NodeId { node_id: node }.encode_to_vec();
        files::replace(&self.folder.join("node"), |file| file.write_all(&content))
    }

    /// The order of a session's last answer.
    pub(super) fn last(&self, session: &str) -> Option<Place> {
        lock(&self.last).get(session).cloned()
    }

    /// Stores an answer in place of the session's last.
    pub(super) fn save(&self, place: &Place, status: Status, text: &str, content: &Content) -> Result<(), Error> {
        let mut blobs = Vec::new();
        let records = content.iter().map(|(name, record)| {
            let mut head = HeadRecord { name: name.clone(), ..HeadRecord::default() };
            match record {
                Record::Metrics(values) => head.metrics = Some(record::encode(values).into()),
                Record::Config(values) => head.config = Some(record::encode(values).into()),
                Record::Arrays(arrays) => {
                    for (name, array) in arrays {
                        let (name, dtype) = (name.clone(), array.dtype().name().to_owned());
                        head.arrays.push(HeadArray { name, dtype, shape: array.shape().to_vec() });
                        blobs.push(array.data().clone());
                    }
                }
            }
            head
        });
        let head = Head { records: records.collect(), status: status.name().to_owned(), text: text.to_owned() };
        let head = head.encode_to_vec();
        let digest: [u8; 16] = crate::hex::decode(&place.digest).unwrap_or_default();
        files::replace(&self.answers().join(&place.session), |file| {
            file.write_all(MAGIC)?;
            file.write_all(&place.number.to_le_bytes())?;
            file.write_all(&digest)?;
            file.write_all(&(head.len() as u64).to_le_bytes())?;
            file.write_all(&head)?;
            let mut at = START + head.len();
            for blob in &blobs {
                let padding = at.next_multiple_of(ALIGNMENT) - at;
                file.write_all(&[0; ALIGNMENT][..padding])?;
                file.write_all(blob)?;
                at += padding + blob.len();
            }
            Ok(())
        })?;
        lock(&self.last).insert(place.session.clone(), place.clone());
        let sessions = self.sessions()?;
        for old in sessions.iter().take(sessions.len().saturating_sub(SESSIONS)).filter(|old| **old != place.session) {
            files::remove(&self.answers().join(old))?;
            lock(&self.last).remove(old);
        }
        Ok(())
    }

    /// Deletes a session's answer.
    pub(super) fn forget(&self, session: &str) -> Result<(), Error> {
        lock(&self.last).remove(session);
        if crate::hex::decode::<16>(session).is_some() {
            files::remove(&self.answers().join(session))?;
        }
        Ok(())
    }

    /// The last answer of a session.
    pub(super) fn load(&self, session: &str) -> Result<Option<StoredAnswer>, Error> {
        let path = self.answers().join(session);
        let Some(content) = files::read(&path)? else { return Ok(None) };
        let answer = decode(content.into());
        answer.map(Some).ok_or_else(|| damaged(path))
    }

    pub(super) fn push(&self) -> Result<Option<StoredPush>, Error> {
        let Some(content) = files::read(&self.folder.join("push"))? else { return Ok(None) };
        // One that cannot be read is of no use; the server asks again.
        Ok(StoredPush::decode(&content[..]).ok())
    }

    pub(super) fn begin_push(&self, push: &StoredPush) -> Result<(), Error> {
        let content = push.encode_to_vec();
        files::replace(&self.folder.join("push"), |file| file.write_all(&content))
    }

    pub(super) fn end_push(&self) -> Result<(), Error> {
        files::remove(&self.folder.join("push"))
    }
}

fn damaged(path: PathBuf) -> Error {
    Error::Content { path, reason: "the stored answer is damaged".into() }
}

fn decode(file: Bytes) -> Option<StoredAnswer> {
    let length = file.strip_prefix(MAGIC)?.get(8 + 16..)?.first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let mut at = START.checked_add(length)?;
    let head = Head::decode(file.get(START..at)?).ok()?;
    // The file is ours; bounds are its length.
    let limits = Limits { values: usize::MAX, name: usize::MAX, ..Limits::default() };
    let mut content = Content::with_capacity(head.records.len());
    for HeadRecord { name, metrics, config, arrays } in head.records {
        let record = match (metrics, config) {
            (Some(body), _) => Record::Metrics(record::decode(&body, true, &limits).ok()?),
            (_, Some(body)) => Record::Config(record::decode(&body, false, &limits).ok()?),
            (None, None) => {
                let mut record = IndexMap::with_capacity(arrays.len());
                for HeadArray { name, dtype, shape } in arrays {
                    let dtype = DType::from_name(&dtype)?;
                    let start = at.checked_next_multiple_of(ALIGNMENT)?;
                    at = start.checked_add(usize::try_from(size(dtype, &shape)?).ok()?)?;
                    if at > file.len() {
                        return None;
                    }
                    record.insert(name, Array::new(dtype, shape, file.slice(start..at)).ok()?);
                }
                Record::Arrays(record)
            }
        };
        content.insert(name, record);
    }
    Some(StoredAnswer { status: Status::from_name(&head.status)?, text: head.text, content })
}
