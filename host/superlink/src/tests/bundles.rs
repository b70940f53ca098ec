//! Small arrays in bundles, as they are written and as others may write them.

use bytes::Bytes;
use indexmap::IndexMap;
use proptest::prelude::*;
use prost::Message as _;
use test_support::cases;
use test_support::fuzz::{Memory, fuzz};

use super::codecs::{arrays, pack};
use super::fetch;
use crate::bundle::{BUNDLE, SMALL, fold, unfold};
use crate::content::{Array, Content, DType, Record, Value};
use crate::error::Error;
use crate::limits::Limits;
use crate::pack::{CHUNK, Pack};

const LIMITS: Limits = Limits { object: 1000, objects: 20, arrays: 4096, values: 10, name: 30, dimensions: 4 };

fn bytes(length: usize, byte: u8) -> Array {
    Array::new(DType::U8, vec![length as u64], vec![byte; length].into()).unwrap()
}

fn record(arrays: &[(&str, &Array)]) -> Record {
    Record::Arrays(arrays.iter().map(|(name, array)| ((*name).to_owned(), (*array).clone())).collect())
}

/// The names of records and of their arrays, in order.
fn names(content: &Content) -> Vec<(String, Vec<String>)> {
    let names = content.iter().map(|(name, record)| match record {
        Record::Arrays(arrays) => (name.clone(), arrays.keys().cloned().collect()),
        Record::Metrics(values) | Record::Config(values) => (name.clone(), values.keys().cloned().collect()),
    });
    names.collect()
}

fn come_back(content: &Content) -> Result<(), TestCaseError> {
    let folded = fold(content);
    let (id, objects) = pack(&folded);
    let mut received = fetch(&objects, &id, &Limits::default()).unwrap();
    let small = unfold(&mut received.content, &Limits::default()).unwrap();
    prop_assert_eq!(names(&received.content), names(content));
    prop_assert_eq!(&received.content, content);
    prop_assert!(small.iter().all(|array| array.data().len() <= SMALL && array.data().as_ptr().align_offset(64) == 0));
    Ok(())
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn bundled_content_comes_back(records in proptest::collection::vec((".{0,9}", prop_oneof![
        3 => (arrays(), proptest::bool::weighted(0.3)).prop_map(|(mut arrays, large)| {
            if large {
                arrays.shift_insert(arrays.len() / 2, "large".into(), bytes(SMALL + 1, 7));
            }
            Record::Arrays(arrays)
        }),
        1 => any::<i64>().prop_map(|number| Record::Config(IndexMap::from([("n".into(), Value::Int(number))]))),
    ]), 0..6)) {
        come_back(&Content::from_iter(records))?;
    }
}

#[test]
fn any_bundle_is_read_or_refused() {
    fuzz("bundle", 500, Memory { base: 16 << 10, per_byte: 100 }, |body| {
        unfold(&mut with_bundle(body.to_vec()), &LIMITS).is_ok()
    });
}

#[test]
fn small_arrays_share_one_object_and_large_ones_do_not() {
    let (small, large) = (bytes(SMALL, 1), bytes(SMALL + 1, 2));
    let all: Vec<(String, Array)> = (0..40).map(|i| (format!("small{i}"), bytes(1000 + i, i as u8))).collect();
    let mut arrays: IndexMap<String, Array> = all.into_iter().collect();
    let (_, objects) = pack(&fold(&Content::from([("arrays".to_owned(), Record::Arrays(arrays.clone()))])));
    // Message, dictionary, bundle.
    assert_eq!(objects.len(), 3);
    arrays.shift_insert(3, "small".into(), small);
    arrays.shift_insert(5, "large".into(), large.clone());
    let content = Content::from([("arrays".to_owned(), Record::Arrays(arrays))]);
    let folded = fold(&content);
    assert_eq!(folded["arrays"], record(&[("large", &large)]));
    // And the record of arrays, the large array, its chunk.
    assert_eq!(pack(&folded).1.len(), 6);
    come_back(&content).unwrap();
}

#[test]
fn no_bundle_is_larger_than_a_chunk() {
    let number = 3 * CHUNK / SMALL;
    let arrays = (0..number).map(|i| (format!("w{i}"), bytes(SMALL, i as u8))).collect();
    let single = Array::new(DType::U8, vec![], vec![1].into()).unwrap();
    let scalars = (0..70_000).map(|i| (format!("{i}"), single.clone())).collect();
    let content =
        Content::from([("arrays".to_owned(), Record::Arrays(arrays)), ("scalars".to_owned(), Record::Arrays(scalars))]);
    let folded = fold(&content);
    assert!(folded.len() >= 4 && folded.keys().all(|name| name.starts_with(BUNDLE)), "{:?}", folded.keys());
    let (_, objects) = pack(&folded);
    assert!(objects.values().all(|object| object.len() <= CHUNK + 1000));
    come_back(&content).unwrap();
}

#[test]
fn messages_with_the_same_small_arrays_share_their_bundle() {
    let (w, one, two) = (bytes(100, 1), bytes(9, 2), bytes(9, 3));
    let mut pack = Pack::default();
    let mut bundle = |other: &Array| {
        let config = Record::Config(IndexMap::from([("id".to_owned(), Value::from(format!("{other:?}")))]));
        let content = Content::from([("arrays".to_owned(), record(&[("w", &w)])), ("own".to_owned(), config)]);
        pack.content(&fold(&content)).unwrap().records.into_iter().find(|(name, _)| name.starts_with(BUNDLE))
    };
    assert_eq!(bundle(&one), bundle(&two));
}

