//! What others may send.

use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use test_support::cases;
use test_support::fuzz::{Change, Memory, change, fuzz};

use super::codecs::{arrays, pack};
use super::{Objects, fetch};
use crate::content::{Content, Record};
use crate::limits::Limits;
use crate::object::{Object, ObjectId, parse};
use crate::{npy, record};

const LIMITS: Limits = Limits { object: 1000, objects: 20, arrays: 4096, values: 10, name: 30, dimensions: 4 };

/// Objects that are made one by one.
#[derive(Default)]
struct Maker(Objects);

impl Maker {
    fn put(&mut self, kind: &str, children: &[ObjectId], body: &[u8]) -> ObjectId {
        let object = Object::new(kind, children, body, Bytes::new());
        self.0.insert(object.id(), object.head.clone().into());
        object.id()
    }

    /// The message around one record. `json`: the record dictionary's, with `ID` in place of the record's id.
    fn message(&mut self, record: ObjectId, json: &str) -> String {
        let json = json.replace("ID", &record.to_string());
        let dict = self.put("RecordDict", &[record], json.as_bytes());
        self.put("Message", &[dict], b"").to_string()
    }

    /// The message around one array, given its JSON.
    fn array(&mut self, json: &str, chunks: &[&[u8]]) -> String {
        let chunks: Vec<ObjectId> = chunks.iter().map(|chunk| self.put("ArrayChunk", &[], chunk)).collect();
        let array = self.put("Array", &chunks, json.as_bytes());
        let record = self.put("ArrayRecord", &[array], format!("{{\"w\": \"{array}\"}}").as_bytes());
        self.message(record, "{\"r\": \"ID\"}")
    }

    fn error(&self, message: &str) -> String {
        fetch(&self.0, message, &LIMITS).map(drop).unwrap_err().to_string()
    }
}

