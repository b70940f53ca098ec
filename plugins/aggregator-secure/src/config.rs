//! The two tables. Values keep to their bounds in the schema; what depends on the number of clients is checked
//! when a round begins.

use std::collections::BTreeMap;

use plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::noise::Noise;

/// The keys of the filter's table: what a client holds the aggregator to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilterConfig {
    /// The fewest clients, this one included, whose updates a sum may be made of. This client keeps its shares back, so
    /// that no sum can be unmasked, if fewer updates arrived; with `identities` also if fewer clients sign that they
    /// trained. It takes no part in a round whose aggregator has a lower `minimum`.
    #[serde(default = "default_minimum")]
    #[schemars(range(min = 2, max = 255))]
    pub minimum: usize,
    /// The lowest `threshold` of the aggregator with which this client takes part in a round. If not given, more than half
    /// of the round's clients.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub threshold: Option<usize>,
    /// The file with this client's long-term ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` writes it;
    /// `{client}` stands for the client's name. Goes with `identities`.
    #[serde(default)]
    pub key_file: Option<String>,
    /// The clients' public ed25519 keys by name, this client's among them: the base64 line that `openssl pkey -pubout`
    /// writes between `BEGIN` and `END`. With it, round keys and the list of arrived updates are signed, and this client
    /// takes part only with clients that are named here. Goes with `key-file`.
    #[serde(default)]
    pub identities: BTreeMap<String, String>,
    /// The smallest `noise-multiplier` of the aggregator with which this client takes part in a round. If not given, also
    /// none.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub noise_multiplier: Option<f64>,
    /// The smallest `colluding` of the aggregator with which this client takes part in a round with noise. Goes with
    /// `noise-multiplier`.
    #[serde(default)]
    #[schemars(range(max = 254))]
    pub colluding: Option<usize>,
    /// Whether keys, masks and noise come from the experiment's seed and not from the operating system: the masked messages
    /// are then the same on every run, and no protection. Without noise the global model is the same in both cases.
    #[serde(default)]
    pub reproducible: bool,
}

/// The keys of the `[aggregator]` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AggregatorConfig {
    /// How many clients it takes to unmask a sum, which is also how many have to finish the round: more than half of the
    /// round's clients. So many that pool their shares with the server can unmask any client's update; fewer learn the sum
    /// over the others, which is the last one's update if they are all but one. If not given, more than two thirds.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub threshold: Option<usize>,
    /// The fewest clients that trained whose updates a sum may be made of. If fewer of those whose updates arrived took a
    /// step, the sum stays masked and the round is an error. The server keeps to it; the filters have a `minimum` of their
    /// own. If not given, as many as `threshold`.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub minimum: Option<usize>,
    /// The largest absolute change of a value in a round, 1 if not given. A larger one is clamped, and counted under
    /// `Secure/clamped`. Without noise only.
    #[serde(default)]
    #[schemars(range(min = 1e-30, max = 1e30))] // So that neither a step nor a sum leaves the range of f64.
    pub clip: Option<f64>,
    /// Bits of a change's fixed-point number, its sign among them: a change is rounded to a multiple of `clip /
    /// 2^(bits - 1)`, with noise of `clip-norm / 2^(bits - 1)`. The sum over all clients has to fit in 32 bits, so that 24,
    /// if not given, suit up to 255 clients, 28 up to 15. With noise 20, if not given.
    #[serde(default)]
    #[schemars(range(min = 2, max = 30))]
    pub bits: Option<u32>,
    /// Asks the clients for noise: the L2 norm that each clips its whole update to. Goes with `noise-multiplier` and
    /// `delta`.
    #[serde(default)]
    #[schemars(range(min = 1e-30, max = 1e30))]
    pub clip_norm: Option<f64>,
    /// The standard deviation of the noise on every value of a sum, in units of `clip-norm`. Each client adds a part, such
    /// that those of `threshold` clients, less `colluding`, make it up.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub noise_multiplier: Option<f64>,
    /// The delta of the account, between 0 and 1; much less than 1 / number of clients.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub delta: Option<f64>,
    /// How many clients may tell the server what they know, so that their noise does not count: 1 if not given, since each
    /// client knows its own. Twice `threshold` has to be more than it and the round's clients together.
    #[serde(default)]
    #[schemars(range(max = 254))]
    pub colluding: Option<usize>,
}

/// What the aggregator's table says of fixed-point numbers and noise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) clip: f64,
    pub(crate) bits: u32,
    pub(crate) noise: Option<Noise>,
}

impl AggregatorConfig {
    /// The keys that go together.
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
            let error = Error::config("has no place beside `clip-norm`").at_key("clip");
            return Err(error.help("with noise a client's whole update is clipped to `clip-norm`"));
        }
        let noise = Noise { multiplier, delta, colluding: self.colluding.unwrap_or(1) };
        Ok(Numbers { clip: norm, bits: self.bits.unwrap_or(20), noise: Some(noise) })
    }
}

fn default_minimum() -> usize {
    3
}
