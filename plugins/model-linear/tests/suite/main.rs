//! The model through its public interface, in one program, which builds faster than several.
//!
//! - `classes`: comparison with NumPy and scikit-learn.
//! - `linear`: training, resuming, predicting.

#![allow(clippy::unwrap_used)]

mod classes;
mod linear;
