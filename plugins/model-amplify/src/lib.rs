//! AMPLIFY, a protein language model, with a head for each task: the model plugin `amplify`.
//!
//! The trunk is the encoder of Fournier et al., *Protein Language Models: Is Scaling Necessary?* (bioRxiv 2024). Its files are
//! read and written in the published format, with the published names. A small perceptron for each task, its head, predicts
//! one number per sequence from the last block's output, or a logit for each class. Heads, and trunks on GPUs, run on libtorch; the published trunk runs
//! on the CPU in Rust, with fewer passes over memory ([`fedplug_amplify_cpu`]).
//!
//! ```toml
//! [model]
//! plugin = "amplify"
//! pretrained = "chandar-lab/AMPLIFY_120M"   # a model on the hub, or a folder with the same files
//! # pretrained = { hidden-size = 64, layers = 2, heads = 4, intermediate-size = 256 }   # or random weights
//! layer-sizes = [128, 64, 32]               # the hidden layers of each head
//! trunk-lr = 1e-4
//! regressor-lr = 1e-2
//! batch-size = 64
//! ```
//!
//! [`config::Config`] documents every key.
//!
//! # Classes
//! The head of a task of classes has one output for each, two for two classes. It is trained by the cross entropy of the
//! outputs' softmax, which `class-weights` weighs as PyTorch does; the scalar `Loss/train` is that of the step's batch.
//! Predictions are one column of probabilities for each class.
//!
//! # Continued pre-training
//! With `objective = "masked-lm"` the trunk and its published decoder learn to restore masked tokens of the tasks' sequences.
//! There are no heads; all tasks and clients share trunk and decoder, which learn at `trunk-lr`, and all of it is sent. With
//! `[model.lora]`, only the adapters are trained and sent, and the decoder stays as it is. Targets are ignored, and tasks need
//! none: dataset-csv reads files without a target. dataset-flab always reads one and skips rows without it.
//!
//! As in AMPLIFY's own pre-training, each letter is chosen with a probability of 15%, independently. Of the chosen ones, 80% are
//! replaced by `<mask>`, 10% by a random letter, and 10% stay. The loss is the mean cross entropy of the chosen letters of a
//! batch. `|` between chains counts as a letter; special tokens, `<unk>` included, are neither chosen nor drawn. If no letter of
//! a sequence is chosen, one is; the published code leaves such a sequence as it is, and may choose `<unk>`.
//!
//! Masks of training come from the seed, the client, the round and the epoch. Those of an evaluation depend on the sequence
//! alone, so numbers of different rounds, clients and runs are comparable. The metrics are `Perplexity`, `Accuracy` and
//! `Cross_entropy`, over all chosen letters of a task's test rows; the score is the negated cross entropy. A model of this
//! objective predicts nothing. Its export is a checkpoint for `pretrained`; its vectors (`embed`) are those of any trunk.
//!
//! The keys `layer-sizes`, `dropout`, `regressor-lr` and, outside of vectors, `pooling` have no effect then.
//!
//! # The hub
//! A `pretrained` that is not a local folder names a model on the Hugging Face hub: `owner/name`, or `owner/name@revision` with
//! a branch, a tag or a commit. The plugin downloads `config.json`, `tokenizer.json`, `model.safetensors` (or its index and
//! shards) and, if the configuration names it, the modelling code to the cache that all of Hugging Face's programs share. Each
//! file is checked against the hub's size and SHA-256, and removed if it differs. An interrupted download resumes in the next
//! run. All clients of a process share one download.
//!
//! Once the cache is complete, the hub is not asked again, so a branch that has moved since is not noticed. Name a commit for
//! runs that others repeat; delete the cached reference to follow the branch.
//!
//! | Variable | Meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache; default: `hub` in `HF_HOME` |
//! | `HF_HOME` | the folder of cache and token; default: `huggingface` in the user's cache folder |
//! | `HF_TOKEN` | the token; default: the file `token` in `HF_HOME`, which logging in writes |
//! | `HF_ENDPOINT` | the hub |
//! | `HF_HUB_OFFLINE` | `1`: use only the cache |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | for how many seconds the hub may send nothing before a download ends with an error; default: 60 |
//!
//! Certificates are checked against Mozilla's roots, not the machine's. Behind a proxy that replaces certificates, copy the
//! cache from another machine, or give a folder.
//!
//! With `HF_HUB_OFFLINE`, a cache without references, as a partial copy is, is used if it holds a single commit of the model;
//! if it holds several, the name must say which.
//!
//! # Letters
//! The published tokenizer knows the twenty amino acids, `B`, and `|` between chains, in upper case. Other letters become
//! `<unk>`; a warning lists them with their counts and their share of the task's letters.
//!
//! # Exports
//! An export holds trunk and heads in the published formats, for `pretrained` and `regressors` of another run and for other
//! programs; its `README.md` says how to load it. Hugging Face's `AutoTokenizer` always can. `AutoModel` can if the modelling
//! code came with the trunk; we may not distribute that code, so a trunk with random initial weights has to be loaded with
//! `safetensors`. The export leaves out heads with random values: it holds those that this instance trained, and those that
//! came with the last global model (before the first one: from `regressors`). A head that is private to the clients is
//! therefore in their exports, and not in the server's.
//!
//! # Vectors
//! `fedplug embed` writes the vectors that the heads read: the mean of `hₗ / ‖hₗ‖` over a sequence's positions `l`, with the
//! last block's output `h`.
//!
//! # Pooling
//! Heads read the mean of `hₗ / ‖hₗ‖` over the positions that `pooling` names. With `"bos"` this is `<bos>` alone. With `"chains"` each chain
//! of `heavy|light` has a mean of its own, and a head reads `chains` vectors (2 by default); a row with another number of chains,
//! or with an empty one, is an error. With `"attention"` each head weighs the positions: its tensor `regressors.T.attention.weight`
//! is trained, sent, exported and read with the rest of the head. `fedplug embed` then has no vector to write.
//!
//! # A frozen trunk
//! With `frozen-trunk`, the vector of a sequence is computed once per run and kept, up to `embedding-memory`; an epoch then
//! costs what the heads cost. All clients of a process whose trunks have the same values share the vectors and the trunk's
//! memory. On the CPU the bits do not depend on what was kept. With `pooling = "all-positions"` a vector depends on the
//! padding of its batch, so none is kept; with
//! `"attention"` it depends on the head as well, and none is kept either.
//!
//! # LoRA
//! With a table `[model.lora]`, the trunk keeps its weights, and low-rank additions to the matrices of `targets` are trained with
//! the heads. Messages and states have these alone; every client has the trunk's weights from `pretrained`, and on the CPU all
//! clients of a process hold them once. FedAvg takes the means of `A` and of `B`. The mean of the clients' models is that of
//! their products `B A`, which is not the product of the means; with `fixed-a` it is, since `A` is the same everywhere.
//!
//! With `moving-base` the aggregator `lora` makes the mean exact for both factors: the weights of the targets are part of the
//! global model, and take what the mean of the adapters lacks.
//!
//! An export has the trunk with the additions, as a trunk without LoRA, and beside it the folder `adapter` in PEFT's layout (not with
//! `moving-base`, where the additions are to other weights than those of `pretrained`). The next run with `pretrained = "…"` can read the former.
//!
//! # Learning rates
//! With `layer-decay` below 1 the blocks of the trunk, or their adapters, learn the slower the lower they are, as in ELECTRA and
//! BEiT: `n` blocks below the last one at `trunk-lr · layer-decay^n`, and the embedding as if it were one more block. `LR/trunk`
//! is the rate of the last block, which a decoder has too. BEiT counts one more: its last block has the factor already.
//!
//! With `warm-up` the rates of all parameters rise from 0 over that many steps of the client, counted over all rounds and from
//! 0: the first step changes nothing. The linear schedule, which falls from the second round on, is a factor of its own.
//!
//! # Frozen layers
//! With `frozen-layers = k` the embedding and the first `k` blocks keep their weights. As with LoRA, every client has these from
//! `pretrained` (or draws the same from the seed), so they are no part of messages and states, and on the CPU all clients of a
//! process hold them once. The backward pass ends above them, and needs no memory for them.
//!
//! # Activation checkpointing
//! A step keeps what its backward pass reads: of 120M 0.7 MB for each token. With `activation-checkpointing` it keeps the input
//! of each block, 2.6 kB a token and block, and computes the other activations of one block at a time once more. Gradients have
//! the same bits, since dropout draws the same numbers. It works on the CPU and in libtorch.
//!
//! # Speed in libtorch
//! libtorch computes trunks on GPUs. These keys have been tested on the CPU, and have not run on a GPU yet:
//!
//! | key | what it does |
//! |---|---|
//! | `packing = true` | computes the tokens without padding; attention by FlashAttention's kernel in bfloat16, and by that of xFormers in fp32. Dropout drops the same numbers as with padding, and attention's dropout computes sequence by sequence |
//! | `fused-qkv = true` | one product for queries, keys and values |
//! | `flat-buffers = true`, the default | parameters, gradients and moments each in one buffer: a copy a message and block, one call of the optimiser for trunk or head |
//! | `cuda-graphs = true` | records a step for each task and shape of batch, and launches it as one piece of work from the third on; for small batches, where launches take longer than kernels |
//! | `fused-kernels = true` | RMSNorm with the sum before it, rotary embedding and SwiGLU by kernels of our own |
//! | `precision = "bf16-residual"` | all of a block in bfloat16, not its products alone |
//!
//! Models of one process share the weights on a GPU that none of them trains, and the pinned pages of the last message.
//!
//! With `bf16` and `bf16-residual`, weights are cast once for all batches of a step, and once for an evaluation.
//!
//! # Large batches and large gradients
//! `accumulate = n` takes a step on `n · batch-size` sequences of a task, as `batch-size = n · batch-size` would, but with the
//! activations of `batch-size`. It differs by rounding errors, by the draw of dropout, and with `pooling = "all-positions"` by the
//! padding. The last step of each task in an epoch has the rest. `clip-norm` scales the gradients of a step down to this L2 norm
//! over all trained weights, as PyTorch's `clip_grad_norm_`. AdamW divides by the size of the gradients, so only steps with an
//! unusually large norm change much. With either key, the gradients of all trained weights are held until the end of the step;
//! without them the CPU holds one at a time.
//!
//! # Weights of tasks
//! `task-weights` multiplies the loss of a task, and so its gradients. `Loss/train` and the metrics stay without the factor. AdamW
//! divides by the size of the gradients, so the factors shift the balance of the tasks in the trunk, not the step of a head.
//!
//! # Agreement with other implementations
//! `tests/suite/parity.rs` compares with an independent program (`tests/parity/reference.py`) and with the published code: hidden
//! states, logits, pooled vectors and predictions to 1e-4; losses, gradient norms, learning rates and final parameters of
//! training to 1e-3. The program also trains with 28 deliberate mistakes, such as an optimiser that is reset in each round; the
//! results of each differ from ours by more than the tolerance.
//!
//! A hidden layer of fewer than 24 features in a head cannot be compared: the groups of its norm have one or two features. The
//! norm of one number is its bias, whatever the number, so every gradient before it is rounding noise, which AdamW turns into
//! steps of the full learning rate; the norm of two numbers keeps little more than which one is larger. The published code
//! itself differs as much between one thread and two.
//!
//! # What numbers mean
//! NVIDIA FLARE's AMPLIFY example, the published fine-tuning job, gives some numbers the same name and another meaning:
//!
//! | number | here | there |
//! |---|---|---|
//! | a client's weight in the mean, `weight-by = "steps"` | the steps of all its tasks | those of its first task |
//! | the steps over which the learning rates fall to 0 | those of all tasks | those of the first task: 0 is reached too early |
//! | `LR/trunk`, `LR/regressor` | the rate of the step | the rate of the next step, which ends at 0 |
//! | `Loss/train` | the loss of the step's batch | the mean over the epoch so far |
//! | `RMSE/…` | the root of the mean over all samples | of the mean of the batches' means, whatever their sizes |
//! | `Pearson/…` of constant predictions or targets, or of one row | undefined: NaN | NaN or an error |
//! | predictions and metrics with `pooling = "all-positions"` | depend on the padding of their batch, which has `evaluation-batch-size` rows of similar lengths | the same, with batches in the file's order |
//! | the score that selects the best model | `-RMSE/SD` ([`plugin_api::metrics`]) | `-RMSE` |
//!
//! # Devices and bits
//! On the CPU the same experiment gives the same bits in every run, for any number of threads, every trunk and every precision.
//! The published arrangement in fp32 uses all threads of a client. libtorch computes every other trunk, and `precision =
//! "bf16"` and `"bf16-residual"`, on one thread, since its sums depend on the number of threads. On a GPU libtorch sums some
//! gradients in no fixed order, so two runs may differ in the last digits from the first step on. With `deterministic = true` it
//! uses algorithms that have one, for all models of the process, and sets `CUBLAS_WORKSPACE_CONFIG` to `:4096:8` unless it has a
//! value.
//!
//! One client at a time computes on a GPU, unless `clients-per-device` of the experiment allows more. Each call has a CUDA
//! stream then (`streams`). A message crosses through pinned memory, in blocks of 64 MiB (`transfer`). What a step reports
//! stays on the GPU, and is read every 16 steps.
//!
//! A client warns before a step that seems to need more memory than the GPU has left.
//! A batch that gets no memory waits for the other clients' batches, frees libtorch's cache, and is tried once more alone; then
//! the error says which key to lower, and the client stays usable. The scalar `Memory/client` is the bytes of a client's parameters and moments on its GPU;
//! `Memory/device_peak` is the most that this process's tensors used.
//!
//! # Reading order
//! [`trunk`] is the paper's model, [`regressor`] the heads, and [`network`] both. [`fedplug_amplify_cpu`] is the trunk once more,
//! with its derivative, free of libtorch. [`batch`] makes tensors of token ids, and `packing` those of a batch without padding; `masking` masks them, [`trainer`] takes a training step with [`optimizer`] and
//! `drift`, and [`model`] is the plugin: the loop over tasks and batches. [`parameters`] holds the named tensors, whose host
//! memory (`cow_buffer`) is shared until a step changes it; `frozen_trunk` holds what models with a frozen trunk share. [`checkpoint`] reads files that `hub` downloads, and [`export`]
//! writes them. `native` binds what tch lacks, `bridge` passes memory between Rust and libtorch, and `memory` handles a device
//! without memory.
//!
//! # Randomness
//! All random numbers come from the experiment's seed, through ChaCha8 on the CPU ([`random`]). libtorch's own generator, which
//! all clients of a process share, is not used.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adapter;
#[doc(hidden)]
pub mod architecture;
#[doc(hidden)]
pub mod batch;
mod bridge;
#[doc(hidden)]
pub mod checkpoint;
pub mod config;
mod cow_buffer;
mod device;
mod drift;
#[doc(hidden)]
pub mod export;
mod flat;
mod frozen_trunk;
#[doc(hidden)]
pub mod fused;
#[cfg(test)]
mod fuzz;
mod graph;
mod heads;
mod hub;
mod masking;
mod memory;
pub mod model;
mod native;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod optimizer;
mod packing;
#[doc(hidden)]
pub mod parameters;
mod placeholder;
mod pretrained;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod regressor;
mod segments;
mod streams;
#[doc(hidden)]
pub mod targets;
#[doc(hidden)]
pub mod tokenize;
#[doc(hidden)]
pub mod trainer;
mod transfer;
#[doc(hidden)]
pub mod trunk;
mod unknown_letters;
mod weight_files;

use plugin_api::{Component, metrics};

pub use model::Amplify;

/// The plugin's component.
pub fn component() -> Component {
    let about = "the AMPLIFY protein language model with a head for each task";
    let component = Component::model("amplify", about, Amplify::new).on_devices(device::devices);
    // The linear schedule depends on the number of rounds, so a resumed run cannot have more.
    let component = component.scored_by(metrics::SCORE).classes_scored_by(metrics::CLASS_SCORE);
    let component = component.learns_without_targets([("objective", "masked-lm")], masking::SCORE);
    component.extendable([("schedule", "constant")])
}

plugin_api::export_plugin!(component());
