//! Files that a run leaves: its folder, checkpoints, tensors, metrics.

pub mod checkpoint;
pub mod lock;
pub mod replaced;
pub mod run_dir;
pub mod safetensors;
pub mod tracking;
