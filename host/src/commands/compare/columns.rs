//! The columns of a comparison, and their values for a run.

use std::collections::BTreeSet;

use super::Format;
use super::Options;
use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;
use crate::federation::history::{MetricHistories, MetricHistory, SCORE, SHOWN_METRICS, TaskHistory};
use crate::federation::means::mean;
use crate::federation::summary::Summary;
use crate::federation::usage::Traffic;

/// Which model a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The last global model.
    Global,
    /// The clients' last own models.
    Own,
    /// The global model that rows for validation chose.
    Best,
}

impl Which {
    fn named(self) -> &'static str {
        match self {
            Self::Global => "global model",
            Self::Own => "own models",
            Self::Best => "best model",
        }
    }
}

/// What a column shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Column {
    Rounds,
    /// A score by its name. Scores with different meanings have separate columns.
    Score(Option<String>, Which),
    /// The score of the best model on the rows for validation.
    ValidationScore,
    /// A metric of the chosen task.
    Metric(String, Which),
    Seconds,
    ToClients,
    FromClients,
    Memory,
}

impl Column {
    /// Whether it says how good a model is, and not what a run cost.
    pub(super) fn measures_a_model(&self) -> bool {
        matches!(self, Self::Score(..) | Self::ValidationScore | Self::Metric(..))
    }
}

/// The columns that differ between comparisons.
pub(super) struct Columns {
    /// The task whose metrics are shown, if any.
    task: Option<String>,
    /// Whether the runs have several tasks, so that the header names the task.
    names_task: bool,
    /// The names of the scores.
    scores: Vec<Option<String>>,
    /// All metrics of the task.
    known: Vec<String>,
    pub(super) all: Vec<Column>,
}

impl Columns {
    /// The columns for these runs.
    ///
    /// # Errors
    /// If no run has the task or one of the metrics.
    pub(super) fn new(runs: &[&Summary], options: &Options) -> Result<Self, CliError> {
        let task = options.task.as_deref();
        let histories = || runs.iter().flat_map(|run| run.clients.values().flatten());
        let tasks: BTreeSet<&str> = histories().map(|history| history.task.as_str()).collect();
        if let Some(task) = task.filter(|task| !tasks.contains(task)) {
            return Err(no_such_task(task, tasks));
        }
        let task = task.or_else(|| tasks.first().copied().filter(|_| tasks.len() == 1));
        let named = |most: usize| {
            let mut names: Vec<String> = Vec::new();
            for history in runs.iter().flat_map(|run| of_task(run, task)) {
                let both = [&history.global_test, &history.local_test].map(|metrics| metrics.all().iter().take(most));
                for metric in both.into_iter().flatten() {
                    if !names.contains(&metric.name) {
                        names.push(metric.name.clone());
                    }
                }
            }
            names
        };
        let known = named(usize::MAX);
        if let Some(name) = options.metrics.iter().find(|name| !known.contains(name)) {
            return Err(no_such_metric(name, &known));
        }
        let metrics = match (&options.metrics[..], options.format) {
            ([], Format::Csv) => known.clone(),
            ([], _) => named(SHOWN_METRICS),
            (chosen, _) => chosen.to_vec(),
        };
        let mut scores: Vec<Option<String>> = Vec::new();
        for run in runs {
            let has_score = run.clients.values().flatten().any(|history| history.global_score.is_some());
            if has_score && !scores.contains(&run.score_name) {
                scores.push(run.score_name.clone());
            }
        }
        let chosen = histories().any(|history| !history.best_model.is_empty());
        let models = [Which::Global, Which::Own].into_iter().chain(chosen.then_some(Which::Best));
        let mut all = vec![Column::Rounds];
        all.extend(scores.iter().flat_map(|name| models.clone().map(|which| Column::Score(name.clone(), which))));
        all.extend(chosen.then_some(Column::ValidationScore));
        all.extend(metrics.iter().flat_map(|name| models.clone().map(|which| Column::Metric(name.clone(), which))));
        all.extend([Column::Seconds, Column::ToClients, Column::FromClients, Column::Memory]);
        Ok(Self { task: task.map(str::to_owned), names_task: tasks.len() > 1, scores, known, all })
    }

    /// A column's title.
    pub(super) fn title(&self, column: &Column) -> String {
        match column {
            Column::Rounds => "rounds".to_owned(),
            Column::Score(None, which) => format!("score, {}", which.named()),
            Column::Score(Some(name), which) => format!("score ({name}), {}", which.named()),
            Column::ValidationScore => "validation score, best model".to_owned(),
            Column::Metric(name, which) => {
                let task = self.task.as_ref().filter(|_| self.names_task).map(|task| format!(" of {task}"));
                format!("{name}{}, {}", task.unwrap_or_default(), which.named())
            }
            Column::Seconds => "time (s)".to_owned(),
            Column::ToClients => "to clients (MiB)".to_owned(),
            Column::FromClients => "from clients (MiB)".to_owned(),
            Column::Memory => "memory (MiB)".to_owned(),
        }
    }

