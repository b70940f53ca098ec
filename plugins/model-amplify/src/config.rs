//! The `[model]` table. The schema checks the bounds of each value.

mod check;
mod lora;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytesize::ByteSize;
use plugin_api::{ClassWeights, JsonSchema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::parameters::{is_below, is_of_trunk};
pub use crate::pretrained::{Pretrained, RandomTrunk};
pub(crate) use lora::{LORA_A, LORA_B, is_of_adapter};
pub use lora::{Lora, LoraTarget};

/// The keys of the `[model]` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The trunk: a folder with `config.json`, `model.safetensors` (or its index and shards) and `tokenizer.json`; or a
    /// model on the hub, `owner/name` or `owner/name@revision`; or a table with the sizes of a random one.
    pub(crate) pretrained: Pretrained,
    /// What the model learns.
    #[serde(default)]
    pub(crate) objective: Objective,
    /// The sizes of each head's hidden layers, multiples of 8; if empty, a head is one linear layer.
    #[serde(default = "default::layer_sizes", deserialize_with = "layer_sizes")]
    #[schemars(length(max = 64), inner(range(min = 8, max = 16384)))]
    pub(crate) layer_sizes: Vec<i64>,
    /// A safetensors file with the heads' initial weights, named `regressors.T.K.weight`; without it they are random.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub(crate) regressors: Option<PathBuf>,
    /// The dropout probability in the heads.
    #[serde(default = "default::dropout")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub(crate) dropout: f64,
    /// The positions over which a sequence's hidden states are averaged.
    #[serde(default)]
    pub(crate) pooling: Pooling,
    /// With `pooling = "chains"`: the number of chains of each sequence; default: 2.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub(crate) chains: Option<u32>,
    /// Whether only the heads are trained.
    #[serde(default)]
    pub(crate) frozen_trunk: bool,
    /// The blocks that are not trained, counted from the embedding, which is not trained with them; 0 trains all. Every client
    /// has their weights from `pretrained`, so they are not sent.
    #[serde(default)]
    pub(crate) frozen_layers: usize,
    /// With `frozen-trunk`: the memory for the vectors of sequences, of which each is computed once and then kept for all
    /// clients of the process. Those beyond it are computed in each epoch; `"0 B"` keeps none. Of 120M, 1 GiB holds about
    /// 280,000 antibodies.
    #[serde(default = "default::embedding_memory")]
    #[schemars(with = "String", extend("pattern" = "^[0-9]+(\\.[0-9]+)? ?([kMGT]?B|[KMGT]iB)$"))]
    pub(crate) embedding_memory: ByteSize,
    /// LoRA: instead of the trunk's weights, low-rank additions to some of them are trained. Only these and the heads are sent.
    /// A table: `lora = {}` has the defaults.
    #[serde(default)]
    pub(crate) lora: Option<Lora>,
    /// The learning rate of the trunk, or of its adapters.
    #[serde(default = "default::trunk_lr")]
    #[schemars(range(min = 0.0))]
    pub(crate) trunk_lr: f64,
    /// The factor of the trunk's learning rate from each block to the one below it: a block with `n` blocks above it learns at
    /// `trunk-lr · layer-decay^n`, and the embedding, below all blocks, slowest. 1 gives all the same.
    #[serde(default = "default::layer_decay")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub(crate) layer_decay: f64,
    /// The learning rate of the heads.
    #[serde(default = "default::regressor_lr")]
    #[schemars(range(min = 0.0))]
    pub(crate) regressor_lr: f64,
    /// How the learning rates change during the run.
    #[serde(default)]
    pub(crate) schedule: Schedule,
    /// The steps over which the learning rates rise linearly from 0, the rate of the first step. Each client counts its own
    /// steps, over all rounds. The factor multiplies that of `schedule`.
    #[serde(default)]
    pub(crate) warm_up: u64,
    /// AdamW's decoupled weight decay.
    #[serde(default = "default::weight_decay")]
    #[schemars(range(min = 0.0))]
    pub(crate) weight_decay: f64,
    /// FedProx: the weight μ of the proximal term, which keeps a client close to the round's global model; 0 switches it
    /// off.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub(crate) proximal_mu: f64,
    /// SCAFFOLD: whether control variates correct the gradients. The aggregator must be `scaffold` too.
    #[serde(default)]
    pub(crate) scaffold: bool,
    /// Ditto: the weight λ of the term that keeps a client's personal model close to the global one. The personal model is
    /// trained on the same batches as the shared one, and gives the client's results. Without this key there is none.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub(crate) ditto_lambda: Option<f64>,
    /// The number format of the trunk's matrix products.
    #[serde(default)]
    pub(crate) precision: Precision,
    /// On GPUs: whether every run gives the same bits, by slower algorithms. It holds for all models of the process. On the
    /// CPU they always do.
    #[serde(default)]
    pub(crate) deterministic: bool,
    /// How much the sequences of each class count in training, for tasks of classes: `"balanced"`, so that each class counts
    /// as much as every other one at the client, or a table such as `{ yes = 5.0 }`. By default all count the same.
    #[serde(default)]
    pub(crate) class_weights: Option<ClassWeights>,
    /// The factor of each task's loss, and so of its gradients, such as `{ tm = 2.0 }`; 1 for tasks that are not listed.
    /// AdamW divides by the size of the gradients: the factors change how much each task moves the trunk that they share, and
    /// hardly anything in heads or with a single task.
    #[serde(default)]
    #[schemars(extend("additionalProperties" = { "type": "number", "format": "double", "exclusiveMinimum": 0 }))]
    pub(crate) task_weights: BTreeMap<String, f64>,
    /// The L2 norm of all gradients of a step to which larger ones are scaled down, after the terms of `proximal-mu`,
    /// `ditto-lambda` and `scaffold`. Without this key they are used as they are.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(crate) clip_norm: Option<f64>,
    /// Sequences per training batch.
    #[serde(default = "default::batch_size")]
    #[schemars(range(min = 1))]
    pub(crate) batch_size: usize,
    /// Batches per step: a step on `accumulate · batch-size` sequences in the memory that `batch-size` takes, and that of
    /// the trained weights' gradients.
    #[serde(default = "default::accumulate")]
    #[schemars(range(min = 1, max = 65536))]
    pub(crate) accumulate: usize,
    /// Activation checkpointing: whether training keeps the input of each of the trunk's blocks alone, and computes the rest
    /// once more in the backward pass. A step takes a fraction of the memory and up to a third more time, and gives the same
    /// bits.
    #[serde(default)]
    pub(crate) activation_checkpointing: bool,
    /// Whether libtorch computes the tokens of a batch without padding, by attention kernels for sequences of several lengths.
    /// Results differ by rounding errors. The CPU's own path, of published trunks in fp32, always does.
    #[serde(default)]
    pub(crate) packing: bool,
    /// Whether libtorch computes queries, keys and values by one matrix product. Results differ by rounding errors.
    #[serde(default)]
    pub(crate) fused_qkv: bool,
    /// On GPUs: whether a training step is recorded as a CUDA graph for each shape of batch, and launched as one piece of work from
    /// the third step of the shape on, which helps where batches are small. Results differ by rounding errors.
    #[serde(default)]
    pub(crate) cuda_graphs: bool,
    /// On GPUs: whether the parameters of a model, their gradients and their moments each lie in one buffer, so that one copy
    /// or one call treats all of them. It takes the memory of the trained parameters' gradients between steps too.
    #[serde(default = "default::flat_buffers")]
    pub(crate) flat_buffers: bool,
    /// On GPUs: whether kernels that are compiled at the start compute RMSNorm with the sum before it, rotary embedding and
    /// SwiGLU, each in one pass over memory. Results differ by rounding errors. Where they cannot be used, a warning says why.
    #[serde(default)]
    pub(crate) fused_kernels: bool,
    /// Sequences per batch in evaluation and prediction; default: four times `batch-size`. It changes predictions by
    /// rounding errors only.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) evaluation_batch_size: Option<usize>,
}

