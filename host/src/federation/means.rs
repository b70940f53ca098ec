//! Means over clients, and where there is none: metrics have the units of their tasks, scores have none.

use plugin_api::{Evaluation, Goal};

/// The mean over the clients' scores, each the mean over its tasks. Tasks without data, whose score is NaN, count for
/// nothing; `None` where nothing is left.
pub fn mean_score<'a>(clients: impl IntoIterator<Item = &'a [Evaluation]>) -> Option<f64> {
    mean(clients.into_iter().filter_map(|tasks| mean(tasks.iter().map(|e| e.score).filter(|score| score.is_finite()))))
}

/// The mean of one task's scores over the clients that have it; `None` where none is defined.
pub fn mean_score_of<'a>(task: &str, clients: impl IntoIterator<Item = &'a [Evaluation]>) -> Option<f64> {
    let of_task = clients.into_iter().flatten().filter(|evaluation| evaluation.task == task);
    mean(of_task.map(|evaluation| evaluation.score).filter(|score| score.is_finite()))
}

/// One of the server's numbers of a round: a mean over clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its tag: `Score/global_test`, `RMSE/local_test`, and with a task's name behind it where the run has several.
    pub tag: String,
    /// Which way it is better.
    pub goal: Goal,
    /// The mean over the clients that it is defined for; NaN where there is none.
    pub value: f64,
}

/// The server's numbers of the models that were evaluated at a place, in a run with several tasks or with one. Metrics
/// have the units of their tasks, so of several tasks each has its own mean; scores have none, so there is one over all.
pub fn numbers<'a>(
    place: &str,
    several: bool,
    clients: impl IntoIterator<Item = &'a [Evaluation]> + Clone,
) -> Vec<Number> {
    let mut all: Vec<(Number, Vec<f64>)> = Vec::new();
    let mut add = |name: &str, task: &str, goal: Goal, value: f64| {
        let tag = if several { format!("{name}/{place}_{task}") } else { format!("{name}/{place}") };
        let index = all.iter().position(|(number, _)| number.tag == tag).unwrap_or_else(|| {
            all.push((Number { tag, goal, value: f64::NAN }, Vec::new()));
            all.len() - 1
        });
        all[index].1.extend(Some(value).filter(|value| value.is_finite()));
    };
    for evaluation in clients.clone().into_iter().flatten() {
        if several {
            add("Score", &evaluation.task, Goal::Higher, evaluation.score);
        }
        for metric in &evaluation.metrics {
            add(&metric.name, &evaluation.task, metric.goal, metric.value);
        }
    }
    let value = mean_score(clients).unwrap_or(f64::NAN);
    let score = Number { tag: format!("Score/{place}"), goal: Goal::Higher, value };
    let means = all.into_iter().map(|(number, values)| Number { value: mean(values).unwrap_or(f64::NAN), ..number });
    [score].into_iter().chain(means).collect()
}

/// The mean of values; none of none.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
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
        assert_eq!(mean_score([&a[..], &b[..]]), Some(-2.0));
        assert_eq!(mean_score([&a[1..]]), None);
        assert_eq!((mean_score_of("t", [&a[..], &b[..]]), mean_score_of("u", [&a[..]])), (Some(-2.0), None));
    }

    #[test]
    fn metrics_of_different_tasks_have_no_mean_and_scores_have_one() {
        let (a, b) = ([evaluation("kd", 1e-9, -0.5), evaluation("tm", 4.0, -0.9)], [evaluation("tm", 6.0, f64::NAN)]);
        let told = |several, clients: &[&[Evaluation]]| {
            let numbers = numbers("global_test", several, clients.iter().copied());
            numbers.into_iter().map(|number| (number.tag, number.value)).collect::<Vec<_>>()
        };
        let wanted = [
            ("Score/global_test", -0.7),
            ("Score/global_test_kd", -0.5),
            ("RMSE/global_test_kd", 1e-9),
            ("Score/global_test_tm", -0.9),
            ("RMSE/global_test_tm", 5.0),
        ];
        assert_eq!(told(true, &[&a, &b]), wanted.map(|(tag, value)| (tag.to_owned(), value)));
        let wanted = [("Score/global_test", -0.9), ("RMSE/global_test", 5.0)];
        assert_eq!(told(false, &[&a[1..], &b]), wanted.map(|(tag, value)| (tag.to_owned(), value)));
    }
}