    /// The values whose mean is a run's value in a column, such as those of its clients.
    pub(super) fn values(&self, column: &Column, run: &Summary) -> Vec<Option<f64>> {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        // Without reports, the traffic of a run is unknown.
        let traffic = |of: fn(&Traffic) -> u64| {
            vec![(!run.traffic.is_empty()).then(|| mebibytes(run.traffic.values().map(of).sum()))]
        };
        match column {
            Column::Rounds => vec![Some(run.rounds as f64)],
            Column::Score(name, which) => {
                let of: fn(&TaskHistory) -> Option<f64> = match which {
                    Which::Global => |history| history.global_score.as_ref()?.last,
                    Which::Own => |history| history.local_score.as_ref()?.last,
                    Which::Best => |history| history.best_model.get(SCORE).copied(),
                };
                vec![Some(()).filter(|()| run.score_name == *name).and_then(|()| score(run, of))]
            }
            Column::ValidationScore => vec![run.best.as_ref().and_then(|best| best.validation_score)],
            Column::Metric(name, which) => {
                let histories = of_task(run, self.task.as_deref());
                let of = |metrics: &MetricHistories| {
                    metrics.all().iter().find(|history| history.name == *name).map(|history| history.last)
                };
                let found = histories.filter_map(|history| match which {
                    Which::Global => of(&history.global_test),
                    Which::Own => of(&history.local_test),
                    // Undefined values are missing there.
                    Which::Best => of(&history.global_test).map(|_| history.best_model.get(name).copied()),
                });
                found.collect()
            }
            Column::Seconds => vec![Some(run.seconds)],
            Column::ToClients => traffic(|traffic| traffic.received),
            Column::FromClients => traffic(|traffic| traffic.sent),
            Column::Memory => vec![run.peak_memory_bytes.map(mebibytes)],
        }
    }

    /// What sorts the runs.
    ///
    /// # Errors
    /// If no run has such a metric, or the runs' scores have different meanings.
    pub(super) fn sort_key(&self, name: &str) -> Result<SortKey, CliError> {
        match name {
            SCORE if self.scores.len() > 1 => {
                let names: Vec<&str> = self.scores.iter().map(|name| name.as_deref().unwrap_or("unnamed")).collect();
                let report = Diagnostic::new("the runs have different scores, which cannot be sorted together");
                Err(CliError::usage(report.hint(format!("they are {}; sort by a metric", names.join(", ")))))
            }
            SCORE => Ok(SortKey::Score),
            VALIDATION if self.all.contains(&Column::ValidationScore) => Ok(SortKey::Validation),
            name if self.known.iter().any(|known| known == name) => Ok(SortKey::Metric(name.to_owned())),
            name => Err(no_such_metric(name, &[&self.known[..], &[SCORE.to_owned()]].concat())),
        }
    }

    /// The value of a run by which it is sorted: higher is better.
    pub(super) fn sort_value(&self, key: &SortKey, run: &Summary) -> Option<f64> {
        match key {
            SortKey::Score => score(run, |history| history.global_score.as_ref()?.last),
            SortKey::Validation => run.best.as_ref()?.validation_score,
            SortKey::Metric(name) => {
                let all = of_task(run, self.task.as_deref()).flat_map(|history| history.global_test.all());
                let signed = |history: &MetricHistory| {
                    history.last.map(|value| if history.higher_is_better { value } else { -value })
                };
                mean(all.filter(|history| history.name == *name).filter_map(signed))
            }
        }
    }
}

/// The name by which runs are sorted by their score on the rows for validation.
pub(super) const VALIDATION: &str = "validation";

/// What runs are sorted by.
pub(super) enum SortKey {
    Score,
    Validation,
    Metric(String),
}

/// The clients' histories of one task.
fn of_task<'r>(run: &'r Summary, task: Option<&str>) -> impl Iterator<Item = &'r TaskHistory> {
    run.clients.values().flatten().filter(move |history| Some(history.task.as_str()) == task)
}

/// The mean over clients, each the mean over its tasks, of the scores; `None` if none is defined.
fn score(run: &Summary, of: impl Fn(&TaskHistory) -> Option<f64>) -> Option<f64> {
    mean(run.clients.values().filter_map(|tasks| mean(tasks.iter().filter_map(&of))))
}

fn no_such_task(task: &str, tasks: BTreeSet<&str>) -> CliError {
    let known: Vec<&str> = tasks.into_iter().collect();
    let report = Diagnostic::new(format!("no run has a task `{task}`"));
    let near = nearest(task, &known).map(|near| format!("did you mean `{near}`?"));
    CliError::usage(report.hint(near.unwrap_or_else(|| format!("available: {}", known.join(", ")))))
}

fn no_such_metric(name: &str, known: &[String]) -> CliError {
    let report = Diagnostic::new(format!("no run has a metric `{name}`"));
    CliError::usage(match nearest(name, known) {
        Some(near) => report.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => report.hint("the runs have several tasks: choose one with --task"),
        None => report.hint(format!("available: {}", known.join(", "))),
    })
}
