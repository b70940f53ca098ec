//! Means over clients. Metrics of different tasks have no common mean, since they have the units of their tasks. Scores
//! have no units, so they do.

use plugin_api::{Evaluation, Goal};
use serde::{Deserialize, Serialize};

/// A client's index and its evaluations.
pub(crate) type Evaluated<'e> = (usize, &'e [Evaluation]);

/// The values of one number at several clients, by client index and without undefined values. Used to compare models of
/// different rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ByClient(Vec<(usize, f64)>);

impl ByClient {
    /// Adds a client's value if it is finite.
    fn add(&mut self, (client, value): (usize, f64)) {
        self.0.extend(Some((client, value)).filter(|_| value.is_finite()));
    }

    /// The mean over the clients; `None` if there are none.
    pub(crate) fn mean(&self) -> Option<f64> {
        mean(self.0.iter().map(|(_, value)| *value))
    }

    /// The means of `self` and of `other` over the clients that both have; `None` if they have none in common.
    pub(crate) fn means_beside(&self, other: &Self) -> Option<(f64, f64)> {
        let of = |one: &Self, other: &Self| {
            let known = |client: usize| other.0.iter().any(|(there, _)| *there == client);
            mean(one.0.iter().filter(|(client, _)| known(*client)).map(|(_, value)| *value))
        };
        of(self, other).zip(of(other, self))
    }
}

impl FromIterator<(usize, f64)> for ByClient {
    fn from_iter<I: IntoIterator<Item = (usize, f64)>>(values: I) -> Self {
        let mut all = Self::default();
        values.into_iter().for_each(|value| all.add(value));
        all
    }
}

/// The clients' scores, each the mean over the client's tasks. Tasks without data have a score of NaN and are ignored.
pub(crate) fn scores(clients: &[Evaluated<'_>]) -> ByClient {
    let of = |tasks: &[Evaluation]| mean(tasks.iter().map(|e| e.score).filter(|score| score.is_finite()));
    clients.iter().filter_map(|(client, tasks)| Some((*client, of(tasks)?))).collect()
}

/// The scores of one task, for the clients that have it.
pub(crate) fn scores_of(task: &str, clients: &[Evaluated<'_>]) -> ByClient {
    let all = clients.iter().flat_map(|(client, tasks)| tasks.iter().map(|evaluation| (*client, evaluation)));
    all.filter(|(_, evaluation)| evaluation.task == task).map(|(client, e)| (client, e.score)).collect()
}

/// One of the server's numbers of a round: a mean over clients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Number {
    /// The tag, such as `Score/global_test` or `RMSE/local_test`. In a run of several tasks it ends with the task's
    /// name, except for the score over all tasks.
    pub tag: String,
    /// Whether higher or lower is better.
    pub goal: Goal,
    /// The clients' values.
    pub by_client: ByClient,
}

impl Number {
    /// The mean over the clients with a defined value; NaN if there are none.
    pub(crate) fn value(&self) -> f64 {
        self.by_client.mean().unwrap_or(f64::NAN)
    }
}

/// Computes the server's numbers from evaluations under one tag (`suffix`), in a run of several tasks or of one. Metrics
/// have the units of their tasks, so each of several tasks has its own means. Scores have no units, so there is also
/// one mean over all tasks.
pub(crate) fn numbers(suffix: &str, several: bool, clients: &[Evaluated<'_>]) -> Vec<Number> {
    let mut all: Vec<Number> = Vec::new();
    let mut add = |name: &str, task: &str, goal: Goal, value: (usize, f64)| {
        let tag = if several { format!("{name}/{suffix}_{task}") } else { format!("{name}/{suffix}") };
        let index = all.iter().position(|number| number.tag == tag).unwrap_or_else(|| {
            all.push(Number { tag, goal, by_client: ByClient::default() });
            all.len() - 1
        });
        all[index].by_client.add(value);
    };
    for (client, evaluation) in clients.iter().flat_map(|(client, tasks)| tasks.iter().map(|e| (*client, e))) {
        if several {
            add("Score", &evaluation.task, Goal::Higher, (client, evaluation.score));
        }
        for metric in &evaluation.metrics {
            add(&metric.name, &evaluation.task, metric.goal, (client, metric.value));
        }
    }
    let score = Number { tag: format!("Score/{suffix}"), goal: Goal::Higher, by_client: scores(clients) };
    [score].into_iter().chain(all).collect()
}

/// The mean of the values; `None` if there are none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use plugin_api::Metric;

    use super::*;

    fn evaluation(task: &str, rmse: f64, score: f64) -> Evaluation {
        let metrics = vec![Metric { name: "RMSE".to_owned(), value: rmse, goal: Goal::Lower }];
        Evaluation { task: task.to_owned(), examples: 1, loss: rmse * rmse, score, metrics }
    }

    #[test]
    fn scores_without_data_count_for_nothing() {
        let (a, b) = ([evaluation("t", 1.0, -1.0), evaluation("u", f64::NAN, f64::NAN)], [evaluation("t", 3.0, -3.0)]);
        let both = [(0, &a[..]), (1, &b[..])];
        assert_eq!(scores(&both).mean(), Some(-2.0));
        assert_eq!(scores(&[(0, &a[1..])]).mean(), None);
        assert_eq!((scores_of("t", &both).mean(), scores_of("u", &both).mean()), (Some(-2.0), None));
    }

    #[test]
    fn numbers_are_compared_over_the_clients_that_both_have() {
        let of = |values: &[(usize, f64)]| values.iter().copied().collect::<ByClient>();
        let then = of(&[(0, 1.0), (1, 3.0), (2, 100.0)]);
        // The third client has no value any more, and the fourth has no earlier value to compare with.
        let now = of(&[(0, 2.0), (1, 4.0), (2, f64::NAN), (3, -50.0)]);
        assert_eq!(now.means_beside(&then), Some((3.0, 2.0)));
        assert_eq!(then.means_beside(&now), Some((2.0, 3.0)));
        assert_eq!(of(&[(7, 1.0)]).means_beside(&then), None);
    }

    #[test]
    fn metrics_of_different_tasks_have_no_mean_and_scores_have_one() {
        let (a, b) = ([evaluation("kd", 1e-9, -0.5), evaluation("tm", 4.0, -0.9)], [evaluation("tm", 6.0, f64::NAN)]);
        let shown = |several, clients: &[&[Evaluation]]| {
            let clients: Vec<Evaluated<'_>> = clients.iter().copied().enumerate().collect();
            let numbers = numbers("global_test", several, &clients);
            numbers.iter().map(|number| (number.tag.clone(), number.value())).collect::<Vec<_>>()
        };
        let wanted = [
            ("Score/global_test", -0.7),
            ("Score/global_test_kd", -0.5),
            ("RMSE/global_test_kd", 1e-9),
            ("Score/global_test_tm", -0.9),
            ("RMSE/global_test_tm", 5.0),
        ];
        assert_eq!(shown(true, &[&a, &b]), wanted.map(|(tag, value)| (tag.to_owned(), value)));
        let wanted = [("Score/global_test", -0.9), ("RMSE/global_test", 5.0)];
        assert_eq!(shown(false, &[&a[1..], &b]), wanted.map(|(tag, value)| (tag.to_owned(), value)));
    }
}
