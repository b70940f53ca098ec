//! `fedplug compare`: comparing runs by their summaries.

use std::collections::BTreeSet;
use std::path::PathBuf;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, Table, TableStyle};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;
use crate::federation::history::{MetricHistory, SHOWN_METRICS, TaskHistory, UNDEFINED, mean_text, short};
use crate::federation::means::mean;
use crate::federation::summary::Summary;
use crate::federation::usage::Traffic;

/// The format of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Table,
    /// For a README
    Markdown,
    /// For other programs, with all digits
    Csv,
}

/// What is compared, and how it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directories of the runs.
    pub runs: Vec<PathBuf>,
    /// The task whose metrics are shown.
    pub task: Option<String>,
    /// The metrics that are shown; the first ones that the model reports if empty, and all of them as CSV.
    pub metrics: Vec<String>,
    /// The metric, or `score`, whose last value for the global model sorts the runs, the best one first.
    pub sort: Option<String>,
    /// The format of the table.
    pub format: Format,
}

/// Formats one row per run: its rounds, the score of the last global model and of the clients' last own models (means
/// over clients and tasks), the metrics of one task (means over its clients), and the cost of the run. Without `task`,
/// metrics are shown only if all runs have the same single task.
///
/// # Errors
/// If one of the directories does not contain a finished run, or no run has the task or one of the metrics.
pub(crate) fn compare(options: &Options) -> Result<String, CliError> {
    let format = options.format;
    let mut runs = options.runs.iter().map(|run| Summary::read(run)).collect::<Result<Vec<_>, _>>()?;
    if let Some(sort) = &options.sort {
        let shown = Columns::new(&runs, options)?;
        let (task, key) = (shown.task.map(str::to_owned), shown.sort_key(sort)?);
        runs.sort_by(|a, b| key.of(b, task.as_deref()).total_cmp(&key.of(a, task.as_deref())));
    }
    let columns = Columns::new(&runs, options)?;
    let rows = runs.iter().map(|run| columns.row(run, format)).collect();
    Ok(match format {
        Format::Csv => csv(columns.header(), rows),
        Format::Table => table(UTF8_FULL_CONDENSED, columns.header(), rows),
        Format::Markdown => table(ASCII_MARKDOWN, columns.header(), rows),
    })
}

/// The columns that differ between comparisons.
struct Columns<'r> {
    /// The names of the scores. Scores with different meanings get separate columns.
    scores: Vec<Option<&'r str>>,
    /// The task whose metrics are shown, if any.
    task: Option<&'r str>,
    /// Whether the runs have several tasks, so that the header names the task.
    names_task: bool,
    /// All metrics of the task.
    known: Vec<String>,
    /// Those that are shown.
    metrics: Vec<String>,
}

impl<'r> Columns<'r> {
    fn new(runs: &'r [Summary], options: &'r Options) -> Result<Self, CliError> {
        let task = options.task.as_deref();
        let histories = runs.iter().flat_map(|run| run.clients.values().flatten());
        let tasks: BTreeSet<&str> = histories.map(|history| history.task.as_str()).collect();
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
        let mut scores: Vec<Option<&str>> = Vec::new();
        for run in runs {
            let name = run.score_name.as_deref();
            let has_score = run.clients.values().flatten().any(|history| history.global_score.is_some());
            if has_score && !scores.contains(&name) {
                scores.push(name);
            }
        }
        Ok(Self { scores, task, names_task: tasks.len() > 1, known, metrics })
    }

    fn header(&self) -> Vec<String> {
        let score = |name: &Option<&str>| name.map_or_else(|| "score".to_owned(), |name| format!("score ({name})"));
        let task = self.task.filter(|_| self.names_task).map(|task| format!(" of {task}")).unwrap_or_default();
        let titles = self.scores.iter().map(score).chain(self.metrics.iter().map(|name| format!("{name}{task}")));
        let mut header = vec!["run".to_owned(), "rounds".to_owned()];
        header.extend(titles.flat_map(|name| [format!("{name}, global model"), format!("{name}, own models")]));
        header.extend(["time (s)", "to clients (MiB)", "from clients (MiB)", "memory (MiB)"].map(str::to_owned));
        header
    }

