//! The steps of a run, from the experiment to the results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Level, Sampling, Seed};

use super::announcement::{first_line, warn_of_unevaluated};
use super::checkpoint::{self, Checkpoint};
use super::results::{Extras, closing, save_clients, save_extras, save_globals, summary};
use super::{Options, finder, rehearse, services};
use crate::artefacts::journal::Journal;
use crate::artefacts::names::{self, IDLE};
use crate::artefacts::run_dir::RunDir;
use crate::artefacts::tracking::Tracker;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{self, Draft};
use crate::federation::best_models::BestModels;
use crate::federation::clear::{self, Revealed};
use crate::federation::client::Client;
use crate::federation::clients::Clients;
use crate::federation::early_stopping::Patience;
use crate::federation::evaluators::Evaluators;
use crate::federation::failure_policy::FailurePolicy;
use crate::federation::history::History;
use crate::federation::local_client::LocalClient;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::resume::CheckpointIndex;
use crate::federation::rounds::Federation;
use crate::federation::sampling::{Draws, evaluators, select};
use crate::federation::server::Server;
use crate::federation::services::HostServices;
use crate::federation::totals::Totals;
use crate::plugins::validate;
use crate::setup::manifest;
use crate::setup::plugins::Plugins;
use crate::setup::{Setup, Shared};
use crate::terminal::console::Console;
use crate::terminal::signals::{Pause, Stop};

/// The process that executes a run.
pub(super) struct Execution {
    /// When the process started.
    pub(super) begun: Instant,
    /// Whether a stop was requested.
    pub(super) stop: Stop,
    /// Shows log lines and progress.
    pub(super) console: Console,
    /// Collects the components' notes.
    pub(super) notes: Notes,
}

/// What a federation refers to.
struct Surroundings<'a> {
    shared: &'a Shared,
    workers: usize,
    tracker: &'a Tracker,
    services: &'a HostServices<'a>,
    store: Arc<Store>,
    run_dir: &'a RunDir,
}

impl Execution {
    /// Runs the experiment in a directory that this process has locked.
    pub(super) fn run(mut self, run_dir: &mut RunDir, draft: Draft, options: &Options) -> Result<(), CliError> {
        let (mut setup, private) = self.prepare(draft, options)?;
        let manifest = manifest::manifest(&setup)?;
        let resumed = checkpoint::find(run_dir, &setup.shared, &manifest, &self.console)?;
        run_dir.begin(&setup.shared.experiment.resolved(), manifest)?;
        let run_dir = &*run_dir;
        self.stop.begin();
        self.announce(&setup, resumed.as_ref().map(|checkpoint| &checkpoint.index));

        let positions = resumed.as_ref().map(|checkpoint| &checkpoint.index.positions);
        let tracker = Tracker::new(run_dir.path(), &setup.shared.client_names(), positions)?;
        let journal = Journal::open(run_dir.path())?;
        let silent = services(&self.console, &self.notes, &self.stop.cancel, &setup.shared.experiment);
        let services = HostServices { reporter: tracker.reporter(), journal: &journal, ..silent };
        let idle_memory = setup.shared.experiment.federation.idle_memory;
        let store = Arc::new(Store::new(run_dir.path().join(IDLE), idle_memory)?);
        let clients = setup.clients.clients(&setup.shared, &store, &services)?;
        let Setup { shared, server, clients: client_side } = setup;
        let placement = &client_side.placement;
        let workers = placement.workers;
        let around = Surroundings { shared: &shared, workers, tracker: &tracker, services: &services, store, run_dir };
        let mut federation = self.federation(server.start(&private), clients, &around)?;
        if let Some(Checkpoint { reader, index }) = resumed {
            federation.restore(&reader, index)?;
        }
        federation.run()?;
        save_clients(&mut federation, run_dir)?;
        let extras = save_extras(&mut federation, &shared.description.scales, &self.stop)?;
        save_globals(&mut federation, &shared, &placement.devices[0], run_dir)?;
        self.console.stop();

        self.finish(&federation, &shared, &extras, run_dir)?;
        drop(federation);
        drop(client_side);
        warn_of_drop_panics(&shared.plugins, &self.console);
        extras.failure.map_or(Ok(()), |failure| Err(failure.hint("everything else of the run is done and saved")))
    }

