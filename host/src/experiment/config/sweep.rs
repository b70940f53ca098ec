//! The table `[sweep]`.

use plugin_api::config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// More runs than this are certainly a typo.
const MOST_RUNS: usize = 100_000;

/// The table `[sweep]`: `fedplug sweep` runs the experiment once for each choice of values, and sorts the runs by the score on
/// the rows for validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sweep {
    /// The keys of the experiment and their values, such as `model.learning-rate = [0.1, 0.01]`. Each combination is a run,
    /// unless `random` says how many to draw.
    #[serde(default)]
    pub grid: Map<String, Value>,
    /// Draws some of the combinations, without repetition.
    #[serde(default)]
    pub random: Option<Random>,
    /// Gives up bad runs: from this round on, a run whose best validation score so far is below the median, over the finished
    /// runs, of their mean scores up to that round. At least three runs must be finished. Which runs are given up depends on
    /// which ones finish first. None are if it is missing.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub median_rule: Option<u64>,
}

/// How combinations are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Random {
    /// How many; all if there are fewer.
    #[schemars(range(min = 1))]
    pub samples: usize,
    /// The seed of the draw.
    #[serde(default)]
    pub seed: u64,
}

impl Sweep {
    /// Whether there is nothing to choose.
    pub(crate) fn is_empty(&self) -> bool {
        self.grid.is_empty()
    }

    /// The dotted keys with their values, in the order of the file.
    pub(crate) fn axes(&self) -> Vec<(String, &Vec<Value>)> {
        let mut found = Vec::new();
        collect("", &self.grid, &mut found);
        found.into_iter().filter_map(|(key, value)| Some((key, value.as_array()?))).collect()
    }

    /// The number of combinations; `None` if it is too large to count.
    pub(crate) fn combinations(&self) -> Option<usize> {
        self.axes().iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()))
    }

    /// Errors in the values.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        collect("", &self.grid, &mut found);
        let problem = |key: &str, message: String| Problem {
            path: ["sweep", "grid"].into_iter().chain(key.split('.')).map(str::to_owned).collect(),
            message,
            known: Vec::new(),
        };
        let wrong = |(key, value): &(String, &Value)| match value {
            Value::Array(values) if values.is_empty() => Some(problem(key, "lists no value".to_owned())),
            Value::Array(_) => None,
            _ => Some(problem(key, "must be a list of values".to_owned())),
        };
        let mut problems: Vec<Problem> = found.iter().filter_map(wrong).collect();
        if problems.is_empty() {
            let runs = match (self.combinations(), self.random) {
                (_, Some(random)) => Some(random.samples),
                (all, None) => all,
            };
            if runs.is_none_or(|runs| runs > MOST_RUNS) {
                let message = format!("has more than {MOST_RUNS} combinations: draw some with `random`");
                problems.push(Problem {
                    path: vec!["sweep".to_owned(), "grid".to_owned()],
                    message,
                    known: Vec::new(),
                });
            }
        }
        problems
    }
}

/// Collects the values that are not tables, with their dotted keys.
fn collect<'v>(key: &str, table: &'v Map<String, Value>, found: &mut Vec<(String, &'v Value)>) {
    for (name, value) in table {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        match value {
            Value::Object(table) => collect(&key, table, found),
            value => found.push((key, value)),
        }
    }
}
