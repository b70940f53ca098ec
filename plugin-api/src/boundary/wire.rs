//! Conversion of the values that cross the boundary to and from the plain types.
//!
//! Data that calls move often or in bulk has a wire type. Small data that may grow (setups, descriptions, profiles)
//! crosses as JSON, so that adding a field needs no new interface.

use fedplug_abi::{
    ROption, RString, RVec, WireBuffer, WireColumn, WireError, WireEvaluation, WireMessage, WireMetric, WireParams,
    WireState, WireTable, WireTask, WireTensor,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::data::{BytesColumn, ListColumn, TextColumn};
use crate::{
    Buffer, Column, DType, Error, ErrorKind, Evaluation, Goal, Message, Metric, Params, Place, Result, State, Table,
    Task, Tensor,
};

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
            more: RString::new(),
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
            return Err(Error::tensor(name.as_str(), "occurs twice in one message"));
        }
    }
    Ok(params)
}

pub(crate) fn export_message(message: &Message) -> WireMessage {
    let values = if message.values.is_empty() { RString::new() } else { to_json(&message.values) };
    WireMessage { params: export_params(&message.params), extra: export_params(&message.extra), values }
}

pub(crate) fn import_message(wire: WireMessage) -> Result<Message> {
    let values: Map<String, Value> = if wire.values.is_empty() { Map::new() } else { from_json(&wire.values)? };
    Ok(Message { params: import_params(wire.params)?, extra: import_params(wire.extra)?, values })
}

pub(crate) fn export_state(state: &State) -> WireState {
    WireState { tensors: export_params(&state.tensors), values: to_json(&state.values) }
}

pub(crate) fn import_state(wire: WireState) -> Result<State> {
    Ok(State { tensors: import_params(wire.tensors)?, values: from_json(&wire.values)? })
}

pub(crate) fn export_table(table: &Table) -> WireTable {
    table.columns().map(|(name, column)| export_column(name, column)).collect()
}

fn export_column(name: &str, column: &Column) -> WireColumn {
    let wire = |kind, data: Option<&Buffer>, ends: Option<&Buffer>| WireColumn {
        name: name.into(),
        kind,
        data: data.map(Buffer::export).into(),
        ends: ends.map(Buffer::export).into(),
        present: ROption::RNone,
        items: RVec::new(),
    };
    match column {
        Column::Text(text) => {
            let (ends, bytes) = text.parts();
            wire(0, Some(bytes), Some(ends))
        }
        Column::F32(buffer) => wire(1, Some(buffer), None),
        Column::I64(buffer) => wire(2, Some(buffer), None),
        Column::F64(buffer) => wire(3, Some(buffer), None),
        Column::Bool(buffer) => wire(4, Some(buffer), None),
        Column::Bytes(rows) => {
            let (ends, bytes) = rows.parts();
            wire(5, Some(bytes), Some(ends))
        }
        Column::List(lists) => {
            let (ends, items) = lists.parts();
            let mut items_alone = RVec::new();
            items_alone.push(export_column("", items));
            WireColumn { items: items_alone, ..wire(6, None, Some(ends)) }
        }
        Column::Nullable(column) => {
            let present = ROption::RSome(column.present().export());
            WireColumn { present, ..export_column(name, column.values()) }
        }
    }
}

pub(crate) fn import_table(wire: WireTable) -> Result<Table> {
    let mut table = Table::new();
    for column in wire {
        let name = column.name.to_string();
        let column = import_column(column, DEEPEST)
            .map_err(|e| e.causes().iter().fold(Error::data(format!("column `{name}`: {}", e.message())), because))?;
        table = table.with(name, column)?;
    }
    Ok(table)
}

fn because(error: Error, cause: &String) -> Error {
    error.because_of(cause)
}

/// The deepest allowed nesting of lists. Without a limit, a sender could make us recurse arbitrarily deep.
const DEEPEST: u8 = 8;

fn import_column(wire: WireColumn, deepest: u8) -> Result<Column> {
    let WireColumn { kind, data, ends, present, items, .. } = wire;
    let unknown = || Error::data(format!("it is of kind {kind}, unknown here"));
    let buffer = |wire: ROption<WireBuffer>| -> Result<Option<Buffer>> {
        wire.into_option().map(Buffer::import).transpose().map_err(|what| Error::data(format!("its memory {what}")))
    };
    let (data, ends, present) = (buffer(data)?, buffer(ends)?, buffer(present)?);
    let column = match (kind, data, ends, items.into_iter().next()) {
        (0, Some(data), Some(ends), None) => Column::Text(TextColumn::from_parts(ends, data)?),
        (1, Some(data), None, None) => Column::F32(data),
        (2, Some(data), None, None) => Column::I64(data),
        (3, Some(data), None, None) => Column::F64(data),
        (4, Some(data), None, None) => Column::Bool(data),
        (5, Some(data), Some(ends), None) => Column::Bytes(BytesColumn::from_parts(ends, data)?),
        (6, None, Some(ends), Some(items)) => {
            let deeper = deepest.checked_sub(1).ok_or_else(|| Error::data("lists are nested too deep"))?;
            Column::List(ListColumn::from_parts(ends, import_column(items, deeper)?)?)
        }
        _ => return Err(unknown()),
    };
    match present {
        // Check before counting rows, since the bytes may not make a whole number of rows.
        Some(present) => column.check().and_then(|()| column.with_nulls(present)),
        None => Ok(column),
    }
}

pub(crate) fn export_tasks(tasks: &[Task]) -> RVec<WireTask> {
    let task = |task: &Task| WireTask {
        spec: to_json(&task.spec),
        train: export_table(&task.train),
        test: export_table(&task.test),
    };
    tasks.iter().map(task).collect()
}

pub(crate) fn import_tasks(wire: RVec<WireTask>) -> Result<Vec<Task>> {
    let task = |wire: WireTask| -> Result<Task> {
        let spec: crate::TaskSpec = from_json(&wire.spec)?;
        let named = |e: Error| Error::data(format!("task `{}`: {}", spec.name, e.message()));
        let (train, test) = (import_table(wire.train).map_err(named)?, import_table(wire.test).map_err(named)?);
        Ok(Task { spec, train, test })
    };
    wire.into_iter().map(task).collect()
}

pub(crate) fn export_evaluation(evaluation: Evaluation) -> WireEvaluation {
    let metric =
        |m: Metric| WireMetric { name: m.name.into(), value: m.value, higher_is_better: m.goal == Goal::Higher };
    let Evaluation { task, examples, loss, score, metrics } = evaluation;
    let (task, metrics) = (task.into(), metrics.into_iter().map(metric).collect());
    WireEvaluation { task, examples, loss, score, metrics, more: RString::new() }
}

pub(crate) fn import_evaluation(wire: WireEvaluation) -> Evaluation {
    let metric = |m: WireMetric| Metric {
        name: m.name.into(),
        value: m.value,
        goal: if m.higher_is_better { Goal::Higher } else { Goal::Lower },
    };
    let WireEvaluation { task, examples, loss, score, metrics, .. } = wire;
    Evaluation { task: task.into(), examples, loss, score, metrics: metrics.into_iter().map(metric).collect() }
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> RString {
    serde_json::to_string(value).expect("plain structs with text keys always serialise").into()
}

pub(crate) fn from_json<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|e| Error::other("the other side of the boundary sent something unreadable").because(&e))
}

/// A path as text, the only form in which paths cross.
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
mod tests;
