//! The model through its public interface, in one program, which builds faster than several.
//!
//! - `behaviour`: training, resuming, evaluating, predicting.
//! - `bits`: what bits may depend on.
//! - `classes`: heads with a logit for each class.
//! - `files`: checkpoints and exports.
//! - `hub`: trunks that are downloaded.
//! - `kernels`: fused kernels, and NVIDIA's compiler.
//! - `lora`: LoRA.
//! - `masked_lm`: masked language modelling.
//! - `parity`: comparison with other implementations.
//! - `refusals`: keys, tables and devices that do not fit.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod behaviour;
mod bits;
mod classes;
mod common;
mod files;
mod hub;
mod kernels;
mod lora;
mod masked_lm;
mod parity;
mod refusals;
