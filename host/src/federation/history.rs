//! Metrics and scores of the models over the rounds, for the table and `summary.json`.

use std::collections::BTreeMap;

use plugin_api::{Evaluation, Goal};
use serde::{Deserialize, Serialize};

use crate::federation::means::mean;
use crate::federation::model_evaluation::ModelEvaluation;
use crate::federation::usage::Traffic;

mod table;

pub(crate) use table::SHOWN_METRICS;

/// The name of the score among metrics.
pub(crate) const SCORE: &str = "score";

/// The first, best and last value of a metric over the rounds. A value is `None` if it was undefined, as Pearson's
/// correlation is on a constant target. The best value ignores undefined ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricHistory {
    /// The metric's name.
    pub name: String,
    /// The first value.
    pub first: Option<f64>,
    /// The best value.
    pub best: Option<f64>,
    /// The last value.
    pub last: Option<f64>,
    /// Whether higher is better.
    pub higher_is_better: bool,
}

/// The metrics of one task at one client, from the evaluations under one tag (`global_test`, `local_validation`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricHistories(Vec<MetricHistory>);

impl MetricHistories {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One entry for each metric, in order.
    pub(crate) fn all(&self) -> &[MetricHistory] {
        &self.0
    }

    fn add(&mut self, evaluation: &Evaluation) {
        for metric in &evaluation.metrics {
            let value = Some(metric.value).filter(|value| value.is_finite());
            let higher_is_better = metric.goal == Goal::Higher;
            match self.0.iter_mut().find(|history| history.name == metric.name) {
                Some(history) => history.add(value),
                None => self.0.push(MetricHistory::new(&metric.name, value, higher_is_better)),
            }
        }
    }
}

impl MetricHistory {
    fn new(name: &str, value: Option<f64>, higher_is_better: bool) -> Self {
        Self { name: name.to_owned(), first: value, best: value, last: value, higher_is_better }
    }

    fn add(&mut self, value: Option<f64>) {
        let better = if self.higher_is_better { f64::max } else { f64::min };
        self.best = self.best.into_iter().chain(value).reduce(better);
        self.last = value;
    }

    /// Adds a score to its history, which starts with the first defined value.
    fn add_score(history: &mut Option<Self>, value: f64) {
        let value = Some(value).filter(|value| value.is_finite());
        match history {
            Some(history) => history.add(value),
            None => *history = value.map(|value| Self::new(SCORE, Some(value), true)),
        }
    }
}

/// The results of one client's task over the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskHistory {
    /// The task's name.
    pub task: String,
    /// Metrics of the global model at the client, before training.
    pub global_test: MetricHistories,
    /// Metrics of the client's own model, after each epoch.
    pub local_test: MetricHistories,
    /// The score of the global model. Scores are scale-free: only they can be compared between tasks. Absent if the
    /// score was never defined, and in summaries of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_score: Option<MetricHistory>,
    /// The score of the client's own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_score: Option<MetricHistory>,
    /// The same numbers on the rows for validation, if there are any.
    #[serde(default, skip_serializing_if = "MetricHistories::is_empty")]
    pub global_validation: MetricHistories,
    /// Those of the client's own model.
    #[serde(default, skip_serializing_if = "MetricHistories::is_empty")]
    pub local_validation: MetricHistories,
    /// The score of the global model on the rows for validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_validation_score: Option<MetricHistory>,
    /// The score of the client's own model on the rows for validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_validation_score: Option<MetricHistory>,
    /// Metrics and score, on the test rows, of the best global model, if rows for validation chose it. Undefined ones are
    /// missing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub best_model: BTreeMap<String, f64>,
}

/// The results of all clients over the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// The tasks of each client, by the client's name.
    pub clients: BTreeMap<String, Vec<TaskHistory>>,
    /// The clients' names, in order.
    pub order: Vec<String>,
    /// Bytes of tensors that each client received and sent, over all rounds.
    pub traffic: BTreeMap<String, Traffic>,
}

impl History {
    /// Creates an empty history.
    pub(crate) fn new(order: Vec<String>) -> Self {
        Self { order, ..Self::default() }
    }

    fn task(&mut self, client: &str, task: &str) -> &mut TaskHistory {
        let tasks = self.clients.entry(client.to_owned()).or_default();
        let index = tasks.iter().position(|record| record.task == task).unwrap_or_else(|| {
            tasks.push(TaskHistory { task: task.to_owned(), ..TaskHistory::default() });
            tasks.len() - 1
        });
        &mut tasks[index]
    }

    /// How the score is computed from a metric: `Spearman`, or `-MAE` if lower is better.
    pub(crate) fn score_name(&self, metric: &str) -> String {
        let tasks = self.clients.values().flatten();
        let mut all = tasks.flat_map(|task| task.global_test.all().iter().chain(task.local_test.all()));
        match all.find(|history| history.name == metric) {
            Some(history) if !history.higher_is_better => format!("-{metric}"),
            _ => metric.to_owned(),
        }
    }

    /// Adds a client's traffic in a round.
    pub(crate) fn add_traffic(&mut self, client: &str, traffic: Traffic) {
        let all = self.traffic.entry(client.to_owned()).or_default();
        all.received += traffic.received;
        all.sent += traffic.sent;
    }

    /// The total traffic over all rounds and clients.
    pub(crate) fn all_traffic(&self) -> Traffic {
        self.traffic.values().fold(Traffic::default(), |all, one| Traffic {
            received: all.received + one.received,
            sent: all.sent + one.sent,
        })
    }

