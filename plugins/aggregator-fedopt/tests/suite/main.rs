//! The server optimisers through the public interface, in one program, which builds faster than several.
//!
//! - `fedopt`: the optimisers by hand, and what is around them.
//! - `reference`: comparison with Flower and NVFlare.

#![allow(clippy::unwrap_used)]

mod common;
mod fedopt;
mod reference;
