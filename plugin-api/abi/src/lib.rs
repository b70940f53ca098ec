//! How host and plugin lie in memory to one another: the wire types of interface 1.
//!
//! Authors of plugins need none of this: they write against `plugin_api`, which turns its own types into these and back.
//! `docs/abi.md` of that crate says what crosses and why.
//!
//! **Frozen.** abi_stable compares every type at load: its package's name and major version, its own name, its fields. So
//! this crate keeps its name and its major version for ever, and no type here changes, not even by a field or a method
//! more. A later interface is a root module `PluginV2` beside [`PluginV1`], with new types where it needs them and these
//! where it does not. `docs/v1.txt` records all that the loader compares, and a test holds the source against it.
//!
//! **Growth without another interface.** What may grow crosses as JSON, in which readers leave unknown fields alone, and
//! each object has a call [`extension`](WireModel) of a name, a message in and a message out, which answers with an error of
//! the kind `unsupported` to names that it does not know.
//!
//! **Ownership.** A wire value is owned by whoever holds it, and its destructor is that of the library that made it:
//! `RString` and `RVec` carry theirs, buffers their `release`, boxed objects their vtable. Nothing is freed by the
//! wrong allocator. Borrowed values (`RStr`, [`WireContext`]) live for one call.
#![allow(missing_docs, unreachable_pub, reason = "`sabi_trait` writes public items without documentation")]
#![allow(non_local_definitions, reason = "so expands `sabi_trait`")]
#![allow(non_camel_case_types, reason = "abi_stable's way of naming what it writes")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "those of `sabi_trait` and `StableAbi` are not ours")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod buffer;
mod context;
#[cfg(test)]
mod layout;
mod objects;
mod root;
mod values;

pub use abi_stable;
pub use buffer::{CPU, WireBuffer};
pub use context::{HostRef, WireContext, WireHost, WireHost_TO};
pub use objects::{
    AggregatorBox, DatasetBox, FilterBox, ModelBox, WireAggregator, WireAggregator_TO, WireDataset, WireDataset_TO,
    WireFilter, WireFilter_TO, WireModel, WireModel_TO,
};
pub use root::{PluginV1, PluginV1_Ref, STAMP_SYMBOL};
pub use values::{
    WireClientMessage, WireColumn, WireError, WireEvaluation, WireMessage, WireMetric, WireParams, WireState,
    WireTable, WireTask, WireTensor, WireUpdate, Wired,
};
