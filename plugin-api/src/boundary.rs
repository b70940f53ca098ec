//! Between the types that authors see and those of `fedplug_abi`, which cross.
//!
//! Each kind has a file with the exporting side (a plugin's object behind the wire trait) and the importing side (the wire
//! object as an ordinary trait object again). Both sides are compiled into host and plugin alike, so that one test drives a
//! component through the whole way.
//!
//! **Panics.** None crosses: every exported call runs in [`guard`], every call back into the host as well.
#![allow(missing_docs, unreachable_pub, reason = "hidden from the documentation")]

pub mod aggregator;
pub mod context;
pub mod crossing;
pub mod dataset;
pub mod filter;
pub mod guard;
mod logger;
pub mod model;
pub mod root;
pub mod wire;

pub use fedplug_abi;
