//! `fedplug compare`: comparing runs by their summaries.

use std::path::PathBuf;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, Table, TableStyle};

use self::columns::{Column, Columns};
use self::entry::Entry;
use self::paired::{Paired, paired};
use self::statistics::Sample;
use crate::error::CliError;
use crate::federation::history::{UNDEFINED, mean_text, short};
use crate::federation::means::mean;
use crate::federation::summary::Summary;

mod columns;
mod entry;
mod paired;
mod statistics;

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

/// What follows the mean over repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Spread {
    /// The standard deviation over the repeats
    #[default]
    Sd,
    /// The 95% interval of the mean
    Interval,
}

/// What is compared, and how it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directories of the runs, or of several runs of one experiment.
    pub runs: Vec<PathBuf>,
    /// The task whose metrics are shown.
    pub task: Option<String>,
    /// The metrics that are shown; the first ones that the model reports if empty, and all of them as CSV.
    pub metrics: Vec<String>,
    /// The metric, or `score`, whose last value for the global model sorts the runs, the best one first; or `validation`.
    pub sort: Option<String>,
    /// What follows the mean over repeats.
    pub spread: Spread,
    /// Whether to show paired tests only.
    pub paired: bool,
    /// The format of the table.
    pub format: Format,
}

/// A table as text.
struct Cells {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Formats one row per run or repeated experiment: its rounds, the score of the last global model and of the clients' last
/// own models (means over clients and tasks), the metrics of one task (means over its clients), and the cost of the run.
/// Where rows for validation chose a best model, its numbers as well. Without `task`, metrics are shown only if all runs
/// have the same single task. Experiments with shared seeds or folds are followed by paired tests.
///
/// # Errors
/// If one of the directories does not contain a finished run, or no run has the task or one of the metrics.
pub(crate) fn compare(options: &Options) -> Result<String, CliError> {
    let format = options.format;
    let mut entries = options.runs.iter().map(|run| Entry::read(run)).collect::<Result<Vec<_>, _>>()?;
    let columns = {
        let runs: Vec<&Summary> = entries.iter().flat_map(|entry| &entry.runs).map(|(_, run)| run).collect();
        Columns::new(&runs, options)?
    };
    if let Some(sort) = &options.sort {
        let key = columns.sort_key(sort)?;
        let value = |entry: &Entry| {
            mean(entry.runs.iter().filter_map(|(_, run)| columns.sort_value(&key, run))).unwrap_or(f64::NEG_INFINITY)
        };
        entries.sort_by(|a, b| value(b).total_cmp(&value(a)));
    }
    let paired = paired(&entries, &columns, format);
    if options.paired {
        let Some(Paired { table, notes }) = paired else {
            return Ok("no two experiments share two seeds or folds\n".to_owned());
        };
        return Ok(shown(table, format) + &lines(&notes, format));
    }
    let mut text = shown(main_table(&entries, &columns, options), format);
    text += &lines(&spread_notes(&entries, options.spread), format);
    if let Some(Paired { table, notes }) = paired.filter(|_| format != Format::Csv) {
        text += &format!("\n{}{}", shown(table, format), lines(&notes, format));
    }
    Ok(text)
}

/// One row per run or repeated experiment.
fn main_table(entries: &[Entry], columns: &Columns, options: &Options) -> Cells {
    let repeated = entries.iter().any(|entry| entry.repeats.is_some());
    let spreads = repeated && options.format == Format::Csv;
    let mut header = vec!["run".to_owned()];
    header.extend(repeated.then(|| "repeats".to_owned()));
    for column in &columns.all {
        let title = columns.title(column);
        header.push(title.clone());
        if spreads && column.measures_a_model() {
            header.extend(["SD", "95% from", "95% to"].map(|what| format!("{title}, {what}")));
        }
    }
    let row = |entry: &Entry| {
        let mut row = vec![entry.name.clone()];
        row.extend(repeated.then(|| entry.runs.len().to_string()));
        for column in &columns.all {
            let of_run = |(_, run): &(_, Summary)| mean(columns.values(column, run).into_iter().flatten());
            let values: Vec<Option<f64>> = entry.runs.iter().map(of_run).collect();
            let sample = Sample::new(values.iter().copied().flatten().collect(), entry.folds());
            row.push(match (column, options.format, &entry.repeats) {
                (Column::Rounds, ..) => sample.mean().map_or_else(String::new, rounded),
                (_, Format::Csv, _) => number(sample.mean(), Format::Csv),
                (_, _, None) => mean_text(columns.values(column, &entry.runs[0].1)),
                (column, ..) if !column.measures_a_model() => number(sample.mean(), options.format),
                (_, _, Some(_)) => with_spread(&sample, &values, options.spread),
            });
            if spreads && column.measures_a_model() {
                let interval = sample.interval();
                let all = [sample.deviation(), interval.map(|of| of.low), interval.map(|of| of.high)];
                row.extend(all.map(|value| number(value, Format::Csv)));
            }
        }
        row
    };
    Cells { header, rows: entries.iter().map(row).collect() }
}

/// A number of rounds, which may be a mean.
fn rounded(rounds: f64) -> String {
    if rounds.fract() == 0.0 { rounds.to_string() } else { format!("{rounds:.1}") }
}

/// The mean over repeats with its spread, and how many repeats have a value if not all do.
fn with_spread(sample: &Sample, values: &[Option<f64>], spread: Spread) -> String {
    let Some(mean) = sample.mean() else { return UNDEFINED.to_owned() };
    let mut text = short(mean);
    match spread {
        Spread::Sd => text += &sample.deviation().map_or_else(String::new, |sd| format!(" ± {}", short(sd))),
        Spread::Interval => {
            let shown =
                |interval: statistics::Interval| format!(" [{}, {}]", short(interval.low), short(interval.high));
            text += &sample.interval().map_or_else(String::new, shown);
        }
    }
    if sample.count() < values.len() {
        text += &format!(" ({} of {})", sample.count(), values.len());
    }
    text
}

/// What the spreads are, and which repeats are missing.
fn spread_notes(entries: &[Entry], spread: Spread) -> Vec<String> {
    let repeated = || entries.iter().filter_map(|entry| Some((entry, entry.repeats.as_ref()?)));
    let mut notes = Vec::new();
    if repeated().next().is_some() {
        let folds = repeated().any(|(_, repeats)| repeats.folds.is_some());
        notes.push(match (spread, folds) {
            (Spread::Sd, _) => "mean ± standard deviation over repeats".to_owned(),
            (Spread::Interval, false) => "mean and its 95% interval by Student's t over repeats".to_owned(),
            (Spread::Interval, true) => "mean and its 95% interval by Student's t over repeats; of folds, which share \
                                         training rows, with the variance s² (1/n + 1/(folds - 1)) (Nadeau and Bengio \
                                         2003)"
                .to_owned(),
        });
    }
    let missing = repeated().filter(|(entry, repeats)| entry.runs.len() < repeats.listed);
    notes.extend(missing.map(|(entry, repeats)| {
        format!("{}: {} of {} runs are finished", entry.name, entry.runs.len(), repeats.listed)
    }));
    notes
}

/// Notes below a table, which CSV has no place for.
fn lines(notes: &[String], format: Format) -> String {
    match format {
        Format::Csv => String::new(),
        Format::Table => notes.iter().map(|note| format!("{note}\n")).collect(),
        Format::Markdown => notes.iter().map(|note| format!("\n{note}\n")).collect(),
    }
}

fn number(value: Option<f64>, format: Format) -> String {
    match (value, format) {
        (None, _) => UNDEFINED.to_owned(),
        (Some(value), Format::Csv) => value.to_string(),
        (Some(value), _) => short(value),
    }
}

fn shown(cells: Cells, format: Format) -> String {
    match format {
        Format::Csv => csv(cells),
        Format::Table => table(UTF8_FULL_CONDENSED, cells),
        Format::Markdown => table(ASCII_MARKDOWN, cells),
    }
}

fn csv(Cells { header, rows }: Cells) -> String {
    let mut lines = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    [header].iter().chain(&rows).for_each(|row| drop(lines.write_record(row)));
    String::from_utf8(lines.into_inner().unwrap_or_default()).unwrap_or_default()
}

fn table(style: TableStyle, Cells { header, rows }: Cells) -> String {
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
