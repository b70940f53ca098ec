//! Files that a run leaves: its folder, checkpoints, tensors, metrics.

pub mod checkpoint;
pub mod journal;
pub mod lock;
pub mod names;
pub mod replaced;
pub mod run_dir;
pub mod safetensors;
pub mod tracking;
