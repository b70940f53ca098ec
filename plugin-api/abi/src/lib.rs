//! The memory layout of everything that crosses between host and plugin: the wire types of interface 1.
//!
//! Plugin authors do not need this crate. They write against `plugin_api`, which converts its own types to these and
//! back. `docs/abi.md` of that crate says what crosses and why.
//!
//! **Frozen.** abi_stable compares every type at load: its package's name and major version, its own name, and its
//! fields. So this crate keeps its name and major version forever, and no type here ever changes, not even by an added
//! field or method. A later interface is a root module `PluginV2` beside [`PluginV1`], with new types where it needs
//! them and these types elsewhere. `docs/v1.txt` records everything that the loader compares, and a test checks the
//! source against it.
//!
//! **Growth without a new interface.** Data that may grow crosses as JSON, and readers ignore unknown fields. Each
//! object also has a call [`extension`](WireModel), which takes a name and a message and returns a message. It answers
//! unknown names with an error of kind `unsupported`.
//!
//! **Ownership.** Whoever holds a wire value owns it, and the library that made the value supplies its destructor:
//! `RString` and `RVec` carry theirs, buffers their `release`, boxed objects their vtable. So nothing is freed by the
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
// The names by which the boundary knows what abi_stable has: another library would provide them here.
pub use abi_stable::library;
pub use abi_stable::sabi_trait::TD_Opaque;
pub use abi_stable::std_types::{ROption, RResult, RStr, RString, RVec};
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
