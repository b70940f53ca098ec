//! `fedplug run` and `fedplug check`: from an experiment to a directory of results.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plugin_api::{Level, Sampling, Seed};
use serde_json::Value;

use crate::artefacts::checkpoint::Reader;
use crate::artefacts::journal::{self, Journal};
use crate::artefacts::names::{self, IDLE};
use crate::artefacts::run_dir::{Existing, RunDir};
use crate::artefacts::tracking::Tracker;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{self, Draft, Experiment};
use crate::federation::best_models::BestModels;
use crate::federation::clear::{self, Revealed};
use crate::federation::client::Client;
use crate::federation::cross_site;
use crate::federation::early_stopping::Patience;
use crate::federation::history::History;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::predictions;
use crate::federation::resume::CheckpointIndex;
use crate::federation::rounds::{Evaluators, Federation};
use crate::federation::sampling::{Draws, evaluators, select};
use crate::federation::services::HostServices;
use crate::federation::totals::Totals;
use crate::plugins::Finder;
use crate::plugins::validate::Layout;
use crate::setup::changes;
use crate::setup::dry_run;
use crate::setup::manifest;
use crate::setup::{LoadedPlugin, Setup};
use crate::terminal::console::Console;
use crate::terminal::signals::{Pause, Stop};
use opening::{opening, tell_unjudged};
use results::{closing, save_clients, save_globals, summary as summarize};

mod opening;
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
    let outcome = run_in(&mut run_dir, draft, options, (begun, &stop, console));
    outcome.map_err(|failure| match run_dir.replaces() {
        Some(aside) => failure.hint(&format!("the replaced run was not removed: {}", aside.display())),
        None => failure,
    })
}

/// Runs the experiment in a directory that this process has locked.
fn run_in(
    run_dir: &mut RunDir,
    draft: Draft,
    options: &Options,
    (begun, stop, mut console): (Instant, &Stop, Console),
) -> Result<(), CliError> {
    let notes = Notes::default();
    let finder = finder(&draft.experiment, options);
    let (mut setup, withheld) = {
        let silent = services(&console, &stop.cancel, None, &notes, &journal::NONE, &draft.experiment);
        let setup = Setup::new(draft, &finder, &silent).and_then(|mut setup| {
            // Components repeat their messages in the first round, so only errors are shown here.
            let withheld = rehearse(&mut setup, &Console::new(Level::Error), &stop.cancel)?;
            Ok((setup, withheld))
        });
        setup.map_err(|failure| match stop.asked() {
            true => CliError::stopped(Diagnostic::new("stopped on request before the run started")),
            false => failure,
        })?
    };
    let manifest = manifest::manifest(&setup)?;
    let resumed = resume(run_dir, &setup, &manifest, &console)?;
    run_dir.begin(&setup.experiment.resolved(), manifest)?;
    let run_dir = &*run_dir;
    stop.begin();

    let names: Vec<String> = setup.description.clients.iter().map(|client| client.name.clone()).collect();
    let federation = setup.experiment.federation.clone();
    let done = resumed.as_ref().map_or(0, |(_, kept)| kept.done);
    let within = resumed.as_ref().map_or(0, |(_, kept)| kept.epochs());
    let at_work = select(names.len(), federation.fraction, federation.min_clients, Seed::new(0), 0).len();
    let per_round = at_work as u64 * federation.local_epochs;
    console.start(names.len(), federation.rounds * per_round, done * per_round + within);
    console.log(Level::Info, &opening(&setup, resumed.as_ref().map(|(_, kept)| kept)));
    tell_unjudged(&setup, &console);
    let tracker = Tracker::new(run_dir.path(), &names, resumed.as_ref().map(|(_, kept)| &kept.positions))?;
    let journal = Journal::open(run_dir.path())?;
    let services = services(&console, &stop.cancel, Some(&tracker), &notes, &journal, &setup.experiment);
    let store = Arc::new(Store::new(run_dir.path().join(IDLE), federation.idle_memory)?);
    let clients = setup.clients(&store, &services)?;
    let aggregator = (setup.aggregation.choice.plugin.clone(), setup.aggregator);
    let tasks: Vec<String> = setup.plan.tasks.iter().map(|task| task.name.clone()).collect();
    let plan = federation;
    let layout = Layout::of(&setup.initial);
    if matches!(plan.sampling(), Sampling::Poisson(probability) if probability < 1.0) {
        // Otherwise a private parameter would disappear from the global model once a client that holds it takes part,
        // and the model would reveal who did.
        setup.initial.retain(|name, _| !withheld.contains(name));
    }
    let mut federation = Federation {
        clients: clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect(),
        aggregator,
        empty_rounds: setup.aggregation.component.profile().empty_rounds,
        draws: Draws::of(run_dir.path())?,
        evaluators: Evaluators::new(evaluators(names.len(), &plan, services.seed)),
        server: setup.server,
        layout,
        global: setup.initial.into(),
        score: None,
        best: BestModels::new(store, &tasks),
        several_tasks: tasks.len() > 1,
        record: History::new(names),
        done: 0,
        patience: Patience::default(),
        plan: &plan,
        workers: setup.placement.workers,
        totals: Totals::new(begun, setup.placement.workers),
        pause: Pause::new(stop.clone(), pause_after(&plan), setup.placement.workers),
        opening: None,
        positions: tracker.sync()?,
        tracker: &tracker,
        services: &services,
        run_dir,
    };
    if let Some((reader, kept)) = resumed {
        federation.restore(&reader, kept)?;
    }
    federation.run()?;
    save_clients(&mut federation, run_dir)?;
    // A failure of an optional step is reported after everything else is saved.
    let (cross_site, mut late) = match plan.cross_site.then(|| cross_site::evaluate(&mut federation)).transpose() {
        Ok(table) => (table, None),
        Err(failure) if stop.asked() => return Err(failure),
        Err(failure) => {
            stop.cancel.store(false, Ordering::Relaxed);
            (None, Some(failure))
        }
    };
    // From here on clients release the state that a checkpoint would need, so the run can no longer be stopped.
    federation.stop_if_asked()?;
    federation.close();
    if plan.reports() {
        let mut predictions = predictions::Writer::new(run_dir, &setup.description.scales);
        match federation.evaluate(&mut predictions)? {
            None => predictions.finish()?,
            // A file without one of the clients would look complete.
            Some(failure) => {
                drop(predictions);
                late = late.or(Some(failure));
            }
        }
    }
    save_globals(&mut federation, &setup.model, &setup.plan, &setup.placement.devices[0], run_dir)?;
    console.stop();

    let best = federation.best.ranking().overall.is_some();
    let predictions = run_dir.path().join(names::PREDICTIONS).is_file();
    clear::note(&notes, Revealed { metrics: plan.reports(), best, predictions });
    let seconds = federation.totals.seconds();
    let score_name = setup.model.component.profile().score.as_deref();
    run_dir.write_json(names::SUMMARY, &summarize(&federation, &setup.experiment.name, score_name, seconds))?;
    run_dir.finish(&mut |line| console.log(Level::Warn, line))?;
    console.log(Level::Info, &closing(&federation, cross_site.as_deref(), score_name, run_dir, seconds));
    drop(federation);
    drop(setup.dataset);
    let filters = setup.filters.iter().map(|(_, used)| used);
    for LoadedPlugin { component, .. } in [&setup.model, &setup.data, &setup.aggregation].into_iter().chain(filters) {
        // The results are written; plugin authors may want to know about this.
        for mishap in component.mishaps() {
            console.log(Level::Warn, &format!("{component:?}: {}", crate::plugins::validate::line(&mishap)));
        }
    }
    late.map_or(Ok(()), |failure| Err(failure.hint("the rest of the run is complete and saved")))
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
    let services = services(&console, &stop, None, &notes, &journal::NONE, &draft.experiment);
    let mut setup = Setup::new(draft, &finder, &services)?;
    rehearse(&mut setup, &Console::new(options.level.min(Level::Warn)).without_repetition(), &stop)?;
    tell_unjudged(&setup, &console);
    let mut text = opening(&setup, None) + "\n";
    for (client, device) in setup.description.clients.iter().zip(&setup.placement.devices) {
        let tasks = client.tasks.iter().map(|task| format!("{} {}+{}", task.name, task.train, task.test));
        text += &format!("  {} on {device}: {}\n", client.name, tasks.collect::<Vec<_>>().join(", "));
    }
    Ok(text)
}

