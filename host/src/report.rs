//! How good the clients' models were over the rounds, as a table and as `summary.json`.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use plugin_api::{Evaluation, Goal};
use serde::{Deserialize, Serialize};

use crate::client::Traffic;
use crate::means::mean;

/// With more rows than this, a table shows the first ones alone.
const MOST_ROWS: usize = 100;
const SHOWN_ROWS: usize = 20;

/// A metric over the rounds: its first, best and last value. NaN values count for nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// The metric.
    pub name: String,
    /// The first value.
    pub first: f64,
    /// The best value.
    pub best: f64,
    /// The last value.
    pub last: f64,
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
        for metric in evaluation.metrics.iter().filter(|metric| metric.value.is_finite()) {
            let higher_is_better = metric.goal == Goal::Higher;
            match self.0.iter_mut().find(|course| course.name == metric.name) {
                Some(course) => course.go_on(metric.value),
                None => self.0.push(Course::new(&metric.name, metric.value, higher_is_better)),
            }
        }
    }
}

impl Course {
    fn new(name: &str, value: f64, higher_is_better: bool) -> Self {
        Self { name: name.to_owned(), first: value, best: value, last: value, higher_is_better }
    }

    fn go_on(&mut self, value: f64) {
        self.best = if self.higher_is_better { self.best.max(value) } else { self.best.min(value) };
        self.last = value;
    }

    /// A score that goes on, or begins; NaN counts for nothing.
    fn score(course: &mut Option<Self>, value: f64) {
        match course {
            _ if !value.is_finite() => {}
            Some(course) => course.go_on(value),
            None => *course = Some(Self::new("score", value, true)),
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
    /// The score of the global model, which is scale-free: the one number here that may be compared between tasks. Absent
    /// where it was never defined, and from runs of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_score: Option<Course>,
    /// The score of the client's own model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_score: Option<Course>,
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
            let record = self.task(client, &evaluation.task);
            record.global_test.add(evaluation);
            Course::score(&mut record.global_score, evaluation.score);
        }
    }

    /// Adds evaluations of a client's own model.
    pub fn add_local(&mut self, client: &str, evaluations: &[Evaluation]) {
        for evaluation in evaluations {
            let record = self.task(client, &evaluation.task);
            record.local_test.add(evaluation);
            Course::score(&mut record.local_score, evaluation.score);
        }
    }

    /// The clients' own models: a row a client and task, and at the end the means over the clients of each task that
    /// several have. Over tasks, whose units may differ, there is a mean of the scores alone. Of more rows than anybody
    /// reads, the first ones stand for all.
    pub fn table(&self) -> String {
        let mut rows: Vec<(&str, &TaskRecord)> = Vec::new();
        for client in &self.order {
            let tasks = self.clients.get(client).into_iter().flatten();
            rows.extend(tasks.map(|record| (client.as_str(), record)));
        }
        let mut names: Vec<&str> = Vec::new();
        let mut tasks: Vec<&str> = Vec::new();
        for (_, record) in &rows {
            let courses = record.local_test.0.iter().map(|course| course.name.as_str());
            for (list, name) in courses.map(|name| (true, name)).chain([(false, record.task.as_str())]) {
                let list = if list { &mut names } else { &mut tasks };
                if !list.contains(&name) {
                    list.push(name);
                }
            }
        }
        let several = rows.iter().any(|(client, record)| *client != record.task);
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let mut header = vec!["client".to_owned()];
        header.extend(several.then(|| "task".to_owned()));
        let columns = names.iter().copied().chain(["score"]);
        header.extend(columns.clone().flat_map(|name| ["first", "best", "last"].map(|when| format!("{when} {name}"))));
        table.set_header(header);
        let course = |record: &'_ TaskRecord, name: &str| match name {
            "score" => record.local_score.clone(),
            name => record.local_test.0.iter().find(|course| course.name == name).cloned(),
        };
        let row = |client: &str, task: &str, of: &dyn Fn(&str) -> [Option<f64>; 3]| {
            let mut row = vec![Cell::new(client)];
            row.extend(several.then(|| Cell::new(task)));
            row.extend(columns.clone().flat_map(of).map(number));
            row
        };
        let shown = if rows.len() > MOST_ROWS { SHOWN_ROWS } else { rows.len() };
        for (client, record) in &rows[..shown] {
            let of = |name: &str| course(record, name).map_or([None; 3], |c| [c.first, c.best, c.last].map(Some));
            table.add_row(row(client, &record.task, &of));
        }
        if rows.len() > shown {
            table.add_row(vec![Cell::new(format!("… {} more", rows.len() - shown))]);
        }
        for task in &tasks {
            let of_task: Vec<&TaskRecord> =
                rows.iter().map(|row| row.1).filter(|record| record.task == *task).collect();
            if of_task.len() < 2 {
                continue;
            }
            let of = |name: &str| {
                let all: Vec<Course> = of_task.iter().filter_map(|record| course(record, name)).collect();
                [|c: &Course| c.first, |c: &Course| c.best, |c: &Course| c.last]
                    .map(|value| mean(all.iter().map(value)))
            };
            table.add_row(row("mean", task, &of));
        }
        if tasks.len() > 1 {
            let of = |name: &str| match name {
                "score" => [|c: &Course| c.first, |c: &Course| c.best, |c: &Course| c.last].map(|value| {
                    mean(self.clients.values().filter_map(|records| {
                        mean(records.iter().filter_map(|record| record.local_score.as_ref()).map(value))
                    }))
                }),
                _ => [None; 3],
            };
            table.add_row(row("mean", if several { "all" } else { "" }, &of));
        }
        table.to_string()
    }
}

fn number(value: Option<f64>) -> Cell {
    Cell::new(value.map_or_else(|| "-".to_owned(), short)).set_alignment(CellAlignment::Right)
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
        assert_eq!((course.first, course.best, course.last), (3.0, 1.0, 2.0));
        assert!(!record.table().contains("mean"), "a mean of one");
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.12345, 12.345, 123.45, 1234.5, 1e-7, -2.5].map(short);
        assert_eq!(texts, ["0.000", "0.123", "12.35", "123.5", "1234", "1.000e-7", "-2.500"]);
    }

    #[test]
    fn the_table_has_means_of_each_task_and_of_all_scores() {
        let (a, b) = ([evaluation("kd", 1e-9, -0.5), evaluation("tm", 4.0, -0.9)], [evaluation("tm", 6.0, f64::NAN)]);
        let mut record = Record::new(vec!["x".to_owned(), "y".to_owned()]);
        record.add_local("x", &a);
        record.add_local("y", &b);
        let table = record.table();
        let means: Vec<Vec<&str>> = table
            .lines()
            .filter(|line| line.contains(" mean "))
            .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let tm = ["mean", "tm", "5.000", "5.000", "5.000", "-0.900", "-0.900", "-0.900"];
        assert_eq!(means, [&tm[..], &["mean", "all", "-", "-", "-", "-0.700", "-0.700", "-0.700"]]);
    }
}
