//! Tensors, tables and what is made of them as JSON, with the numbers beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin_api::{
    Buffer, Column, Context, Error, Message, ModelSetup, Params, Result, Seed, State, Table, Task, TaskSpec,
};
use serde_json::{Value, json};

use crate::segment::Lease;
use crate::upload;

/// The memory of a call.
#[derive(Debug)]
pub(crate) struct Outgoing {
    shared: bool,
    /// Shared memory.
    pub(crate) leases: BTreeMap<u64, Arc<Lease>>,
    /// What goes through the connection.
    pub(crate) pieces: Vec<Buffer>,
}

impl Outgoing {
    /// With or without shared memory.
    pub(crate) fn new(shared: bool) -> Self {
        Self { shared, leases: BTreeMap::new(), pieces: Vec::new() }
    }

    /// Where these buffers will be, in order.
    fn place(&mut self, buffers: &[&Buffer]) -> Result<Vec<Value>> {
        if !self.shared {
            let first = self.pieces.len();
            self.pieces.extend(buffers.iter().map(|&buffer| buffer.clone()));
            return Ok((first..self.pieces.len()).map(Value::from).collect());
        }
        let filled: Vec<&Buffer> = buffers.iter().copied().filter(|buffer| !buffer.is_empty()).collect();
        let mut places = upload::place(&filled)?.into_iter();
        let mut one = |buffer: &&Buffer| {
            let Some(place) = (if buffer.is_empty() { None } else { places.next() }) else { return json!([0, 0, 0]) };
            let value = json!([place.lease.number, place.offset, place.len]);
            self.leases.entry(place.lease.number).or_insert(place.lease);
            value
        };
        Ok(buffers.iter().map(&mut one).collect())
    }

    pub(crate) fn params(&mut self, params: &Params) -> Result<Value> {
        let buffers: Vec<&Buffer> = params.iter().map(|(_, tensor)| tensor.buffer()).collect();
        let places = self.place(&buffers)?;
        let one = |((name, tensor), place): ((&str, &plugin_api::Tensor), Value)| {
            json!([name, tensor.dtype().to_string(), tensor.shape(), place])
        };
        Ok(params.iter().zip(places).map(one).collect())
    }

    pub(crate) fn message(&mut self, message: &Message) -> Result<Value> {
        let (params, extra) = (self.params(&message.params)?, self.params(&message.extra)?);
        Ok(json!({ "params": params, "extra": extra, "values": message.values }))
    }

    pub(crate) fn state(&mut self, state: &State) -> Result<Value> {
        Ok(json!({ "tensors": self.params(&state.tensors)?, "values": state.values }))
    }

    pub(crate) fn task(&mut self, task: &Task) -> Result<Value> {
        Ok(json!({ "spec": spec(&task.spec), "train": self.table(&task.train)?, "test": self.table(&task.test)? }))
    }

    pub(crate) fn tasks(&mut self, tasks: &[Task]) -> Result<Value> {
        tasks.iter().map(|task| self.task(task)).collect()
    }

    /// All columns of a table at once, so that what is new gets one lease.
    pub(crate) fn table(&mut self, table: &Table) -> Result<Value> {
        let mut buffers = Vec::new();
        table.columns().for_each(|(_, column)| collect(column, &mut buffers));
        let mut places = self.place(&buffers)?.into_iter();
        let columns: Result<Value> =
            table.columns().map(|(name, column)| Ok(json!([name, described(column, &mut places)?]))).collect();
        Ok(json!({ "rows": table.rows(), "columns": columns? }))
    }
}

/// The buffers of a column, in the order in which `described` takes their places.
fn collect<'c>(column: &'c Column, into: &mut Vec<&'c Buffer>) {
    match column {
        Column::F32(values) | Column::I64(values) | Column::F64(values) | Column::Bool(values) => into.push(values),
        Column::Text(text) => into.extend(<[&Buffer; 2]>::from(text.parts())),
        Column::Bytes(bytes) => into.extend(<[&Buffer; 2]>::from(bytes.parts())),
        Column::List(lists) => {
            into.push(lists.parts().0);
            collect(lists.items(), into);
        }
        Column::Nullable(nullable) => {
            into.push(nullable.present());
            collect(nullable.values(), into);
        }
        _ => {}
    }
}

fn described(column: &Column, places: &mut impl Iterator<Item = Value>) -> Result<Value> {
    let mut next = || places.next().unwrap_or_default();
    Ok(match column {
        Column::F32(_) | Column::I64(_) | Column::F64(_) | Column::Bool(_) => {
            json!({ "kind": column.kind(), "values": next() })
        }
        Column::Text(_) | Column::Bytes(_) => json!({ "kind": column.kind(), "ends": next(), "values": next() }),
        Column::List(lists) => {
            let ends = next();
            json!({ "kind": "list", "ends": ends, "items": described(lists.items(), places)? })
        }
        Column::Nullable(nullable) => {
            let present = next();
            json!({ "kind": "nullable", "present": present, "values": described(nullable.values(), places)? })
        }
        other => return Err(Error::unsupported(format!("a column of {} cannot be sent to Python", other.kind()))),
    })
}

pub(crate) fn spec(spec: &TaskSpec) -> Value {
    json!({ "name": spec.name, "inputs": spec.inputs, "target": spec.target, "classes": spec.target_kind.classes() })
}

pub(crate) fn setup(setup: &ModelSetup) -> Value {
    let tasks: Vec<Value> = setup.tasks.iter().map(spec).collect();
    json!({ "tasks": tasks, "held": setup.held, "rounds": setup.rounds, "local_epochs": setup.local_epochs })
}

/// What Python gets of a context. `seed` is that of the call.
pub(crate) fn context(ctx: &Context<'_>, seed: Seed) -> Value {
    json!({
        "client": ctx.client(), "round": ctx.round(), "device": ctx.device(), "threads": ctx.threads(),
        "seed": seed.value(), "experiment_seed": ctx.experiment_seed().value(),
    })
}
