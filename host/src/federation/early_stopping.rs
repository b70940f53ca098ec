//! Early stopping: whether a run has stopped improving.

use plugin_api::Goal;
use serde::{Deserialize, Serialize};

use crate::error::Diagnostic;
use crate::experiment::config::EarlyStopping;
use crate::experiment::document::nearest;
use crate::federation::means::{ByClient, Number};

/// The number of metrics that an error message lists.
const SHOWN: usize = 8;

/// Returns the number that the rule watches, from the server's numbers of a round. Unless the rule names one, it is the
/// global model's score, on the rows for validation if the run goes by them.
///
/// # Errors
/// If there is no such number.
pub(crate) fn watched<'n>(
    rule: &EarlyStopping,
    numbers: &'n [Number],
    by_validation: bool,
) -> Result<&'n Number, Diagnostic> {
    let metric = rule.metric(by_validation);
    let found = numbers.iter().find(|number| number.tag == metric);
    found.ok_or_else(|| {
        let mut tags: Vec<&str> = numbers.iter().map(|number| number.tag.as_str()).collect();
        let near = nearest(metric, &tags).map(|near| format!("did you mean `{near}`?"));
        let more = tags.len().saturating_sub(SHOWN);
        tags.truncate(SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let report = Diagnostic::new(format!("the run has no metric `{metric}`"));
        report.hint(near.unwrap_or_else(|| format!("available: {}{more}", tags.join(", "))))
    })
}

/// The best value of the watched number and the rounds since then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Patience {
    best: ByClient,
    since: u64,
}

impl Patience {
    /// Records the number of a round. The number and the best one so far are compared over the clients that have both.
    /// An undefined number is never an improvement.
    pub(crate) fn note(&mut self, number: &ByClient, goal: Goal, rule: &EarlyStopping) {
        let better = match (number.means_beside(&self.best), goal) {
            (Some((now, best)), Goal::Higher) => now > best + rule.min_delta,
            (Some((now, best)), Goal::Lower) => now < best - rule.min_delta,
            (None, _) => self.best.mean().is_none() && number.mean().is_some(),
        };
        self.since += 1;
        if better {
            (self.best, self.since) = (number.clone(), 0);
        }
    }

    /// Whether the last `patience` rounds brought no improvement.
    pub(crate) fn is_over(&self, rule: Option<&EarlyStopping>) -> bool {
        rule.is_some_and(|rule| self.since >= rule.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_after_so_many_rounds_without_a_better_value() {
        let rule = EarlyStopping { patience: 2, metric: None, min_delta: 0.1 };
        let ends = |goal, values: &[f64]| {
            let mut patience = Patience::default();
            values.iter().position(|&value| {
                patience.note(&[(0, value)].into_iter().collect(), goal, &rule);
                patience.is_over(Some(&rule))
            })
        };
        assert_eq!(ends(Goal::Higher, &[1.0, 2.0, 2.05, 2.11, 1.0, 2.0, 9.0]), Some(5));
        assert_eq!(ends(Goal::Lower, &[1.0, 0.95, 0.92, 0.5]), Some(2));
        assert_eq!(ends(Goal::Lower, &[f64::NAN, f64::NAN, 1.0]), Some(1));
        assert_eq!(ends(Goal::Lower, &[3.0, 2.0, 1.0]), None);
        assert!(!Patience { best: ByClient::default(), since: 99 }.is_over(None));
    }

    #[test]
    fn a_lost_client_is_no_progress() {
        let rule = EarlyStopping { patience: 2, metric: None, min_delta: 0.0 };
        let mut patience = Patience::default();
        let of = |values: &[(usize, f64)]| values.iter().copied().collect::<ByClient>();
        // Without the worst of three clients the mean rises, although no client improves.
        for number in [of(&[(0, 5.0), (1, 4.0), (2, -9.0)]), of(&[(0, 5.0), (1, 4.0)]), of(&[(1, 4.0)])] {
            patience.note(&number, Goal::Higher, &rule);
        }
        assert!(patience.is_over(Some(&rule)));
        patience.note(&of(&[(1, 4.5)]), Goal::Higher, &rule);
        assert!(!patience.is_over(Some(&rule)));
    }
}
