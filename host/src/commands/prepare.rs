//! `fedplug prepare`: writing an experiment's data to files, with plots of its distribution over clients.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use fedplug_plot::bars::{self, Bars};
use fedplug_plot::{Svg, file_name};
use plugin_api::{Context, Dataset, Description, ErrorKind, Kind, Level};
use serde_json::{Value, json};

use crate::commands::plot_errors;
use crate::commands::run::Options;
use crate::error::CliError;
use crate::experiment::config::Experiment;
use crate::federation::notes::Notes;
use crate::federation::services::{CallScope, HostServices};
use crate::plugins::Finder;
use crate::setup::description;
use crate::setup::manifest::command_line;
use crate::setup::plugins::{self, LoadedPlugin};
use crate::terminal::console::Console;

mod output_folder;

use self::output_folder::OutputFolder;

/// The file name of the plots, without the extension.
const PICTURE: &str = "client_sizes";

/// Lets the dataset write its data into a folder, and plots the clients' sizes. Returns the files.
///
/// # Errors
/// If the dataset's part of the experiment is invalid, the folder is in use, or a file cannot be written.
pub(crate) fn prepare(
    experiment: &Experiment,
    output: &Path,
    force: bool,
    options: &Options,
) -> Result<Vec<PathBuf>, CliError> {
    let console = Console::new(options.level);
    let finder = Finder::new(&options.plugin_folders, &experiment.plugin_path);
    let used = plugins::find(experiment, &finder, Kind::Dataset, &experiment.dataset).map_err(CliError::usage)?;
    let located = |error| located(experiment, &used, error);
    let (stop, notes) = (AtomicBool::new(false), Notes::default());
    let threads = experiment.federation.threads_per_client;
    let services = HostServices::new(&console, &notes, &stop, experiment, threads);
    let scope = CallScope::new(&services, &used.plugin_ref.plugin, None, None);
    let ctx = scope.context();
    let mut dataset = used.component.new_dataset(&used.plugin_ref.config, &ctx).map_err(located)?;
    let description = dataset.describe(&ctx).map_err(located)?;
    description::check(&description).map_err(located)?;

    let folder = OutputFolder::open(output, force)?;
    let pictures = pictures(experiment, &description);
    let files = write(&mut *dataset, pictures, folder.part(), &ctx, &located)?;
    let files = folder.finish(files, &|files: &[PathBuf]| manifest(experiment, &used, &description, files))?;
    console.log(Level::Info, &format!("{}: {} files in {}", experiment.name, files.len(), output.display()));
    Ok(files)
}

