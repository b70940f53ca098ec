//! The keys of the model's table.

use std::num::NonZeroUsize;

use plugin_api::{ClassWeights, Error, JsonSchema, ModelSetup, Result};
use serde::{Deserialize, Serialize};

use crate::features::FeatureMap;

/// The most features of which clients send the Gram matrix: 32 MB.
const MOST_POOLED: usize = 2000;

/// The keys of the model's table. The schema checks the bounds of each value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// How the model is computed. `learning-rate`, `batch-size`, `hidden-size`, `proximal-mu` and `class-weights` are keys
    /// of `gradient-descent`.
    pub method: Method,
    /// What is computed of a text.
    pub features: FeatureKind,
    /// For `features = "one-hot"`: the number of positions of each chain. Chains are the parts of a text between `|`, over
    /// all input columns in their order: `[150, 130]` for a heavy and a light chain. A longer chain is an error.
    #[schemars(inner(range(min = 1, max = 100_000)))]
    pub positions: Vec<usize>,
    /// For `ridge` and `pooled-ridge`: λ of `mean of error² + λ ‖w‖²`, with the target's own unit. It is glmnet's `lambda`
    /// without standardisation, and scikit-learn's `alpha` divided by the number of training rows. The intercept has no
    /// penalty.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub ridge_lambda: f64,
    /// The fraction of the error that a step removes. With classes, the gradient is divided so that 1 is a safe step.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 2.0))]
    pub learning_rate: f32,
    /// Rows per step.
    pub batch_size: NonZeroUsize,
    /// The number of values that the trunk computes from a text's features.
    #[schemars(range(min = 1, max = 65536))]
    pub hidden_size: NonZeroUsize,
    /// The length of the words counted in a text; 1 counts letters. Each hidden value has 27^kmer weights.
    #[schemars(range(min = 1, max = 4))]
    pub kmer: usize,
    /// FedProx: how strongly a client is pulled towards the round's global model; 0 turns it off. This is the μ of
    /// `error² / 2 + μ / 2 ‖w − global‖²`, with errors in standard deviations of the client's training targets.
    #[schemars(range(min = 0.0))]
    pub proximal_mu: f32,
    /// How much the rows of each class count in training, for tasks of classes: `"balanced"`, so that each class counts as
    /// much as every other one at the client, or a table such as `{ yes = 5.0 }`. By default all rows count the same.
    pub class_weights: Option<ClassWeights>,
}

/// How the model is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Linear or logistic regression without a penalty, with a trunk that all tasks share, by gradient steps.
    #[default]
    GradientDescent,
    /// Ridge regression on a client's own rows. FedAvg computes the mean of the clients' weights, which is not ridge
    /// regression on all rows. For numbers.
    Ridge,
    /// Ridge regression on the rows of all clients: they send sums over their rows (the Gram matrix of the features, and
    /// their products with the targets), and FedAvg adds them. Exact after one round. For numbers, and up to 2,000 features.
    PooledRidge,
    /// The mean of the targets, or the share of each class, over the rows of all clients, whatever the inputs.
    Mean,
}

/// What is computed of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureKind {
    /// How often each word of `kmer` letters occurs.
    #[default]
    KMers,
    /// Which letter is at each position.
    OneHot,
}

impl Default for Config {
    fn default() -> Self {
        let size = |n: usize| NonZeroUsize::MIN.saturating_add(n - 1);
        Self {
            method: Method::GradientDescent,
            features: FeatureKind::KMers,
            positions: Vec::new(),
            ridge_lambda: 1e-3,
            learning_rate: 0.5,
            batch_size: size(16),
            hidden_size: size(8),
            kmer: 1,
            proximal_mu: 0.0,
            class_weights: None,
        }
    }
}

impl Config {
    /// Checks keys against each other, and the method against the tasks that it is to learn.
    ///
    /// # Errors
    /// If they do not fit together.
    pub(crate) fn check(&self, setup: &ModelSetup) -> Result<()> {
        let wrong = |key: &str, what: String| Err(Error::config(what).at_key(key));
        match (self.features, self.positions.is_empty()) {
            (FeatureKind::OneHot, true) => {
                let error = Error::config("`features = \"one-hot\"` needs the number of positions of each chain");
                return Err(error.at_key("positions").help("for example `positions = [150, 130]`"));
            }
            (FeatureKind::KMers, false) => {
                return wrong("positions", "is a key of `features = \"one-hot\"`".to_owned());
            }
            _ => {}
        }
        if self.method == Method::GradientDescent {
            return match &self.class_weights {
                Some(weights) => weights.check(&setup.tasks).map_err(|error| error.at_key("class-weights")),
                None => Ok(()),
            };
        }
        let of_steps = "is a key of `method = \"gradient-descent\"`";
        if self.proximal_mu > 0.0 {
            return wrong("proximal-mu", of_steps.to_owned());
        }
        if self.class_weights.is_some() {
            return wrong("class-weights", of_steps.to_owned());
        }
        if self.method == Method::Mean {
            return Ok(());
        }
        if let Some(task) = setup.tasks.iter().find(|task| task.target_kind.classes().is_some()) {
            let error = Error::config(format!("ridge regression learns numbers, and task `{}` has classes", task.name));
            return Err(error.at_key("method").help("`gradient-descent` and `mean` learn classes"));
        }
        let features = FeatureMap::new(self).number();
        if self.method == Method::PooledRidge && features > MOST_POOLED {
            let what = format!(
                "`pooled-ridge` sends a matrix of features², of at most {MOST_POOLED} features, not {features}"
            );
            let help =
                "`kmer` up to 2 has at most 729; `ridge` has no limit, and is computed on each client's own rows";
            return Err(Error::config(what).at_key("method").help(help));
        }
        Ok(())
    }
}
