//! `fedplug run` and `fedplug check`: from an experiment to a directory of results.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use plugin_api::Level;

use crate::artefacts::run_dir::{Existing, RunDir};
use crate::error::CliError;
use crate::experiment::config::{Draft, Experiment};
use crate::federation::notes::Notes;
use crate::federation::services::HostServices;
use crate::plugins::Finder;
use crate::setup::Setup;
use crate::setup::dry_run;
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;
use announcement::{first_line, warn_of_unevaluated};
use execution::Execution;

mod announcement;
mod checkpoint;
pub(crate) mod execution;
mod results;

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The parent folder of run directories.
    pub output: PathBuf,
    /// What to do if the directory exists.
    pub existing: Existing,
    /// Folders to search for plugins before all others.
    pub plugin_folders: Vec<PathBuf>,
    /// The most detailed level of messages that is shown.
    pub level: Level,
}

/// Runs an experiment and writes the table of results to stderr.
///
/// # Errors
/// If the experiment is invalid or the run fails.
pub(crate) fn run(draft: Draft, options: &Options) -> Result<(), CliError> {
    let begun = Instant::now();
    let stop = Stop::on_signals()?;
    let console = Console::new(options.level);
    let mut warn = |line: &str| console.log(Level::Warn, line);
    if !draft.is_whole() {
        // Report all errors of the experiment together, and write nothing.
        return check(draft, options).map(drop);
    }
    let mut run_dir = RunDir::claim(&options.output, &draft.experiment.name, options.existing, &mut warn)?;
    let outcome = Execution { begun, stop, console, notes: Notes::default() }.run(&mut run_dir, draft, options);
    outcome.map_err(|failure| match run_dir.replaces() {
        Some(aside) => failure.hint(&format!("the replaced run was not removed: {}", aside.display())),
        None => failure,
    })
}

/// Checks an experiment without training, and describes the run.
///
/// # Errors
/// All errors of the experiment.
pub(crate) fn check(draft: Draft, options: &Options) -> Result<String, CliError> {
    let stop = AtomicBool::new(false);
    let console = Console::new(options.level);
    let finder = finder(&draft.experiment, options);
    let notes = Notes::default();
    let services = services(&console, &notes, &stop, &draft.experiment);
    let mut setup = Setup::new(draft, &finder, &services)?;
    rehearse(&mut setup, &Console::new(options.level.min(Level::Warn)).without_repetition(), &stop)?;
    warn_of_unevaluated(&setup.shared, &console);
    let mut text = first_line(&setup.shared, setup.clients.placement.workers, None) + "\n";
    for (client, device) in setup.shared.description.clients.iter().zip(&setup.clients.placement.devices) {
        let tasks = client.tasks.iter().map(|task| match task.validation {
            0 => format!("{} {}+{}", task.name, task.train, task.test),
            rows => format!("{} {}+{} and {rows} for validation", task.name, task.train, task.test),
        });
        text += &format!("  {} on {device}: {}\n", client.name, tasks.collect::<Vec<_>>().join(", "));
    }
    Ok(text)
}

pub(crate) fn finder(experiment: &Experiment, options: &Options) -> Finder {
    Finder::new(&options.plugin_folders, &experiment.plugin_path)
}

/// Plays a few rounds with the untrained model and discards the results. Returns the parameters that clients keep
/// private.
fn rehearse(setup: &mut Setup, console: &Console, stop: &AtomicBool) -> Result<BTreeSet<String>, CliError> {
    let notes = Notes::default();
    let services = services(console, &notes, stop, &setup.shared.experiment);
    dry_run::rehearse(setup, &services)
}

/// The services of components before the first round.
pub(crate) fn services<'a>(
    console: &'a Console,
    notes: &'a Notes,
    stop: &'a AtomicBool,
    experiment: &Experiment,
) -> HostServices<'a> {
    HostServices::new(console, notes, stop, experiment, experiment.federation.threads_per_client.max(1))
}
