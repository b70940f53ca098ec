//! `fedplug serve`: a run whose clients are at sites of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedplug_superlink::Peer;
use plugin_api::{Level, Sampling};

use crate::artefacts::run_dir::RunDir;
use crate::commands::run::execution::{Execution, Joined, Ready};
use crate::commands::run::{Options, finder, services};
use crate::error::{CliError, Diagnostic, Exit};
use crate::experiment::config::{Draft, FlowerApp, Site};
use crate::federation::admission::Admission;
use crate::federation::client::Client;
use crate::federation::device_slots::DeviceSlots;
use crate::federation::notes::Notes;
use crate::federation::parked::Parking;
use crate::federation::resume::CheckpointIndex;
use crate::sites::agreement::Agreement;
use crate::sites::exposure;
use crate::sites::flower::FlowerModel;
use crate::sites::flower_client::{self, FlowerClient, FlowerClients};
use crate::sites::remote_client::RemoteClient;
use crate::sites::superlink::{Link, RunOptions, SuperLink};
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

/// The folder, in a run's directory, for what must survive the process.
const STATE: &str = "superlink";

/// How often to look who is online.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often to say who is missing.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// The sites of a run: how to reach them.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// The SuperLink.
    pub link: Link,
    /// A file with the SuperLink's secret.
    pub secret: Option<PathBuf>,
    /// The bundle with the app of plain Flower clients.
    pub bundle: Option<PathBuf>,
}

/// Runs an experiment with the clients at their sites.
///
/// # Errors
/// If the experiment is invalid or the run fails.
pub(crate) fn serve(mut draft: Draft, options: &Options, reach: &Reach) -> Result<(), CliError> {
    let begun = Instant::now();
    let stop = Stop::on_signals()?;
    let console = Console::new(options.level);
    check_sites(&draft, reach)?;
    // A site keeps its state after each round, and no more than two of them.
    draft.experiment.federation.checkpoint_every = 1;
    let mut warn = |line: &str| console.log(Level::Warn, line);
    let mut run_dir = RunDir::claim(&options.output, &draft.experiment.name, options.existing, &mut warn)?;
    let execution = Execution { begun, stop, console, notes: Notes::default() };
    let outcome = serve_in(execution, &mut run_dir, draft, options, reach);
    outcome.map_err(|failure| match run_dir.replaces() {
        Some(aside) => failure.hint(&format!("the replaced run was not removed: {}", aside.display())),
        None => failure,
    })
}

fn serve_in(
    execution: Execution,
    run_dir: &mut RunDir,
    draft: Draft,
    options: &Options,
    reach: &Reach,
) -> Result<(), CliError> {
    let link = Arc::new(open(run_dir, &draft, reach, options.level)?);
    exposure::warn_if_public(&reach.link.url, &execution.console);
    let (name, state) = (draft.experiment.name.clone(), run_dir.path().join(STATE));
    let outcome = wait_for_sites(&link, &draft, &execution)
        .and_then(|()| conduct(execution, run_dir, draft, options, link.clone()));
    match Arc::try_unwrap(link) {
        Ok(link) => end(link, &name, &state, outcome),
        // Nobody else holds it any more; if so, the run ends with the process.
        Err(_) => outcome,
    }
}

