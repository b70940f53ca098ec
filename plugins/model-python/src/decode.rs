//! What Python returns, as tensors and tables.

use plugin_api::{
    BytesColumn, Column, DType, Error, ListColumn, Message, Params, Result, State, Table, TargetKind, Task, TaskSpec,
    Tensor, TextColumn,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::link::Answer;

fn wrong(what: &str) -> Error {
    Error::other(format!("the Python process returned something else than {what}"))
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value, what: &str) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|error| wrong(what).because(&error))
}

fn dtype(name: &str) -> Result<DType> {
    Ok(match name {
        "f32" => DType::F32,
        "f64" => DType::F64,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        "i64" => DType::I64,
        "i32" => DType::I32,
        "i8" => DType::I8,
        "u8" => DType::U8,
        _ => return Err(wrong("a tensor")),
    })
}

fn list<'v>(value: &'v Value, what: &str) -> Result<&'v Vec<Value>> {
    value.as_array().ok_or_else(|| wrong(what))
}

fn values(value: &Value) -> Result<Map<String, Value>> {
    read(value, "a table of values")
}

impl Answer {
    pub(crate) fn params(&self, value: &Value) -> Result<Params> {
        let one = |tensor: &Value| -> Result<(String, Tensor)> {
            let (name, of, shape, place): (String, String, Vec<usize>, Value) = read(tensor, "a tensor")?;
            let tensor = self.buffer(&place).and_then(|buffer| Tensor::new(dtype(&of)?, &shape, buffer));
            Ok((name.clone(), tensor.map_err(|error| error.at_tensor(name))?))
        };
        list(value, "tensors")?.iter().map(one).collect()
    }

    pub(crate) fn message(&self, value: &Value) -> Result<Message> {
        let (params, extra) = (self.params(&value["params"])?, self.params(&value["extra"])?);
        Ok(Message { params, extra, values: values(&value["values"])? })
    }

    pub(crate) fn state(&self) -> Result<State> {
        Ok(State { tensors: self.params(&self.value["tensors"])?, values: values(&self.value["values"])? })
    }

    pub(crate) fn task(&self, value: &Value) -> Result<Task> {
        Ok(Task { spec: spec(&value["spec"])?, train: self.table(&value["train"])?, test: self.table(&value["test"])? })
    }

    pub(crate) fn table(&self, value: &Value) -> Result<Table> {
        list(&value["columns"], "a table")?.iter().try_fold(Table::new(), |table, column| {
            let (name, column): (String, Value) = read(column, "a column")?;
            table.with(name, self.column(&column)?)
        })
    }

    fn column(&self, value: &Value) -> Result<Column> {
        let part = |name: &str| self.buffer(&value[name]);
        Ok(match value["kind"].as_str().unwrap_or_default() {
            "f32" => Column::F32(part("values")?),
            "i64" => Column::I64(part("values")?),
            "f64" => Column::F64(part("values")?),
            "bool" => Column::Bool(part("values")?),
            "text" => Column::Text(TextColumn::from_parts(part("ends")?, part("values")?)?),
            "bytes" => Column::Bytes(BytesColumn::from_parts(part("ends")?, part("values")?)?),
            "list" => Column::List(ListColumn::from_parts(part("ends")?, self.column(&value["items"])?)?),
            "nullable" => self.column(&value["values"])?.with_nulls(part("present")?)?,
            _ => return Err(wrong("a column")),
        })
    }
}

pub(crate) fn spec(value: &Value) -> Result<TaskSpec> {
    #[derive(Deserialize)]
    struct Given {
        name: String,
        inputs: Vec<String>,
        target: String,
        classes: Option<Vec<String>>,
    }
    let Given { name, inputs, target, classes } = read(value, "a task")?;
    let target_kind = classes.map_or(TargetKind::Number, TargetKind::Class);
    Ok(TaskSpec { name, inputs, target, target_kind })
}
