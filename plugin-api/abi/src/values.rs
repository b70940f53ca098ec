//! The values that cross in calls. Frequent or bulk data has a type here; small data that may grow crosses as JSON.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RString, RVec};

use crate::WireBuffer;

/// What every exported call returns.
pub type Wired<T> = RResult<T, WireError>;

/// An error.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireError {
    pub kind: RString,
    pub message: RString,
    /// What the error refers to: 0 nothing, 1 a key, 2 a file, 3 a tensor.
    pub place: u8,
    pub place_name: RString,
    pub line: ROption<u64>,
    pub causes: RVec<RString>,
    pub help: ROption<RString>,
    /// A JSON object with further details; empty if there are none.
    pub more: RString,
}

/// A named tensor, dense and row-major.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTensor {
    pub name: RString,
    /// DLPack's type code.
    pub code: u8,
    /// Bits per element.
    pub bits: u8,
    pub shape: RVec<u64>,
    /// Starts at a multiple of the element size, and at a multiple of 64 bytes if its maker can choose.
    pub buffer: WireBuffer,
}

/// Named tensors, in order.
pub type WireParams = RVec<WireTensor>;

/// A message between server and clients.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireMessage {
    pub params: WireParams,
    pub extra: WireParams,
    /// A JSON object, or empty.
    pub values: RString,
}

/// A component's saved state.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireState {
    pub tensors: WireParams,
    /// A JSON object.
    pub values: RString,
}

/// A named column.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireColumn {
    pub name: RString,
    /// 0 text, 1 f32, 2 i64, 3 f64, 4 bool (a byte a row, 0 or 1), 5 bytes, 6 lists.
    pub kind: u8,
    /// The values of all rows, concatenated; absent in a column of lists.
    pub data: ROption<WireBuffer>,
    /// For text, bytes and lists: where each row ends in `data` or `items`, as i64.
    pub ends: ROption<WireBuffer>,
    /// One byte per row: 0 if the row has no value, in which case its data has no meaning. If absent, every row has a
    /// value.
    pub present: ROption<WireBuffer>,
    /// For a column of lists: an unnamed column with the items of all rows.
    pub items: RVec<WireColumn>,
}

/// Columns of equal length, in order.
pub type WireTable = RVec<WireColumn>;

/// A task at a client.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTask {
    /// The task's specification, in JSON.
    pub spec: RString,
    pub train: WireTable,
    pub test: WireTable,
}

/// How good a model is on a task. Not JSON, since the numbers may be NaN.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireEvaluation {
    pub task: RString,
    pub examples: u64,
    pub loss: f64,
    pub score: f64,
    pub metrics: RVec<WireMetric>,
    /// A JSON object with further details; empty if there are none.
    pub more: RString,
}

/// One number that measures a model's quality.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireMetric {
    pub name: RString,
    pub value: f64,
    pub higher_is_better: bool,
}

/// What a client sends at the end of a round.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireUpdate {
    pub client: RString,
    pub message: WireMessage,
    /// What training did in the round, in JSON.
    pub trained: RString,
}

/// A query to a client, or its reply.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireClientMessage {
    pub client: RString,
    pub message: WireMessage,
}