fn finder(experiment: &Experiment, options: &Options) -> Finder {
    Finder::new(&options.plugin_folders, &experiment.plugin_path)
}

/// Plays a few rounds with the untrained model and discards the results. Returns the parameters that clients keep
/// private.
fn rehearse(setup: &mut Setup, console: &Console, stop: &AtomicBool) -> Result<BTreeSet<String>, CliError> {
    let notes = Notes::default();
    let services = services(console, stop, None, &notes, &journal::NONE, &setup.experiment);
    dry_run::rehearse(setup, &services)
}

fn services<'a>(
    console: &'a Console,
    stop: &'a AtomicBool,
    tracker: Option<&Tracker>,
    notes: &'a Notes,
    journal: &'a Journal,
    experiment: &Experiment,
) -> HostServices<'a> {
    HostServices {
        console,
        reporter: tracker.map_or_else(crate::artefacts::tracking::Reporter::nowhere, Tracker::reporter),
        notes,
        journal,
        stop,
        seed: Seed::new(u64::from(experiment.seed)),
        terms: experiment.federation.terms(),
        threads: experiment.federation.threads_per_client.max(1),
    }
}

/// The time after which clients pause within a round, if checkpoints are not counted in rounds.
fn pause_after(plan: &config::Federation) -> Option<Duration> {
    (plan.checkpoint_every == 0).then(|| Duration::from_secs(plan.checkpoint_after))
}

/// The checkpoint to resume from, if resuming was requested and there is one. The experiment must be unchanged.
fn resume(
    run_dir: &RunDir,
    setup: &Setup,
    manifest: &Value,
    console: &Console,
) -> Result<Option<(Reader, CheckpointIndex)>, CliError> {
    let Some(then) = run_dir.to_resume() else { return Ok(None) };
    if run_dir.path().join(names::SUMMARY).is_file() {
        let report = Diagnostic::new(format!("{}: the run is finished; nothing to resume", run_dir.path().display()));
        let hint = "a finished run keeps no checkpoint: for more rounds, start a run with another name";
        return Err(CliError::usage(report.hint(hint)));
    }
    if let Some(experiment) = run_dir.experiment()? {
        changes::check(&experiment, then, setup, manifest)?;
    }
    let found = Reader::open::<CheckpointIndex>(run_dir.path(), &mut |line| console.log(Level::Warn, line))?;
    let rounds = setup.experiment.federation.rounds;
    match &found {
        None => console.log(Level::Warn, "no checkpoint yet; starting over"),
        Some((_, kept)) if kept.least_rounds() > rounds => {
            let report = Diagnostic::new(format!(
                "`{}`: {rounds}, but more have already been done or started",
                "federation.rounds"
            ));
            return Err(CliError::usage(report.hint(format!("at least {}", kept.least_rounds()))));
        }
        Some(_) => {}
    }
    Ok(found)
}
