//! The keys of the model's table.

use std::num::NonZeroUsize;

use plugin_api::{Error, JsonSchema, Result};
use serde::Deserialize;

/// The keys of the model's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// The part of the error that a step takes away: more than 0, less than 2.
    pub learning_rate: f32,
    /// Rows in a step.
    pub batch_size: NonZeroUsize,
    /// Numbers that the trunk makes of a text's features.
    pub hidden_size: NonZeroUsize,
    /// The length of the words that are counted in a text: from 1, its letters, to 4. A hidden number has 27^kmer weights.
    pub kmer: usize,
    /// FedProx: how strongly a client is held to the global model of the round; 0 does not. It is the μ of
    /// `error² / 2 + μ / 2 ‖w − global‖²`, where errors are in standard deviations of the client's training targets.
    pub proximal_mu: f32,
}

impl Default for Config {
    fn default() -> Self {
        let size = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self { learning_rate: 0.5, batch_size: size(16), hidden_size: size(8), kmer: 1, proximal_mu: 0.0 }
    }
}

impl Config {
    /// Whether every value is one that the method can work with.
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
