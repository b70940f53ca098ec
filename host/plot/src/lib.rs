//! Pictures of event files, as SVG and PNG.
//!
//! [`plot`] draws the curves of a tag: [`events`] reads the scalars of TensorBoard's event files, `find` groups them by
//! run and client, `curve` smooths and thins them, `chart` draws them with `axes` and a `legend` into an [`Svg`], and
//! `png` renders it. [`bars`] draws counts. The crate works on files only and knows neither the host nor plugins.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod axes;
pub mod bars;
mod chart;
mod curve;
mod error;
pub mod events;
mod files;
mod find;
mod font;
mod legend;
mod natural;
mod png;
mod repeats;
mod scale;
mod svg;

use std::collections::BTreeSet;
use std::path::PathBuf;

use self::chart::{Chart, Panel};
pub use self::error::{Error, Problem};
use self::events::Point;
pub use self::files::{Drawn, draw_all, file_name, save};
use self::files::{foreign, pair};
use self::find::Run;
use self::natural::Natural;
pub use self::svg::{Size, Svg};

/// What the x axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XAxis {
    /// The writer's own step count: optimiser steps, or rounds at the server.
    Step,
    /// Time since the run's first value.
    Time,
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run directories, or folders that contain some.
    pub runs: Vec<PathBuf>,
    /// The tag of the scalars, without the client.
    pub tag: String,
    /// The output folder.
    pub output: PathBuf,
    /// The number of values in the moving average.
    pub window: usize,
    /// Replaces the tag as the title; empty for no title.
    pub title: Option<String>,
    /// The size of each picture.
    pub size: Option<Size>,
    /// Names for the runs, in order.
    pub labels: Vec<String>,
    /// The clients to draw; all if empty.
    pub clients: Vec<String>,
    /// Whether all clients share one picture.
    pub together: bool,
    /// What the x axis shows.
    pub x: XAxis,
    /// Whether existing pictures are replaced.
    pub force: bool,
}

/// Draws the curves of a tag, one picture per client or one for all, each as SVG and PNG. Returns the files. `warn`
/// receives the unreadable parts of damaged event files, and the folders that lack the tag.
///
/// # Errors
/// If no run has the tag, or a picture already exists or cannot be written.
pub fn plot(options: &Options, warn: impl FnMut(String)) -> Result<Vec<PathBuf>, Error> {
    let mut warnings = Vec::new();
    let runs = find::runs(&options.runs, &options.tag, &mut warnings);
    warnings.into_iter().for_each(warn);
    let runs = only(named(runs?, &options.labels)?, &options.clients)?;

    let pictures = pictures(options, &runs);
    let paths: Vec<PathBuf> = pictures.iter().flat_map(|(stem, _)| pair(&options.output.join(stem))).collect();
    if let Some(path) = paths.iter().find(|path| path.exists() && !options.force) {
        let problem = Problem::new(format!("{}: the picture already exists", path.display()));
        return Err(problem.hint("choose another folder with --output, or replace it with --force").into());
    }
    if let Some(path) = pictures.iter().find_map(|(stem, _)| foreign(&options.output.join(stem))) {
        let problem = Problem::new(format!("{}: not drawn by fedplug, so not replaced", path.display()));
        return Err(problem.hint("choose another folder with --output").into());
    }
    let (stems, pictures): (Vec<String>, Vec<Svg>) = pictures.into_iter().unzip();
    for (stem, drawn) in stems.iter().zip(draw_all(&pictures)) {
        save(drawn, &options.output.join(stem))?;
    }
    Ok(paths)
}

/// The runs, renamed by the labels from the command line.
fn named(mut runs: Vec<Run>, labels: &[String]) -> Result<Vec<Run>, Error> {
    if !labels.is_empty() && labels.len() != runs.len() {
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let problem = Problem::new(format!("--label is given {} times for {} runs", labels.len(), runs.len()));
        return Err(problem.hint(format!("give one for each run, in this order: {}", names.join(", "))).into());
    }
    for (run, label) in runs.iter_mut().zip(labels) {
        run.name.clone_from(label);
    }
    Ok(runs)
}

/// The runs with only the curves of these clients.
fn only(mut runs: Vec<Run>, clients: &[String]) -> Result<Vec<Run>, Error> {
    let known: BTreeSet<&str> = runs.iter().flat_map(|run| run.curves.keys()).map(|client| client.0.as_str()).collect();
    if let Some(name) = clients.iter().find(|name| !known.contains(name.as_str())) {
        let known = known.into_iter().map(str::to_owned).collect();
        return Err(Error::NoSuchClient { name: name.clone(), known });
    }
    if !clients.is_empty() {
        runs.iter_mut().for_each(|run| run.curves.retain(|client, _| clients.contains(&client.0)));
    }
    Ok(runs)
}