impl Config {
    /// Whether a parameter is trained.
    pub(crate) fn trains(&self, name: &str) -> bool {
        match &self.lora {
            _ if !is_of_trunk(name) => true,
            _ if self.frozen_trunk || is_below(name, self.frozen_layers) => false,
            Some(lora) => name.ends_with(LORA_B) || name.ends_with(LORA_A) && !lora.fixed_a,
            None => true,
        }
    }

    /// Whether the weights of LoRA's targets are part of the global model.
    pub(crate) fn has_moving_base(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.moving_base)
    }

    /// Whether every client has some of the trunk's weights for the whole run, which are no part of messages and states.
    pub(crate) fn has_fixed_weights(&self) -> bool {
        self.lora.is_some() || self.frozen_layers > 0
    }

    /// Whether a parameter is part of messages and states: all but the fixed weights. With a moving base, the weights of LoRA's
    /// targets are too.
    pub(crate) fn sends(&self, name: &str) -> bool {
        !self.has_fixed_weights() || self.trains(name)
    }

    /// The vectors that a head reads of each sequence.
    pub(crate) fn vectors(&self) -> usize {
        if self.pooling == Pooling::Chains { self.chains.map_or(2, |chains| chains as usize) } else { 1 }
    }

    pub(crate) fn evaluation_batch_size(&self) -> usize {
        self.evaluation_batch_size.unwrap_or(self.batch_size.saturating_mul(4))
    }
}