/// Content of one record of arrays and a bundle with these bytes.
fn with_bundle(body: Vec<u8>) -> Content {
    let large = bytes(3, 1);
    Content::from([
        ("arrays".to_owned(), record(&[("large", &large)])),
        ("config".to_owned(), Record::Config(IndexMap::new())),
        (format!("{BUNDLE}.0"), Record::Config(IndexMap::from([("bundle".to_owned(), Value::Bytes(body.into()))]))),
    ])
}

/// A bundle as somebody else may write it: records with places; arrays as record, place, name, type and shape; bytes.
fn made(records: &[(&str, u64)], arrays: &[(u64, u64, &str, &str, &[u64])], data: &[u8]) -> Vec<u8> {
    let records = records.iter().map(|(name, place)| crate::bundle::Place { name: (*name).into(), place: *place });
    let arrays = arrays.iter().map(|(record, place, name, dtype, shape)| crate::bundle::About {
        record: *record,
        place: *place,
        name: (*name).into(),
        dtype: (*dtype).into(),
        shape: shape.to_vec(),
    });
    let data = Bytes::copy_from_slice(data);
    crate::bundle::Bundle { records: records.collect(), arrays: arrays.collect(), data }.encode_to_vec()
}

fn error(body: Vec<u8>) -> String {
    let unfolded: Result<Vec<Array>, Error> = unfold(&mut with_bundle(body), &LIMITS);
    unfolded.unwrap_err().to_string()
}

#[test]
fn bundles_that_are_not_what_they_say() {
    let good: (u64, u64, &str, &str, &[u64]) = (0, 0, "a", "uint8", &[3]);
    let here = [("arrays", 0)];
    let mut content = with_bundle(made(&here, &[good, (0, 2, "b", "bfloat16", &[])], b"abcde"));
    assert_eq!(unfold(&mut content, &LIMITS).unwrap().len(), 2);
    assert_eq!(names(&content)[0].1, ["a", "large", "b"]);
    assert_eq!(content.len(), 2);
    let huge = u64::MAX;
    let many: Vec<_> = (0..11).map(|_| good).collect();
    let (long, deep) = ("x".repeat(31), [1; 5]);
    for (records, arrays, data, expected) in [
        // More than is there, also where earlier arrays have taken it: two arrays cannot have the same bytes.
        (&here[..], &[good][..], &b"ab"[..], "`a`: uint8 of shape [3] is larger than what is left"),
        (&here, &[good, (0, 0, "b", "uint8", &[3])], b"abcde", "`b`: uint8 of shape [3] is larger"),
        (&here, &[(0, 0, "a", "float64", &[3])], b"abc", "float64 of shape [3] is larger"),
        (&here, &[(0, 0, "a", "uint8", &[1 << 40])], b"abc", "is larger than what is left"),
        (&here, &[(0, 0, "a", "uint8", &[huge, huge])], b"abc", "is larger than what is left"),
        (&here, &[good], b"abcd", "1 bytes more than its arrays take"),
        (&here, &[], b"a", "1 bytes more than its arrays take"),
        (&here, &[(0, 0, "a", "complex64", &[3])], b"abc", "the type `complex64` is unknown"),
        (&here, &[(0, 0, "a", "", &[3])], b"abc", "the type `` is unknown"),
        (&here, &[(0, 2, "a", "uint8", &[3])], b"abc", "`a`: it cannot stand there"),
        (&here, &[(0, huge, "a", "uint8", &[3])], b"abc", "it cannot stand there"),
        (&here, &[(0, 0, "large", "uint8", &[3])], b"abc", "`large`: it cannot stand there"),
        (&here, &[good, good], b"abcdef", "`a`: it cannot stand there"),
        (&here, &[(1, 0, "a", "uint8", &[3])], b"abc", "its record cannot have arrays"),
        (&here, &[(huge, 0, "a", "uint8", &[3])], b"abc", "its record cannot have arrays"),
        (&[], &[good], b"abc", "its record cannot have arrays"),
        (&[("config", 0)], &[good], b"abc", "its record cannot have arrays"),
        (&[("new", 3)], &[good], b"abc", "its record cannot have arrays"),
        (&[("new", huge)], &[good], b"abc", "its record cannot have arrays"),
        (&here, &[(0, 0, &long, "uint8", &[3])], b"abc", "too long a name or too many dimensions"),
        (&here, &[(0, 0, "a", "uint8", &deep)], b"a", "too long a name or too many dimensions"),
        (&here, &many, b"abc", "too many arrays"),
    ] {
        let error = error(made(records, arrays, data));
        assert!(error.starts_with("bundle: ") && error.contains(expected), "{expected}: {error}");
    }
    assert!(error(b"\x0a\xff".to_vec()).contains("no protobuf message"));
    // A field of another type.
    assert!(error(b"\x08\x01".to_vec()).contains("bundle: "));
    for record in [
        Record::Config(IndexMap::new()),
        Record::Config(IndexMap::from([("bundle".to_owned(), Value::from("text"))])),
        Record::Metrics(IndexMap::new()),
        record(&[]),
    ] {
        let mut content = Content::from([(format!("{BUNDLE}.0"), record)]);
        assert!(unfold(&mut content, &LIMITS).unwrap_err().to_string().starts_with("bundle: it "));
    }
}