/// The pictures and their file names.
fn pictures(options: &Options, runs: &[Run]) -> Vec<(String, Svg)> {
    let mut clients: Vec<&Natural> = runs.iter().flat_map(|run| run.curves.keys()).collect();
    clients.sort();
    clients.dedup();
    let longest = runs.iter().filter_map(duration).fold(0.0, f64::max);
    let time = Time::for_length(longest);
    let panels: Vec<Panel> = clients.iter().map(|client| panel(client, runs, options.x, &time)).collect();
    if options.together {
        let columns = chart::columns(panels.len());
        let rows = panels.len().div_ceil(columns);
        let fitting = Size { width: 60 + 290 * columns as u32, height: 110 + 210 * rows as u32 };
        let chart = chart(options, runs, options.title.clone().unwrap_or_default(), panels);
        return vec![("together".to_owned(), chart.draw(options.size.unwrap_or(fitting)))];
    }
    let size = options.size.unwrap_or(Size { width: 640, height: 420 });
    let mut taken = BTreeSet::new();
    let picture = |panel: Panel| {
        let client = if panel.title.is_empty() { options.tag.clone() } else { panel.title.clone() };
        let title = match &options.title {
            Some(title) if !panel.title.is_empty() => format!("{title}: {client}"),
            Some(title) => title.clone(),
            None => client.clone(),
        };
        let mut name = file_name(&client);
        // Some file systems ignore case.
        while !taken.insert(name.to_lowercase()) {
            name.push('_');
        }
        (name, chart(options, runs, title, vec![Panel { title: String::new(), ..panel }]).draw(size))
    };
    panels.into_iter().map(picture).collect()
}

/// A picture with these plots.
fn chart(options: &Options, runs: &[Run], title: String, panels: Vec<Panel>) -> Chart {
    let bare = options.title.as_deref() == Some("");
    let smoothed =
        if options.window > 1 { format!(", mean of the last {} values", options.window) } else { String::new() };
    let repeated = if runs.iter().any(|run| run.repeats.is_some()) { ", mean ± SD over runs" } else { "" };
    Chart {
        title: if bare { String::new() } else { title },
        subtitle: if bare { String::new() } else { format!("{}{smoothed}{repeated}", options.tag) },
        upright: quantity(&options.tag),
        whole: options.x == XAxis::Step,
        names: runs.iter().map(label).collect(),
        panels,
        window: options.window,
    }
}

/// A run's name in the legend, with the number of runs that it is the mean of.
fn label(run: &Run) -> String {
    run.repeats.map_or_else(|| run.name.clone(), |repeats| format!("{} ({repeats} runs)", run.name))
}

/// The plot of a client, with one curve per run.
fn panel(client: &Natural, runs: &[Run], x: XAxis, time: &Time) -> Panel {
    let curve = |(index, run): (usize, &Run)| {
        let curve = run.curves.get(client)?;
        let begun = begin(run)?;
        let place = |point: &Point| match x {
            XAxis::Step => (point.step as f64, point.value),
            XAxis::Time => ((point.time - begun) / time.seconds, point.value),
        };
        let deviations = curve.deviations.clone();
        Some(chart::Curve { run: index, places: curve.points.iter().map(place).collect(), deviations })
    };
    let unit = runs.iter().find_map(|run| run.curves.get(client)).map_or("step", |curve| curve.unit);
    let across = match x {
        XAxis::Step => unit.to_owned(),
        XAxis::Time => format!("time ({})", time.unit),
    };
    Panel { title: client.0.clone(), across, curves: runs.iter().enumerate().filter_map(curve).collect() }
}

/// The unit of the x axis when it shows time.
struct Time {
    unit: &'static str,
    seconds: f64,
}

impl Time {
    fn for_length(seconds: f64) -> Self {
        let (unit, seconds) = match seconds {
            ..180.0 => ("s", 1.0),
            ..10_800.0 => ("min", 60.0),
            _ => ("h", 3600.0),
        };
        Self { unit, seconds }
    }
}

fn times(run: &Run) -> Option<(f64, f64)> {
    curve::range(run.curves.values().flat_map(|curve| &curve.points).map(|point| point.time))
}

fn begin(run: &Run) -> Option<f64> {
    Some(times(run)?.0)
}

fn duration(run: &Run) -> Option<f64> {
    times(run).map(|(begin, end)| end - begin)
}

/// The name of the y axis: what the tag measures.
fn quantity(tag: &str) -> String {
    match tag.split('/').next().unwrap_or_default() {
        name @ ("RMSE" | "MAE" | "NRMSE" | "NMAE" | "AUROC") => name,
        "Pearson" => "Pearson correlation",
        "Spearman" => "Spearman correlation",
        "R2" => "R²",
        "AP" => "average precision",
        "Balanced_accuracy" => "balanced accuracy",
        "Log_loss" => "log loss",
        "MCC" => "Matthews correlation",
        "Loss" => "loss",
        "LR" => "learning rate",
        _ => tag,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_named_after_its_tag() {
        assert_eq!(quantity("RMSE/local_test"), "RMSE");
        assert_eq!(quantity("Pearson/local_test_expression"), "Pearson correlation");
        assert_eq!(quantity("Epoch"), "Epoch");
        assert_eq!([10.0, 600.0, 90_000.0].map(|seconds| Time::for_length(seconds).unit), ["s", "min", "h"]);
    }
}
