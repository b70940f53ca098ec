//! Compares results bit for bit, and finds the first difference.

use serde_json::{Map, Value};

use plugin_api::{Column, DType, Evaluation, Message, Params, State, Table, Task, Tensor};

/// The first difference between two sets of tensors: in names, order, shapes, types or bits.
pub(crate) fn params(first: &Params, second: &Params) -> Option<String> {
    if !first.names().eq(second.names()) {
        let [a, b] = [first, second].map(|params| params.names().collect::<Vec<_>>());
        return Some(format!("the tensors are {b:?}, and were {a:?}"));
    }
    first.iter().zip(second.iter()).find_map(|((name, a), (_, b))| tensor(name, a, b))
}

fn tensor(name: &str, a: &Tensor, b: &Tensor) -> Option<String> {
    if (a.dtype(), a.shape()) != (b.dtype(), b.shape()) {
        return Some(format!("tensor `{name}` is {b:?}, and was {a:?}"));
    }
    let (bytes_a, bytes_b, size) = (a.buffer().as_slice(), b.buffer().as_slice(), a.dtype().size());
    let byte = bytes_a.iter().zip(bytes_b).position(|(a, b)| a != b)?;
    let (at, value) = (byte / size, |tensor: &Tensor| shown(tensor, byte / size));
    Some(format!("tensor `{name}`: element {at} is {}, and was {}", value(b), value(a)))
}

fn shown(tensor: &Tensor, at: usize) -> String {
    let size = tensor.dtype().size();
    match tensor.dtype() {
        DType::F64 => tensor.elements::<f64>().map_or_else(|e| e.to_string(), |all| all[at].to_string()),
        _ if tensor.is_float() => tensor.to_f32().map_or_else(|e| e.to_string(), |all| all[at].to_string()),
        _ => format!("{:02x?}", &tensor.buffer().as_slice()[at * size..(at + 1) * size]),
    }
}

fn values(first: &Map<String, Value>, second: &Map<String, Value>) -> Option<String> {
    let differs = |name: &&String| first.get(*name) != second.get(*name);
    let name = first.keys().chain(second.keys()).find(differs)?;
    let shown = |map: &Map<String, Value>| map.get(name).map_or_else(|| "not there".to_owned(), Value::to_string);
    Some(format!("value `{name}` is {}, and was {}", shown(second), shown(first)))
}

pub(crate) fn messages(first: &Message, second: &Message) -> Option<String> {
    params(&first.params, &second.params)
        .or_else(|| params(&first.extra, &second.extra).map(|what| format!("extra {what}")))
        .or_else(|| values(&first.values, &second.values))
}

pub(crate) fn states(first: &State, second: &State) -> Option<String> {
    params(&first.tensors, &second.tensors).or_else(|| values(&first.values, &second.values))
}

pub(crate) fn evaluations(first: &[Evaluation], second: &[Evaluation]) -> Option<String> {
    // In text form, NaN equals itself.
    let [a, b] = [first, second].map(|all| format!("{all:?}"));
    (a != b).then(|| format!("evaluations are {b}, and were {a}"))
}

pub(crate) fn tasks(first: &[Task], second: &[Task]) -> Option<String> {
    if first.len() != second.len() {
        return Some(format!("there are {} tasks, and were {}", second.len(), first.len()));
    }
    first.iter().zip(second).find_map(|(a, b)| {
        let specs = (a.spec != b.spec).then(|| format!("is {:?}, and was {:?}", b.spec, a.spec));
        let train = || tables(&a.train, &b.train).map(|what| format!("train table: {what}"));
        let test = || tables(&a.test, &b.test).map(|what| format!("test table: {what}"));
        specs.or_else(train).or_else(test).map(|what| format!("task `{}`: {what}", a.spec.name))
    })
}

pub(crate) fn tables(first: &Table, second: &Table) -> Option<String> {
    if !first.columns().map(|(name, _)| name).eq(second.columns().map(|(name, _)| name)) {
        let [a, b] = [first, second].map(|table| table.columns().map(|(name, _)| name).collect::<Vec<_>>());
        return Some(format!("the columns are {b:?}, and were {a:?}"));
    }
    if first.rows() != second.rows() {
        return Some(format!("there are {} rows, and were {}", second.rows(), first.rows()));
    }
    let differs = |((name, a), (_, b)): ((&str, &Column), (&str, &Column))| {
        (!a.is_equal(b)).then(|| format!("column `{name}` differs"))
    };
    first.columns().zip(second.columns()).find_map(differs)
}

/// The first tensor that holds a NaN or an infinity.
pub(crate) fn not_finite(message: &Message) -> Option<&str> {
    let mut all = message.params.iter().chain(message.extra.iter());
    all.find(|(_, tensor)| !tensor.is_finite()).map(|(name, _)| name)
}
