//! The training rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plugin_api::{Aggregator, Cohort, ErrorKind, Level, Message, Sampling, Stage, Update};

use crate::artefacts::run_dir::RunDir;
use crate::artefacts::tracking::{Positions, SERVER, Tracker};
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{self, OnClientFailure};
use crate::federation::absent;
use crate::federation::best_models::BestModels;
use crate::federation::checkpoint_entries::Opening;
use crate::federation::client::{Client, Outcome};
use crate::federation::early_stopping::Patience;
use crate::federation::exchange::{Exchange, pick};
use crate::federation::filters::FilterChain;
use crate::federation::history::History;
use crate::federation::ordered_pool::{ahead, in_order};
use crate::federation::orders::Orders;
use crate::federation::sampling::Draws;
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::federation::totals::Totals;
use crate::plugins::validate::{self, Layout};
use crate::terminal::signals::Pause;

/// The outcomes of a round's clients, each with the client's index, in order.
pub(crate) type Outcomes = Vec<(usize, Outcome)>;

/// The clients that evaluate every round's global model.
#[derive(Debug, Default)]
pub(crate) struct Evaluators {
    /// Their indices, sorted.
    pub(super) places: Vec<usize>,
    /// Evaluators that have failed. Only the first failure of each is reported.
    pub(super) failed: BTreeSet<usize>,
    /// Whether a warning has reported that some evaluators are missing.
    pub(super) told: bool,
}

impl Evaluators {
    /// Creates the set from client indices, which must be sorted.
    pub(crate) fn new(places: Vec<usize>) -> Self {
        Self { places, ..Self::default() }
    }
}

/// The state of a federation between two rounds.
pub(crate) struct Federation<'a> {
    /// The clients, in the order of aggregation.
    pub clients: Vec<Box<dyn Client>>,
    /// The aggregator and its plugin's name.
    pub aggregator: (String, Box<dyn Aggregator>),
    /// Whether a round without updates counts for the aggregator.
    pub empty_rounds: bool,
    /// The draws of clients for the rounds.
    pub draws: Draws,
    /// The clients that evaluate the global model.
    pub evaluators: Evaluators,
    /// The server's filters on incoming and on outgoing messages.
    pub server: [FilterChain; 2],
    /// The global model.
    pub global: Message,
    /// The evaluators' mean score of the most recently evaluated global model.
    pub score: Option<f64>,
    /// The layout that updates and global models must match.
    pub layout: Layout,
    /// The best global models so far.
    pub best: BestModels,
    /// Whether the run has several tasks, whose metrics have different units.
    pub several_tasks: bool,
    /// The results of the clients' models so far.
    pub record: History,
    /// The number of finished rounds.
    pub done: u64,
    /// The state of early stopping.
    pub patience: Patience,
    /// The experiment's settings for rounds and clients.
    pub plan: &'a config::Federation,
    /// The number of clients that work at the same time.
    pub workers: usize,
    /// Time and memory used so far.
    pub totals: Totals,
    /// Decides when clients pause within a round.
    pub pause: Pause,
    /// Within a round, the states of the server's components when it started.
    pub opening: Option<Opening>,
    /// The lengths of the metrics files at the end of the last round.
    pub positions: Positions,
    /// The tracker that writes scalars.
    pub tracker: &'a Tracker,
    /// The services that components may call.
    pub services: &'a HostServices<'a>,
    /// The run's directory, for checkpoints.
    pub run_dir: &'a RunDir,
}

