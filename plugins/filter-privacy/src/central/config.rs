//! The aggregator's table.

use std::fmt;

use plugin_api::Error;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::lattice::NoiseKind;

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CentralConfig {
    /// The L2 norm to which each client's whole update is clipped; or a table, for a norm that follows a quantile of
    /// the clients' norms.
    pub clip: Clip,
    /// The standard deviation of the noise on each element of the sum, in units of the clipping norm; 0 clips without
    /// noise. With adaptive clipping it covers all noise of a round together: the account is the same, and updates get
    /// slightly more noise.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub noise_multiplier: f64,
    /// The delta of the guarantee, between 0 and 1; much less than 1 / number of clients.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub delta: f64,
    /// The distribution of the noise.
    #[serde(default = "discrete")]
    pub noise: NoiseKind,
    /// The server's learning rate, a factor of the noisy mean.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Draw the noise from the experiment's seed, so that a run gives the same bits again. Whoever knows the seed can
    /// subtract the noise: use it for comparisons only; it protects nothing.
    #[serde(default)]
    pub reproducible: bool,
}

/// The clipping norm.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum Clip {
    /// A fixed norm, above 0.
    Fixed(#[schemars(extend("exclusiveMinimum" = 0.0))] f64),
    /// An adaptive norm.
    Adaptive(AdaptiveClip),
}

/// A clipping norm that moves towards a quantile of the clients' norms, by a noisy count of those below it (Andrew,
/// Thakkar, McMahan and Ramaswamy 2021).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdaptiveClip {
    /// The norm of the first round.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub initial: f64,
    /// The fraction of the clients whose updates should be within the norm.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub quantile: f64,
    /// How fast the norm moves: by a factor of `exp(-rate * (fraction within - quantile))` per round.
    #[serde(default = "fifth")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// The standard deviation of the noise on the number of clients within the norm, in clients; more than half of
    /// `noise-multiplier`. A twentieth of a round's clients costs little and is noisy enough.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub count_noise: f64,
}

impl AdaptiveClip {
    /// The noise multiplier of the updates that, together with the count, gives the round's: `(z⁻² − (2σ)⁻²)^(-1/2)`
    /// (Andrew et al. 2021, Theorem 1). A client moves the count by a half.
    pub(crate) fn rest(&self, noise_multiplier: f64) -> Result<f64, Error> {
        if noise_multiplier == 0.0 {
            return Ok(0.0);
        }
        let rest = noise_multiplier.powi(-2) - (2.0 * self.count_noise).powi(-2);
        if rest > 0.0 {
            return Ok(rest.sqrt().recip());
        }
        let error = format!("the count of clients takes all of the noise multiplier of {noise_multiplier}");
        Err(Error::config(error).at_key("clip.count-noise").help("it must be more than half of `noise-multiplier`"))
    }
}

fn discrete() -> NoiseKind {
    NoiseKind::Discrete
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn fifth() -> f64 {
    0.2
}

// Implemented by hand: an untagged enum would only say that nothing matched, not which key is wrong.
impl<'de> Deserialize<'de> for Clip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Clip;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a table with `initial` and `count-noise`")
            }

            fn visit_f64<E>(self, norm: f64) -> Result<Clip, E> {
                Ok(Clip::Fixed(norm))
            }

            #[expect(clippy::cast_precision_loss, reason = "nobody clips to 2^53")]
            fn visit_u64<E>(self, norm: u64) -> Result<Clip, E> {
                Ok(Clip::Fixed(norm as f64))
            }

            #[expect(clippy::cast_precision_loss, reason = "nobody clips to 2^53")]
            fn visit_i64<E>(self, norm: i64) -> Result<Clip, E> {
                Ok(Clip::Fixed(norm as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clip, A::Error> {
                AdaptiveClip::deserialize(MapAccessDeserializer::new(map)).map(Clip::Adaptive)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
