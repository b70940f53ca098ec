//! Files that a run leaves: its folder, checkpoints, tensors, metrics.

pub(crate) mod checkpoint;
pub(crate) mod durable;
pub(crate) mod journal;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod replaced;
pub(crate) mod run_dir;
pub mod safetensors;
pub(crate) mod series;
pub(crate) mod tracking;
