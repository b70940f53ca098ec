//! Several runs side by side, from their summaries: `fedplug compare`.

use std::path::PathBuf;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, Table};

use crate::error::Failure;
use crate::report::{Course, TaskRecord, UNDEFINED, mean_of, short};
use crate::summary::Summary;

/// How the table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal
    Table,
    /// For a README
    Markdown,
    /// For other programs, with all digits
    Csv,
}

/// A row a run: its rounds, each metric of the last global model and of the clients' own last models as the mean over
/// clients and tasks, and what the run cost.
///
/// # Errors
/// If one of the directories holds no run that is done.
pub fn compare(runs: &[PathBuf], format: Format) -> Result<String, Failure> {
    let runs = runs.iter().map(|run| Summary::read(run)).collect::<Result<Vec<_>, _>>()?;
    let mut metrics: Vec<String> = Vec::new();
    for course in runs.iter().flat_map(|run| run.clients.values().flatten()).flat_map(courses) {
        if !metrics.contains(&course.name) {
            metrics.push(course.name.clone());
        }
    }
    let number = |value: Option<f64>| match (value, format) {
        (None, _) => UNDEFINED.to_owned(),
        (Some(value), Format::Csv) => value.to_string(),
        (Some(value), _) => short(value),
    };
    let mut header = vec!["run".to_owned(), "rounds".to_owned()];
    header.extend(metrics.iter().flat_map(|name| [format!("{name}, global model"), format!("{name}, own models")]));
    header.extend(["time (s)", "to clients (MiB)", "from clients (MiB)", "memory (MiB)"].map(str::to_owned));
    let mut rows = Vec::new();
    for run in &runs {
        let mut row = vec![run.name.clone(), run.rounds.to_string()];
        for name in &metrics {
            row.push(last(run, name, |task| task.global_test.all(), format));
            row.push(last(run, name, |task| task.local_test.all(), format));
        }
        let mebibytes = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
        row.push(number(Some(run.seconds)));
        row.push(number(mebibytes(run.traffic.values().map(|traffic| traffic.received).sum())));
        row.push(number(mebibytes(run.traffic.values().map(|traffic| traffic.sent).sum())));
        row.push(number(run.peak_memory_bytes.and_then(mebibytes)));
        rows.push(row);
    }
    if format == Format::Csv {
        let mut lines = csv::Writer::from_writer(Vec::new());
        // Writing to memory does not fail.
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

fn courses(task: &TaskRecord) -> impl Iterator<Item = &Course> {
    task.global_test.all().iter().chain(task.local_test.all())
}

/// The mean over clients and tasks of a metric's last value, as far as it is defined.
fn last<'r>(run: &'r Summary, metric: &str, of: impl Fn(&'r TaskRecord) -> &'r [Course], format: Format) -> String {
    let all = run.clients.values().flatten().flat_map(of).filter(|course| course.name == metric);
    let (sum, count, all) = all.fold((0.0, 0_u32, 0_u32), |(sum, count, all), course| match course.last {
        Some(value) => (sum + value, count + 1, all + 1),
        None => (sum, count, all + 1),
    });
    match format {
        Format::Csv if count > 0 => (sum / f64::from(count)).to_string(),
        _ => mean_of(sum, count, all),
    }
}
