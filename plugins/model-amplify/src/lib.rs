//! AMPLIFY, a protein language model, with a regression head for each task: the model plugin `amplify`.
//!
//! The trunk is the encoder of Fournier et al., *Protein Language Models: Is Scaling Necessary?* (bioRxiv 2024); its
//! files are read and written in the published format and keep the published names. On top of its last block stands,
//! for each task, a small perceptron that predicts one number for a sequence. Everything runs on libtorch, in fp32.
//!
//! ```toml
//! [model]
//! plugin = "amplify"
//! pretrained = "models/AMPLIFY_120M"   # a folder with config.json, model.safetensors and tokenizer.json
//! # pretrained = { hidden-size = 64, layers = 2, heads = 4, intermediate-size = 256 }   # or a random trunk
//! layer-sizes = [128, 64, 32]          # the hidden layers of each head
//! trunk-lr = 1e-4
//! regressor-lr = 1e-2
//! batch-size = 64
//! ```
//!
//! [`config::Config`] documents every key.
//!
//! # Reading order
//! [`trunk`] is the paper's model and [`regressor`] the heads; [`network`] joins the two. [`batch`] makes tensors of
//! token ids, [`trainer`] takes an optimiser step with [`optimizer`], and [`model`] is the plugin: the loop over
//! epochs, tasks and batches. [`parameters`] holds the named tensors, [`checkpoint`] and [`export`] their files.
//!
//! # Randomness
//! All of it comes from the experiment's seed through ChaCha8 on the CPU (see [`noise`]); libtorch's own generator,
//! which all clients of a process would share, is never asked.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[doc(hidden)]
pub mod architecture;
#[doc(hidden)]
pub mod batch;
mod bridge;
#[doc(hidden)]
pub mod checkpoint;
pub mod config;
mod device;
#[doc(hidden)]
pub mod export;
mod metrics;
pub mod model;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod noise;
#[doc(hidden)]
pub mod optimizer;
#[doc(hidden)]
pub mod parameters;
#[doc(hidden)]
pub mod regressor;
#[doc(hidden)]
pub mod tokenize;
#[doc(hidden)]
pub mod trainer;
#[doc(hidden)]
pub mod trunk;

use plugin_api::Component;

pub use model::Amplify;

/// What this plugin offers.
pub fn component() -> Component {
    let about = "the AMPLIFY protein language model with a regression head for each task";
    Component::model("amplify", about, Amplify::new).on_devices(device::devices)
}

plugin_api::export_plugin!(component());
