//! Small arrays, many in one object, between two ends of this crate.
//!
//! An array of its own is two objects, each of which takes a request of some milliseconds to push and another to pull: for
//! a small array far longer than its bytes take. So those of up to [`SMALL`] bytes travel in bundles. A bundle is a record
//! like others, so messages that have the same one share it. It says no offsets: each array begins where the one before
//! it ends.

use bytes::{Bytes, BytesMut};
use indexmap::IndexMap;
use prost::Message;

use crate::assemble::Assembly;
use crate::content::{Array, Content, DType, Record, Value, size};
use crate::error::Error;
use crate::limits::Limits;
use crate::pack::CHUNK;
use crate::record;

/// The names of bundles begin so; those of other records may not.
pub(crate) const BUNDLE: &str = "fedplug.bundle";
/// Larger arrays are objects of their own.
pub(crate) const SMALL: usize = 256 << 10;
/// Arrays of one bundle.
const MOST: usize = 1 << 15;

/// What a bundle holds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Bundle {
    #[prost(message, repeated, tag = "1")]
    pub(crate) records: Vec<Place>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) arrays: Vec<About>,
    /// The bytes of the arrays, one after the other.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) data: Bytes,
}

/// A record that has arrays in the bundle.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Place {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Its place in the content.
    #[prost(uint64, tag = "2")]
    pub(crate) place: u64,
}

/// An array of the bundle.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct About {
    /// The index of its record in `records`.
    #[prost(uint64, tag = "1")]
    pub(crate) record: u64,
    /// Its place in the record.
    #[prost(uint64, tag = "2")]
    pub(crate) place: u64,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) dtype: String,
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) shape: Vec<u64>,
}

/// Puts the small arrays of content into bundles, which come last. A record of arrays that has no others is left out.
pub(crate) fn fold(content: &Content) -> Content {
    let mut folded = Content::with_capacity(content.len() + 1);
    let mut bundles: Vec<(Bundle, BytesMut, usize)> = Vec::new();
    for (record_place, (record_name, record)) in content.iter().enumerate() {
        let Record::Arrays(arrays) = record else {
            folded.insert(record_name.clone(), record.clone());
            continue;
        };
        let mut large = IndexMap::new();
        for (place, (name, array)) in arrays.iter().enumerate() {
            if array.data().len() > SMALL {
                large.insert(name.clone(), array.clone());
                continue;
            }
            // Not less than it takes in the bundle.
            let length = array.data().len() + record_name.len() + name.len() + 10 * array.shape().len() + 100;
            if bundles.last().is_none_or(|(bundle, _, used)| used + length > CHUNK || bundle.arrays.len() == MOST) {
                bundles.push(Default::default());
            }
            let Some((bundle, data, used)) = bundles.last_mut() else { continue };
            if bundle.records.last().is_none_or(|last| last.name != *record_name) {
                bundle.records.push(Place { name: record_name.clone(), place: record_place as u64 });
            }
            bundle.arrays.push(About {
                record: bundle.records.len() as u64 - 1,
                place: place as u64,
                name: name.clone(),
                dtype: array.dtype().name().to_owned(),
                shape: array.shape().to_vec(),
            });
            data.extend_from_slice(array.data());
            *used += length;
        }
        if !large.is_empty() || arrays.is_empty() {
            folded.insert(record_name.clone(), Record::Arrays(large));
        }
    }
    for (number, (bundle, data, _)) in bundles.into_iter().enumerate() {
        let bundle = Bundle { data: data.freeze(), ..bundle }.encode_to_vec();
        let values = IndexMap::from([("bundle".to_owned(), Value::Bytes(bundle.into()))]);
        folded.insert(format!("{BUNDLE}.{number}"), Record::Config(values));
    }
    folded
}

/// Puts the arrays of bundles back to where they were. Returns them.
pub(crate) fn unfold(content: &mut Content, limits: &Limits) -> Result<Vec<Array>, Error> {
    let mut bundles = Vec::new();
    let mut number = 0;
    while let Some(record) = content.shift_remove(&format!("{BUNDLE}.{number}")) {
        bundles.push(read(record, limits)?);
        number += 1;
    }
    let mut unfolded = Vec::new();
    for Bundle { records, arrays, mut data } in bundles {
        for About { record, place, name, dtype, shape } in arrays {
            let wrong = |reason: String| Error::protocol("bundle", format!("`{}`: {reason}", short(&name)));
            if name.len() > limits.name || shape.len() > limits.dimensions {
                return Err(wrong("too long a name or too many dimensions".into()));
            }
            let Some(dtype) = DType::from_name(&dtype) else {
                return Err(wrong(format!("the type `{}` is unknown", short(&dtype))));
            };
            // Checked against what is here before memory is taken.
            let length = size(dtype, &shape).and_then(|length| usize::try_from(length).ok());
            let Some(length) = length.filter(|length| *length <= data.len()) else {
                return Err(wrong(format!("{} of shape {shape:?} is larger than what is left", dtype.name())));
            };
            let record = usize::try_from(record).ok().and_then(|record| records.get(record));
            let arrays = record.and_then(|record| arrays_of(content, record));
            let arrays = arrays.ok_or_else(|| wrong("its record cannot have arrays".into()))?;
            let place = usize::try_from(place).ok().filter(|place| *place <= arrays.len());
            let Some(place) = place.filter(|_| !arrays.contains_key(&name)) else {
                return Err(wrong("it cannot stand there".into()));
            };
            let mut assembly = Assembly::plain(dtype, shape, |_| Ok(()))?;
            assembly.append(&data.split_to(length), |_| Ok(()))?;
            let array = assembly.finish()?;
            unfolded.push(array.clone());
            arrays.shift_insert(place, name, array);
        }
        if !data.is_empty() {
            return Err(Error::protocol("bundle", format!("{} bytes more than its arrays take", data.len())));
        }
    }
    Ok(unfolded)
}

fn read(record: Record, limits: &Limits) -> Result<Bundle, Error> {
    let wrong = |reason: &str| Error::protocol("bundle", reason);
    let Record::Config(mut values) = record else { return Err(wrong("it is no record of values")) };
    let Some(Value::Bytes(bytes)) = values.shift_remove("bundle") else { return Err(wrong("it has no content")) };
    // Fields of two bytes may take a hundred in memory.
    if record::count(&bytes).is_none_or(|fields| fields > limits.values) {
        return Err(wrong("no protobuf message, or too many arrays"));
    }
    Bundle::decode(bytes).map_err(|error| wrong(&error.to_string()))
}

/// The arrays of a record, which is inserted at its place if all of them are in bundles.
fn arrays_of<'a>(content: &'a mut Content, record: &Place) -> Option<&'a mut IndexMap<String, Array>> {
    if !content.contains_key(&record.name) {
        let place = usize::try_from(record.place).ok().filter(|place| *place <= content.len())?;
        content.shift_insert(place, record.name.clone(), Record::Arrays(IndexMap::new()));
    }
    match content.get_mut(&record.name) {
        Some(Record::Arrays(arrays)) => Some(arrays),
        _ => None,
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