impl Federation<'_> {
    /// Runs the remaining rounds.
    ///
    /// # Errors
    /// If a component fails, a file cannot be written, or the run is asked to stop.
    pub(crate) fn run(&mut self) -> Result<(), CliError> {
        self.note_terms();
        let mut checkpointed = Instant::now();
        while !self.is_over() {
            self.totals.round_begins();
            self.pause.restart();
            self.round(self.done)?;
            self.close();
            self.done += 1;
            self.positions = self.tracker.sync()?;
            let due = match self.plan.checkpoint_every {
                0 => checkpointed.elapsed() >= Duration::from_secs(self.plan.checkpoint_after),
                every => self.done.is_multiple_of(every) && !self.is_over(),
            };
            if due && !self.pause.is_stop() {
                self.save()?;
                checkpointed = Instant::now();
            }
            self.stop_if_asked()?;
        }
        if let (true, Some(rule)) = (self.done < self.plan.rounds, &self.plan.early_stopping) {
            let line =
                format!("stopped after round {}: {} rounds without a better {}", self.done, rule.patience, rule.metric);
            self.services.console.log(Level::Info, &line);
        }
        Ok(())
    }

    /// Notes for the summary how clients are sampled and what is not reported.
    fn note_terms(&self) {
        let note = |key: &str, text: &str| self.services.notes.set(SERVER, "fedplug", key, text);
        if let Sampling::Poisson(probability) = self.plan.sampling()
            && probability < 1.0
        {
            let how =
                format!("each client joined each round with probability {probability}, drawn with secret randomness");
            note("sampling", &format!("{how}: another run of this experiment will give different results"));
        }
        if !self.plan.reports() {
            note(
                "report",
                "metrics, scores, predictions, norms and bytes of clients were not reported; the last model is the \
                 result",
            );
        }
    }

    /// Ends the run with a checkpoint if a stop was requested.
    ///
    /// # Errors
    /// If a stop was requested, or the checkpoint cannot be written.
    pub(crate) fn stop_if_asked(&mut self) -> Result<(), CliError> {
        if !self.pause.is_stop() {
            return Ok(());
        }
        self.save()?;
        let place = match self.opening {
            Some(_) if !self.is_over() => format!("in round {}", self.done + 1),
            _ => format!("after round {}", self.done),
        };
        Err(CliError::stopped(Diagnostic::new(format!("stopped on request {place}")).hint("resume it with --resume")))
    }

    fn is_over(&self) -> bool {
        self.done >= self.plan.rounds || self.patience.is_over(self.plan.early_stopping.as_ref())
    }

    /// Runs one round. Draws clients, which train the global model; the evaluators evaluate it; the aggregate is the
    /// next global model. If no client is drawn, the model does not change, unless empty rounds count for the
    /// aggregator.
    fn round(&mut self, round: u64) -> Result<(), CliError> {
        let drawn = self.draws.round(round, self.clients.len(), self.plan, self.services.seed)?;
        let (outcomes, next) = if drawn.is_empty() && !self.empty_rounds {
            let line = format!("round {}: no client was drawn; the global model is unchanged", round + 1);
            self.services.console.log(Level::Info, &line);
            (Vec::new(), None)
        } else {
            let (outcomes, next) = self.train(round, drawn.clone())?;
            (outcomes, Some(next))
        };
        let numbers = self.judge_global(round, &drawn, &outcomes)?;
        self.global = next.unwrap_or_else(|| std::mem::take(&mut self.global));
        self.best.release();
        self.judge(round, &outcomes, numbers)
    }

    /// Trains the global model at the chosen clients and returns their outcomes and the next global model. Each client
    /// receives the global model through the filters, evaluates, trains and evaluates. Its update returns through the
    /// filters and is aggregated in the order of clients. The aggregator may query the clients before and after their
    /// work.
    fn train(&mut self, round: u64, mut chosen: Vec<usize>) -> Result<(Outcomes, Message), CliError> {
        let services = self.services;
        let place = format!("round {}", round + 1);
        let cohort =
            Cohort::new(chosen.iter().map(|&k| self.clients[k].name().to_owned()).collect(), self.clients.len());
        let plugin = self.aggregator.0.clone();
        let at_server = CallScope::new(services, &plugin, None, Some(round));
        let ctx = at_server.context();
        let failed = |error| CliError::run(ComponentError::new(format!("aggregator `{plugin}`"), error).report(&place));
        self.open(round, &chosen, &place)?;
        let aggregator = &mut self.aggregator.1;
        aggregator.begin(&self.global, &cohort, &ctx).map_err(failed)?;
        let policy = self.plan.on_client_failure;
        let lost = |fault: ComponentError, client: &str| {
            handle_client_failure(&fault, &format!("{place}, client `{client}`"), policy, services)
        };
        let mut asked = Exchange { clients: &mut self.clients, round, services, workers: self.workers };
        let encoded = asked.run_queries(&mut **aggregator, Stage::Opening, &mut chosen, &ctx, &failed, &lost)?;
        let names: Vec<String> = chosen.iter().map(|&place| self.clients[place].name().to_owned()).collect();

        let (mut outcomes, mut heard, mut withheld) = (Vec::new(), Vec::new(), BTreeSet::new());
        // `pending` and `next` are positions in `chosen`: of the clients that are not done, and of the next one to
        // aggregate. `ready` holds outcomes that arrived before their turn.
        let (mut pending, mut next) = ((0..chosen.len()).collect::<Vec<_>>(), 0);
        let mut ready: BTreeMap<usize, Result<Outcome, ComponentError>> = BTreeMap::new();
        // The number of orders made, and the orders of clients that have started but are not done.
        let (mut made, held) = (0, Mutex::new(BTreeMap::new()));
        loop {
            let (aggregator, pause) = (&mut self.aggregator.1, &self.pause);
            let ([input, output], global, layout) = (&mut self.server, &self.global, &self.layout);
            let orders = Orders::new(round, self.plan.local_epochs, global, output, services).after(made);
            let held = || held.lock().unwrap_or_else(PoisonError::into_inner);
            let work = |index: usize, client: &mut &mut Box<dyn Client>| {
                let place = pending[index];
                let before = held().remove(&place);
                let order = match before {
                    Some(order) => Some(order),
                    None => orders.order(place, (chosen[place], client.name()), &|| pause.is_due())?,
                };
                let Some(order) = order else { return Ok(None) };
                let outcome = client.round(&order, pause, services).transpose();
                match &outcome {
                    Some(_) => services.reporter.client_done(chosen[place]),
                    None => drop(held().insert(place, order)),
                }
                Ok(outcome)
            };
            let mut take = |index: usize, outcome: Result<Outcome, ComponentError>| {
                let client = &names[index];
                let scope = CallScope::new(services, "server", Some((chosen[index], client)), Some(round));
                let filtered = outcome.and_then(|mut outcome| {
                    let crossed = absent::names(&outcome.message.params);
                    let message = input.apply(std::mem::take(&mut outcome.message), global, &scope)?;
                    validate::update(layout, global, &message, encoded)
                        .map_err(|e| ComponentError::new("update".to_owned(), e))?;
                    let withheld = outcome.withheld.iter().cloned().chain(crossed);
                    outcome.withheld = absent::missing(withheld, &message.params);
                    Ok((message, outcome))
                });
                let (message, mut outcome) = match filtered {
                    Ok(filtered) => filtered,
                    Err(fault) => return lost(fault, client),
                };
                let update =
                    Update { client: client.to_owned(), message, steps: outcome.steps, examples: outcome.examples };
                match aggregator.add(update, &ctx) {
                    Ok(()) => {}
                    Err(error) if *error.kind() == ErrorKind::Panic => return Err(failed(error)),
                    // By its contract, the aggregator keeps no trace of an update that it refuses. So the client
                    // failed, not the aggregator.
                    Err(error) => return lost(ComponentError::new(format!("aggregator `{plugin}`"), error), client),
                }
                withheld.append(&mut std::mem::take(&mut outcome.withheld).into_iter().collect());
                heard.push(chosen[index]);
                outcomes.push((chosen[index], outcome));
                Ok(())
            };
            let places: Vec<usize> = pending.iter().map(|&place| chosen[place]).collect();
            let mut at_work = pick(&mut self.clients, &places);
            let mut paused = Vec::new();
            let ahead = ahead(self.workers, global.bytes());
            in_order((self.workers, ahead), &mut at_work, work, |index, outcome: Result<_, CliError>| {
                match outcome.inspect_err(|_| services.stop.store(true, Ordering::Relaxed))? {
                    Some(outcome) => drop(ready.insert(pending[index], outcome)),
                    None => paused.push(pending[index]),
                }
                while let Some(outcome) = ready.remove(&next) {
                    take(next, outcome)?;
                    next += 1;
                }
                Ok(())
            })?;
            (pending, made) = (paused, orders.made());
            if pending.is_empty() {
                break;
            }
            self.stop_if_asked()?;
            self.save()?;
            self.pause.restart();
        }
        let may_be_empty = self.empty_rounds && matches!(self.plan.sampling(), Sampling::Poisson(_));
        if outcomes.is_empty() && !may_be_empty {
            return Err(CliError::run(Diagnostic::new(format!("{place}: every client failed"))));
        }
        if outcomes.len() < self.plan.min_clients && !may_be_empty {
            let report = Diagnostic::new(format!("{place}: only {} clients sent an update", outcomes.len()));
            return Err(CliError::run(report.hint(format!("`federation.min-clients` is {}", self.plan.min_clients))));
        }
        let aggregator = &mut self.aggregator.1;
        let mut asked = Exchange { clients: &mut self.clients, round, services, workers: self.workers };
        let taken = heard.clone();
        asked.run_queries(&mut **aggregator, Stage::Closing, &mut heard, &ctx, &failed, &lost)?;
        let mut next =
            aggregator.finish(&ctx).and_then(|next| validate::aggregated(&self.layout, next)).map_err(failed)?;
        absent::complete(&mut next.params, &self.global.params, &withheld);
        taken.into_iter().for_each(|place| self.clients[place].taken(round));
        Ok((outcomes, next))
    }

    /// Starts a round. Writes the start with its clients to the journal, and keeps the components' states so that an
    /// interrupted round starts again from here.
    ///
    /// # Errors
    /// If a component cannot return its state, or the journal cannot be written.
    pub(crate) fn open(&mut self, round: u64, chosen: &[usize], place: &str) -> Result<(), CliError> {
        let names: Vec<String> = chosen.iter().map(|&place| self.clients[place].name().to_owned()).collect();
        self.services.journal.begin(round, &names)?;
        let (plugin, aggregator) = &mut self.aggregator;
        let scope = CallScope::new(self.services, plugin, None, Some(round));
        let failed = |fault: ComponentError| CliError::run(fault.report(place));
        let state = aggregator.state(&scope.context());
        let aggregator = state.map_err(|e| failed(ComponentError::new(format!("aggregator `{plugin}`"), e)))?;
        let [input, output] = &mut self.server;
        let server = [input.states(&scope).map_err(failed)?, output.states(&scope).map_err(failed)?];
        self.opening = Some(Opening { aggregator, server });
        chosen.iter().for_each(|&place| self.clients[place].open(round, self.services));
        Ok(())
    }

    /// Ends what [`Self::open`] started. Later checkpoints hold the components' current states.
    pub(crate) fn close(&mut self) {
        self.opening = None;
        self.clients.iter_mut().for_each(|client| client.close());
    }
}

/// Handles a client's failure by policy: logs a warning and continues without the client, or ends the run.
///
/// # Errors
/// If the run ends.
pub(crate) fn handle_client_failure(
    fault: &ComponentError,
    place: &str,
    policy: OnClientFailure,
    services: &HostServices<'_>,
) -> Result<(), CliError> {
    let report = fault.report(place);
    if policy == OnClientFailure::LeaveOut && !fault.is_cancelled() {
        services.console.log(Level::Warn, &format!("left out: {}", report.message()));
        return Ok(());
    }
    // The other clients need not finish work that will not be used.
    let asked = services.stop.swap(true, Ordering::Relaxed);
    Err(if asked && fault.is_cancelled() {
        let hint = "resume it with --resume, from the last checkpoint if there is one";
        CliError::stopped(Diagnostic::new("stopped on request").hint(hint))
    } else {
        CliError::run(report)
    })
}

#[cfg(test)]
mod tests;
