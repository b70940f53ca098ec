//! The filter's table. The schema checks the bounds of each value; [`Config::plan`] checks that the keys fit the
//! mechanism.

use plugin_api::Error;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::budget::Budget;
use crate::gaussian::Gaussian;
use crate::lattice::NoiseKind;
use crate::percentile::Percentile;
use crate::sparse_vector::{EpsilonOf, SparseVector};

/// The keys of the filter's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// How to protect the update.
    pub mechanism: Mechanism,
    /// `gaussian`, `sparse-vector`: draw the noise from the experiment's seed, so that a run gives the same bits again.
    /// Whoever knows the seed can subtract the noise: use it for comparisons only; it protects nothing.
    /// Default: false.
    #[serde(default)]
    pub reproducible: Option<bool>,

    /// `gaussian`: the L2 norm that a client's whole update is clipped to; above 0.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip: Option<f64>,
    /// `gaussian`: the noise's standard deviation on every element, in units of `clip`; 0 clips without noise.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub noise_multiplier: Option<f64>,
    /// `gaussian`: the delta of the guarantee, between 0 and 1; much less than 1 / number of clients.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub delta: Option<f64>,
    /// `gaussian`: the distribution of the noise. Default: `gaussian`.
    #[serde(default)]
    pub noise: Option<NoiseKind>,
    /// `gaussian`: the most that the account may reach, such as `{ epsilon = 8.0 }`. The filter refuses to send what would
    /// exceed it.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// `sparse-vector`: the fraction of the parameters to share; above 0, at most 1.
    #[serde(default)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub fraction: Option<f64>,
    /// `sparse-vector`: the budget per round for which values are shared; `epsilon-of` says what it covers.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub epsilon: Option<f64>,
    /// `sparse-vector`: whether `epsilon` is the budget of the whole `selection` (default) or of its `threshold` alone.
    #[serde(default)]
    pub epsilon_of: Option<EpsilonOf>,
    /// `sparse-vector`: the budget of one shared value, whose noise has the scale `2 gamma / noise-var`. Not a
    /// variance: the name follows the reference implementation.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub noise_var: Option<f64>,
    /// `sparse-vector`, `percentile`: the magnitude to which each update value is clipped; above 0.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub gamma: Option<f64>,
    /// `sparse-vector`: the threshold before noise; at least 0, and at most about `gamma`.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub tau: Option<f64>,
    /// `sparse-vector`: whether the shared values are drawn with replacement from those above the threshold; if so,
    /// fewer are shared. Default: true, as in the reference implementation.
    #[serde(default)]
    pub replace: Option<bool>,

    /// `percentile`: only update values whose magnitude reaches this percentile are shared; 0 to 100.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percentile: Option<f64>,
}

/// How to protect the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Clipping to an L2 norm and Gaussian noise, with an account of epsilon.
    Gaussian,
    /// A few noisy values, chosen by the sparse vector technique.
    SparseVector,
    /// The largest values, clipped. No differential privacy.
    Percentile,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::SparseVector => "sparse-vector",
            Self::Percentile => "percentile",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Gaussian => &["clip", "noise-multiplier", "delta", "noise", "budget", "reproducible"],
            Self::SparseVector => {
                &["fraction", "epsilon", "epsilon-of", "noise-var", "gamma", "tau", "replace", "reproducible"]
            }
            Self::Percentile => &["percentile", "gamma"],
        }
    }
}

/// A mechanism with all its keys.
#[derive(Debug)]
pub(crate) enum Plan {
    Gaussian(Gaussian),
    SparseVector(SparseVector),
    Percentile(Percentile),
}

impl Config {
    /// The mechanism with its keys.
    ///
    /// # Errors
    /// If a key is missing, or belongs to another mechanism.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        let given = [
            ("reproducible", self.reproducible.is_some()),
            ("clip", self.clip.is_some()),
            ("noise-multiplier", self.noise_multiplier.is_some()),
            ("delta", self.delta.is_some()),
            ("noise", self.noise.is_some()),
            ("budget", self.budget.is_some()),
            ("fraction", self.fraction.is_some()),
            ("epsilon", self.epsilon.is_some()),
            ("epsilon-of", self.epsilon_of.is_some()),
            ("noise-var", self.noise_var.is_some()),
            ("gamma", self.gamma.is_some()),
            ("tau", self.tau.is_some()),
            ("replace", self.replace.is_some()),
            ("percentile", self.percentile.is_some()),
        ];
        let (name, keys) = (self.mechanism.name(), self.mechanism.keys());
        if let Some((key, _)) = given.iter().find(|(key, given)| *given && !keys.contains(key)) {
            let known = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::config(format!("is not a key of the mechanism `{name}`"))
                .at_key(*key)
                .help(format!("`{name}` uses {known}")));
        }
        let needed = |key: &str, value: Option<f64>| {
            value.ok_or_else(|| Error::config(format!("`{name}` needs the key `{key}`")).at_key("mechanism"))
        };
        Ok(match self.mechanism {
            Mechanism::Gaussian => Plan::Gaussian(Gaussian::new(
                needed("clip", self.clip)?,
                needed("noise-multiplier", self.noise_multiplier)?,
                needed("delta", self.delta)?,
                self.noise.unwrap_or(NoiseKind::Gaussian),
            )?),
            Mechanism::SparseVector => Plan::SparseVector(SparseVector {
                fraction: needed("fraction", self.fraction)?,
                epsilon: needed("epsilon", self.epsilon)?,
                epsilon_of: self.epsilon_of.unwrap_or_default(),
                noise_var: needed("noise-var", self.noise_var)?,
                gamma: needed("gamma", self.gamma)?,
                tau: needed("tau", self.tau)?,
                replace: self.replace.unwrap_or(true),
            }),
            Mechanism::Percentile => {
                Plan::Percentile(Percentile::new(needed("percentile", self.percentile)?, needed("gamma", self.gamma)?))
            }
        })
    }
}
