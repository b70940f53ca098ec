//! The arguments of `fedplug plot`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fedplug_plot::{Options, Size};
use plugin_api::Level;

use crate::commands::plot_errors::failure;
use crate::error::CliError;
use crate::terminal::console::Console;

#[derive(Debug, Args)]
pub(super) struct Plot {
    /// Run directories, folders that contain several, or any folders with event files below them
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The tag to draw, without the client: RMSE/local_test, Pearson/local_test_expression
    #[arg(long)]
    tag: String,
    /// The output folder
    #[arg(short, long, value_name = "DIR", default_value = "figures")]
    output: PathBuf,
    /// Draw the mean of each value and those before it, at most this many in all; 1 draws the values alone
    #[arg(long, value_name = "VALUES", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// A title that replaces the client's name, or precedes it; an empty one removes it
    #[arg(long)]
    title: Option<String>,
    /// The size of each picture, in pixels of 1/96 inch [default: 640x420; with --together it depends on the number of
    /// clients]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    size: Option<Size>,
    /// A name for a run in the legend; give one for each run, in order
    #[arg(long = "label", value_name = "NAME")]
    labels: Vec<String>,
    /// Draw only this client, or `server`; may be repeated [default: all]
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
    /// Draw all clients side by side in one picture
    #[arg(long)]
    together: bool,
    /// What the x axis shows
    #[arg(long, value_enum, default_value = "step")]
    x: XAxis,
    /// Replace pictures drawn earlier; other files are kept
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum XAxis {
    /// The writer's own step count: optimiser steps, or rounds at the server
    Step,
    /// Time since the run's first value
    Time,
}

/// Parses `640x420`.
fn size(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse().ok().filter(|side| (200..=10_000).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    let (width, height) = sides.ok_or("must be two numbers from 200 to 10000 with an `x` between them")?;
    Ok(Size { width, height })
}

impl Plot {
    /// Draws the pictures and returns their files.
    pub(super) fn execute(self, console: &Console) -> Result<Vec<PathBuf>, CliError> {
        let options = Options {
            runs: self.runs,
            tag: self.tag,
            output: self.output,
            window: self.window as usize,
            title: self.title,
            size: self.size,
            labels: self.labels,
            clients: self.clients,
            together: self.together,
            x: match self.x {
                XAxis::Step => fedplug_plot::XAxis::Step,
                XAxis::Time => fedplug_plot::XAxis::Time,
            },
            force: self.force,
        };
        fedplug_plot::plot(&options, |warning| console.log(Level::Warn, &warning)).map_err(failure)
    }
}
