//! The training rounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Level, Message, Sampling, State};

use crate::artefacts::run_dir::RunDir;
use crate::artefacts::tracking::{Positions, SERVER, Tracker};
use crate::error::{CliError, Diagnostic};
use crate::experiment::config;
use crate::federation::best_models::BestModels;
use crate::federation::client::Outcome;
use crate::federation::clients::Clients;
use crate::federation::component_error::ComponentError;
use crate::federation::early_stopping::Patience;
use crate::federation::evaluators::Evaluators;
use crate::federation::filters::FilterStates;
use crate::federation::history::History;
use crate::federation::model_store::Store;
use crate::federation::parked::Parking;
use crate::federation::sampling::Draws;
use crate::federation::server::{self, Server};
use crate::federation::services::HostServices;
use crate::federation::totals::Totals;
use crate::terminal::signals::Pause;

mod training;

/// The outcomes of a round's clients, by the clients' indices.
pub(crate) type Outcomes = BTreeMap<usize, Outcome>;

/// The states of the server's components at the start of a round.
#[derive(Clone, Debug)]
pub(crate) struct RoundStart {
    /// The aggregator's state.
    pub aggregator: State,
    /// The states of the server's filters.
    pub filters: FilterStates,
}

/// The state of a federation between two rounds.
pub(crate) struct Federation<'a> {
    /// The clients, in the order of aggregation.
    pub clients: Clients<'a>,
    /// The aggregator, the server's filters and the global model.
    pub server: Server,
    /// Where the global model waits for updates if it does not fit in the store's memory; none if the clients are in this
    /// process, which use it meanwhile.
    pub parking: Option<(Arc<Store>, Arc<Parking>)>,
    /// Whether a round without updates counts for the aggregator.
    pub empty_rounds: bool,
    /// The draws of clients for the rounds.
    pub draws: Draws,
    /// The clients that evaluate the global model.
    pub evaluators: Evaluators,
    /// The evaluators' mean score of the most recently evaluated global model.
    pub score: Option<f64>,
    /// The same on the rows for validation, if there are any.
    pub validation_score: Option<f64>,
    /// The best global models so far.
    pub best: BestModels,
    /// Whether the run has several tasks, whose metrics have different units.
    pub several_tasks: bool,
    /// The results of the clients' models so far.
    pub history: History,
    /// The number of finished rounds.
    pub done: u64,
    /// The state of early stopping.
    pub patience: Patience,
    /// The experiment's settings for rounds and clients.
    pub plan: &'a config::Federation,
    /// Time and memory used so far.
    pub totals: Totals,
    /// Decides when clients pause within a round.
    pub pause: Pause,
    /// Within a round, the states of the server's components when it started.
    pub round_start: Option<RoundStart>,
    /// The lengths of the metrics files at the end of the last round.
    pub positions: Positions,
    /// Those that are known to be on the disk.
    pub forced: Positions,
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
            self.round(self.done)?;
            self.done += 1;
            self.positions = self.tracker.sync()?;
            if self.checkpoint_is_due(checkpointed) {
                self.save()?;
                checkpointed = Instant::now();
            }
            self.stop_if_asked()?;
        }
        self.log_early_stop();
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
        let when = match self.round_start {
            Some(_) if !self.is_over() => format!("in round {}", self.done + 1),
            _ => format!("after round {}", self.done),
        };
        Err(CliError::stopped(Diagnostic::new(format!("stopped on request {when}")).hint("resume it with --resume")))
    }

    fn is_over(&self) -> bool {
        self.done >= self.plan.rounds || self.patience.is_over(self.plan.early_stopping.as_ref())
    }

    /// Whether a checkpoint must be written after this round, given when the last one was.
    fn checkpoint_is_due(&self, last: Instant) -> bool {
        let due = match self.plan.checkpoint_every {
            0 => last.elapsed() >= Duration::from_secs(self.plan.checkpoint_after),
            every => self.done.is_multiple_of(every) && !self.is_over(),
        };
        due && !self.pause.is_stop()
    }

    /// Logs that the run ended before its last round.
    fn log_early_stop(&self) {
        if let (true, Some(rule)) = (self.done < self.plan.rounds, &self.plan.early_stopping) {
            let metric = rule.metric(self.evaluators.by_validation());
            let line = format!("stopped after round {}: {} rounds without a better {metric}", self.done, rule.patience);
            self.services.console.log(Level::Info, &line);
        }
    }

    /// Runs one round. Draws clients, which train the global model; the evaluators evaluate it; the aggregate is the
    /// next global model. If no client is drawn, the model does not change, unless empty rounds count for the
    /// aggregator.
    fn round(&mut self, round: u64) -> Result<(), CliError> {
        self.totals.round_begins();
        self.pause.restart();
        let drawn = self.draws.round(round, self.clients.len(), self.plan, self.services.seed)?;
        let (outcomes, next) = if drawn.is_empty() && !self.empty_rounds {
            let line = format!("round {}: no client was drawn; the global model is unchanged", round + 1);
            self.services.console.log(Level::Info, &line);
            (Outcomes::new(), None)
        } else {
            let (outcomes, next) = self.train(round, &drawn)?;
            (outcomes, Some(next))
        };
        let numbers = self.evaluate_round(round, &drawn, &outcomes)?;
        self.replace_global(next);
        self.finish_round(round, &outcomes, numbers)?;
        self.close();
        Ok(())
    }

    /// Replaces the global model, if there is another one.
    fn replace_global(&mut self, next: Option<Message>) {
        if let Some(next) = next {
            self.server.global = next;
            self.parking.iter().for_each(|(_, parking)| parking.set(None));
        }
        self.best.release();
    }

    /// Starts a round. Writes the start with its clients to the journal, and keeps the components' states so that an
    /// interrupted round starts again from here. `what` names the round in errors.
    ///
    /// # Errors
    /// If a component cannot return its state, or the journal cannot be written.
    pub(crate) fn open(&mut self, round: u64, chosen: &[usize], what: &str) -> Result<(), CliError> {
        self.services.journal.begin(round, &self.clients.names_of(chosen))?;
        let states = self.server_states(Some(round));
        self.round_start = Some(states.map_err(|fault| CliError::run(fault.report(what)))?);
        chosen.iter().for_each(|&index| self.clients.get_mut(index).open(round, self.services));
        Ok(())
    }

    /// The current states of the server's components.
    pub(crate) fn server_states(&mut self, round: Option<u64>) -> Result<RoundStart, ComponentError> {
        let scope = server::scope(self.services, None, round);
        let aggregator = self.server.aggregator.call(round, self.services, |aggregator, ctx| aggregator.state(ctx))?;
        Ok(RoundStart { aggregator, filters: self.server.filters.states(&scope)? })
    }

    /// Ends what [`Self::open`] started. Later checkpoints hold the components' current states.
    pub(crate) fn close(&mut self) {
        self.round_start = None;
        self.clients.iter_mut().for_each(|client| client.close());
    }
}

#[cfg(test)]
mod tests;
