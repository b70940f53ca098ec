//! The filter through its public interface, in one program, which builds faster than several.
//!
//! - `ends`: both ends of a connection.
//! - `methods`: the guarantees of each method.
//! - `properties`: encoding and restoring of arbitrary tensors.
//! - `reference`: comparison with NumPy and bitsandbytes.
//! - `refusals`: errors and their messages.

#![allow(clippy::unwrap_used)]

mod common;
mod ends;
mod methods;
mod properties;
mod reference;
mod refusals;
