//! One round of training: orders leave, clients work, updates arrive and are aggregated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use plugin_api::{Cohort, Message, Sampling, Stage, Update};

use super::{Federation, Outcomes};
use crate::error::{CliError, Diagnostic};
use crate::federation::aggregation::NamedAggregator;
use crate::federation::client::{Client, Order, Outcome};
use crate::federation::component_error::ComponentError;
use crate::federation::failure_policy::{RoundFailures, TrainingFailures};
use crate::federation::filters::Filters;
use crate::federation::orders::Orders;
use crate::federation::server::{self, Receiver, Server};
use crate::federation::services::{ClientRef, HostServices};

/// The clients that were drawn for a round and are still present.
struct Participants {
    /// Their indices, sorted.
    clients: Vec<usize>,
    names: Vec<String>,
    /// Whether they may encode their updates for the aggregator.
    encoded: bool,
}

impl Participants {
    /// A client, by its position among the participants.
    fn at(&self, position: usize) -> ClientRef<'_> {
        ClientRef { index: self.clients[position], name: &self.names[position] }
    }
}

/// The updates that the aggregator has taken.
#[derive(Default)]
struct Arrivals {
    /// The outcomes, without their messages.
    outcomes: Outcomes,
    /// The names of the parameters that these clients withheld.
    withheld: BTreeSet<String>,
}

/// The clients' work in a round, across pauses. Clients are positions among the participants.
struct Work {
    /// The clients that are not done.
    pending: Vec<usize>,
    /// The orders of clients that have started but are not done.
    started: Mutex<BTreeMap<usize, Order>>,
    /// The number of orders made.
    ordered: usize,
    /// Outcomes that arrived before those of earlier clients.
    early: BTreeMap<usize, Result<Outcome, ComponentError>>,
    /// The client whose outcome is taken next.
    next: usize,
}

impl Work {
    fn new(clients: usize) -> Self {
        let (started, early) = (Mutex::default(), BTreeMap::new());
        Self { pending: (0..clients).collect(), started, ordered: 0, early, next: 0 }
    }

    /// The next outcome in the order of clients, if it has arrived.
    fn take_next(&mut self) -> Option<(usize, Result<Outcome, ComponentError>)> {
        let outcome = self.early.remove(&self.next)?;
        self.next += 1;
        Some((self.next - 1, outcome))
    }
}

