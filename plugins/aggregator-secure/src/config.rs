//! The two configuration tables. The schema checks the bounds of each value; conditions on the number of clients are
//! checked when a round starts.

use std::collections::BTreeMap;

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::noise::Noise;

/// The keys of the filter's table: the terms that a client requires of the aggregator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilterConfig {
    /// The smallest number of updates in a sum, this client's included. If fewer updates arrived, or with `identities`
    /// fewer clients sign that they trained, this client withholds its shares, so that no sum can be unmasked. It takes
    /// no part in a round whose aggregator has a lower `minimum`.
    #[serde(default = "default_minimum")]
    #[schemars(range(min = 2, max = 255))]
    pub minimum: usize,
    /// The lowest `threshold` of the aggregator that this client accepts. Default: more than half of the round's
    /// clients.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub threshold: Option<usize>,
    /// The file with this client's long-term ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` writes it;
    /// `{client}` stands for the client's name. Requires `identities`.
    #[serde(default)]
    #[schemars(extend("format" = "path-pattern"))]
    pub key_file: Option<String>,
    /// The clients' public ed25519 keys by name, this client's included: the base64 line that `openssl pkey -pubout`
    /// writes between `BEGIN` and `END`. If set, round keys and the list of arrived updates are signed, and this client
    /// takes part only with the clients listed here. Requires `key-file`.
    #[serde(default)]
    pub identities: BTreeMap<String, String>,
    /// The smallest `noise-multiplier` of the aggregator that this client accepts. Default: no noise is required.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub noise_multiplier: Option<f64>,
    /// The smallest `colluding` of the aggregator that this client accepts in a round with noise. Requires
    /// `noise-multiplier`.
    #[serde(default)]
    #[schemars(range(max = 254))]
    pub colluding: Option<usize>,
    /// Whether to draw keys, masks and noise from the experiment's seed instead of the operating system. The masked
    /// messages are then the same in every run and offer no protection. Without noise the global model is the same in
    /// both cases.
    #[serde(default)]
    pub reproducible: bool,
}

/// The keys of the `[aggregator]` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AggregatorConfig {
    /// How many clients it takes to unmask a sum, and how many must finish the round: more than half of the round's
    /// clients. That many clients that pool their shares with the server can unmask any client's update; fewer learn
    /// the sum over the others, which is the last one's update if they are all but one. Default: more than two thirds.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub threshold: Option<usize>,
    /// How many clients in a sum must have trained, at least. If fewer of the clients whose updates arrived took a
    /// step, the sum stays masked and the round is an error. The server enforces this; the filters have their own
    /// `minimum`. Default: the value of `threshold`.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub minimum: Option<usize>,
    /// The largest absolute change of a value in a round; default: 1. A larger change is clamped, and counted in
    /// `Secure/clamped`. Only without noise.
    #[serde(default)]
    #[schemars(range(min = 1e-30, max = 1e30))] // So that neither a step nor a sum leaves the range of f64.
    pub clip: Option<f64>,
    /// Bits of a change's fixed-point number, including its sign. A change is rounded to a multiple of
    /// `clip / 2^(bits - 1)`, or with noise of `clip-norm / 2^(bits - 1)`. The sum over all clients must fit in 32
    /// bits: 24 bits suit up to 255 clients, 28 up to 15. Default: 24, or 20 with noise.
    #[serde(default)]
    #[schemars(range(min = 2, max = 30))]
    pub bits: Option<u32>,
    /// Turns noise on: the L2 norm to which each client clips its whole update. Requires `noise-multiplier` and
    /// `delta`.
    #[serde(default)]
    #[schemars(range(min = 1e-30, max = 1e30))]
    pub clip_norm: Option<f64>,
    /// The standard deviation of the noise on every value of a sum, in units of `clip-norm`. Each client adds a part;
    /// the parts of `threshold` minus `colluding` clients reach this value.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub noise_multiplier: Option<f64>,
    /// The delta of the privacy guarantee, between 0 and 1; much less than 1 / number of clients.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub delta: Option<f64>,
    /// How many clients may share what they know with the server, so that their noise does not count. Default: 1, since
    /// each client knows its own. Twice `threshold` must exceed this value plus the number of the round's clients.
    #[serde(default)]
    #[schemars(range(max = 254))]
    pub colluding: Option<usize>,
}

/// The aggregator's settings for fixed-point numbers and noise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) clip: f64,
    pub(crate) bits: u32,
    pub(crate) noise: Option<Noise>,
}

impl AggregatorConfig {
    /// Checks the keys that depend on one another, and fills in defaults.
    ///
    /// # Errors
    /// If one is missing, or two exclude each other.
    pub(crate) fn numbers(&self) -> Result<Numbers> {
        let given = [
            ("clip-norm", self.clip_norm.is_some()),
            ("noise-multiplier", self.noise_multiplier.is_some()),
            ("delta", self.delta.is_some()),
        ];
        let (Some(norm), Some(multiplier), Some(delta)) = (self.clip_norm, self.noise_multiplier, self.delta) else {
            let one = given.iter().find(|(_, given)| *given).map(|(key, _)| *key);
            let one = one.or(self.colluding.map(|_| "colluding"));
            let missing = given.iter().find(|(_, given)| !*given).map_or("", |(key, _)| *key);
            return match one {
                Some(key) => Err(Error::config(format!("asks for noise, and `{missing}` is missing")).at_key(key)),
                None => Ok(Numbers { clip: self.clip.unwrap_or(1.0), bits: self.bits.unwrap_or(24), noise: None }),
            };
        };
        if self.clip.is_some() {
            let error = Error::config("cannot be used with `clip-norm`").at_key("clip");
            return Err(error.help("with noise a client's whole update is clipped to `clip-norm`"));
        }
        let noise = Noise { multiplier, delta, colluding: self.colluding.unwrap_or(1) };
        Ok(Numbers { clip: norm, bits: self.bits.unwrap_or(20), noise: Some(noise) })
    }
}

fn default_minimum() -> usize {
    3
}
