//! The two tables. Values keep to their bounds in the schema; what depends on the number of clients is checked
//! when a round begins.

use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of the filter's table.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilterConfig {
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
    /// round's clients. Fewer than so many that pool what they know with the server learn nothing of another. If not
    /// given, more than two thirds.
    #[serde(default)]
    #[schemars(range(min = 2, max = 255))]
    pub threshold: Option<usize>,
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

fn default_clip() -> f64 {
    1.0
}

fn default_bits() -> u32 {
    24
}