/// What the model learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The tasks' targets, with a head for each task.
    #[default]
    Supervised,
    /// Masked tokens of the sequences (Devlin et al. 2019), with the published decoder and without heads: continued
    /// pre-training. Targets are ignored, and tasks need none. An export is a checkpoint for `pretrained`.
    MaskedLm,
}

/// The positions over which a sequence's hidden states are averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The sequence's tokens, with `<bos>` and `<eos>`: predictions do not depend on the batch.
    #[default]
    Tokens,
    /// All positions of the batch, with padding, as in the reference implementation.
    AllPositions,
    /// `<bos>` alone.
    Bos,
    /// Those of each chain of `heavy|light`, without `<bos>`, `|` and `<eos>`. A head reads the chains' vectors one after the
    /// other.
    Chains,
    /// The sequence's tokens, with weights: the softmax of `w · hₗ / ‖hₗ‖` with a vector `w` that each head learns. It starts at 0,
    /// which gives equal weights.
    Attention,
}

/// The number format of the trunk's matrix products. Parameters, optimiser and heads always use fp32; norms do, except with
/// `bf16-residual`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// TensorFloat-32: fp32 of which NVIDIA GPUs use 19 bits. Only for GPUs.
    Tf32,
    /// bfloat16 with sums in fp32, by libtorch. For GPUs: on a CPU it uses one thread, and takes many times as
    /// long as `fp32` unless the processor has instructions for it.
    Bf16,
    /// As `bf16`, and all of a block in bfloat16, with the sum of the blocks' outputs and their norms: half the memory of
    /// activations, and less exact.
    #[serde(rename = "bf16-residual")]
    Bf16Residual,
}

/// How the learning rates change during the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Constant in the first round, then linear to 0 over all later rounds.
    #[default]
    Linear,
    /// Constant. A resumed run may have more rounds than it was started with.
    Constant,
}

mod default {
    pub(super) fn layer_sizes() -> Vec<i64> {
        vec![128, 64, 32]
    }
    pub(super) fn dropout() -> f64 {
        0.1
    }
    pub(super) fn embedding_memory() -> bytesize::ByteSize {
        bytesize::ByteSize::gib(1)
    }
    pub(super) fn trunk_lr() -> f64 {
        1e-4
    }
    pub(super) fn layer_decay() -> f64 {
        1.0
    }
    pub(super) fn regressor_lr() -> f64 {
        1e-2
    }
    pub(super) fn weight_decay() -> f64 {
        0.01
    }
    pub(super) fn batch_size() -> usize {
        64
    }
    pub(super) fn accumulate() -> usize {
        1
    }
    pub(super) fn flat_buffers() -> bool {
        true
    }
}

