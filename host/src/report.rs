//! How good the clients' models were over the rounds, as a table and as `summary.json`.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use plugin_api::{Evaluation, Goal};
use serde::{Deserialize, Serialize};

use crate::client::Traffic;

/// With more rows than this, a table shows the first ones alone.
const MOST_ROWS: usize = 100;
const SHOWN_ROWS: usize = 20;

/// A metric over the rounds: its first, best and last value; none where it was not defined, as Pearson's correlation is on a
/// constant target. The best is that of the values that were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// The metric.
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

/// What the evaluations at one place (`global_test`, `local_test`) showed of one task at one client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Courses(Vec<Course>);

impl Courses {
    /// One for each metric, in their order.
    pub fn all(&self) -> &[Course] {
        &self.0
    }

    fn add(&mut self, evaluation: &Evaluation) {
        for metric in &evaluation.metrics {
            let value = Some(metric.value).filter(|value| value.is_finite());
            let higher_is_better = metric.goal == Goal::Higher;
            match self.0.iter_mut().find(|course| course.name == metric.name) {
                Some(course) => {
                    let better = if higher_is_better { f64::max } else { f64::min };
                    course.best = course.best.into_iter().chain(value).reduce(better);
                    course.last = value;
                }
                None => self.0.push(Course {
                    name: metric.name.clone(),
                    first: value,
                    best: value,
                    last: value,
                    higher_is_better,
                }),
            }
        }
    }
}

/// One client's task over the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// The global model at the client, before training.
    pub global_test: Courses,
    /// The client's own model, after each epoch.
    pub local_test: Courses,
}

/// All clients over the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Of each client, by name, its tasks.
    pub clients: BTreeMap<String, Vec<TaskRecord>>,
    /// The clients' names in their order.
    pub order: Vec<String>,
    /// Bytes of tensors that each client got and sent, over all rounds.
    pub traffic: BTreeMap<String, Traffic>,
}

impl Record {
    /// A record of nothing yet.
    pub fn new(order: Vec<String>) -> Self {
        Self { order, ..Self::default() }
    }

    fn task(&mut self, client: &str, task: &str) -> &mut TaskRecord {
        let tasks = self.clients.entry(client.to_owned()).or_default();
        let index = tasks.iter().position(|record| record.task == task).unwrap_or_else(|| {
            tasks.push(TaskRecord { task: task.to_owned(), ..TaskRecord::default() });
            tasks.len() - 1
        });
        &mut tasks[index]
    }

    /// Adds what crossed in a round.
    pub fn add_traffic(&mut self, client: &str, traffic: Traffic) {
        let all = self.traffic.entry(client.to_owned()).or_default();
        all.received += traffic.received;
        all.sent += traffic.sent;
    }

    /// What crossed over all rounds and clients.
    pub fn all_traffic(&self) -> Traffic {
        self.traffic.values().fold(Traffic::default(), |all, one| Traffic {
            received: all.received + one.received,
            sent: all.sent + one.sent,
        })
    }

    /// Adds evaluations of the global model at a client.
    pub fn add_global(&mut self, client: &str, evaluations: &[Evaluation]) {
        for evaluation in evaluations {
            self.task(client, &evaluation.task).global_test.add(evaluation);
        }
    }

    /// Adds evaluations of a client's own model.
    pub fn add_local(&mut self, client: &str, evaluations: &[Evaluation]) {
        for evaluation in evaluations {
            self.task(client, &evaluation.task).local_test.add(evaluation);
        }
    }

    /// The clients' own models: a row a client and task, the mean over all at the end. Of more than anybody reads, the
    /// first ones stand for all.
    pub fn table(&self) -> String {
        let mut rows: Vec<(&str, &str, &Courses)> = Vec::new();
        for client in &self.order {
            let tasks = self.clients.get(client).into_iter().flatten();
            rows.extend(tasks.map(|record| (client.as_str(), record.task.as_str(), &record.local_test)));
        }
        let mut names: Vec<&str> = Vec::new();
        for course in rows.iter().flat_map(|row| &row.2.0) {
            if !names.contains(&course.name.as_str()) {
                names.push(&course.name);
            }
        }
        let several = rows.iter().any(|(client, task, _)| client != task);
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let mut header = vec!["client".to_owned()];
        header.extend(several.then(|| "task".to_owned()));
        header.extend(names.iter().flat_map(|name| ["first", "best", "last"].map(|when| format!("{when} {name}"))));
        table.set_header(header);
        let mut sums = vec![(0.0, 0_u32); names.len() * 3];
        for (place, (client, task, courses)) in rows.iter().enumerate() {
            let mut row = vec![Cell::new(client)];
            row.extend(several.then(|| Cell::new(task)));
            for (index, name) in names.iter().enumerate() {
                let course = courses.0.iter().find(|course| course.name == *name);
                for (offset, value) in course.map_or([None; 3], |c| [c.first, c.best, c.last]).into_iter().enumerate() {
                    row.push(number(value));
                    if let Some(value) = value {
                        sums[index * 3 + offset].0 += value;
                        sums[index * 3 + offset].1 += 1;
                    }
                }
            }
            if rows.len() <= MOST_ROWS || place < SHOWN_ROWS {
                table.add_row(row);
            }
        }
        if rows.len() > MOST_ROWS {
            table.add_row(vec![Cell::new(format!("… {} more", rows.len() - SHOWN_ROWS))]);
        }
        let mut mean = vec![Cell::new("mean")];
        mean.extend(several.then(|| Cell::new("")));
        let all = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        mean.extend(sums.iter().map(|(sum, count)| right(mean_of(*sum, *count, all))));
        table.add_row(mean);
        table.to_string()
    }
}