    /// Sets up the experiment and rehearses it. Also returns the parameters that clients keep private and that the
    /// global model therefore must not contain.
    fn prepare(&self, draft: Draft, options: &Options) -> Result<(Setup, BTreeSet<String>), CliError> {
        let cancel = &self.stop.cancel;
        let finder = finder(&draft.experiment, options);
        let services = services(&self.console, &self.notes, cancel, &draft.experiment);
        let prepared = Setup::new(draft, &finder, &services).and_then(|mut setup| {
            // Components repeat their messages in the first round, so only errors are shown here.
            let withheld = rehearse(&mut setup, &Console::new(Level::Error), cancel)?;
            Ok((setup, withheld))
        });
        let (setup, withheld) = prepared.map_err(|failure| match self.stop.asked() {
            true => CliError::stopped(Diagnostic::new("stopped on request before the run began")),
            false => failure,
        })?;
        // With Poisson sampling, a private parameter would disappear from the global model once a client that holds it
        // takes part, and the model would reveal who did.
        let secret_draw = matches!(setup.shared.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
        Ok((setup, if secret_draw { withheld } else { BTreeSet::new() }))
    }

    /// Shows the first line of the run and starts the progress display.
    fn announce(&mut self, setup: &Setup, resumed: Option<&CheckpointIndex>) {
        let Shared { experiment, description, .. } = &setup.shared;
        let (federation, clients) = (&experiment.federation, description.clients.len());
        let (done, within) = resumed.map_or((0, 0), |index| (index.done, index.epochs()));
        let drawn = select(clients, federation.fraction, federation.min_clients, Seed::new(0), 0).len();
        let per_round = drawn as u64 * federation.local_epochs;
        self.console.start(clients, federation.rounds * per_round, done * per_round + within);
        self.console.log(Level::Info, &first_line(setup, resumed));
        warn_of_unevaluated(&setup.shared, &self.console);
    }

    /// Creates the federation before its first round.
    fn federation<'a>(
        &self,
        server: Server,
        clients: Vec<LocalClient>,
        around: &Surroundings<'a>,
    ) -> Result<Federation<'a>, CliError> {
        let Surroundings { shared, workers, tracker, services, ref store, run_dir } = *around;
        let plan = &shared.experiment.federation;
        let names = shared.client_names();
        let tasks: Vec<String> = shared.model_setup.tasks.iter().map(|task| task.name.clone()).collect();
        let policy = FailurePolicy { on_failure: plan.on_client_failure, services };
        let evaluators = Evaluators::new(evaluators(clients.len(), plan, services.seed));
        let clients = clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect();
        Ok(Federation {
            clients: Clients::new(clients, workers, policy),
            server,
            empty_rounds: shared.plugins.aggregator.component.profile().empty_rounds,
            draws: Draws::of(run_dir.path())?,
            evaluators,
            score: None,
            best: BestModels::new(store.clone(), &tasks),
            several_tasks: tasks.len() > 1,
            history: History::new(names),
            done: 0,
            patience: Patience::default(),
            plan,
            totals: Totals::new(self.begun, workers),
            pause: Pause::new(self.stop.clone(), pause_after(plan), workers),
            round_start: None,
            positions: tracker.sync()?,
            tracker,
            services,
            run_dir,
        })
    }

    /// Writes the summary, marks the run as finished, and shows the results.
    fn finish(
        &self,
        federation: &Federation<'_>,
        shared: &Shared,
        extras: &Extras,
        run_dir: &RunDir,
    ) -> Result<(), CliError> {
        let best = federation.best.ranking().overall.is_some();
        let predictions = run_dir.path().join(names::PREDICTIONS).is_file();
        clear::note(&self.notes, Revealed { metrics: federation.plan.reports(), best, predictions });
        let seconds = federation.totals.seconds();
        let score_name = shared.plugins.model.component.profile().score.as_deref();
        let summary = summary(federation, &shared.experiment.name, score_name, seconds);
        run_dir.write_json(names::SUMMARY, &summary)?;
        run_dir.finish(&mut |line| self.console.log(Level::Warn, line))?;
        let cross_site = extras.cross_site.as_deref();
        self.console.log(Level::Info, &closing(federation, cross_site, score_name, run_dir, seconds));
        Ok(())
    }
}

/// The time after which clients pause within a round, if checkpoints are not counted in rounds.
fn pause_after(plan: &config::Federation) -> Option<Duration> {
    (plan.checkpoint_every == 0).then(|| Duration::from_secs(plan.checkpoint_after))
}

/// Warns of panics while components were dropped. The results are written; plugin authors may want to know about this.
fn warn_of_drop_panics(plugins: &Plugins, console: &Console) {
    for plugin in plugins.iter() {
        let component = &plugin.component;
        for panic in component.mishaps() {
            console.log(Level::Warn, &format!("{component:?}: {}", validate::line(&panic)));
        }
    }
}
