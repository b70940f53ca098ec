//! The `[aggregator]` table. Values keep to their bounds in the schema; whether the optimiser uses a key is checked when it
//! is made.

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
    /// The server's learning rate η, more than 0. With `adam`, `yogi` and `adagrad` it is about what an element moves by
    /// in a round; with `momentum`, 1 takes the clients' mean in full.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    learning_rate: f64,
    /// For `adam`, `yogi`, `adagrad`: the decay β₁ of the first moment, at least 0 and below 1. 0.9 if not given, for
    /// `adagrad` 0: no momentum.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    beta1: Option<f64>,
    /// For `adam`, `yogi`: the decay β₂ of the second moment, at least 0 and below 1; 0.99 if not given.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    beta2: Option<f64>,
    /// For `adam`, `yogi`, `adagrad`: τ, more than 0, which is added to the root of the second moment; the larger, the
    /// less adaptive. 1e-3 if not given.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    tau: Option<f64>,
    /// For `adam`, `yogi`: whether the moments are corrected for their start; false if not given, as in the paper.
    #[serde(default)]
    bias_correction: Option<bool>,
    /// For `momentum`: how much of the last direction is kept, at least 0 and below 1; 0.9 if not given.
    #[serde(default)]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    momentum: Option<f64>,
    /// What a client's parameters are weighed by in the mean.
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
    /// The word that stands for it in the file and in a checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adam => "adam",
            Self::Yogi => "yogi",
            Self::Adagrad => "adagrad",
            Self::Momentum => "momentum",
        }
    }

    /// The keys that not every optimiser has, and this one does.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Adam | Self::Yogi => &["beta1", "beta2", "tau", "bias-correction"],
            Self::Adagrad => &["beta1", "tau"],
            Self::Momentum => &["momentum"],
        }
    }
}

impl Config {
    /// The optimiser with its numbers.
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
