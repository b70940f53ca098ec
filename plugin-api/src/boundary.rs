//! Conversion between the types that authors see and the `fedplug_abi` types that cross the boundary.
//!
//! Each kind has a file with the exporting side, which puts a plugin's object behind the wire trait, and the importing
//! side, which turns the wire object back into an ordinary trait object. Both sides are compiled into host and plugin
//! alike, so one test can drive a component all the way through.
//!
//! **Panics** never cross: every exported call, and every call back into the host, runs in a [`guard`].
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
