//! Types that cross the boundary, and their way to and from the plain ones.
//!
//! What a call moves often or in bulk has a type here. What is small and may grow (setups, descriptions, profiles) goes
//! as JSON, so that a field more is no new interface.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RString, RVec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::buffer::{Buffer, WireBuffer};
use crate::data::TextColumn;
use crate::{
    Column, DType, Error, ErrorKind, Evaluation, Goal, Message, Metric, Params, Place, Result, State, Table, Task,
    TaskSpec, Tensor,
};

/// What every exported call returns.
pub type Wired<T> = RResult<T, WireError>;

/// [`Error`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireError {
    kind: RString,
    message: RString,
    /// 0 none, 1 a key, 2 a file, 3 a tensor.
    place: u8,
    place_name: RString,
    line: ROption<u64>,
    causes: RVec<RString>,
    help: ROption<RString>,
}

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        let (place, place_name, line) = match error.place() {
            None => (0, RString::new(), None),
            Some(Place::Key(key)) => (1, key.as_str().into(), None),
            Some(Place::File(path, line)) => (2, path.to_string_lossy().as_ref().into(), *line),
            Some(Place::Tensor(name)) => (3, name.as_str().into(), None),
        };
        Self {
            kind: error.kind().as_str().into(),
            message: error.message().into(),
            place,
            place_name,
            line: line.into(),
            causes: error.causes().iter().map(|cause| cause.as_str().into()).collect(),
            help: error.hint().map(RString::from).into(),
        }
    }
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        let mut error = Self::new(ErrorKind::from(wire.kind.as_str()), wire.message);
        error = match wire.place {
            1 => error.at_key(wire.place_name),
            2 => error.in_file(wire.place_name.as_str(), wire.line.into_option()),
            3 => error.at_tensor(wire.place_name),
            _ => error,
        };
        for cause in wire.causes {
            error = error.because_of(cause);
        }
        match wire.help.into_option() {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// A named tensor on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTensor {
    name: RString,
    /// DLPack's type code.
    code: u8,
    /// Bits an element takes.
    bits: u8,
    shape: RVec<u64>,
    buffer: WireBuffer,
}

/// [`Params`] on their way.
pub type WireParams = RVec<WireTensor>;

pub(crate) fn export_params(params: &Params) -> WireParams {
    let tensor = |(name, tensor): (&str, &Tensor)| {
        let (code, bits) = tensor.dtype().dlpack();
        let shape = tensor.shape().iter().map(|&n| n as u64).collect();
        WireTensor { name: name.into(), code, bits, shape, buffer: tensor.buffer().export() }
    };
    params.iter().map(tensor).collect()
}

pub(crate) fn import_params(wire: WireParams) -> Result<Params> {
    let mut params = Params::new();
    for WireTensor { name, code, bits, shape, buffer } in wire {
        let wrong = |what: String| Error::tensor(name.as_str(), what);
        let dtype = DType::from_dlpack(code, bits)
            .ok_or_else(|| wrong(format!("has elements of DLPack type {code} with {bits} bits, unknown here")))?;
        let shape: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
        let buffer = Buffer::import(buffer).map_err(wrong)?;
        let tensor = Tensor::new(dtype, &shape, buffer).map_err(|e| wrong(e.message().to_owned()))?;
        if params.insert(name.as_str(), tensor).is_some() {
            return Err(Error::tensor(name.as_str(), "stands twice in one message"));
        }
    }
    Ok(params)
}

/// [`Message`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireMessage {
    params: WireParams,
    extra: WireParams,
    values: RString,
}

pub(crate) fn export_message(message: &Message) -> WireMessage {
    let values = if message.values.is_empty() { RString::new() } else { to_json(&message.values) };
    WireMessage { params: export_params(&message.params), extra: export_params(&message.extra), values }
}

pub(crate) fn import_message(wire: WireMessage) -> Result<Message> {
    let values = if wire.values.is_empty() { Default::default() } else { from_json(&wire.values)? };
    Ok(Message { params: import_params(wire.params)?, extra: import_params(wire.extra)?, values })
}

/// [`State`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireState {
    tensors: WireParams,
    values: RString,
}

pub(crate) fn export_state(state: &State) -> WireState {
    WireState { tensors: export_params(&state.tensors), values: to_json(&state.values) }
}

pub(crate) fn import_state(wire: WireState) -> Result<State> {
    Ok(State { tensors: import_params(wire.tensors)?, values: from_json(&wire.values)? })
}

/// A named column on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireColumn {
    name: RString,
    /// 0 text, 1 f32, 2 i64.
    kind: u8,
    data: WireBuffer,
    /// Of a text column, where each row ends.
    ends: ROption<WireBuffer>,
}

/// [`Table`] on its way.
pub type WireTable = RVec<WireColumn>;

pub(crate) fn export_table(table: &Table) -> WireTable {
    let column = |(name, column): (&str, &Column)| {
        let (kind, data, ends) = match column {
            Column::Text(text) => {
                let (ends, bytes) = text.parts();
                (0, bytes.export(), ROption::RSome(ends.export()))
            }
            Column::F32(buffer) => (1, buffer.export(), ROption::RNone),
            Column::I64(buffer) => (2, buffer.export(), ROption::RNone),
        };
        WireColumn { name: name.into(), kind, data, ends }
    };
    table.columns().map(column).collect()
}