fn number(value: Option<f64>) -> Cell {
    right(value.map_or_else(|| UNDEFINED.to_owned(), short))
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// What stands for a value that is not defined.
pub const UNDEFINED: &str = "-";

/// A mean as a table shows it, with how many values it is of where not all are defined.
pub fn mean_of(sum: f64, count: u32, all: u32) -> String {
    match count {
        0 => UNDEFINED.to_owned(),
        _ if count < all => format!("{} ({count} of {all})", short(sum / f64::from(count))),
        _ => short(sum / f64::from(count)),
    }
}

/// A number with four significant digits or so.
pub fn short(value: f64) -> String {
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

/// The mean over the clients' scores, each the mean over its tasks. Tasks without data, whose score is NaN, count for
/// nothing; `None` where nothing is left.
pub fn mean_score<'a>(clients: impl IntoIterator<Item = &'a [Evaluation]>) -> Option<f64> {
    mean(clients.into_iter().filter_map(|tasks| mean(tasks.iter().map(|e| e.score).filter(|score| score.is_finite()))))
}

/// The means over clients and tasks of each metric, for the round's line and the server's scalars.
pub fn mean_metrics<'a>(clients: impl IntoIterator<Item = &'a [Evaluation]>) -> Vec<(String, f64)> {
    let mut names: Vec<(String, Vec<f64>)> = Vec::new();
    for metric in clients.into_iter().flatten().flat_map(|evaluation| &evaluation.metrics) {
        let index = names.iter().position(|(name, _)| *name == metric.name).unwrap_or_else(|| {
            names.push((metric.name.clone(), Vec::new()));
            names.len() - 1
        });
        if metric.value.is_finite() {
            names[index].1.push(metric.value);
        }
    }
    names.into_iter().filter_map(|(name, values)| Some((name, mean(values)?))).collect()
}

fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// The most memory that this process has held, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
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
        let mut record = Record::new(vec!["a".to_owned()]);
        for rmse in [3.0, f64::NAN, 1.0, 2.0] {
            record.add_local("a", &[evaluation("t", rmse, -rmse)]);
        }
        let course = &record.clients["a"][0].local_test.0[0];
        assert_eq!((course.first, course.best, course.last), (Some(3.0), Some(1.0), Some(2.0)));
        assert!(record.table().contains("mean"));
    }

    #[test]
    fn what_is_not_defined_is_no_number() {
        let mut record = Record::new(vec!["a".to_owned(), "b".to_owned()]);
        for (client, rmse) in [("a", f64::NAN), ("a", 1.0), ("a", f64::NAN), ("b", 4.0)] {
            record.add_local(client, &[evaluation("t", rmse, 0.0)]);
        }
        let course = &record.clients["a"][0].local_test.0[0];
        assert_eq!((course.first, course.best, course.last), (None, Some(1.0), None));
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""first":null,"best":1.0,"last":null"#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let table = record.table();
        let cells = |name: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.contains(name)).unwrap();
            line.split(['│', '┆', '║']).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        assert_eq!(cells(" a "), ["a", "t", "-", "1.000", "-"]);
        assert_eq!(cells(" mean "), ["mean", "4.000 (1 of 2)", "2.500", "4.000 (1 of 2)"]);
    }

    #[test]
    fn scores_without_data_count_for_nothing() {
        let (a, b) = ([evaluation("t", 1.0, -1.0), evaluation("u", f64::NAN, f64::NAN)], [evaluation("t", 3.0, -3.0)]);
        assert_eq!(mean_score([&a[..], &b[..]]), Some(-2.0));
        assert_eq!(mean_score([&a[1..]]), None);
        assert_eq!(mean_metrics([&a[..], &b[..]]), [("RMSE".to_owned(), 2.0)]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.12345, 12.345, 123.45, 1234.5, 1e-7, -2.5].map(short);
        assert_eq!(texts, ["0.000", "0.123", "12.35", "123.5", "1234", "1.000e-7", "-2.500"]);
    }
}
