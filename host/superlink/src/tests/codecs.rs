//! Content to objects and back; messages that Python made; keys.

use bytes::Bytes;
use indexmap::IndexMap;
use proptest::prelude::*;
use prost::Message as _;
use test_support::cases;

use super::{Objects, fetch, python, unbase64};
use crate::content::{Array, Content, DType, Record, Value};
use crate::identity::{self, Identity, fingerprint};
use crate::limits::Limits;
use crate::object::ObjectId;
use crate::pack::{CHUNK, Pack};
use crate::wire::{Metadata, ObjectTree};

/// Packs a message. Returns its id and all its objects, which the tree names.
pub(super) fn pack(content: &Content) -> (String, Objects) {
    let mut pack = Pack::default();
    let packed = pack.content(content).unwrap();
    let mut metadata = Metadata { run_id: 3, group_id: "g".into(), ..Metadata::default() };
    let (message, tree) = pack.message(&mut metadata, &packed);
    assert_eq!(message.metadata.unwrap().message_id, metadata.message_id);
    let mut objects = Objects::new();
    collect(&tree, &pack, &mut objects);
    (metadata.message_id, objects)
}

fn collect(tree: &ObjectTree, pack: &Pack, objects: &mut Objects) {
    let id = ObjectId::parse(&tree.object_id).unwrap();
    let object = pack.object(&id).unwrap();
    objects.insert(id, [&object.head[..], &object.data].concat().into());
    let children: Vec<&String> = tree.children.iter().map(|child| &child.object_id).collect();
    let distinct: std::collections::HashSet<_> = children.iter().collect();
    assert_eq!(distinct.len(), children.len(), "a SuperLink refuses siblings that are the same");
    tree.children.iter().for_each(|child| collect(child, pack, objects));
}

#[test]
fn a_message_of_python() {
    let python = python();
    let objects = python["objects"].as_object().unwrap();
    let objects: Objects =
        objects.iter().map(|(id, object)| (ObjectId::parse(id).unwrap(), unbase64(object).into())).collect();
    let received = fetch(&objects, python["message"].as_str().unwrap(), &Limits::default()).unwrap();
    let floats: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let matrix = Array::new(DType::F32, vec![2, 3], floats.into()).unwrap();
    let arrays = [
        ("b", matrix.clone()),
        ("a", Array::new(DType::F64, vec![], vec![0; 8].into()).unwrap()),
        ("same", matrix),
        ("ü", Array::new(DType::I16, vec![1], vec![1, 0].into()).unwrap()),
    ];
    let metrics = [
        ("loss", Value::Float(0.5)),
        ("n", Value::Int(-3)),
        ("list", Value::Ints(vec![1, 2])),
        ("floats", Value::Floats(vec![0.25])),
    ];
    let config = [
        ("s", Value::from("ö")),
        ("b", Value::Bool(true)),
        ("bytes", Value::Bytes(vec![0, 255].into())),
        ("texts", Value::Texts(vec![String::new(), "x".into()])),
        ("flags", Value::Bools(vec![true, false])),
        ("blobs", Value::ByteStrings(vec![Bytes::new(), "y".into()])),
    ];
    let values =
        |rows: &[(&str, Value)]| rows.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let expected = Content::from([
        ("z".to_owned(), Record::Arrays(arrays.map(|(name, array)| (name.to_owned(), array)).into())),
        ("m".to_owned(), Record::Metrics(values(&metrics))),
        ("c".to_owned(), Record::Config(values(&config))),
        ("empty".to_owned(), Record::Config(IndexMap::new())),
    ]);
    assert_eq!(received.content, expected);
    let Record::Arrays(found) = &received.content["z"] else { panic!() };
    assert_eq!(found.keys().collect::<Vec<_>>(), ["b", "a", "same", "ü"]);
    assert_eq!(found["b"].data().as_ptr(), found["same"].data().as_ptr(), "one array, held once");
}

