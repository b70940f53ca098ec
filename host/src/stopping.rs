//! Whether a run has stopped getting better.

use plugin_api::{Goal, Metric};
use serde::{Deserialize, Serialize};

use crate::config::{EarlyStopping, SCORE};
use crate::error::Report;

/// What the tags of an evaluation's metrics end with: of the global model, and of the client's own.
const PLACES: [&str; 2] = ["global_test", "local_test"];

/// Which way the number that a rule watches is better, of a model with these metrics.
///
/// # Errors
/// If the model reports no such number.
pub fn goal<'m>(rule: &EarlyStopping, metrics: impl Iterator<Item = &'m Metric>) -> Result<Goal, Report> {
    if rule.metric == SCORE {
        return Ok(Goal::Higher);
    }
    let tags = |metric: &Metric| PLACES.map(|place| (format!("{}/{place}", metric.name), metric.goal));
    let all: Vec<(String, Goal)> = metrics.flat_map(tags).collect();
    if let Some((_, goal)) = all.iter().find(|(tag, _)| *tag == rule.metric) {
        return Ok(*goal);
    }
    let mut tags: Vec<&str> = [SCORE].into_iter().chain(all.iter().map(|(tag, _)| tag.as_str())).collect();
    tags.sort_unstable();
    tags.dedup();
    let report = Report::new(format!("the model reports no `{}`", rule.metric));
    Err(report.hint(format!("it reports: {}", tags.join(", "))))
}

/// How the watched number went so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patience {
    best: Option<f64>,
    since: u64,
}

impl Patience {
    /// Takes down the number of a round. A NaN is no better than anything.
    pub fn note(&mut self, value: f64, goal: Goal, rule: &EarlyStopping) {
        let better = match (self.best, goal) {
            (None, _) => !value.is_nan(),
            (Some(best), Goal::Higher) => value > best + rule.min_delta,
            (Some(best), Goal::Lower) => value < best - rule.min_delta,
        };
        self.since += 1;
        if better {
            (self.best, self.since) = (Some(value), 0);
        }
    }

    /// Whether the last so many rounds brought nothing better.
    pub fn is_over(&self, rule: Option<&EarlyStopping>) -> bool {
        rule.is_some_and(|rule| self.since >= rule.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_so_many_rounds_without_a_better_value() {
        let rule = EarlyStopping { patience: 2, metric: String::new(), min_delta: 0.1 };
        let ends = |goal, values: &[f64]| {
            let mut patience = Patience::default();
            values.iter().position(|&value| {
                patience.note(value, goal, &rule);
                patience.is_over(Some(&rule))
            })
        };
        assert_eq!(ends(Goal::Higher, &[1.0, 2.0, 2.05, 2.11, 1.0, 2.0, 9.0]), Some(5));
        assert_eq!(ends(Goal::Lower, &[1.0, 0.95, 0.92, 0.5]), Some(2));
        assert_eq!(ends(Goal::Lower, &[f64::NAN, f64::NAN, 1.0]), Some(1));
        assert_eq!(ends(Goal::Lower, &[3.0, 2.0, 1.0]), None);
        assert!(!Patience { best: None, since: 99 }.is_over(None));
    }
}
