//! The keys of the model's table.

use std::num::NonZeroUsize;

use plugin_api::{Error, JsonSchema, Result};
use serde::Deserialize;

/// The keys of the model's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The fraction of the error that a step removes: above 0, below 2.
    pub learning_rate: f32,
    /// Rows per step.
    pub batch_size: NonZeroUsize,
    /// The number of values that the trunk computes from a text's features.
    pub hidden_size: NonZeroUsize,
    /// The length of the words counted in a text, from 1 (letters) to 4. Each hidden value has 27^kmer weights.
    pub kmer: usize,
    /// FedProx: how strongly a client is pulled towards the round's global model; 0 turns it off. This is the μ of
    /// `error² / 2 + μ / 2 ‖w − global‖²`, with errors in standard deviations of the client's training targets.
    pub proximal_mu: f32,
}

impl Default for Config {
    fn default() -> Self {
        let size = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self { learning_rate: 0.5, batch_size: size(16), hidden_size: size(8), kmer: 1, proximal_mu: 0.0 }
    }
}

impl Config {
    /// Checks the bounds of each value.
    pub(crate) fn check(&self) -> Result<()> {
        if !(self.learning_rate > 0.0 && self.learning_rate < 2.0) {
            return Err(Error::config("must be more than 0 and less than 2").at_key("learning-rate"));
        }
        if !(1..=4).contains(&self.kmer) {
            return Err(Error::config("must be 1, 2, 3 or 4").at_key("kmer"));
        }
        if !(self.proximal_mu >= 0.0 && self.proximal_mu.is_finite()) {
            return Err(Error::config("must be a number from 0 up").at_key("proximal-mu"));
        }
        Ok(())
    }
}
