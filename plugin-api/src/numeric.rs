//! What computes: the mean of many clients' parameters, memory for large tensors, and work shared among threads.
//!
//! Authors of filters need none of it.

pub mod mean;
pub mod memory;
pub(crate) mod parallel;

pub use mean::WeightedMean;
pub use memory::{Arena, TensorBuf};
