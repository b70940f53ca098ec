//! The ABI face: all that abi_stable has to do with, and nothing else.
//!
//! Each kind has a file with its wire trait, the exporting side (a plugin's object behind the wire trait) and the
//! importing side (the wire object as an ordinary trait object again). Both sides are compiled into host and plugin
//! alike, so that one test drives a component through the whole way.
//!
//! **Ownership.** A wire value is owned by whoever holds it, and its destructor is that of the library that made it:
//! `RString` and `RVec` carry theirs, buffers their `release`, boxed objects their vtable. Nothing is freed by the
//! wrong allocator. Borrowed values (`RStr`, [`WireContext`](context::WireContext)) live for one call.
//!
//! **Panics.** None crosses: every exported call runs in [`guard`], every call back into the host as well.
#![allow(missing_docs, unreachable_pub, reason = "hidden from the documentation; `sabi_trait` writes public items")]
#![allow(non_local_definitions, reason = "so expands `sabi_trait`")]
#![allow(non_camel_case_types, reason = "abi_stable's way of naming what it writes")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "those of `sabi_trait` and `StableAbi` are not ours")]

pub mod aggregator;
pub mod buffer;
pub mod context;
pub mod crossing;
pub mod dataset;
pub mod filter;
pub mod guard;
#[cfg(test)]
mod layout;
pub mod model;
pub mod root;
pub mod wire;

pub use abi_stable;
pub use buffer::{ALIGNMENT, Buffer};