impl Federation<'_> {
    /// Trains the global model at the drawn clients and returns their outcomes and the next global model. Each client
    /// receives the global model through the filters, evaluates, trains and evaluates. Its update returns through the
    /// filters and is aggregated in the order of clients. The aggregator may query the clients before and after their
    /// work.
    pub(super) fn train(&mut self, round: u64, drawn: &[usize]) -> Result<(Outcomes, Message), CliError> {
        let failures = TrainingFailures { policy: self.clients.policy, round: format!("round {}", round + 1) };
        self.open(round, drawn, &failures.round)?;
        self.park_global()?;
        let cohort = Cohort::new(self.clients.names_of(drawn), self.clients.len());
        self.server.begin(round, &cohort, self.services).map_err(|fault| failures.of_aggregator(fault))?;
        let participants = self.open_queries(round, drawn, &failures)?;
        let Arrivals { outcomes, withheld } = self.collect_updates(round, &participants, &failures)?;
        self.require_enough(outcomes.len(), &failures.round)?;
        let mut present = outcomes.keys().copied().collect();
        self.clients.run_queries(&mut self.server.aggregator, Stage::Closing, &mut present, round, &failures)?;
        let next =
            self.server.finish(round, &withheld, self.services).map_err(|fault| failures.of_aggregator(fault))?;
        outcomes.keys().for_each(|&index| self.clients.get_mut(index).update_aggregated(round));
        Ok((outcomes, next))
    }

    /// Moves the global model to a file if it is to wait there. The aggregator gets the one in the file as well.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn park_global(&mut self) -> Result<(), CliError> {
        if let Some((store, parking)) = self.parking.as_ref().filter(|(_, parking)| parking.is_free())
            && let Some((parked, global)) = store.park(&self.server.global)?
        {
            self.server.global = global;
            parking.set(Some(parked));
        }
        Ok(())
    }

    /// Lets the aggregator query the drawn clients. Returns those that have not failed.
    fn open_queries(
        &mut self,
        round: u64,
        drawn: &[usize],
        failures: &TrainingFailures<'_>,
    ) -> Result<Participants, CliError> {
        let mut clients = drawn.to_vec();
        let aggregator = &mut self.server.aggregator;
        let encoded = self.clients.run_queries(aggregator, Stage::Opening, &mut clients, round, failures)?;
        Ok(Participants { names: self.clients.names_of(&clients), clients, encoded })
    }

    /// Lets the participants work and passes their updates to the aggregator, with a checkpoint at each pause.
    fn collect_updates(
        &mut self,
        round: u64,
        participants: &Participants,
        failures: &TrainingFailures<'_>,
    ) -> Result<Arrivals, CliError> {
        let mut work = Work::new(participants.clients.len());
        let mut arrivals = Arrivals::default();
        loop {
            self.work_until_pause(round, participants, failures, &mut work, &mut arrivals)?;
            if work.pending.is_empty() {
                return Ok(arrivals);
            }
            self.stop_if_asked()?;
            self.save()?;
            self.pause.restart();
        }
    }

    /// Lets the participants work until all are done or paused. Takes the updates that arrive.
    fn work_until_pause(
        &mut self,
        round: u64,
        participants: &Participants,
        failures: &TrainingFailures<'_>,
        work: &mut Work,
        arrivals: &mut Arrivals,
    ) -> Result<(), CliError> {
        let (services, pause) = (self.services, &self.pause);
        let Server { aggregator, filters: Filters { input, output }, global, layout } = &mut self.server;
        let global = &*global;
        let orders = Orders::new(round, self.plan.local_epochs, global, output, services).after(work.ordered);
        let receiver = Receiver { filters: input, global, layout, encoded: participants.encoded };
        let mut intake = Intake { round, receiver, aggregator, failures, services, arrivals };
        let pending = std::mem::take(&mut work.pending);
        let started = std::mem::take(&mut work.started);
        let clients: Vec<usize> = pending.iter().map(|&position| participants.clients[position]).collect();
        let round_of = |index: usize, client: &mut dyn Client| {
            let position = pending[index];
            let due = || pause.is_due();
            let Some(order) =
                started_or(&started, position, || orders.order(position, participants.at(position), &due))?
            else {
                return Ok(None);
            };
            let outcome = client.round(&order, pause, services).transpose();
            match &outcome {
                Some(_) => services.reporter.client_done(participants.clients[position]),
                None => drop(lock(&started).insert(position, order)),
            }
            Ok(outcome)
        };
        self.clients.in_order(&clients, global.bytes(), round_of, |index, outcome: Result<_, CliError>| {
            match outcome.inspect_err(|_| services.stop.store(true, Ordering::Relaxed))? {
                Some(outcome) => drop(work.early.insert(pending[index], outcome)),
                None => work.pending.push(pending[index]),
            }
            while let Some((position, outcome)) = work.take_next() {
                intake.take(participants.at(position), outcome)?;
            }
            // Those left wait for a client that a pause kept from starting, so nobody may wait for them.
            work.early.values_mut().flatten().for_each(|outcome| outcome.place = None);
            Ok(())
        })?;
        work.ordered = orders.made();
        work.started = started;
        Ok(())
    }

    /// Checks that enough updates arrived.
    fn require_enough(&self, updates: usize, round: &str) -> Result<(), CliError> {
        if self.empty_rounds && matches!(self.plan.sampling(), Sampling::Poisson(_)) {
            return Ok(());
        }
        if updates == 0 {
            return Err(CliError::run(Diagnostic::new(format!("{round}: every client failed"))));
        }
        if updates < self.plan.min_clients {
            let report = Diagnostic::new(format!("{round}: only {updates} clients sent an update"));
            return Err(CliError::run(report.hint(format!("`federation.min-clients` is {}", self.plan.min_clients))));
        }
        Ok(())
    }
}

/// The order with which a client started before a pause, or a new one.
fn started_or(
    started: &Mutex<BTreeMap<usize, Order>>,
    position: usize,
    new: impl FnOnce() -> Result<Option<Order>, CliError>,
) -> Result<Option<Order>, CliError> {
    let before = lock(started).remove(&position);
    before.map_or_else(new, |order| Ok(Some(order)))
}

fn lock(started: &Mutex<BTreeMap<usize, Order>>) -> std::sync::MutexGuard<'_, BTreeMap<usize, Order>> {
    started.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the clients' outcomes: through the server's filters into the aggregator.
struct Intake<'s> {
    round: u64,
    receiver: Receiver<'s>,
    aggregator: &'s mut NamedAggregator,
    failures: &'s TrainingFailures<'s>,
    services: &'s HostServices<'s>,
    arrivals: &'s mut Arrivals,
}

impl Intake<'_> {
    fn take(&mut self, client: ClientRef<'_>, outcome: Result<Outcome, ComponentError>) -> Result<(), CliError> {
        let scope = server::scope(self.services, Some(client), Some(self.round));
        let received = outcome.and_then(|mut outcome| {
            let message = self.receiver.receive(&mut outcome, &scope)?;
            Ok((message, outcome))
        });
        let (message, mut outcome) = match received {
            Ok(received) => received,
            Err(fault) => return self.failures.of_client(fault, client.name),
        };
        let Outcome { steps, examples, .. } = outcome;
        let update = Update { client: client.name.to_owned(), message, steps, examples };
        match self.aggregator.call(Some(self.round), self.services, |aggregator, ctx| aggregator.add(update, ctx)) {
            Ok(()) => {}
            Err(fault) if fault.is_panic() => return Err(self.failures.of_aggregator(fault)),
            // By its contract, the aggregator keeps no trace of an update that it refuses. So the client failed, not
            // the aggregator.
            Err(fault) => return self.failures.of_client(fault, client.name),
        }
        outcome.place = None;
        self.arrivals.withheld.extend(std::mem::take(&mut outcome.withheld));
        self.arrivals.outcomes.insert(client.index, outcome);
        Ok(())
    }
}
