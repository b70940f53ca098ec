//! The two tables. Values keep to their bounds in the schema; what depends on the number of clients is checked
//! when a round begins.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

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
    /// Whether keys and masks come from the experiment's seed and not from the operating system: the masked messages
    /// are then the same on every run, and no protection. The global model is the same in both cases.
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
    /// The largest absolute change of a value in a round. A larger one is clamped, and counted under `Secure/clamped`.
    #[serde(default = "default_clip")]
    #[schemars(range(min = 1e-30, max = 1e30))] // So that neither a step nor a sum leaves the range of f64.
    pub clip: f64,
    /// Bits of a change's fixed-point number, its sign among them: a change is rounded to a multiple of `clip /
    /// 2^(bits - 1)`. The sum over all clients has to fit in 32 bits, so that 24 suit up to 255 clients, 28 up to 15.
    #[serde(default = "default_bits")]
    #[schemars(range(min = 2, max = 30))]
    pub bits: u32,
}

fn default_minimum() -> usize {
    3
}

fn default_clip() -> f64 {
    1.0
}

fn default_bits() -> u32 {
    24
}
