//! The robust methods through the public interface, in one program, which builds faster than several.
//!
//! - `attacks`: clients that send garbage, opposite signs or scaled updates.
//! - `reference`: comparison with Flower.
//! - `robust`: what the methods compute, and what they refuse.

#![allow(clippy::unwrap_used)]

mod attacks;
mod common;
mod reference;
mod robust;
