//! `fedplug compare`: comparing runs by their summaries.

use std::collections::BTreeSet;
use std::path::PathBuf;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, Table};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;
use crate::federation::history::{MetricHistory, TaskHistory, UNDEFINED, mean_text, short};
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

/// Formats one row per run: its rounds, the score of the last global model and of the clients' last own models (means
/// over clients and tasks), the metrics of one task (means over its clients), and the cost of the run. Without `task`,
/// metrics are shown only if all runs have the same single task.
///
/// # Errors
/// If one of the directories does not contain a finished run, or no run has the task.
pub(crate) fn compare(runs: &[PathBuf], task: Option<&str>, format: Format) -> Result<String, CliError> {
    let runs = runs.iter().map(|run| Summary::read(run)).collect::<Result<Vec<_>, _>>()?;
    let tasks: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.clients.values().flatten()).map(|r| r.task.as_str()).collect();
    if let Some(task) = task.filter(|task| !tasks.contains(task)) {
        let known: Vec<&str> = tasks.into_iter().collect();
        let report = Diagnostic::new(format!("no run has a task `{task}`"));
        let near = nearest(task, &known).map(|near| format!("did you mean `{near}`?"));
        return Err(CliError::usage(report.hint(near.unwrap_or_else(|| format!("available: {}", known.join(", "))))));
    }
    let task = task.or_else(|| tasks.first().copied().filter(|_| tasks.len() == 1));
    let records = |run: &'_ Summary| -> Vec<TaskHistory> {
        run.clients.values().flatten().filter(|record| Some(record.task.as_str()) == task).cloned().collect()
    };
    let mut metrics: Vec<String> = Vec::new();
    for record in runs.iter().flat_map(records) {
        for course in record.global_test.all().iter().chain(record.local_test.all()) {
            if !metrics.contains(&course.name) {
                metrics.push(course.name.clone());
            }
        }
    }
    // Scores with different meanings get separate columns.
    let mut scores: Vec<Option<&str>> = Vec::new();
    for run in &runs {
        let name = run.score_name.as_deref();
        if !scores.contains(&name) && run.clients.values().flatten().any(|record| record.global_score.is_some()) {
            scores.push(name);
        }
    }
    let number = |value: Option<f64>| match (value, format) {
        (None, _) => UNDEFINED.to_owned(),
        (Some(value), Format::Csv) => value.to_string(),
        (Some(value), _) => short(value),
    };
    let of_task = task.filter(|_| tasks.len() > 1).map(|task| format!(" of {task}")).unwrap_or_default();
    let titles = scores.iter().map(|name| name.map_or_else(|| "score".to_owned(), |name| format!("score ({name})")));
    let titles = titles.chain(metrics.iter().map(|name| format!("{name}{of_task}")));
    let mut header = vec!["run".to_owned(), "rounds".to_owned()];
    header.extend(titles.flat_map(|name| [format!("{name}, global model"), format!("{name}, own models")]));
    header.extend(["time (s)", "to clients (MiB)", "from clients (MiB)", "memory (MiB)"].map(str::to_owned));
    let mut rows = Vec::new();
    for run in &runs {
        let mut row = vec![run.name.clone(), run.rounds.to_string()];
        for name in &scores {
            let same = run.score_name.as_deref() == *name;
            row.push(number(score(run, |record| record.global_score.as_ref()).filter(|_| same)));
            row.push(number(score(run, |record| record.local_score.as_ref()).filter(|_| same)));
        }
        let records = records(run);
        for name in &metrics {
            row.push(last(&records, name, |record| record.global_test.all(), format));
            row.push(last(&records, name, |record| record.local_test.all(), format));
        }
        let mebibytes = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
        row.push(number(Some(run.seconds)));
        // Without reports, the traffic of a run is unknown.
        let all = |of: fn(&Traffic) -> u64| (!run.traffic.is_empty()).then(|| run.traffic.values().map(of).sum());
        row.push(number(all(|traffic| traffic.received).and_then(mebibytes)));
        row.push(number(all(|traffic| traffic.sent).and_then(mebibytes)));
        row.push(number(run.peak_memory_bytes.and_then(mebibytes)));
        rows.push(row);
    }
    if format == Format::Csv {
        let mut lines = csv::Writer::from_writer(Vec::new());
        // Writing to memory cannot fail.
        [header].iter().chain(&rows).for_each(|row| drop(lines.write_record(row)));
        return Ok(String::from_utf8(lines.into_inner().unwrap_or_default()).unwrap_or_default());
    }
    let mut table = Table::new();
    table.load_style(if format == Format::Markdown { ASCII_MARKDOWN } else { UTF8_FULL_CONDENSED });
    table.set_header(header);
    for row in rows {
        let right = |(place, text): (usize, String)| match place {
            0 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        };
        table.add_row(row.into_iter().enumerate().map(right));
    }
    Ok(format!("{table}\n"))
}

/// The mean over clients, each the mean over its tasks, of the last scores; `None` if none is defined.
fn score(run: &Summary, of: impl Fn(&TaskHistory) -> Option<&MetricHistory>) -> Option<f64> {
    let last = |records: &Vec<TaskHistory>| mean(records.iter().filter_map(&of).filter_map(|course| course.last));
    mean(run.clients.values().filter_map(last))
}

/// The mean of a metric's last defined values over the clients of a task.
fn last(
    records: &[TaskHistory],
    metric: &str,
    of: impl Fn(&TaskHistory) -> &[MetricHistory],
    format: Format,
) -> String {
    let all = || records.iter().flat_map(&of).filter(|course| course.name == metric).map(|course| course.last);
    match (format, mean(all().flatten())) {
        (Format::Csv, Some(mean)) => mean.to_string(),
        _ => mean_text(all()),
    }
}