    /// Adds an evaluation of the global model at a client.
    pub(crate) fn add_global(&mut self, client: &str, found: &ModelEvaluation) {
        for evaluation in &found.test {
            let record = self.task(client, &evaluation.task);
            record.global_test.add(evaluation);
            MetricHistory::add_score(&mut record.global_score, evaluation.score);
        }
        for evaluation in &found.validation {
            let record = self.task(client, &evaluation.task);
            record.global_validation.add(evaluation);
            MetricHistory::add_score(&mut record.global_validation_score, evaluation.score);
        }
    }

    /// Adds an evaluation of a client's own model.
    pub(crate) fn add_local(&mut self, client: &str, found: &ModelEvaluation) {
        for evaluation in &found.test {
            let record = self.task(client, &evaluation.task);
            record.local_test.add(evaluation);
            MetricHistory::add_score(&mut record.local_score, evaluation.score);
        }
        for evaluation in &found.validation {
            let record = self.task(client, &evaluation.task);
            record.local_validation.add(evaluation);
            MetricHistory::add_score(&mut record.local_validation_score, evaluation.score);
        }
    }

    /// Records what the best global model so far reaches on a client's test rows.
    pub(crate) fn set_best(&mut self, client: &str, evaluations: &[Evaluation]) {
        for evaluation in evaluations {
            let metrics = evaluation.metrics.iter().map(|metric| (metric.name.clone(), metric.value));
            let all = metrics.chain([(SCORE.to_owned(), evaluation.score)]);
            self.task(client, &evaluation.task).best_model = all.filter(|(_, value)| value.is_finite()).collect();
        }
    }
}

/// The text for an undefined value.
pub(crate) const UNDEFINED: &str = "-";

/// Formats the mean of the defined values. If some are undefined, adds how many are defined.
pub(crate) fn mean_text(values: impl IntoIterator<Item = Option<f64>>) -> String {
    let values: Vec<Option<f64>> = values.into_iter().collect();
    let defined = values.iter().flatten().count();
    match mean(values.iter().copied().flatten()) {
        None => UNDEFINED.to_owned(),
        Some(mean) if defined < values.len() => format!("{} ({defined} of {})", short(mean), values.len()),
        Some(mean) => short(mean),
    }
}

/// Formats a number with about four significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(0.001..100_000.0).contains(&size) {
        format!("{value:.3e}")
    } else {
        format!(
            "{value:.0$}",
            if size >= 1000.0 {
                0
            } else if size >= 100.0 {
                1
            } else if size >= 10.0 {
                2
            } else {
                3
            }
        )
    }
}

/// The peak memory of this process in bytes, if the system reports it.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::Metric;

    fn evaluation(task: &str, rmse: f64, score: f64) -> Evaluation {
        let metrics = vec![Metric { name: "RMSE".to_owned(), value: rmse, goal: Goal::Lower }];
        Evaluation { task: task.to_owned(), examples: 1, loss: rmse * rmse, score, metrics }
    }

    #[test]
    fn a_course_keeps_first_best_and_last() {
        let mut record = History::new(vec!["a".to_owned()]);
        for rmse in [3.0, f64::NAN, 1.0, 2.0] {
            record.add_local("a", &vec![evaluation("t", rmse, -rmse)].into());
        }
        let course = &record.clients["a"][0].local_test.0[0];
        assert_eq!((course.first, course.best, course.last), (Some(3.0), Some(1.0), Some(2.0)));
        assert!(!record.table().contains("mean"), "a mean of one");
    }

    #[test]
    fn what_is_not_defined_is_no_number() {
        let mut record = History::new(vec!["a".to_owned(), "b".to_owned()]);
        for (client, rmse) in [("a", f64::NAN), ("a", 1.0), ("a", f64::NAN), ("b", 4.0)] {
            record.add_local(client, &vec![evaluation("t", rmse, -0.5)].into());
        }
        let course = &record.clients["a"][0].local_test.0[0];
        assert_eq!((course.first, course.best, course.last), (None, Some(1.0), None));
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""first":null,"best":1.0,"last":null"#), "{text}");
        assert_eq!(serde_json::from_str::<History>(&text).unwrap(), record);
        let table = record.table();
        let cells = |name: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.contains(name)).unwrap();
            line.split(['│', '┆', '║']).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(cells(" a ")[..5], ["a", "t", "-", "1.000", "-"]);
        assert_eq!(cells(" mean ")[..5], ["mean", "t", "4.000 (1 of 2)", "2.500", "4.000 (1 of 2)"]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.12345, 12.345, 123.45, 1234.5, 1e-7, -2.5].map(short);
        assert_eq!(texts, ["0.000", "0.123", "12.35", "123.5", "1234", "1.000e-7", "-2.500"]);
    }

    #[test]
    fn the_table_has_means_of_each_task_and_of_all_scores() {
        let (a, b) = ([evaluation("kd", 1e-9, -0.5), evaluation("tm", 4.0, -0.9)], [evaluation("tm", 6.0, f64::NAN)]);
        let mut record = History::new(vec!["x".to_owned(), "y".to_owned()]);
        record.add_local("x", &a.to_vec().into());
        record.add_local("y", &b.to_vec().into());
        let table = record.table();
        let means: Vec<Vec<&str>> = table
            .lines()
            .filter(|line| line.contains(" mean "))
            .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let tm = ["mean", "tm", "5.000", "5.000", "5.000", "-0.900 (1 of 2)", "-0.900 (1 of 2)", "-0.900 (1 of 2)"];
        assert_eq!(
            means,
            [&tm[..], &["mean", "all", "-", "-", "-", "-0.700 (1 of 2)", "-0.700 (1 of 2)", "-0.700 (1 of 2)"]]
        );
    }
}
