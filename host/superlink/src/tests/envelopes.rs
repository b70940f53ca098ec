//! What orders and answers say besides their content.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use indexmap::IndexMap;

use crate::content::{Array, Content, DType, Record, Value};
use crate::envelope::{OrderNote, Place, RECORD, Status, answer_record, open_answer};
use crate::identity::Identity;
use crate::pack::Pack;
use crate::wire::Metadata;

fn place() -> Place {
    Place { session: "0123456789abcdef0123456789abcdef".into(), number: 17, digest: "ab".repeat(16) }
}

#[test]
fn a_place_stands_in_the_group() {
    let of = |group: &str| Place::of(&Metadata { group_id: group.into(), ..Metadata::default() });
    assert_eq!(of(&place().group()), Some(place()));
    let session = place().session;
    let digest = place().digest;
    for group in [
        "".to_owned(),
        "1".into(),
        session.clone(),
        format!("fedplug.{session}"),
        format!("fedplug.{session}."),
        format!("fedplug.{session}.1"),
        format!("fedplug.{session}.1."),
        format!("fedplug.{session}.1.{digest}0"),
        format!("fedplug.{session}.0.{digest}"),
        format!("fedplug.{session}.-1.{digest}"),
        format!("fedplug.{session}.99999999999999999999.{digest}"),
        format!("fedplug.{}.1.{digest}", session.to_uppercase()),
        format!("fedplug.../../etc/passwd.1.{digest}"),
        format!("fedplug.{}.1.{digest}", &session[1..]),
    ] {
        assert_eq!(of(&group), None, "{group}");
    }
}

#[test]
fn an_answer_is_good_for_one_order_one_message_and_one_content() {
    let (identity, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let pem = identity.public_pem().as_bytes();
    let (place, digest) = (place(), [5; 32]);
    let record = answer_record(&identity, &place, "m", Status::Refused, "no", &digest).unwrap();
    let content = || Content::from([(RECORD.to_owned(), record.clone())]);
    let open = |pem, place: &Place, message, digest| open_answer(pem, place, message, &mut content(), digest);
    assert_eq!(open(pem, &place, "m", &digest), Ok((Status::Refused, "no".to_owned())));
    let wrong = Err("its signature is not the site's");
    assert_eq!(open(other.public_pem().as_bytes(), &place, "m", &digest), wrong);
    assert_eq!(open(pem, &place, "n", &digest), wrong);
    assert_eq!(open(pem, &place, "m", &[6; 32]), wrong);
    assert_eq!(open(pem, &Place { number: 18, ..place.clone() }, "m", &digest), wrong);
    assert_eq!(open(pem, &Place { session: "f".repeat(32), ..place.clone() }, "m", &digest), wrong);
    assert_eq!(open(pem, &Place { digest: "f".repeat(32), ..place.clone() }, "m", &digest), wrong);
    let change = |key: &str, value: Value| {
        let mut content = content();
        let Some(Record::Config(values)) = content.get_mut(RECORD) else { panic!() };
        values.insert(key.into(), value);
        open_answer(pem, &place, "m", &mut content, &digest)
    };
    assert_eq!(change("status", "answer".into()), wrong);
    assert_eq!(change("text", "yes".into()), wrong);
    assert_eq!(change("status", "other".into()), Err("its status is unknown"));
    assert_eq!(change("signature", Value::Bytes(Bytes::new())), wrong);
    assert_eq!(change("signature", "x".into()), Err("it is not signed"));
    assert_eq!(open_answer(pem, &place, "m", &mut Content::new(), &digest), Err("it is not signed"));
}

fn array(byte: u8) -> Array {
    Array::new(DType::U8, vec![3], vec![byte; 3].into()).unwrap()
}

#[test]
fn what_is_left_out_is_filled_in_at_its_place() {
    let record = |bytes: &[u8]| Record::Arrays(bytes.iter().map(|byte| (format!("n{byte}"), array(*byte))).collect());
    let content = Content::from([("x".to_owned(), record(&[1, 2, 3, 4, 5])), ("y".to_owned(), record(&[9, 1]))]);
    let mut pack = Pack::default();
    for known in [&[][..], &[1], &[5], &[1, 2, 3, 4, 5, 9], &[2, 4, 9], &[7]] {
        let have: BTreeMap<_, _> = known.iter().map(|byte| (pack.array(&array(*byte)), array(*byte))).collect();
        let ids: BTreeSet<_> = have.keys().copied().collect();
        let mut note = OrderNote { key: "k".into(), keep: true, kept: Vec::new() };
        let mut rest = note.leave_out(&content, &ids, &mut pack);
        rest.insert(RECORD.into(), note.to_record().unwrap());
        let read = OrderNote::take(&mut rest).unwrap();
        assert_eq!(read, note);
        if !note.kept.is_empty() {
            assert_eq!(read.fill_in(&mut rest.clone(), &BTreeMap::new()).unwrap(), None, "they are not there");
        }
        assert_eq!(read.fill_in(&mut rest, &have).unwrap(), Some(()));
        assert_eq!(rest, content);
        let names = |content: &Content| match &content["x"] {
            Record::Arrays(arrays) => arrays.keys().cloned().collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!(names(&rest), names(&content));
    }
}

#[test]
fn notes_that_make_no_sense_are_refused() {
    let id = Pack::default().array(&array(1));
    let have = BTreeMap::from([(id, array(1))]);
    let texts = |text: &str| Value::Texts(vec![text.to_owned()]);
    let good = IndexMap::from([
        ("key".to_owned(), Value::from("k")),
        ("kept-records".to_owned(), texts("x")),
        ("kept-names".to_owned(), texts("n")),
        ("kept-ids".to_owned(), texts(&id.to_string())),
        ("kept-positions".to_owned(), Value::Uints(vec![0])),
    ]);
    let fill = |values: &IndexMap<String, Value>| {
        let mut content = Content::from([
            ("x".to_owned(), Record::Arrays(IndexMap::from([("m".to_owned(), array(2))]))),
            ("c".to_owned(), Record::Config(IndexMap::new())),
            (RECORD.to_owned(), Record::Config(values.clone())),
        ]);
        OrderNote::take(&mut content).and_then(|note| note.fill_in(&mut content, &have))
    };
    assert_eq!(fill(&good).unwrap(), Some(()));
    for (key, value) in [
        ("key", Value::Int(1)),
        ("kept-records", texts("c")),
        ("kept-records", texts("z")),
        ("kept-names", texts("m")),
        ("kept-ids", texts("z")),
        ("kept-positions", Value::Uints(vec![2])),
        ("kept-positions", Value::Uints(vec![u64::MAX])),
        ("kept-positions", Value::Uints(vec![])),
        ("kept-names", Value::Texts(vec![])),
    ] {
        let mut values = good.clone();
        values.insert(key.into(), value.clone());
        fill(&values).map(drop).expect_err(&format!("{key} {value:?}"));
    }
}
