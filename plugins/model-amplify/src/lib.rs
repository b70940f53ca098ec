//! AMPLIFY, a protein language model, with a regression head for each task: the model plugin `amplify`.
//!
//! The trunk is the encoder of Fournier et al., *Protein Language Models: Is Scaling Necessary?* (bioRxiv 2024); its
//! files are read and written in the published format and keep the published names. On top of its last block stands,
//! for each task, a small perceptron that predicts one number for a sequence. The heads, and the trunk on GPUs, run on
//! libtorch; the published trunk on the CPU is computed by hand, in fewer passes over memory (`cpu`).
//!
//! ```toml
//! [model]
//! plugin = "amplify"
//! pretrained = "chandar-lab/AMPLIFY_120M"   # a name on the hub, or a folder of the same files
//! # pretrained = { hidden-size = 64, layers = 2, heads = 4, intermediate-size = 256 }   # or a random trunk
//! layer-sizes = [128, 64, 32]          # the hidden layers of each head
//! trunk-lr = 1e-4
//! regressor-lr = 1e-2
//! batch-size = 64
//! ```
//!
//! [`config::Config`] documents every key.
//!
//! # The hub
//! A `pretrained` that is no folder here is a name on the Hugging Face hub: `owner/name`, or `owner/name@revision` with
//! a branch, a tag or a commit. `config.json`, `tokenizer.json`, `model.safetensors` (or its index and shards) and, where
//! the configuration names modelling code, the code go to the cache that all of Hugging Face's programs share. What has
//! arrived is compared with the size and the SHA-256 that the hub gives, and removed if it differs; a download that broke
//! off goes on at the next run. All clients of a process share one download.
//!
//! Once the cache holds all that is needed, the hub is not asked again. So a branch that has moved since is not noticed:
//! name a commit where others shall repeat the run, and delete the cached reference to follow the branch.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache; without it `hub` in `HF_HOME` |
//! | `HF_HOME` | the folder of cache and token; without it `huggingface` in the user's cache folder |
//! | `HF_TOKEN` | the token; without it the file `token` in `HF_HOME`, which logging in leaves there |
//! | `HF_ENDPOINT` | the hub |
//! | `HF_HUB_OFFLINE` | `1`: the cache alone |
//!
//! Certificates are checked against the roots that Mozilla trusts, not the machine's. Behind a proxy that puts its own in
//! their place, copy the cache of another machine, or give a folder.
//!
//! A cache that lacks the reference, as one that was copied in part does, is used with `HF_HUB_OFFLINE` if it holds a single
//! commit of the model; of several, the name has to say which.
//!
//! # Letters
//! The published tokenizer knows the twenty amino acids, `B`, and `|` between chains, in upper case. What it does not know
//! becomes `<unk>`; a warning names the letters, how often each stands in the task's sequences, and their share.
//!
//! # Exports
//! An export holds the trunk and the heads in the published formats, for `pretrained` and `regressors` of another run
//! and for other programs; its `README.md` says how they load it. Hugging Face's `AutoTokenizer` always does. `AutoModel` does
//! where the modelling code came with the trunk, from the hub or a folder; that code is not ours to add, so a trunk that
//! started at random is loaded with `safetensors` into code of one's choice. Only heads that mean something are written:
//! those that this instance trained, and those that came whole with the last global model (before the first one: from
//! `regressors`). A head that is private to the clients is therefore in their exports and not in the server's.
//!
//! # Agreement with other implementations
//! `tests/parity.rs` compares hidden states, logits, pooled vectors and predictions (to 1e-4), and losses, gradient norms,
//! learning rates and final parameters of training steps (to 1e-3) with what an independent program computed
//! (`tests/parity/reference.py`), and with what the published code computed. That program also trains with 28 deliberate
//! mistakes, such as an optimiser that is reset in each round; each of them is farther from our numbers than the tolerance.
//!
//! A head with a hidden layer of fewer than 24 features compares with nothing. The groups of its norm have one feature, or
//! two. The norm of a single number is its bias whatever the number, so every gradient before it is rounding noise, which
//! AdamW turns into steps of the full learning rate; and of two numbers it keeps little more than which is larger. There
//! the published code differs as much from itself between one thread and two.
//!
//! # What numbers mean
//! Some numbers of the published fine-tuning job, NVIDIA FLARE's AMPLIFY example, go by the same name and mean another thing:
//!
//! | number | here | there |
//! |---|---|---|
//! | a client's weight in the mean, `weight-by = "steps"` | the steps of all its tasks | of the first task alone, where a client has several |
//! | the steps over which the learning rates fall to 0 | those of all tasks | those of the first task, so that they reach 0 too early |
//! | `LR/trunk`, `LR/regressor` | the rate that the step took | the rate of the next step, which ends at 0 |
//! | `Loss/train` | the loss of the step's batch | the mean over the epoch so far |
//! | `RMSE/…` | the root of the mean over all samples | of the mean of the batches' means, in which a short last batch counts as a whole one |
//! | `Pearson/…` of constant predictions or targets, or of one row | undefined: NaN | NaN or an error |
//! | predictions and metrics with `pooling = "all-positions"` | depend on the padding of their batch, which has `evaluation-batch-size` rows of like lengths | the same, with batches in the file's order |
//! | the score that the best model is chosen by | `-RMSE/SD` ([`plugin_api::metrics`]) | `-RMSE` |
//!
//! # Devices and bits
//! On the CPU the same experiment gives the same bits on every run, for any number of threads, with every trunk and every
//! precision. The published arrangement computes on all of a client's threads; every other one is left to libtorch, whose
//! sums depend on how many threads share them, and computes on one. On a GPU libtorch adds the embedding's gradient in the
//! order in which its threads come, so two runs may differ in the last digits from the first step on.
//!
//! Each client on a GPU has a stream of its own and waits for nobody else's work. Parameters come and go through pinned
//! memory, all copies of a message at once. The scalars `Memory/client`, the bytes of a client's parameters and moments on
//! its GPU, and `Memory/device_peak`, the most that this process's tensors took of it, account for its memory.
//!
//! # Reading order
//! [`trunk`] is the paper's model and [`regressor`] the heads; [`network`] joins the two. `cpu` is the same trunk once more,
//! with its derivative. [`batch`] makes tensors of
//! token ids, [`trainer`] takes an optimiser step with [`optimizer`], and [`model`] is the plugin: the loop over
//! epochs, tasks and batches. [`parameters`] holds the named tensors, whose `numbers` are shared until a step changes them,
//! [`checkpoint`] and [`export`] their files, which `hub` brings here. `native` is what tch has no call for, and `bridge` where
//! memory passes between Rust and libtorch.
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
mod cpu;
mod device;
mod drift;
#[doc(hidden)]
pub mod export;
mod heads;
mod hub;
mod impostor;
pub mod model;
mod native;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod noise;
mod numbers;
#[doc(hidden)]
pub mod optimizer;
#[doc(hidden)]
pub mod parameters;
mod pretrained;
#[doc(hidden)]
pub mod regressor;
#[doc(hidden)]
pub mod tokenize;
#[doc(hidden)]
pub mod trainer;
#[doc(hidden)]
pub mod trunk;
mod unknown;
mod weights;

use plugin_api::{Component, metrics};

pub use model::Amplify;

/// What this plugin offers.
pub fn component() -> Component {
    let about = "the AMPLIFY protein language model with a regression head for each task";
    Component::model("amplify", about, Amplify::new).on_devices(device::devices).scored_by(metrics::SCORE)
}

plugin_api::export_plugin!(component());
