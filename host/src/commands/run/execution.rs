//! The steps of a run, from the experiment to the results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Level, Sampling, Seed};
use serde_json::Value;

use super::announcement::{first_line, warn_of_unevaluated};
use super::checkpoint::{self, Checkpoint};
use super::results::{Extras, closing, save_clients, save_extras, save_globals, summary};
use super::{Options, finder, rehearse, services};
use crate::artefacts::journal::Journal;
use crate::artefacts::names::{self, IDLE};
use crate::artefacts::run_dir::RunDir;
use crate::artefacts::tracking::{Positions, Tracker};
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{self, Draft};
use crate::federation::activity::Activity;
use crate::federation::best_models::BestModels;
use crate::federation::clear::{self, Revealed};
use crate::federation::client::Client;
use crate::federation::clients::Clients;
use crate::federation::device_slots::DeviceSlots;
use crate::federation::early_stopping::Patience;
use crate::federation::evaluators::Evaluators;
use crate::federation::failure_policy::FailurePolicy;
use crate::federation::history::History;
use crate::federation::model_evaluation::Validation;
use crate::federation::model_store::Store;
use crate::federation::notes::Notes;
use crate::federation::parked::Parking;
use crate::federation::resume::CheckpointIndex;
use crate::federation::rounds::Federation;
use crate::federation::sampling::{Draws, evaluators, select};
use crate::federation::server::Server;
use crate::federation::services::HostServices;
use crate::federation::totals::Totals;
use crate::plugins::validate;
use crate::setup::manifest;
use crate::setup::placement::Placement;
use crate::setup::plugins::Plugins;
use crate::setup::server_side::ServerSide;
use crate::setup::{Setup, Shared};
use crate::terminal::console::Console;
use crate::terminal::signals::{Pause, Stop};

/// The process that executes a run.
pub(crate) struct Execution {
    /// When the process started.
    pub(crate) begun: Instant,
    /// Whether a stop was requested.
    pub(crate) stop: Stop,
    /// Shows log lines and progress.
    pub(crate) console: Console,
    /// Collects the components' notes.
    pub(crate) notes: Notes,
}

/// A run that is ready for its first round.
pub(crate) struct Ready {
    /// What server and clients both need.
    pub shared: Shared,
    /// What only the server needs.
    pub server: ServerSide,
    /// The device of each client.
    pub devices: Vec<String>,
    /// How many clients work at the same time.
    pub workers: usize,
    /// For the manifest: what each site uses, if the clients are at sites.
    pub sites: Value,
}

impl Ready {
    fn manifest(&self) -> Result<Value, CliError> {
        let mut manifest = manifest::manifest(&self.shared, &self.devices)?;
        if !self.sites.is_null() {
            manifest["sites"] = self.sites.clone();
        }
        Ok(manifest)
    }
}

/// The clients of a run.
pub(crate) struct Joined {
    /// The clients, in the order of aggregation.
    pub clients: Vec<Box<dyn Client>>,
    /// The places on their devices, if these are of this machine.
    pub slots: DeviceSlots,
    /// The parameters that they keep private and that the global model therefore must not contain.
    pub private: BTreeSet<String>,
    /// Where the global model waits for updates, if the clients are at sites.
    pub parking: Option<Arc<Parking>>,
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
    /// Runs the experiment in a directory that this process has locked, with all clients in this process.
    pub(super) fn run(self, run_dir: &mut RunDir, draft: Draft, options: &Options) -> Result<(), CliError> {
        let (setup, private) = self.prepare(draft, options)?;
        let Setup { shared, server, clients: mut side } = setup;
        let Placement { devices, workers } = side.placement.clone();
        let slots = DeviceSlots::new(&devices, shared.experiment.federation.clients_per_device);
        let ready = Ready { shared, server, devices, workers, sites: Value::Null };
        self.conduct(run_dir, ready, |shared, store, services, _| {
            let clients = side.clients(shared, store, services)?;
            let clients = clients.into_iter().map(|client| Box::new(client) as Box<dyn Client>).collect();
            Ok(Joined { clients, slots, private, parking: None })
        })
    }