#[test]
fn arrays_that_are_not_what_they_say() {
    let stream = |shape: &[u64], bytes: usize| {
        let mut stream = npy::write(crate::DType::U8, shape).unwrap();
        stream.resize(stream.len() + bytes, 7);
        stream
    };
    let numpy = |places: &str| {
        format!("{{\"dtype\": \"uint8\", \"shape\": [3], \"stype\": \"numpy.ndarray\", \"arraychunk_ids\": {places}}}")
    };
    let good = stream(&[3], 3);
    let mut maker = Maker::default();
    let message = maker.array(&numpy("[0]"), &[&good]);
    fetch(&maker.0, &message, &LIMITS).unwrap();
    // The head counts, not the JSON, which Python's older apps leave empty.
    let json = "{\"dtype\": \"\", \"shape\": [], \"stype\": \"numpy.ndarray\", \"arraychunk_ids\": [0]}";
    let message = maker.array(json, &[&good]);
    fetch(&maker.0, &message, &LIMITS).unwrap();
    let plain = |dtype: &str, shape: &str| {
        format!("{{\"dtype\": \"{dtype}\", \"shape\": {shape}, \"stype\": \"fedplug.array\", \"arraychunk_ids\": [0]}}")
    };
    let (many, short, long, huge) = (stream(&[3000], 0), stream(&[3], 2), stream(&[3], 4), stream(&[5000], 0));
    for (json, chunk, expected) in [
        (numpy("[1]"), &good[..], "a chunk is none of its children"),
        (numpy("[4294967296]"), &good, "invalid value"),
        (numpy("[0, 0]"), &good, "bytes more than its shape says"),
        (numpy("[]"), &good, "its head is incomplete"),
        (numpy("\"0\""), &good, "invalid type"),
        (numpy(&format!("{:?}", [0; 21])), &good, "too many chunks"),
        (numpy("[0]"), &many, "3000 bytes cannot lie in 1 chunks"),
        (numpy("[0, 0, 0, 0, 0]"), &huge, "arrays of more than 4096 bytes"),
        (numpy("[0]"), &short, "2 bytes of 3"),
        (numpy("[0]"), &long, "1 bytes more"),
        (numpy("[0]"), b"", "its head is incomplete"),
        (numpy("[0]"), b"\x80\x04pickle", "no `.npy` stream"),
        (
            numpy("[0]").replace("numpy.ndarray", "torch.Tensor"),
            &good,
            "arrays of the form `torch.Tensor` cannot be read",
        ),
        (plain("bfloat16", "[1, 1, 1, 1, 1]"), &good, "too many chunks or dimensions"),
        (plain("bfloat16", "[9223372036854775807, 4]"), &good, "too large"),
        (plain("bfloat16", "[2049]"), &good, "arrays of more than 4096 bytes"),
        (plain("bfloat16", "[1000]"), &good, "cannot lie in 1 chunks"),
        (plain("bfloat16", "[-1]"), &good, "invalid value"),
        (plain("complex64", "[1]"), &good, "the type `complex64` is unknown"),
        ("[]".into(), &good, "invalid"),
    ] {
        let message = maker.array(&json, &[chunk]);
        let error = maker.error(&message);
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn messages_that_are_not_what_they_say() {
    let mut maker = Maker::default();
    let record = maker.put("ConfigRecord", &[], b"");
    let good = maker.message(record, "{\"r\": \"ID\"}");
    fetch(&maker.0, &good, &LIMITS).unwrap();
    let other = ObjectId([7; 32]);
    let many = (0..11).map(|i| format!("\"{i}\": \"ID\"")).collect::<Vec<_>>().join(",");
    for (json, expected) in [
        ("{\"r\": \"ID\", \"r\": \"ID\"}", "`r` appears twice"),
        (&format!("{{\"r\": \"{other}\"}}"), "`r` is none of its children"),
        ("{\"r\": \"ID\", \"a name that is longer than thirty bytes\": \"ID\"}", "a name of"),
        ("{\"r\": \"x\"}", "an id is not 64 hexadecimal digits"),
        ("{\"r\": 5}", "invalid type"),
        ("[]", "invalid type"),
        ("{", "EOF"),
        (&format!("{{{many}}}"), "more than 10 entries"),
    ] {
        let message = maker.message(record, json);
        let error = maker.error(&message);
        assert!(error.contains(expected), "{json}: {error}");
    }
    let message = maker.put("Message", &[], b"").to_string();
    assert!(maker.error(&message).contains("it has no content"));
    let message = maker.put("Message", &[record], b"").to_string();
    assert!(maker.error(&message).contains("`RecordDict` was expected, not `ConfigRecord`"));
    let chunk = maker.put("ArrayChunk", &[], b"");
    let message = maker.message(chunk, "{\"r\": \"ID\"}");
    assert!(maker.error(&message).contains("`ArrayRecord` was expected, not `ArrayChunk`"));
    // An object that is missing, and one that is another.
    let gone = maker.message(other, "{\"r\": \"ID\"}");
    assert!(maker.error(&gone).contains("stopped"));
    maker.0.insert(other, Bytes::from_static(b"ConfigRecord  0\0"));
    assert!(maker.error(&gone).contains("its content has another hash"));
}

#[test]
fn heads_of_objects() {
    let made = |content: &[u8]| {
        use sha2::Digest as _;
        let content = Bytes::copy_from_slice(content);
        parse(ObjectId(sha2::Sha256::digest(&content).into()), &content).map(|parsed| parsed.body)
    };
    assert_eq!(made(b"Array  2\0ab").unwrap(), "ab");
    for content in [
        &b""[..],
        b"Array  2",
        b"Array  3\0ab",
        b"Array  1\0ab",
        b"Array 2\0ab",
        b"Array   2\0ab",
        b"Array x 2\0ab",
        b"Array  -2\0ab",
        b"Array  2 \0ab",
        b"\xff  2\0ab",
        b"Array  99999999999999999999\0ab",
    ] {
        made(content).unwrap_err();
    }
}

#[test]
fn records_with_more_than_they_may_have() {
    let many = Bytes::from([0x0a, 0].repeat(11));
    let error = record::decode(&many, false, &LIMITS).unwrap_err().to_string();
    assert_eq!(error, "record: more than 10 values");
    // Key "k", no value; twice the same; a metric that is a text.
    for (body, metrics, expected) in [
        (&b"\x0a\x03\x0a\x01k"[..], false, "`k` has no value"),
        (b"\x0a\x07\x0a\x01k\x12\x02\x10\x02\x0a\x07\x0a\x01k\x12\x02\x10\x02", false, "`k` appears twice"),
        (b"\x0a\x08\x0a\x01k\x12\x03\x2a\x01x", true, "the metric `k` is no number"),
        (b"\x0a\xff", false, "not a protobuf message"),
    ] {
        let error = record::decode(&Bytes::copy_from_slice(body), metrics, &LIMITS).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// As an object with its head, and as the body of a record.
#[test]
fn any_object_is_read_or_refused() {
    fuzz("object", 500, Memory { base: 16 << 10, per_byte: 100 }, |content| {
        let content = Bytes::copy_from_slice(content);
        let object = parse(ObjectId(Sha256::digest(&content).into()), &content);
        let body = object.as_ref().map_or(&content, |object| &object.body);
        let values = [false, true].map(|metrics| record::decode(body, metrics, &LIMITS));
        object.is_ok() || values.iter().any(Result::is_ok)
    });
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn any_array_description_is_read_or_refused(json in "[\\[\\]{}:,\"0-9a-z_.]{0,60}") {
        let mut maker = Maker::default();
        let message = maker.array(&json, &[b"x"]);
        fetch(&maker.0, &message, &LIMITS).map(drop).unwrap_err();
    }

    /// A valid message in which some objects are changed, and named anew up to the message.
    #[test]
    fn a_changed_message_is_read_or_refused(
        arrays in arrays(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), change()), 1..4),
    ) {
        let content = Content::from([("r".to_owned(), Record::Arrays(arrays))]);
        let (mut message, mut objects) = pack(&content);
        for (which, change) in &changes {
            let mut ids: Vec<ObjectId> = objects.keys().copied().collect();
            ids.sort_unstable();
            let id = *which.get(&ids);
            let mut bytes = objects[&id].to_vec();
            apply(change, &mut bytes);
            message = renamed(&mut objects, id, bytes, message);
        }
        if let Ok(received) = fetch(&objects, &message, &LIMITS) {
            let bytes: usize = received.content.values().map(size).sum();
            prop_assert!(bytes as u64 <= LIMITS.arrays, "{bytes} bytes of arrays");
        }
    }
}

/// Changes an object. Its head says its new length: most changes would only be found to have another one.
fn apply(change: &Change, bytes: &mut Vec<u8>) {
    change.apply(bytes, &[]);
    if let Some(end) = bytes.iter().position(|byte| *byte == 0)
        && let Some(space) = bytes[..end].iter().rposition(|byte| *byte == b' ')
    {
        let length = (bytes.len() - end - 1).to_string();
        bytes.splice(space + 1..end, length.bytes());
    }
}

/// Puts `bytes` in the place of an object. Objects that name it, and those that name these, get other names as well. Returns
/// the message's name.
fn renamed(objects: &mut Objects, old: ObjectId, bytes: Vec<u8>, message: String) -> String {
    let new = ObjectId(Sha256::digest(&bytes).into());
    if new == old {
        return message;
    }
    objects.remove(&old);
    objects.insert(new, bytes.into());
    let (before, after) = (old.to_string(), new.to_string());
    let parents: Vec<ObjectId> =
        objects.iter().filter(|(_, bytes)| find(bytes, &before).is_some()).map(|(id, _)| *id).collect();
    let mut message = if message == before { after.clone() } else { message };
    for parent in parents {
        let Some(bytes) = objects.get(&parent) else { continue };
        let mut bytes = bytes.to_vec();
        while let Some(at) = find(&bytes, &before) {
            bytes.splice(at..at + before.len(), after.bytes());
        }
        message = renamed(objects, parent, bytes, message);
    }
    message
}

fn find(bytes: &[u8], text: &str) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text.as_bytes())
}

/// The bytes of a record's arrays.
fn size(record: &Record) -> usize {
    match record {
        Record::Arrays(arrays) => arrays.values().map(|array| array.data().len()).sum(),
        _ => 0,
    }
}
