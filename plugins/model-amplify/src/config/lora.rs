//! The table `[model.lora]`.

use plugin_api::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::HiddenAct;

/// The keys of `[model.lora]`: Hu et al. 2022, *LoRA: Low-Rank Adaptation of Large Language Models*. The output of a target is
/// `W x + alpha / rank · B A x`, with `A` (rank, inputs), which starts at random, and `B` (outputs, rank), which starts at 0.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Lora {
    /// The rank of the additions.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) rank: i64,
    /// The numerator of their factor, `alpha / rank`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub(crate) alpha: f64,
    /// The probability with which an adapter's input is dropped in training. On the CPU, more than 0 leaves the trunk to
    /// libtorch, which uses one thread.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub(crate) dropout: f64,
    /// The layers of each block that have adapters.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) targets: Vec<LoraTarget>,
    /// FFA-LoRA: whether `A` stays as it starts, and only `B` is trained and sent (Sun et al. 2024, *Improving LoRA in
    /// Privacy-preserving Federated Learning*). The mean of the clients' `B` then gives the mean of their additions `B A`;
    /// otherwise FedAvg computes the product of two means, which is not the mean of the products.
    pub(crate) fixed_a: bool,
    /// Whether the global model holds the weights of the targets too, for the aggregator `lora`, which makes the mean of the
    /// clients' models exact by changing them (FedEx-LoRA, FLoRA). They go to the clients in each round; only adapters and
    /// heads come back.
    pub(crate) moving_base: bool,
}

impl Default for Lora {
    fn default() -> Self {
        let targets = vec![LoraTarget::Q, LoraTarget::V];
        Self { rank: 8, alpha: 16.0, dropout: 0.0, targets, fixed_a: false, moving_base: false }
    }
}

impl Lora {
    /// The factor of an addition.
    pub(crate) fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// A linear layer of a block, by its published name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoraTarget {
    /// The queries of attention.
    Q,
    /// The keys.
    K,
    /// The values.
    V,
    /// The output of attention.
    Wo,
    /// The first layer of the feed-forward network; without SwiGLU its name is `0`.
    W12,
    /// The second one, `2`.
    W3,
}

impl LoraTarget {
    /// The name of the module in the published model, without its block.
    pub(crate) fn module(self, act: HiddenAct) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Wo => "wo",
            Self::W12 if act == HiddenAct::SwiGlu => "w12",
            Self::W3 if act == HiddenAct::SwiGlu => "w3",
            Self::W12 => "ffn.0",
            Self::W3 => "ffn.2",
        }
    }
}

/// Ends the name of an adapter's `A`, and of its `B`.
pub(crate) const LORA_A: &str = "lora_A.weight";
pub(crate) const LORA_B: &str = "lora_B.weight";

/// Whether a parameter of this name is part of an adapter.
pub(crate) fn is_of_adapter(name: &str) -> bool {
    name.ends_with(LORA_A) || name.ends_with(LORA_B)
}
