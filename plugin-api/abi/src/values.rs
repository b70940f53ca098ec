//! What crosses in calls. What is often or in bulk has a type here; what is small and may grow goes as JSON.

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
    /// 0 none, 1 a key, 2 a file, 3 a tensor.
    pub place: u8,
    pub place_name: RString,
    pub line: ROption<u64>,
    pub causes: RVec<RString>,
    pub help: ROption<RString>,
    /// A JSON object with whatever else there is to tell; empty for none.
    pub more: RString,
}

/// A named tensor, dense and row by row.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTensor {
    pub name: RString,
    /// DLPack's type code.
    pub code: u8,
    /// Bits an element takes.
    pub bits: u8,
    pub shape: RVec<u64>,
    /// Starts at a multiple of an element's size; at one of 64 bytes where its maker can choose.
    pub buffer: WireBuffer,
}

/// Named tensors in their order.
pub type WireParams = RVec<WireTensor>;

/// What travels between server and clients.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireMessage {
    pub params: WireParams,
    pub extra: WireParams,
    /// A JSON object; empty for none.
    pub values: RString,
}

/// A component's memory.
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
    /// The values of all rows, one behind the other; none of a column of lists.
    pub data: ROption<WireBuffer>,
    /// Of text, bytes and lists: where each row ends in `data` or `items`, as i64.
    pub ends: ROption<WireBuffer>,
    /// A byte a row: 0 where there is no value, and then what stands there means nothing. Without it each row has one.
    pub present: ROption<WireBuffer>,
    /// Of a column of lists: the column, without a name, of all rows' items.
    pub items: RVec<WireColumn>,
}

/// Columns of one length, in their order.
pub type WireTable = RVec<WireColumn>;

/// A task at a client.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireTask {
    /// What it is about, in JSON.
    pub spec: RString,
    pub train: WireTable,
    pub test: WireTable,
}

/// How good a model is on a task. Its numbers are not JSON, since they may be NaN.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireEvaluation {
    pub task: RString,
    pub examples: u64,
    pub loss: f64,
    pub score: f64,
    pub metrics: RVec<WireMetric>,
    /// A JSON object with whatever else there is to tell; empty for none.
    pub more: RString,
}

/// One number that says how good a model is.
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
    /// What the round's training did, in JSON.
    pub trained: RString,
}

/// A query to a client, or its reply.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireClientMessage {
    pub client: RString,
    pub message: WireMessage,
}
