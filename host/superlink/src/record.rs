//! MetricRecord and ConfigRecord.

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use crate::content::Value;
use crate::error::Error;
use crate::limits::Limits;
use crate::wire::{Bools, ByteStrings, Doubles, Item, ItemValue, Items, OneValue, Sints, Strings, Uints};

pub(crate) fn encode(values: &IndexMap<String, Value>) -> Vec<u8> {
    let value = |value: &Value| match value.clone() {
        Value::Float(v) => OneValue::Double(v),
        Value::Int(v) => OneValue::Sint(v),
        Value::Uint(v) => OneValue::Uint(v),
        Value::Bool(v) => OneValue::Bool(v),
        Value::Text(v) => OneValue::String(v),
        Value::Bytes(v) => OneValue::Bytes(v),
        Value::Floats(vals) => OneValue::Doubles(Doubles { vals }),
        Value::Ints(vals) => OneValue::Sints(Sints { vals }),
        Value::Uints(vals) => OneValue::Uints(Uints { vals }),
        Value::Bools(vals) => OneValue::Bools(Bools { vals }),
        Value::Texts(vals) => OneValue::Strings(Strings { vals }),
        Value::ByteStrings(vals) => OneValue::ByteStrings(ByteStrings { vals }),
    };
    let items =
        values.iter().map(|(key, v)| Item { key: key.clone(), value: Some(ItemValue { value: Some(value(v)) }) });
    Items { items: items.collect() }.encode_to_vec()
}

/// Reads a record. `metrics`: only numbers are allowed.
pub(crate) fn decode(body: &Bytes, metrics: bool, limits: &Limits) -> Result<IndexMap<String, Value>, Error> {
    let wrong = |reason: String| Error::protocol("record", reason);
    if count(body).ok_or_else(|| wrong("not a protobuf message".into()))? > limits.values {
        return Err(wrong(format!("more than {} values", limits.values)));
    }
    let items = Items::decode(body.clone()).map_err(|error| wrong(error.to_string()))?.items;
    let mut values = IndexMap::with_capacity(items.len());
    for Item { key, value } in items {
        if key.len() > limits.name {
            return Err(wrong(format!("a name of {} bytes", key.len())));
        }
        let Some(value) = value.and_then(|value| value.value) else {
            return Err(wrong(format!("`{key}` has no value")));
        };
        let value = match value {
            OneValue::Double(v) => Value::Float(v),
            OneValue::Sint(v) => Value::Int(v),
            OneValue::Uint(v) => Value::Uint(v),
            OneValue::Bool(v) => Value::Bool(v),
            OneValue::String(v) => Value::Text(v),
            // Copied, since it would hold the whole object.
            OneValue::Bytes(v) => Value::Bytes(Bytes::copy_from_slice(&v)),
            OneValue::Doubles(list) => Value::Floats(list.vals),
            OneValue::Sints(list) => Value::Ints(list.vals),
            OneValue::Uints(list) => Value::Uints(list.vals),
            OneValue::Bools(list) => Value::Bools(list.vals),
            OneValue::Strings(list) => Value::Texts(list.vals),
            OneValue::ByteStrings(list) => {
                Value::ByteStrings(list.vals.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect())
            }
        };
        if metrics && !value.is_metric() {
            return Err(wrong(format!("the metric `{key}` is no number")));
        }
        if values.insert(key.clone(), value).is_some() {
            return Err(wrong(format!("`{key}` appears twice")));
        }
    }
    Ok(values)
}

/// How many fields a message has, counted before memory is taken for them. `None`: it is no message.
pub(crate) fn count(body: &Bytes) -> Option<usize> {
    let (mut rest, mut count) = (body.clone(), 0);
    while !rest.is_empty() {
        let (tag, kind) = decode_key(&mut rest).ok()?;
        skip_field(kind, tag, &mut rest, DecodeContext::default()).ok()?;
        count += 1;
    }
    Some(count)
}
