//! From content to objects. What several messages of one batch share is hashed and stored once.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message as _;
use serde_json::{Map, json};
use sha2::{Digest as _, Sha256};

use crate::content::{Array, Content, DType, Record};
use crate::error::Error;
use crate::npy;
use crate::object::{Object, ObjectId};
use crate::record;
use crate::wire::{self, Metadata, ObjectTree};

/// Bytes of an array's stream in one object, as Python cuts it.
pub(crate) const CHUNK: usize = 5_242_880;
/// The `stype` of arrays in numpy's format.
pub(crate) const NUMPY: &str = "numpy.ndarray";
/// The `stype` of arrays that numpy cannot hold: plain little-endian bytes, `dtype` and `shape` as in the JSON.
pub(crate) const PLAIN: &str = "fedplug.array";

/// The objects of the messages of one batch, children before parents.
#[derive(Default)]
pub(crate) struct Pack {
    objects: IndexMap<ObjectId, (Object, Vec<ObjectId>)>,
    /// Arrays by where they lie. The array is held, so that its memory is nobody else's meanwhile.
    arrays: HashMap<(usize, DType, Vec<u64>), (ObjectId, Array)>,
}

/// The records of one message, packed.
#[derive(Clone, Debug)]
pub(crate) struct PackedContent {
    pub(crate) records: Vec<(String, ObjectId)>,
}

impl Pack {
    pub(crate) fn object(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.get(id).map(|(object, _)| object)
    }

    fn put(&mut self, kind: &str, children: &[ObjectId], start: &[u8], data: Bytes) -> ObjectId {
        let mut seen = HashSet::new();
        let children: Vec<ObjectId> = children.iter().copied().filter(|child| seen.insert(*child)).collect();
        let object = Object::new(kind, &children, start, data);
        let id = object.id();
        self.objects.entry(id).or_insert((object, children));
        id
    }

    /// Packs an array; one that lies where an earlier one lies is the same.
    pub(crate) fn array(&mut self, array: &Array) -> ObjectId {
        let place = (array.data().as_ptr() as usize, array.dtype(), array.shape().to_vec());
        if let Some((id, _)) = self.arrays.get(&place) {
            return *id;
        }
        let (stype, head) = match npy::write(array.dtype(), array.shape()) {
            Some(head) => (NUMPY, head),
            None => (PLAIN, Vec::new()),
        };
        let data = array.data();
        let mut chunks = Vec::new();
        let mut end = (CHUNK - head.len()).min(data.len());
        if end > 0 || !head.is_empty() {
            chunks.push(self.put("ArrayChunk", &[], &head, data.slice(..end)));
        }
        while end < data.len() {
            let start = end;
            end = (start + CHUNK).min(data.len());
            chunks.push(self.put("ArrayChunk", &[], &[], data.slice(start..end)));
        }
        let mut order = IndexMap::new();
        let places: Vec<usize> = chunks.iter().map(|chunk| order.insert_full(*chunk, ()).0).collect();
        let about = json!({
            "dtype": array.dtype().name(), "shape": array.shape(), "stype": stype, "arraychunk_ids": places,
        });
        let id = self.put("Array", &chunks, about.to_string().as_bytes(), Bytes::new());
        self.arrays.insert(place, (id, array.clone()));
        id
    }

    /// Packs all records of a message.
    pub(crate) fn content(&mut self, content: &Content) -> Result<PackedContent, Error> {
        let mut records = Vec::with_capacity(content.len());
        for (name, record) in content {
            let id = match record {
                Record::Arrays(arrays) => {
                    let ids: Vec<(&String, ObjectId)> =
                        arrays.iter().map(|(name, array)| (name, self.array(array))).collect();
                    let children: Vec<ObjectId> = ids.iter().map(|(_, id)| *id).collect();
                    let json: Map<_, _> =
                        ids.iter().map(|(name, id)| ((*name).clone(), id.to_string().into())).collect();
                    self.put(
                        "ArrayRecord",
                        &children,
                        serde_json::Value::from(json).to_string().as_bytes(),
                        Bytes::new(),
                    )
                }
                Record::Metrics(values) => {
                    if let Some((key, _)) = values.iter().find(|(_, value)| !value.is_metric()) {
                        return Err(Error::protocol(
                            format!("record `{name}`"),
                            format!("the metric `{key}` is no number"),
                        ));
                    }
                    self.put("MetricRecord", &[], &record::encode(values), Bytes::new())
                }
                Record::Config(values) => self.put("ConfigRecord", &[], &record::encode(values), Bytes::new()),
            };
            records.push((name.clone(), id));
        }
        Ok(PackedContent { records })
    }

    /// Makes a message of packed records. `metadata` gets the message's id.
    pub(crate) fn message(&mut self, metadata: &mut Metadata, packed: &PackedContent) -> (wire::Message, ObjectTree) {
        let json: Map<_, _> = packed.records.iter().map(|(name, id)| (name.clone(), id.to_string().into())).collect();
        let children: Vec<ObjectId> = packed.records.iter().map(|(_, id)| *id).collect();
        let dict =
            self.put("RecordDict", &children, serde_json::Value::from(json).to_string().as_bytes(), Bytes::new());
        let id = self.finish(metadata, &[dict], None);
        let message = wire::Message { metadata: Some(metadata.clone()), content: Some(wire::Nothing {}), error: None };
        (message, self.tree(&id))
    }

    /// Makes a message that is an error.
    pub(crate) fn failure(&mut self, metadata: &mut Metadata, code: i64, reason: &str) -> (wire::Message, ObjectTree) {
        let error = wire::Failure { code, reason: reason.to_owned() };
        let id = self.finish(metadata, &[], Some(error.clone()));
        let message = wire::Message { metadata: Some(metadata.clone()), content: None, error: Some(error) };
        (message, self.tree(&id))
    }

    fn finish(&mut self, metadata: &mut Metadata, children: &[ObjectId], error: Option<wire::Failure>) -> ObjectId {
        metadata.message_id.clear();
        let body = wire::Message { metadata: Some(metadata.clone()), content: None, error };
        let id = self.put("Message", children, &body.encode_to_vec(), Bytes::new());
        metadata.message_id = id.to_string();
        id
    }

    fn tree(&self, id: &ObjectId) -> ObjectTree {
        let children = self.objects.get(id).map(|(_, children)| children.as_slice()).unwrap_or_default();
        ObjectTree { object_id: id.to_string(), children: children.iter().map(|child| self.tree(child)).collect() }
    }
}

impl PackedContent {
    /// A digest of names and contents of all records but `except`. Both ends get the same.
    pub(crate) fn digest(&self, except: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (name, id) in self.records.iter().filter(|(name, _)| name != except) {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            digest.update(id.0);
        }
        digest.finalize().into()
    }
}