pub(crate) fn import_table(wire: WireTable) -> Result<Table> {
    let mut table = Table::new();
    for WireColumn { name, kind, data, ends } in wire {
        let wrong = |what: String| Error::data(format!("column `{name}` {what}"));
        let data = Buffer::import(data).map_err(wrong)?;
        let whole = |size: usize| {
            if data.len() % size == 0 {
                Ok(())
            } else {
                Err(wrong(format!("has {} bytes, not a multiple of {size}", data.len())))
            }
        };
        let column = match (kind, ends) {
            (0, ROption::RSome(ends)) => {
                Column::Text(TextColumn::from_parts(Buffer::import(ends).map_err(wrong)?, data)?)
            }
            (1, ROption::RNone) => whole(4).map(|()| Column::F32(data.clone()))?,
            (2, ROption::RNone) => whole(8).map(|()| Column::I64(data.clone()))?,
            _ => return Err(wrong(format!("is of kind {kind}, unknown here"))),
        };
        table = table.with(name.as_str(), column)?;
    }
    Ok(table)
}

/// [`Task`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTask {
    name: RString,
    inputs: RVec<RString>,
    target: RString,
    train: WireTable,
    test: WireTable,
}

pub(crate) fn export_tasks(tasks: &[Task]) -> RVec<WireTask> {
    let task = |task: &Task| WireTask {
        name: task.spec.name.as_str().into(),
        inputs: task.spec.inputs.iter().map(|name| name.as_str().into()).collect(),
        target: task.spec.target.as_str().into(),
        train: export_table(&task.train),
        test: export_table(&task.test),
    };
    tasks.iter().map(task).collect()
}

pub(crate) fn import_tasks(wire: RVec<WireTask>) -> Result<Vec<Task>> {
    let task = |wire: WireTask| -> Result<Task> {
        let inputs = wire.inputs.into_iter().map(RString::into_string).collect();
        let spec = TaskSpec { name: wire.name.into(), inputs, target: wire.target.into() };
        let named = |e: Error| Error::data(format!("task `{}`: {}", spec.name, e.message()));
        let (train, test) = (import_table(wire.train).map_err(named)?, import_table(wire.test).map_err(named)?);
        Ok(Task { spec, train, test })
    };
    wire.into_iter().map(task).collect()
}

/// [`Evaluation`] on its way. Not JSON: a metric may be NaN.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireEvaluation {
    task: RString,
    examples: u64,
    loss: f64,
    score: f64,
    metrics: RVec<WireMetric>,
}

/// [`Metric`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireMetric {
    name: RString,
    value: f64,
    higher_is_better: bool,
}

pub(crate) fn export_evaluation(evaluation: Evaluation) -> WireEvaluation {
    let metric =
        |m: Metric| WireMetric { name: m.name.into(), value: m.value, higher_is_better: m.goal == Goal::Higher };
    let Evaluation { task, examples, loss, score, metrics } = evaluation;
    WireEvaluation { task: task.into(), examples, loss, score, metrics: metrics.into_iter().map(metric).collect() }
}

pub(crate) fn import_evaluation(wire: WireEvaluation) -> Evaluation {
    let metric = |m: WireMetric| Metric {
        name: m.name.into(),
        value: m.value,
        goal: if m.higher_is_better { Goal::Higher } else { Goal::Lower },
    };
    let WireEvaluation { task, examples, loss, score, metrics } = wire;
    Evaluation { task: task.into(), examples, loss, score, metrics: metrics.into_iter().map(metric).collect() }
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> RString {
    serde_json::to_string(value).expect("plain structs with text keys always serialise").into()
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|e| Error::other("the other side of the boundary sent something unreadable").because(&e))
}

/// A path as text: the only form in which one crosses.
pub(crate) fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::config(format!("the path `{}` is not UTF-8", path.display())))
}

pub(crate) fn import_strings(wire: RVec<RString>) -> Vec<String> {
    wire.into_iter().map(RString::into_string).collect()
}

pub(crate) fn export_strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> RVec<RString> {
    strings.into_iter().map(|s| RString::from(s.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_arrive_as_they_were_sent() {
        let io = std::io::Error::other("disk on fire");
        for sent in [
            Error::config("no").at_key("a.b").help("yes"),
            Error::data("bad row").in_file("x/y.csv", Some(7)).because(&io),
            Error::tensor("w", "is wrong"),
            Error::new(ErrorKind::Other("odd".into()), "plain"),
        ] {
            assert_eq!(Error::from(WireError::from(sent.clone())), sent);
        }
    }

    #[test]
    fn lies_about_tensors_are_refused_by_name() {
        let honest =
            || export_params(&[("w", Tensor::from_slice(&[2, 3], &[0.0_f32; 6]).unwrap())].into_iter().collect());
        let mut twice = honest();
        twice.extend(honest());
        let mut long = honest();
        long[0].shape = vec![u64::MAX, u64::MAX].into();
        let mut odd = honest();
        odd[0].code = 99;
        for (wire, text) in [(twice, "twice"), (long, "does not take 24 bytes"), (odd, "DLPack type 99")] {
            let error = import_params(wire).unwrap_err();
            assert!(error.to_string().starts_with("tensor `w`: ") && error.message().contains(text), "{error}");
        }
        assert_eq!(import_params(honest()).unwrap().get("w").unwrap().shape(), [2, 3]);
    }

    #[test]
    fn lies_about_columns_are_refused_by_name() {
        let table = Table::new().with("text", Column::text(["ä", "b"])).unwrap();
        let honest = import_table(export_table(&table)).unwrap();
        assert_eq!(honest.text("text").unwrap().iter().collect::<Vec<_>>(), ["ä", "b"]);
        for ends in [vec![1_i64, 3], vec![3, 2], vec![2, 9], vec![-1, 3]] {
            let mut wire = export_table(&table);
            wire[0].ends = ROption::RSome(Buffer::copy_of(&ends).export());
            assert!(import_table(wire).unwrap_err().message().contains("ends before its start"), "{ends:?}");
        }
    }
}
