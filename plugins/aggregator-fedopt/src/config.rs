//! The `[aggregator]` table. The schema checks the bounds of each value; [`Config::rule`] checks that the optimiser
//! uses the key.

use plugin_api::{Error, Result, WeightBy};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rule::Rule;

/// The keys of the aggregator's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The server's optimiser.
    pub(crate) optimizer: Optimizer,
    /// The server's learning rate η, above 0. With `adam`, `yogi` and `adagrad`, roughly how far an element moves in a
    /// round; with `momentum`, 1 takes the clients' mean in full.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    learning_rate: f64,
    /// For `adam`, `yogi`, `adagrad`: the decay β₁ of the first moment, at least 0 and below 1. Default: 0.9; for
    /// `adagrad` 0, no momentum.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    beta1: Option<f64>,
    /// For `adam`, `yogi`: the decay β₂ of the second moment, at least 0 and below 1. Default: 0.99.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    beta2: Option<f64>,
    /// For `adam`, `yogi`, `adagrad`: τ, above 0, added to the root of the second moment. The larger it is, the less
    /// adaptive the step. Default: 1e-3.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    tau: Option<f64>,
    /// For `adam`, `yogi`: whether to correct the moments' bias towards their initial value. Default: false, as in the
    /// paper.
    #[serde(default)]
    bias_correction: Option<bool>,
    /// For `momentum`: the fraction of the previous direction to keep, at least 0 and below 1. Default: 0.9.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    momentum: Option<f64>,
    /// How to weight a client's parameters in the mean.
    #[serde(default)]
    pub(crate) weight_by: WeightBy,
}

/// The server's optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// FedAdam.
    Adam,
    /// FedYogi.
    Yogi,
    /// FedAdagrad.
    Adagrad,
    /// FedAvgM.
    Momentum,
}

impl Optimizer {
    /// The optimiser's name in the configuration and in a checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adam => "adam",
            Self::Yogi => "yogi",
            Self::Adagrad => "adagrad",
            Self::Momentum => "momentum",
        }
    }

    /// The optimiser-specific keys that this optimiser accepts.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Adam | Self::Yogi => &["beta1", "beta2", "tau", "bias-correction"],
            Self::Adagrad => &["beta1", "tau"],
            Self::Momentum => &["momentum"],
        }
    }
}

impl Config {
    /// The optimiser with its hyperparameters.
    ///
    /// # Errors
    /// If a key is given that the optimiser does not use.
    pub(crate) fn rule(&self) -> Result<Rule> {
        let (name, keys) = (self.optimizer.name(), self.optimizer.keys());
        let given = [
            ("beta1", self.beta1.is_some()),
            ("beta2", self.beta2.is_some()),
            ("tau", self.tau.is_some()),
            ("bias-correction", self.bias_correction.is_some()),
            ("momentum", self.momentum.is_some()),
        ];
        if let Some((key, _)) = given.into_iter().find(|(key, given)| *given && !keys.contains(key)) {
            let used: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            return Err(Error::config(format!("the optimizer `{name}` does not use it"))
                .at_key(key)
                .help(format!("`{name}` uses {}", used.join(", "))));
        }
        let rate = self.learning_rate;
        let (beta1, beta2) = (self.beta1.unwrap_or(0.9), self.beta2.unwrap_or(0.99));
        let (tau, corrected) = (self.tau.unwrap_or(1e-3), self.bias_correction.unwrap_or(false));
        Ok(match self.optimizer {
            Optimizer::Adam => Rule::Adam { rate, beta1, beta2, tau, corrected },
            Optimizer::Yogi => Rule::Yogi { rate, beta1, beta2, tau, corrected },
            Optimizer::Adagrad => Rule::Adagrad { rate, beta1: self.beta1.unwrap_or(0.0), tau },
            Optimizer::Momentum => Rule::Momentum { rate, momentum: self.momentum.unwrap_or(0.9) },
        })
    }
}
