//! `fedplug serve`: a run whose clients are at sites of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Level, Sampling};

use crate::artefacts::run_dir::RunDir;
use crate::commands::run::execution::{Execution, Joined, Ready};
use crate::commands::run::{Options, finder, services};
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Draft;
use crate::federation::client::Client;
use crate::federation::notes::Notes;
use crate::sites::agreement::Agreement;
use crate::sites::exposure;
use crate::sites::remote_client::{Admission, RemoteClient};
use crate::sites::superlink::{Link, RunOptions, SuperLink};
use crate::sites::transport::Transport;
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
}

/// Runs an experiment with the clients at their sites.
///
/// # Errors
/// If the experiment is invalid or the run fails.
pub(crate) fn serve(mut draft: Draft, options: &Options, reach: &Reach) -> Result<(), CliError> {
    let begun = Instant::now();
    let stop = Stop::on_signals()?;
    let console = Console::new(options.level);
    let federation = &mut draft.experiment.federation;
    if draft.reports.is_empty() && federation.sites.is_empty() {
        let report = Diagnostic::new("the experiment names no sites: the table `federation.sites` is missing");
        return Err(CliError::usage(report.hint("`fedplug keys` makes a site's key and shows its line")));
    }
    // A site keeps its state after each round, and no more than two of them.
    federation.checkpoint_every = 1;
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
    let (console, level) = (&Console::new(options.level), options.level);
    let link = Arc::new(open(run_dir, &draft, reach, level)?);
    exposure::warn_if_public(&reach.link.url, console);
    let name = draft.experiment.name.clone();
    let state = run_dir.path().join(STATE);
    let outcome = wait_for_sites(&link, &draft, &execution).and_then(|()| {
        let finder = finder(&draft.experiment, options);
        let names: Vec<String> = draft.experiment.federation.sites.keys().cloned().collect();
        let admission = Arc::new(Admission::default());
        let transport: Arc<dyn Transport> = link.clone();
        let remote = |(index, name): (usize, &String)| {
            RemoteClient::new(name.clone(), index, transport.clone(), admission.clone())
        };
        let clients: Vec<RemoteClient> = names.iter().enumerate().map(remote).collect();
        let secret_draw = matches!(draft.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
        let (notes, cancel) = (Notes::default(), execution.stop.cancel.clone());
        let silent = services(console, &notes, &cancel, &draft.experiment);
        let agreement = Agreement::reach(draft, &finder, &clients, &silent)?;
        let beginning = agreement.beginning();
        let Agreement { shared, server, devices, sites, .. } = agreement;
        let ready = Ready { shared, server, devices, workers: names.len(), sites };
        let asked = execution.stop.clone();
        execution.conduct(run_dir, ready, |_, _, services, resumed| {
            let resume = resumed.map(|index| index.trained_at_sites()).unwrap_or_default();
            let withheld = beginning.start(&clients, &resume, services)?;
            if asked.asked() {
                return Err(CliError::stopped(Diagnostic::new("stopped on request before the first round")));
            }
            let clients = clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect();
            Ok(Joined { clients, private: if secret_draw { withheld } else { BTreeSet::new() } })
        })
    });
    let Ok(link) = Arc::try_unwrap(link).map_err(drop) else { return outcome };
    match &outcome {
        Ok(()) => {
            link.finish(true, "done")?;
            let _ = std::fs::remove_dir_all(state);
        }
        // The run stays open for a minute, for the process that resumes it.
        Err(failure) if failure.exit() == crate::error::Exit::Stopped => drop(link),
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
    let federation = &draft.experiment.federation;
    let fingerprint = |(name, value): (&String, &serde_json::Value)| {
        let text = value.as_str().unwrap_or_default();
        (name.clone(), text.strip_prefix("sha256:").unwrap_or(text).to_owned())
    };
    let sites: BTreeMap<String, String> = federation.sites.iter().map(fingerprint).collect();
    let away = (federation.site_timeout > 0).then(|| Duration::from_secs(federation.site_timeout));
    let (link, title, state) = (reach.link.clone(), draft.experiment.name.clone(), run_dir.path().join(STATE));
    let console = Console::new(level);
    SuperLink::open(RunOptions { link, title, state, sites, away, secret }, move |level, line| console.log(level, line))
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