/// Agrees with the sites, and runs all rounds.
fn conduct(
    execution: Execution,
    run_dir: &mut RunDir,
    draft: Draft,
    options: &Options,
    link: Arc<SuperLink>,
) -> Result<(), CliError> {
    let console = Console::new(options.level);
    let (notes, stop) = (Notes::default(), execution.stop.clone());
    let finder = finder(&draft.experiment, options);
    let silent = services(&console, &notes, &stop.cancel, &draft.experiment);
    let secret_draw = matches!(draft.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
    let parking = Arc::new(Parking::default());
    let admission = Arc::new(Admission::new(parking.clone()));
    let sites = draft.experiment.federation.site_list();
    let remote =
        |(index, site): (usize, &Site)| RemoteClient::new(site.name.clone(), index, link.clone(), admission.clone());
    let own = |(_, site): &(usize, &Site)| site.flower.is_none();
    let clients: Vec<RemoteClient> = sites.iter().enumerate().filter(own).map(remote).collect();
    let agreement = Agreement::reach(draft, &finder, &clients, &silent)?;
    let beginning = agreement.beginning();
    let Agreement { shared, server, devices, sites: used, .. } = agreement;
    let task = match shared.description.tasks.as_slice() {
        [task] => Some(task.name.clone()),
        _ => None,
    };
    let model = FlowerModel::of(&server.initial);
    if sites.iter().any(|site| site.flower == Some(FlowerApp::Numpy)) {
        console.log(Level::Debug, &model.order());
    }
    let common = Arc::new(FlowerClients { transport: link, admission, model, task });
    let ready = Ready { shared, server, devices, workers: sites.len(), sites: used };
    execution.conduct(run_dir, ready, |_, _, services, resumed| {
        let resume = resumed.map(CheckpointIndex::trained_at_sites).unwrap_or_default();
        let withheld = beginning.start(&clients, &resume, &|| stop.asked(), services)?;
        let mut remote = clients.into_iter();
        let client = |(index, site): (usize, Site)| -> Option<Box<dyn Client>> {
            match site.flower {
                Some(app) => Some(Box::new(FlowerClient::new(site.name, index, app.into(), common.clone()))),
                None => remote.next().map(|client| Box::new(client) as _),
            }
        };
        let clients = sites.into_iter().enumerate().filter_map(client).collect();
        let private = if secret_draw { withheld } else { BTreeSet::new() };
        Ok(Joined { clients, slots: DeviceSlots::default(), private, parking: Some(parking) })
    })
}

/// Ends the run on the SuperLink as it ended here.
fn end(link: SuperLink, name: &str, state: &Path, outcome: Result<(), CliError>) -> Result<(), CliError> {
    match &outcome {
        Ok(()) => {
            link.finish(true, "done")?;
            let _ = std::fs::remove_dir_all(state);
        }
        // The run stays open for a minute, for the process that resumes it.
        Err(failure) if failure.exit() == Exit::Stopped => drop(link),
        Err(failure) => {
            let line = failure.reports().first().map(Diagnostic::line).unwrap_or_default();
            // The failure itself is what matters.
            let _ = link.finish(false, &format!("{name}: {line}"));
        }
    }
    outcome
}

fn open(run_dir: &RunDir, draft: &Draft, reach: &Reach, level: Level) -> Result<SuperLink, CliError> {
    let secret = match &reach.secret {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|e| CliError::io(path, "read the secret", &e))?),
    };
    let bundle = match &reach.bundle {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|e| CliError::io(path, "read the bundle", &e))?),
    };
    let federation = &draft.experiment.federation;
    let peer = |Site { name, fingerprint, flower }| match flower {
        None => (name, Peer::Fedplug(fingerprint)),
        Some(_) => (name, Peer::Flower(fingerprint)),
    };
    let sites = federation.site_list().into_iter().map(peer).collect();
    let away = (federation.site_timeout > 0).then(|| Duration::from_secs(federation.site_timeout));
    let (link, title, state) = (reach.link.clone(), draft.experiment.name.clone(), run_dir.path().join(STATE));
    let console = Console::new(level);
    let options = RunOptions { link, title, state, sites, bundle, away, secret };
    SuperLink::open(options, move |level, line| console.log(level, line))
}

/// Checks what the experiment says of the sites, before any of them is waited for.
fn check_sites(draft: &Draft, reach: &Reach) -> Result<(), CliError> {
    let federation = &draft.experiment.federation;
    if draft.is_whole() && federation.sites.is_empty() {
        let report = Diagnostic::new("the experiment names no sites: the table `federation.sites` is missing");
        return Err(CliError::usage(report.hint("`fedplug keys` makes a site's key and shows its line")));
    }
    let plain = federation.site_list().into_iter().find(|site| site.flower.is_some());
    let mut reports = draft.reports.clone();
    reports.extend(flower_client::problems(&draft.experiment));
    match (plain, &reach.bundle) {
        (Some(site), None) => {
            let report =
                Diagnostic::new(format!("site `{}` is a plain Flower client, and there is no bundle", site.name));
            reports.push(report.hint("`flwr build` makes a bundle of its app; name it with --bundle"));
        }
        (None, Some(path)) if draft.is_whole() => {
            let what = "the experiment names no plain Flower client that would run it";
            let report = Diagnostic::new(format!("{}: {what}", path.display()));
            reports.push(report.hint(
                "such a client is a table in `federation.sites`: `{ key = \"sha256:…\", flower = \"message\" }`",
            ));
        }
        _ => {}
    }
    if reports.is_empty() { Ok(()) } else { Err(CliError::usage(reports)) }
}

/// Waits until all sites are online.
fn wait_for_sites(link: &SuperLink, draft: &Draft, execution: &Execution) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut said: Option<Instant> = None;
    let timeout = draft.experiment.federation.site_timeout;
    loop {
        let missing = link.missing()?;
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if execution.stop.asked() {
            return Err(CliError::stopped(Diagnostic::new(format!("stopped on request while waiting for {names}"))));
        }
        if timeout > 0 && begun.elapsed() >= Duration::from_secs(timeout) {
            let report = Diagnostic::new(format!("no sign of the sites {names} in {timeout} s"));
            return Err(CliError::run(report.hint("`federation.site-timeout` says how long to wait")));
        }
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            execution.console.log(Level::Info, &format!("waiting for the sites {names}"));
            said = Some(Instant::now());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
