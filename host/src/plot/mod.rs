//! Pictures of curves: `fedplug plot`.
//!
//! `find` tells which runs there are and gives their curves, `curve` smooths and thins them, `chart` draws them
//! (on `axes` with `scale`s, beside a `legend`) into an `svg`, and `png` makes pixels of it. `bars` are for
//! counts: `fedplug prepare` shows the clients' sizes with them.

mod axes;
pub(crate) mod bars;
mod chart;
mod curve;
mod find;
mod font;
mod legend;
mod natural;
mod png;
mod scale;
mod svg;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use plugin_api::Level;

use self::chart::{Chart, Panel};
use self::find::Run;
use self::natural::Natural;
pub use self::svg::Size;
pub(crate) use self::svg::Svg;
use crate::artefacts::events::Point;
use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;
use crate::terminal::console::Console;

/// Pixels of a PNG to a CSS pixel: sharp on today's screens, and 192 to the inch on paper.
const PIXELS: u32 = 2;

/// What stands on the axis across.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Across {
    /// The writer's own count: optimiser steps, or rounds at the server
    Step,
    /// Time since the run's first value
    Time,
}

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run directories, or folders that hold some.
    pub runs: Vec<PathBuf>,
    /// The scalars, without the client.
    pub tag: String,
    /// The folder for the pictures.
    pub output: PathBuf,
    /// Of how many values the mean is taken.
    pub window: usize,
    /// In the place of the tag; empty for no title.
    pub title: Option<String>,
    /// The size of each picture.
    pub size: Option<Size>,
    /// Names for the runs, in their order.
    pub labels: Vec<String>,
    /// The clients to draw; all if there is none.
    pub clients: Vec<String>,
    /// Whether all clients stand in one picture.
    pub together: bool,
    /// What stands on the axis across.
    pub across: Across,
    /// Whether pictures that are there are replaced.
    pub force: bool,
}

/// Draws the curves of a tag: a picture a client, or one with all, each as SVG and as PNG. Returns the files.
///
/// # Errors
/// If there is no such tag, or a picture exists already or cannot be written.
pub fn plot(options: &Options, console: &Console) -> Result<Vec<PathBuf>, CliError> {
    let mut warnings = Vec::new();
    let runs = find::runs(&options.runs, &options.tag, &mut warnings);
    warnings.iter().for_each(|warning| console.log(Level::Warn, warning));
    let runs = only(named(runs?, &options.labels)?, &options.clients)?;

    let pictures = pictures(options, &runs);
    let paths: Vec<PathBuf> = pictures.iter().flat_map(|(stem, _)| files(&options.output.join(stem))).collect();
    if let Some(path) = paths.iter().find(|path| path.exists() && !options.force) {
        let report = Diagnostic::new(format!("{}: there is a picture already", path.display()));
        return Err(CliError::usage(report.hint("choose another folder with --output, or replace it with --force")));
    }
    if let Some(path) = pictures.iter().find_map(|(stem, _)| foreign(&options.output.join(stem))) {
        let report = Diagnostic::new(format!("{}: is not a picture that fedplug drew, so it stays", path.display()));
        return Err(CliError::usage(report.hint("choose another folder with --output")));
    }
    let (stems, pictures): (Vec<String>, Vec<Svg>) = pictures.into_iter().unzip();
    for (stem, drawn) in stems.iter().zip(draw_all(&pictures)) {
        save(drawn, &options.output.join(stem))?;
    }
    Ok(paths)
}

/// A picture as the bytes of its two files.
pub(crate) struct Drawn {
    svg: String,
    png: Vec<u8>,
}

/// Draws pictures, on as many threads as the machine has cores. Each has its own outcome.
pub(crate) fn draw_all(pictures: &[Svg]) -> Vec<Result<Drawn, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pictures.len()).max(1);
    let next = AtomicUsize::new(0);
    let some = || {
        let mut canvas = png::Canvas::default();
        std::iter::from_fn(|| {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let svg = pictures.get(place)?;
            let drawn = canvas.encode(svg, PIXELS).map(|png| Drawn { svg: svg.text(), png });
            Some((place, drawn))
        })
        .collect::<Vec<_>>()
    };
    let mut drawn = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(some)).collect();
        let mut drawn = some();
        for other in others {
            drawn.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        drawn
    });
    drawn.sort_by_key(|(place, _)| *place);
    drawn.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Writes a picture as `STEM.svg` and `STEM.png`, and returns the two files.
///
/// # Errors
/// If it could not be drawn, or they cannot be written.
pub(crate) fn save(drawn: Result<Drawn, String>, stem: &Path) -> Result<[PathBuf; 2], CliError> {
    let [vector, pixels] = files(stem);
    let drawn = drawn.map_err(|e| {
        CliError::run(Diagnostic::new(format!("{}: cannot draw the picture", pixels.display())).cause(e))
    })?;
    if let Some(folder) = stem.parent() {
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, "make the folder", &e))?;
    }
    for (path, bytes) in [(&vector, drawn.svg.as_bytes()), (&pixels, &drawn.png)] {
        // A file beside it takes its place, so that nothing is written through a link.
        let part = safetensors::partial(path);
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, path))
            .map_err(|e| CliError::io(path, "write the picture", &e))?;
    }
    Ok([vector, pixels])
}

/// The first of a picture's two files that is there and was not drawn by fedplug: the SVG shows it for both.
fn foreign(stem: &Path) -> Option<PathBuf> {
    let there = |path: &PathBuf| path.symlink_metadata().ok();
    let files = files(stem);
    let ours = there(&files[0]).is_some_and(|data| data.is_file())
        && std::fs::read_to_string(&files[0]).is_ok_and(|text| svg::is_ours(&text));
    files.into_iter().find(|path| there(path).is_some_and(|data| !ours || !data.is_file()))
}