    fn row(&self, run: &Summary, format: Format) -> Vec<String> {
        let number = |value: Option<f64>| match (value, format) {
            (None, _) => UNDEFINED.to_owned(),
            (Some(value), Format::Csv) => value.to_string(),
            (Some(value), _) => short(value),
        };
        let mut row = vec![run.name.clone(), run.rounds.to_string()];
        for name in &self.scores {
            let same = run.score_name.as_deref() == *name;
            row.push(number(score(run, |history| history.global_score.as_ref()).filter(|_| same)));
            row.push(number(score(run, |history| history.local_score.as_ref()).filter(|_| same)));
        }
        let histories: Vec<&TaskHistory> = of_task(run, self.task).collect();
        for name in &self.metrics {
            row.push(last(&histories, name, |history| history.global_test.all(), format));
            row.push(last(&histories, name, |history| history.local_test.all(), format));
        }
        let mebibytes = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
        row.push(number(Some(run.seconds)));
        // Without reports, the traffic of a run is unknown.
        let all = |of: fn(&Traffic) -> u64| (!run.traffic.is_empty()).then(|| run.traffic.values().map(of).sum());
        row.push(number(all(|traffic| traffic.received).and_then(mebibytes)));
        row.push(number(all(|traffic| traffic.sent).and_then(mebibytes)));
        row.push(number(run.peak_memory_bytes.and_then(mebibytes)));
        row
    }
}

/// What runs are sorted by.
enum SortKey {
    Score,
    Metric(String),
}

impl Columns<'_> {
    /// What sorts the runs.
    ///
    /// # Errors
    /// If no run has such a metric, or the runs' scores have different meanings.
    fn sort_key(&self, name: &str) -> Result<SortKey, CliError> {
        match name {
            "score" if self.scores.len() > 1 => {
                let names: Vec<&str> = self.scores.iter().map(|name| name.unwrap_or("unnamed")).collect();
                let report = Diagnostic::new("the runs have different scores, which cannot be sorted together");
                Err(CliError::usage(report.hint(format!("they are {}; sort by a metric", names.join(", ")))))
            }
            "score" => Ok(SortKey::Score),
            name if self.known.iter().any(|known| known == name) => Ok(SortKey::Metric(name.to_owned())),
            name => Err(no_such_metric(name, &[&self.known[..], &["score".to_owned()]].concat())),
        }
    }
}

impl SortKey {
    /// The value of a run's global model: higher is better, and lowest if it is undefined.
    fn of(&self, run: &Summary, task: Option<&str>) -> f64 {
        let value = match self {
            Self::Score => score(run, |history| history.global_score.as_ref()),
            Self::Metric(name) => {
                let all = of_task(run, task).flat_map(|history| history.global_test.all());
                let signed = |history: &MetricHistory| {
                    history.last.map(|value| if history.higher_is_better { value } else { -value })
                };
                mean(all.filter(|history| history.name == *name).filter_map(signed))
            }
        };
        value.unwrap_or(f64::NEG_INFINITY)
    }
}

/// The clients' histories of one task.
fn of_task<'r>(run: &'r Summary, task: Option<&str>) -> impl Iterator<Item = &'r TaskHistory> {
    run.clients.values().flatten().filter(move |history| Some(history.task.as_str()) == task)
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

fn csv(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut lines = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    [header].iter().chain(&rows).for_each(|row| drop(lines.write_record(row)));
    String::from_utf8(lines.into_inner().unwrap_or_default()).unwrap_or_default()
}

fn table(style: TableStyle, header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(style);
    table.set_header(header);
    for row in rows {
        let right = |(column, text): (usize, String)| match column {
            0 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        };
        table.add_row(row.into_iter().enumerate().map(right));
    }
    format!("{table}\n")
}

/// The mean over clients, each the mean over its tasks, of the last scores; `None` if none is defined.
fn score(run: &Summary, of: impl Fn(&TaskHistory) -> Option<&MetricHistory>) -> Option<f64> {
    let last = |tasks: &Vec<TaskHistory>| mean(tasks.iter().filter_map(&of).filter_map(|history| history.last));
    mean(run.clients.values().filter_map(last))
}

/// The mean of a metric's last defined values over the clients of a task.
fn last<'h>(
    histories: &[&'h TaskHistory],
    metric: &str,
    of: impl Fn(&'h TaskHistory) -> &'h [MetricHistory],
    format: Format,
) -> String {
    let all = || {
        let metrics = histories.iter().flat_map(|history| of(history));
        metrics.filter(|history| history.name == metric).map(|history| history.last)
    };
    match (format, mean(all().flatten())) {
        (Format::Csv, Some(mean)) => mean.to_string(),
        _ => mean_text(all()),
    }
}