/// Writes the dataset's files, and plots with their paths, into a folder.
fn write(
    dataset: &mut dyn Dataset,
    pictures: Vec<(PathBuf, Bars)>,
    folder: &Path,
    ctx: &Context<'_>,
    located: &dyn Fn(plugin_api::Error) -> CliError,
) -> Result<Vec<PathBuf>, CliError> {
    let (stems, pictures): (Vec<PathBuf>, Vec<Svg>) =
        pictures.into_iter().map(|(stem, bars)| (stem, bars.draw())).unzip();
    // The plots are drawn while the dataset writes, and saved afterwards.
    let (files, drawn) = std::thread::scope(|scope| {
        let drawing = scope.spawn(|| fedplug_plot::draw_all(&pictures));
        // No client is working at this time, so the dataset may use all cores.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let files = dataset.prepare(folder, &ctx.clone().with_threads(cores));
        (files, drawing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut files = files.map_err(located)?;
    for (stem, drawn) in stems.iter().zip(drawn) {
        files.extend(fedplug_plot::save(drawn, &folder.join(stem)).map_err(plot_errors::failure)?);
    }
    Ok(files)
}

/// A dataset's error with its position in the file. If the dataset does not support `prepare`, a hint names the
/// alternative.
fn located(experiment: &Experiment, used: &LoadedPlugin, error: plugin_api::Error) -> CliError {
    let unsupported = *error.kind() == ErrorKind::Unsupported;
    let report = used.located(experiment, error);
    let hint = "runs read its data directly; `fedplug check` shows how many rows each client has";
    CliError::usage(if unsupported { report.hint(hint) } else { report })
}

/// The contents of `prepared.json`: what the data were made from.
fn manifest(experiment: &Experiment, used: &LoadedPlugin, description: &Description, files: &[PathBuf]) -> Value {
    json!({
        "fedplug": env!("CARGO_PKG_VERSION"),
        "interface": plugin_api::boundary::root::INTERFACE,
        "name": experiment.name,
        "seed": experiment.seed,
        "command": command_line(),
        "plugin": used.manifest(),
        "config": experiment.dataset.config,
        "clients": description.clients,
        "data": description.sources,
        "files": files,
    })
}

/// The plots with their paths: one for each task, and one for all.
fn pictures(experiment: &Experiment, description: &Description) -> Vec<(PathBuf, Bars)> {
    let bars = |title: String, clients: Vec<&plugin_api::ClientSpec>, tasks: &[&str]| {
        let rows = |client: &plugin_api::ClientSpec, task: &str| {
            client.tasks.iter().filter(|held| held.name == task).map(|held| held.train).sum()
        };
        let kind = |task: &&str| bars::Kind {
            name: (*task).to_owned(),
            counts: clients.iter().map(|client| rows(client, task)).collect(),
        };
        Bars {
            title,
            subtitle: format!("{}, seed {}", experiment.name, experiment.seed),
            across: "client".to_owned(),
            upright: "training rows".to_owned(),
            places: clients.iter().map(|client| client.name.clone()).collect(),
            kinds: tasks.iter().map(kind).collect(),
        }
    };
    let tasks: Vec<&str> = description.tasks.iter().map(|task| task.name.as_str()).collect();
    let of_task = |&task: &&str| {
        let holds = |client: &&plugin_api::ClientSpec| client.tasks.iter().any(|held| held.name == task);
        let clients = description.clients.iter().filter(holds).collect();
        (
            Path::new(&file_name(task)).join(PICTURE),
            bars(format!("{task}: training rows of each client"), clients, &[task]),
        )
    };
    let all = bars("Training rows of each client".to_owned(), description.clients.iter().collect(), &tasks);
    tasks.iter().map(of_task).chain([(PICTURE.into(), all)]).collect()
}

#[cfg(test)]
mod tests {
    use plugin_api::component::About;
    use plugin_api::{Component, Plugin};

    use super::*;
    use crate::experiment::document::Document;
    use crate::plugins::Library;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Empty {}

    /// A dataset without `prepare`, as in the trait's default.
    struct Bare;

    impl plugin_api::Dataset for Bare {
        fn describe(&mut self, _: &plugin_api::Context<'_>) -> plugin_api::Result<Description> {
            Ok(Description::default())
        }
        fn load(&mut self, _: &str, _: &plugin_api::Context<'_>) -> plugin_api::Result<Vec<plugin_api::Task>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_dataset_that_prepares_nothing_says_so_at_its_place() {
        let tables = "name = \"x\"\n[federation]\nrounds = 1\n[model]\nplugin = \"m\"\n[aggregator]\nplugin = \"a\"\n";
        let text = format!("{tables}[dataset]\nplugin = \"bare\"\n");
        let experiment = Experiment::from_document(Document::parse("x.toml".to_owned(), &text).unwrap()).unwrap();
        let (console, notes, stop) = (Console::new(Level::Warn), Notes::default(), AtomicBool::new(false));
        let services = HostServices::new(&console, &notes, &stop, &experiment, 1);
        let scope = CallScope::new(&services, "bare", None, None);
        let error = plugin_api::Dataset::prepare(&mut Bare, Path::new("out"), &scope.context()).unwrap_err();
        let new = |_: Empty, _: &plugin_api::Context<'_>| Ok(Bare);
        let component = Component::dataset("bare", "Prepares nothing", new);
        let plugin = Plugin { about: About::default(), components: vec![component.clone()] };
        let library = Library { path: PathBuf::new(), plugin: plugin.into() };
        let used = LoadedPlugin { plugin_ref: experiment.dataset.clone(), library, component };
        let text = located(&experiment, &used, error).to_string();
        assert!(text.starts_with("error: x.toml:8: "), "{text}");
        assert!(text.contains("dataset `bare`: this dataset does not implement `prepare`"), "{text}");
        assert!(text.contains("hint: runs read its data directly"), "{text}");
    }
}