fn files(stem: &Path) -> [PathBuf; 2] {
    ["svg", "png"].map(|extension| {
        let mut name = stem.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    })
}

/// The runs with the names that the command line gives them.
fn named(mut runs: Vec<Run>, labels: &[String]) -> Result<Vec<Run>, CliError> {
    if !labels.is_empty() && labels.len() != runs.len() {
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        let report = Diagnostic::new(format!("--label is given {} times for {} runs", labels.len(), runs.len()));
        return Err(CliError::usage(report.hint(format!("once for each, in this order: {}", names.join(", ")))));
    }
    for (run, label) in runs.iter_mut().zip(labels) {
        run.name.clone_from(label);
    }
    Ok(runs)
}

/// The runs with the curves of these clients alone.
fn only(mut runs: Vec<Run>, clients: &[String]) -> Result<Vec<Run>, CliError> {
    let known: Vec<String> = runs.iter().flat_map(|run| run.curves.keys()).map(|client| client.0.clone()).collect();
    if let Some(name) = clients.iter().find(|name| !known.contains(name)) {
        let report = Diagnostic::new(format!("no run has a client `{name}` with this tag"));
        return Err(CliError::usage(match nearest(name, &known) {
            Some(near) => report.hint(format!("did you mean `{near}`?")),
            None => report.hint(format!(
                "there are: {}",
                known.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>().join(", ")
            )),
        }));
    }
    if !clients.is_empty() {
        runs.iter_mut().for_each(|run| run.curves.retain(|client, _| clients.contains(&client.0)));
    }
    Ok(runs)
}

/// The pictures with the names of their files.
fn pictures(options: &Options, runs: &[Run]) -> Vec<(String, Svg)> {
    let mut clients: Vec<&Natural> = runs.iter().flat_map(|run| run.curves.keys()).collect();
    clients.sort();
    clients.dedup();
    let longest = runs.iter().filter_map(duration).fold(0.0, f64::max);
    let time = Time::for_length(longest);
    let panels = clients.iter().map(|client| panel(client, runs, options.across, &time));
    let chart = |title: String, panels: Vec<Panel>| {
        let bare = options.title.as_deref() == Some("");
        let smoothed =
            if options.window > 1 { format!(", mean of the last {} values", options.window) } else { String::new() };
        Chart {
            title: if bare { String::new() } else { title },
            subtitle: if bare { String::new() } else { format!("{}{smoothed}", options.tag) },
            upright: quantity(&options.tag),
            whole: options.across == Across::Step,
            names: runs.iter().map(|run| run.name.clone()).collect(),
            panels,
            window: options.window,
        }
    };
    if options.together {
        let panels: Vec<Panel> = panels.collect();
        let columns = chart::columns(panels.len());
        let rows = panels.len().div_ceil(columns);
        let fitting = Size { width: 60 + 290 * columns as u32, height: 110 + 210 * rows as u32 };
        let chart = chart(options.title.clone().unwrap_or_default(), panels);
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
        // Some file systems take upper and lower case for the same.
        while !taken.insert(name.to_lowercase()) {
            name.push('_');
        }
        (name, chart(title, vec![Panel { title: String::new(), ..panel }]).draw(size))
    };
    panels.map(picture).collect()
}

/// A client's curves, one a run.
fn panel(client: &Natural, runs: &[Run], across: Across, time: &Time) -> Panel {
    let curve = |(index, run): (usize, &Run)| {
        let curve = run.curves.get(client)?;
        let begun = begin(run)?;
        let place = |point: &Point| match across {
            Across::Step => (point.step as f64, point.value),
            Across::Time => ((point.time - begun) / time.seconds, point.value),
        };
        Some(chart::Curve { run: index, places: curve.points.iter().map(place).collect() })
    };
    let unit = runs.iter().find_map(|run| run.curves.get(client)).map_or("step", |curve| curve.unit);
    let across = match across {
        Across::Step => unit.to_owned(),
        Across::Time => format!("time ({})", time.unit),
    };
    Panel { title: client.0.clone(), across, curves: runs.iter().enumerate().filter_map(curve).collect() }
}

/// The unit of the axis across where it shows time.
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

/// The name of the upright axis: what the tag measures, with its unit.
fn quantity(tag: &str) -> String {
    match tag.split('/').next().unwrap_or_default() {
        "RMSE" => "RMSE (units of fitness)",
        "Pearson" => "Pearson correlation",
        "Loss" => "MSE loss",
        "LR" => "learning rate",
        _ => tag,
    }
    .to_owned()
}

/// A name that is one file in any file system.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.+ ".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_file() {
        assert_eq!(
            ["site-1", "Loss/train", "../up", "tm.v2"].map(file_name),
            ["site-1", "Loss_train", "_.._up", "tm.v2"]
        );
        assert_eq!(files(Path::new("out/tm.v2")), [PathBuf::from("out/tm.v2.svg"), PathBuf::from("out/tm.v2.png")]);
    }

    #[test]
    fn axes_have_units() {
        assert_eq!(quantity("RMSE/local_test"), "RMSE (units of fitness)");
        assert_eq!(quantity("Pearson/local_test_expression"), "Pearson correlation");
        assert_eq!(quantity("Epoch"), "Epoch");
        assert_eq!([10.0, 600.0, 90_000.0].map(|seconds| Time::for_length(seconds).unit), ["s", "min", "h"]);
    }
}
