//! The table `[repeats]`.

use plugin_api::config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The table `[repeats]`: `fedplug run` runs the experiment once for each seed and fold, each in a folder of its own in the
/// run's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Repeats {
    /// The seeds, each in place of `seed`.
    #[serde(default)]
    pub seeds: Vec<u32>,
    /// The number of folds for cross-validation: each is tested on in one run, or in one run for each seed. The runs get the
    /// keys `folds` and `fold` of the dataset.
    #[serde(default)]
    #[schemars(range(min = 2, max = MOST_FOLDS))]
    pub folds: Option<usize>,
}

/// More folds are certainly a typo.
pub(crate) const MOST_FOLDS: usize = 10_000;

impl Repeats {
    /// Whether the experiment is run once.
    pub(crate) fn is_empty(&self) -> bool {
        self.seeds.is_empty() && self.folds.is_none()
    }

    /// Errors in the values.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let twice = self.seeds.iter().enumerate().find(|(index, seed)| self.seeds[..*index].contains(seed));
        let problem = |(_, seed): (usize, &u32)| Problem {
            path: ["repeats", "seeds"].map(str::to_owned).to_vec(),
            message: format!("the seed {seed} is listed twice"),
            known: Vec::new(),
        };
        twice.map(problem).into_iter().collect()
    }
}