    /// Runs all rounds and writes the results. `clients` creates the clients.
    pub(crate) fn conduct(
        mut self,
        run_dir: &mut RunDir,
        ready: Ready,
        clients: impl FnOnce(&Shared, &Arc<Store>, &HostServices<'_>, Option<&CheckpointIndex>) -> Result<Joined, CliError>,
    ) -> Result<(), CliError> {
        let manifest = ready.manifest()?;
        let Ready { shared, server, devices, workers, .. } = ready;
        let resumed = checkpoint::find(run_dir, &shared, &manifest, &self.console)?;
        run_dir.begin(&shared.recorded()?, manifest)?;
        let run_dir = &*run_dir;
        self.stop.begin();
        let index = resumed.as_ref().map(|checkpoint| &checkpoint.index);
        self.announce(&shared, workers, index);

        let tracker = Tracker::new(run_dir.path(), &shared.client_names(), index.map(|index| &index.positions))?;
        let journal = Journal::open(run_dir.path())?;
        let silent = services(&self.console, &self.notes, &self.stop.cancel, &shared.experiment);
        let timeout = shared.experiment.federation.progress_timeout;
        let activity = Activity::new(&shared.client_names(), (timeout > 0).then(|| Duration::from_secs(timeout)));
        let services =
            HostServices { reporter: tracker.reporter(), journal: &journal, activity: Some(&activity), ..silent };
        let idle_memory = shared.experiment.federation.idle_memory;
        let store = Arc::new(Store::new(run_dir.path().join(IDLE), idle_memory)?);
        let Joined { clients, slots, private, parking } = clients(&shared, &store, &services, index)?;
        let empty_rounds = server.aggregator_plugin.component.profile().empty_rounds;
        let around = Surroundings {
            shared: &shared,
            workers,
            tracker: &tracker,
            services: &services,
            store: store.clone(),
            run_dir,
        };
        let mut federation = self.federation(server.start(&private), empty_rounds, (clients, slots), &around)?;
        federation.parking = parking.map(|parking| (store.clone(), parking));
        if let Some(Checkpoint { reader, index }) = resumed {
            federation.restore(&reader, index)?;
        }
        let extras = activity.watched(&self.console, || {
            federation.run()?;
            save_clients(&mut federation, run_dir)?;
            let extras = save_extras(&mut federation, &shared.description.scales, &self.stop)?;
            save_globals(&mut federation, &shared, &devices[0], run_dir)?;
            Ok(extras)
        })?;
        self.console.stop();

        self.finish(&federation, &shared, &extras, run_dir)?;
        drop(federation);
        warn_of_drop_panics(&shared.plugins, &self.console);
        extras.failure.map_or(Ok(()), |failure| Err(failure.hint("the rest of the run is complete and saved")))
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
            true => CliError::stopped(Diagnostic::new("stopped on request before the run started")),
            false => failure,
        })?;
        // With Poisson sampling, a private parameter would disappear from the global model once a client that holds it
        // takes part, and the model would reveal who did.
        let secret_draw = matches!(setup.shared.experiment.federation.sampling(), Sampling::Poisson(p) if p < 1.0);
        Ok((setup, if secret_draw { withheld } else { BTreeSet::new() }))
    }

    /// Shows the first line of the run and starts the progress display.
    fn announce(&mut self, shared: &Shared, workers: usize, resumed: Option<&CheckpointIndex>) {
        let Shared { experiment, description, .. } = shared;
        let (federation, clients) = (&experiment.federation, description.clients.len());
        let (done, within) = resumed.map_or((0, 0), |index| (index.done, index.epochs()));
        let drawn = select(clients, federation.fraction, federation.min_clients, Seed::new(0), 0).len();
        let per_round = drawn as u64 * federation.local_epochs;
        self.console.start(clients, federation.rounds * per_round, done * per_round + within);
        self.console.log(Level::Info, &first_line(shared, workers, resumed));
        warn_of_unevaluated(shared, &self.console);
    }

    /// Creates the federation before its first round.
    fn federation<'a>(
        &self,
        server: Server,
        empty_rounds: bool,
        (clients, slots): (Vec<Box<dyn Client>>, DeviceSlots),
        around: &Surroundings<'a>,
    ) -> Result<Federation<'a>, CliError> {
        let Surroundings { shared, workers, tracker, services, ref store, run_dir } = *around;
        let plan = &shared.experiment.federation;
        let names = shared.client_names();
        let tasks: Vec<String> = shared.model_setup.tasks.iter().map(|task| task.name.clone()).collect();
        let policy = FailurePolicy { on_failure: plan.on_client_failure, services };
        let by_validation = shared.validation() == Validation::Whole;
        let evaluators = Evaluators::new(evaluators(clients.len(), plan, services.seed), by_validation);
        Ok(Federation {
            clients: Clients::new(clients, workers, policy).with_slots(slots),
            server,
            parking: None,
            empty_rounds,
            draws: Draws::of(run_dir.path())?,
            evaluators,
            score: None,
            validation_score: None,
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
            forced: Positions::default(),
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
        let chosen = shared.experiment.federation.score.as_deref().map(|name| federation.history.score_name(name));
        let score_name = chosen.as_deref().or(shared.score_name.as_deref());
        let summary = summary(federation, &shared.experiment.name, score_name, seconds);
        run_dir.complete(&summary)?;
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
