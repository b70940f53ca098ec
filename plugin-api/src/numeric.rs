//! Numerical work: the mean of many clients' parameters, memory for large tensors, and parallel work over tensors.
//!
//! Filter authors do not need this module.

pub mod mean;
pub mod memory;
pub(crate) mod parallel;

pub use mean::WeightedMean;
pub use memory::{Arena, TensorBuf};
