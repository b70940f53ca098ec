//! The keys of the model's table.

use std::num::NonZeroUsize;

use plugin_api::{ClassWeights, JsonSchema};
use serde::Deserialize;

/// The keys of the model's table. The schema checks the bounds of each value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The fraction of the error that a step removes. With classes, the gradient is divided so that 1 is a safe step.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 2.0))]
    pub learning_rate: f32,
    /// Rows per step.
    pub batch_size: NonZeroUsize,
    /// The number of values that the trunk computes from a text's features.
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_size: NonZeroUsize,
    /// The length of the words counted in a text; 1 counts letters. Each hidden value has 27^kmer weights.
    #[schemars(range(min = 1, max = 4))]
    pub kmer: usize,
    /// FedProx: how strongly a client is pulled towards the round's global model; 0 turns it off. This is the μ of
    /// `error² / 2 + μ / 2 ‖w − global‖²`, with errors in standard deviations of the client's training targets.
    #[schemars(range(min = 0.0))]
    pub proximal_mu: f32,
    /// How much the rows of each class count in training, for tasks of classes: `"balanced"`, so that each class counts as
    /// much as every other one at the client, or a table such as `{ yes = 5.0 }`. By default all rows count the same.
    pub class_weights: Option<ClassWeights>,
}

impl Default for Config {
    fn default() -> Self {
        let size = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self {
            learning_rate: 0.5,
            batch_size: size(16),
            hidden_size: size(8),
            kmer: 1,
            proximal_mu: 0.0,
            class_weights: None,
        }
    }
}