fn layer_sizes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i64>, D::Error> {
    let sizes = Vec::<i64>::deserialize(deserializer)?;
    match sizes.iter().find(|&&size| size <= 0 || size % 8 != 0) {
        Some(size) => {
            Err(Error::custom(format!("must be multiples of 8, the number of groups of the norm; {size} is not")))
        }
        None => Ok(sizes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::config::read;
    use serde_json::{Value, json};

    fn problems(config: Value) -> Vec<(String, String)> {
        plugin_api::config::problems::<Config>(&config).into_iter().map(|p| (p.path.join("."), p.message)).collect()
    }

    #[test]
    fn a_config_with_only_pretrained_has_the_defaults() {
        let config: Config = read(&json!({ "pretrained": "models/AMPLIFY_120M" })).unwrap();
        assert!(matches!(&config.pretrained, Pretrained::Named(name) if name == "models/AMPLIFY_120M"));
        assert_eq!(config.layer_sizes, [128, 64, 32]);
        assert_eq!((config.batch_size, config.evaluation_batch_size()), (64, 256));
        assert_eq!(
            (config.trunk_lr, config.regressor_lr, config.weight_decay, config.dropout),
            (1e-4, 1e-2, 0.01, 0.1)
        );
        assert_eq!((config.pooling, config.schedule, config.frozen_trunk), (Pooling::Tokens, Schedule::Linear, false));
    }

    #[test]
    fn every_invalid_value_is_reported_with_its_key() {
        let trunk = json!({
            "hidden-size": 64, "layers": 2, "heads": 4, "intermediate-size": 256, "hidden_act": "gelu",
        });
        let found = problems(json!({
            "pretrained": trunk,
            "layer-sizes": [128, 20], "trunk-lr": -1.0, "dropout": 1.0, "batch-size": 0, "evaluation-batch-size": 0,
            "pooling": "all", "batchsize": 3, "task-weights": { "tm": 0.0 },
            "layer-decay": 0.0, "warm-up": -1, "frozen-layers": -1, "clip-norm": 0.0, "accumulate": 0,
        }));
        for (key, part) in [
            ("pretrained.hidden_act", "unknown key"),
            ("layer-sizes", "20 is not"),
            ("trunk-lr", "at least 0, not -1"),
            ("dropout", "less than 1, not 1"),
            ("batch-size", "at least 1"),
            ("evaluation-batch-size", "at least 1"),
            ("pooling", "unknown value `all`"),
            ("batchsize", "unknown key"),
            ("task-weights.tm", "more than 0"),
            ("layer-decay", "more than 0"),
            ("warm-up", "at least 0"),
            ("frozen-layers", "at least 0"),
            ("clip-norm", "more than 0"),
            ("accumulate", "at least 1"),
        ] {
            assert!(found.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {found:#?}");
        }
    }

    #[test]
    fn invalid_trunk_sizes_are_refused() {
        let trunk = |hidden: i64, heads: i64| {
            let trunk = json!({ "hidden-size": hidden, "layers": 2, "heads": heads, "intermediate-size": 8 });
            json!({ "pretrained": trunk })
        };
        assert!(problems(trunk(64, 5))[0].1.contains("`num_attention_heads`"), "{:?}", problems(trunk(64, 5)));
        assert!(problems(trunk(12, 4))[0].1.contains("even"));
        assert!(problems(json!({ "pretrained": 5 }))[0].1.contains("must be text or a table"));
        assert_eq!(problems(json!({ "pretrained": { "layers": 2 } }))[0].1, "`hidden-size` is missing");
    }
}