#[test]
fn keys_and_signatures_of_python() {
    let python = python();
    let (public, signed) = (python["public"].as_str().unwrap(), b"2026-11-26T00:00:00.123456+00:00");
    let identity = Identity::from_pem(python["private"].as_str().unwrap()).unwrap();
    assert_eq!(identity.public_pem(), public);
    assert!(identity::verify(public.as_bytes(), signed, &unbase64(&python["signature"])));
    let signature = identity.sign(signed).unwrap();
    assert!(identity::verify(public.as_bytes(), signed, &signature));
    assert_eq!(signature, identity.sign(signed).unwrap(), "a push that is resumed needs the same signature");
    assert!(!identity::verify(public.as_bytes(), b"other", &signature));
    assert!(!identity::verify(Identity::generate().unwrap().public_pem().as_bytes(), signed, &signature));
    assert!(!identity::verify(b"", signed, &signature) && !identity::verify(public.as_bytes(), signed, b""));
    assert_eq!(fingerprint(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let error = Identity::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap_err();
    assert!(error.to_string().starts_with("not a P-384 key: "), "{error}");
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn a_key_goes_to_a_file_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let identity = Identity::generate().unwrap();
    identity.save(&path).unwrap();
    assert_eq!(Identity::load(&path).unwrap().fingerprint(), identity.fingerprint());
    std::fs::write(&path, "x").unwrap();
    let error = Identity::load(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: not a P-384 key: ", path.display())), "{error}");
}

#[test]
fn arrays_that_share_memory_are_hashed_once_and_others_are_not_mistaken() {
    let mut pack = Pack::default();
    let memory = Bytes::from(vec![1; 64]);
    let array = |dtype, shape: &[u64], range| Array::new(dtype, shape.to_vec(), memory.slice(range)).unwrap();
    let ids = [
        array(DType::U8, &[64], 0..64),
        array(DType::U8, &[64], 0..64),
        array(DType::U8, &[8, 8], 0..64),
        array(DType::I8, &[64], 0..64),
        array(DType::U8, &[32], 0..32),
        array(DType::U8, &[32], 32..64),
    ]
    .map(|array| pack.array(&array));
    assert_eq!(ids[0], ids[1]);
    // The same numbers elsewhere are the same object.
    assert_eq!(ids[4], ids[5]);
    assert_eq!(std::collections::HashSet::from(ids).len(), 4);
}

#[test]
fn chunks_are_cut_as_python_cuts_them() {
    let array =
        Array::new(DType::U8, vec![2 * CHUNK as u64], (0..2 * CHUNK).map(|i| (i / 99) as u8).collect()).unwrap();
    let arrays = IndexMap::from([("w".to_owned(), array)]);
    let (_, objects) = pack(&Content::from([("arrays".to_owned(), Record::Arrays(arrays))]));
    let mut lengths: Vec<usize> = objects.values().map(Bytes::len).filter(|length| *length > 1000).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [CHUNK + 20, CHUNK + 20]);
}

fn values(metrics: bool) -> impl Strategy<Value = IndexMap<String, Value>> {
    let numbers = prop_oneof![
        any::<f64>().prop_filter("NaN is not itself", |x| !x.is_nan()).prop_map(Value::Float),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        proptest::collection::vec(-1e9..1e9f64, 0..5).prop_map(Value::Floats),
        proptest::collection::vec(any::<i64>(), 0..5).prop_map(Value::Ints),
        proptest::collection::vec(any::<u64>(), 0..5).prop_map(Value::Uints),
    ];
    let bytes = || proptest::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from);
    let others = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        ".*".prop_map(Value::Text),
        bytes().prop_map(Value::Bytes),
        proptest::collection::vec(any::<bool>(), 0..5).prop_map(Value::Bools),
        proptest::collection::vec(".*", 0..5).prop_map(Value::Texts),
        proptest::collection::vec(bytes(), 0..5).prop_map(Value::ByteStrings),
    ];
    let value = if metrics { numbers.boxed() } else { prop_oneof![numbers, others].boxed() };
    proptest::collection::vec((".{0,9}", value), 0..6).prop_map(IndexMap::from_iter)
}

pub(super) fn arrays() -> impl Strategy<Value = IndexMap<String, Array>> {
    let dtypes = proptest::sample::select(vec![DType::F32, DType::BF16, DType::U8, DType::Bool, DType::I64]);
    let array = (dtypes, proptest::collection::vec(0u64..4, 0..4), any::<u8>()).prop_map(|(dtype, shape, byte)| {
        let size = crate::content::size(dtype, &shape).unwrap() as usize;
        Array::new(dtype, shape, vec![byte; size].into()).unwrap()
    });
    proptest::collection::vec((".{0,9}", array), 0..5).prop_map(IndexMap::from_iter)
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn content_comes_back(records in proptest::collection::vec((".{0,9}", prop_oneof![
        arrays().prop_map(Record::Arrays),
        values(true).prop_map(Record::Metrics),
        values(false).prop_map(Record::Config),
    ]), 0..5)) {
        let content = Content::from_iter(records);
        let (id, objects) = pack(&content);
        let received = fetch(&objects, &id, &Limits::default()).unwrap();
        let names = |content: &Content| content.iter().map(|(name, record)| match record {
            Record::Arrays(arrays) => (name.clone(), arrays.keys().cloned().collect::<Vec<_>>()),
            Record::Metrics(values) | Record::Config(values) => (name.clone(), values.keys().cloned().collect()),
        }).collect::<Vec<_>>();
        prop_assert_eq!(names(&received.content), names(&content));
        prop_assert_eq!(&received.content, &content);
        // Both ends get the same digest, which is what is signed.
        prop_assert_eq!(received.packed.digest("x"), Pack::default().content(&content).unwrap().digest("x"));
    }
}

#[test]
fn a_message_without_content_is_an_error_with_its_reason() {
    let mut pack = Pack::default();
    let mut metadata = Metadata::default();
    let (message, tree) = pack.failure(&mut metadata, 2, "no memory");
    assert_eq!(message.error.unwrap().reason, "no memory");
    assert!(message.content.is_none() && tree.children.is_empty());
    let object = pack.object(&ObjectId::parse(&metadata.message_id).unwrap()).unwrap();
    let start = object.head.iter().position(|byte| *byte == 0).unwrap();
    let body = crate::wire::Message::decode(&object.head[start + 1..]).unwrap();
    assert_eq!((body.error.unwrap().code, body.metadata.unwrap().message_id), (2, String::new()));
}
