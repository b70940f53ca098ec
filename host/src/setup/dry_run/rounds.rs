//! Dry runs of the filters and the aggregator, with the messages of the models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plugin_api::{Cohort, Message, Params, Place, Sampling, Stage, Update};

use super::stand_in::{StandIn, cut};
use super::{Faults, LocatedFault, Parts};
use crate::experiment::config::{FilterPosition, OnClientFailure};
use crate::federation::client::Client;
use crate::federation::clients::Clients;
use crate::federation::component_error::ComponentError;
use crate::federation::failure_policy::{FailurePolicy, RoundFailures};
use crate::federation::local_client::LocalClient;
use crate::federation::model_evaluation::ClientTasks;
use crate::federation::model_handle::ModelHandle;
use crate::federation::model_store::Store;
use crate::federation::sampling::{few, select};
use crate::federation::server::{self, Receiver, Server};
use crate::federation::services::{ClientRef, HostServices};
use crate::plugins::validate::Layout;
use crate::setup::Setup;
use crate::setup::filters::{End, new_filters};
use crate::setup::plugins::FilterPlugin;
use crate::terminal::signals::Pause;

/// How many rounds are drawn to find one with other clients than the first round.
const DRAWS: u64 = 1000;

/// An experiment and the messages of its models.
pub(super) struct DryRun<'s> {
    pub(super) setup: &'s Setup,
    pub(super) parts: &'s Parts,
    /// Tensors with more elements are cut.
    pub(super) most: usize,
}

/// The result of a dry run.
#[derive(Default)]
pub(super) struct DryRunResult {
    pub(super) faults: Faults,
    /// The parameters that clients keep private.
    pub(super) withheld: BTreeSet<String>,
}

/// A dry run in progress.
struct Rounds<'s> {
    dry_run: &'s DryRun<'s>,
    server: Server,
    clients: Clients<'s>,
    services: &'s HostServices<'s>,
    result: &'s mut DryRunResult,
}

/// Failures in a round of a dry run: each of them ends it.
struct DryRunFailures<'s> {
    /// Names the round in messages.
    round: String,
    /// The aggregator's table, for errors of clients that have none.
    table: &'s [String],
}

impl DryRunFailures<'_> {
    /// Says where a client failed.
    fn located(&self, fault: ComponentError, client: &str) -> LocatedFault {
        let fault = if fault.table().is_empty() { fault.of_table(self.table) } else { fault };
        LocatedFault { at: format!("{}, client `{client}`", self.round), fault }
    }
}

impl RoundFailures for DryRunFailures<'_> {
    type Error = LocatedFault;

    fn of_aggregator(&self, fault: ComponentError) -> LocatedFault {
        LocatedFault { at: self.round.clone(), fault }
    }

    fn of_client(&self, fault: ComponentError, client: &str) -> Result<(), LocatedFault> {
        Err(self.located(fault, client))
    }
}

impl DryRun<'_> {
    /// Runs the rounds. Returns all errors, and the parameters that clients keep private.
    pub(super) fn run(&self, services: &HostServices<'_>) -> DryRunResult {
        let mut result = DryRunResult::default();
        if let Err(fault) = self.rounds(services, &mut result) {
            result.faults.add(fault);
        }
        result
    }

    fn rounds(&self, services: &HostServices<'_>, result: &mut DryRunResult) -> Result<(), LocatedFault> {
        let server = &self.setup.server;
        let at_server = |fault| LocatedFault { at: "rehearsal".to_owned(), fault };
        let whole =
            cut(&server.initial, self.most).map_err(|error| at_server(server.aggregator_plugin.fault(error)))?;
        let server = self.server(&whole, services).map_err(at_server)?;
        let clients = self.clients(&whole, services)?;
        let mut rounds = Rounds { dry_run: self, server, clients, services, result };
        for (round, chosen) in self.draws(services) {
            if !rounds.play(round, chosen)? {
                break;
            }
        }
        Ok(())
    }

    /// The rounds to play, with their clients. The second one has other clients than the first, if there is such a
    /// round: the global model may then lack parameters that these clients send.
    fn draws(&self, services: &HostServices<'_>) -> BTreeMap<u64, Vec<usize>> {
        let (federation, count) =
            (&self.setup.shared.experiment.federation, self.setup.shared.description.clients.len());
        let draw = |round| match federation.sampling() {
            // One draw may select all clients, and another only a few.
            Sampling::Poisson(_) if round == 0 => (0..count).collect(),
            Sampling::Poisson(probability) => select(count, 0.0, few(count, probability), services.seed, round),
            Sampling::Fixed => select(count, federation.fraction, federation.min_clients, services.seed, round),
        };
        let (first, later) = (draw(0), 1..self.setup.shared.model_setup.rounds.min(DRAWS));
        let others = if first.len() == count { None } else { later.clone().find(|&round| draw(round) != first) };
        [Some(0), others.or(later.min())].into_iter().flatten().map(|round| (round, draw(round))).collect()
    }

    /// A new aggregator and new filters of the server.
    fn server(&self, whole: &Params, services: &HostServices<'_>) -> Result<Server, ComponentError> {
        let filters = &self.setup.shared.plugins.filters;
        let aggregator = &self.setup.server.aggregator_plugin;
        let aggregator = aggregator.new_aggregator(services).map_err(|error| aggregator.fault(error))?;
        let filters = new_filters(filters, End::Server, services)?;
        Ok(Server { aggregator, filters, layout: Layout::of(whole), global: whole.clone().into() })
    }

    /// The table of the last filter at one of these positions, in order of preference, or the model's table if there is
    /// none.
    fn last_filter(&self, positions: [FilterPosition; 2]) -> &[String] {
        let last = |wanted| {
            self.setup.shared.plugins.filters.iter().rev().find(|filter: &&FilterPlugin| filter.position == wanted)
        };
        let filter = positions.into_iter().find_map(last).map(|filter| &filter.plugin.plugin_ref.table);
        filter.unwrap_or(&self.setup.clients.model.plugin_ref.table)
    }

    /// The clients, each with new filters and a stand-in for its model.
    fn clients<'a>(&self, whole: &Params, services: &'a HostServices<'a>) -> Result<Clients<'a>, LocatedFault> {
        let Setup { shared, clients, .. } = self.setup;
        let sent = self.sent(whole).map_err(|fault| LocatedFault { at: "rehearsal".to_owned(), fault })?;
        let (factory, store) = (clients.model_factory(shared), Arc::new(Store::in_memory()));
        let client = |index: usize| -> Result<Box<dyn Client>, LocatedFault> {
            let identity = clients.identity(shared, index);
            let filters = new_filters(&shared.plugins.filters, End::of(&identity), services)
                .map_err(|fault| LocatedFault { at: format!("rehearsal, client `{}`", identity.name), fault })?;
            let stand_in = StandIn::new(sent[self.parts.of_client[index]].clone(), super::MOST);
            let model = ModelHandle::new(factory.clone(), store.clone(), &identity.name, Vec::new());
            let (model, tasks) = (model.with(Box::new(stand_in)), ClientTasks::default());
            Ok(Box::new(LocalClient::new(identity, model, tasks, filters, store.clone())))
        };
        let all = (0..shared.description.clients.len()).map(client).collect::<Result<_, _>>()?;
        let policy = FailurePolicy { on_failure: OnClientFailure::Stop, services };
        Ok(Clients::new(all, clients.placement.workers, policy))
    }

    /// For each set of tasks, the message of its model, cut.
    fn sent(&self, whole: &Params) -> Result<Vec<Arc<Message>>, ComponentError> {
        let cut = |sent: &Option<Message>| -> plugin_api::Result<Arc<Message>> {
            let sent = sent.clone().unwrap_or_default();
            // An untrained model has the values of the global model, so the memory is shared.
            let params = sent.params.names().filter_map(|name| Some((name, whole.get(name)?.clone()))).collect();
            Ok(Arc::new(Message { params, extra: cut(&sent.extra, self.most)?, values: sent.values }))
        };
        let sent = self.parts.sent.iter().map(cut).collect::<plugin_api::Result<Vec<_>>>();
        sent.map_err(|error| self.setup.clients.model.fault(error))
    }
}

impl Rounds<'_> {
    /// Plays one round. Returns whether another one can follow.
    fn play(&mut self, round: u64, mut chosen: Vec<usize>) -> Result<bool, LocatedFault> {
        let table = &self.dry_run.setup.server.aggregator_plugin.plugin_ref.table;
        let failures = &DryRunFailures { round: format!("rehearsal of round {}", round + 1), table };
        chosen.iter().for_each(|&index| self.clients.get_mut(index).open(round, self.services));
        // If the aggregator failed, only independent errors are reported: those at a filter's own key.
        let encoded = self.begin(round, &mut chosen, failures).map_err(|fault| self.result.faults.add(fault)).ok();
        let updates = self.updates(round, &chosen, encoded, failures);
        if encoded.is_none() || updates.len() < chosen.len() {
            return Ok(false);
        }
        self.aggregate(round, updates, failures)?;
        let aggregator = &mut self.server.aggregator;
        self.clients.run_queries(aggregator, Stage::Closing, &mut chosen, round, failures)?;
        let next = self.server.finish(round, &self.result.withheld, self.services);
        self.server.global = next.map_err(|fault| failures.of_aggregator(fault))?;
        Ok(true)
    }

    /// Starts the aggregation and lets the aggregator query the clients. Returns whether there was any query.
    fn begin(
        &mut self,
        round: u64,
        chosen: &mut Vec<usize>,
        failures: &DryRunFailures<'_>,
    ) -> Result<bool, LocatedFault> {
        let cohort = Cohort::new(self.clients.names_of(chosen), self.clients.len());
        self.server.begin(round, &cohort, self.services).map_err(|fault| failures.of_aggregator(fault))?;
        self.clients.run_queries(&mut self.server.aggregator, Stage::Opening, chosen, round, failures)
    }

    /// The messages that the aggregator receives from the chosen clients. Clients with the same tasks send the same
    /// message, unless the aggregator has queried them. `encoded` is `None` if the aggregator failed.
    fn updates(
        &mut self,
        round: u64,
        chosen: &[usize],
        encoded: Option<bool>,
        failures: &DryRunFailures<'_>,
    ) -> BTreeMap<usize, Message> {
        let parts = self.dry_run.parts;
        let mut sent: BTreeMap<usize, Option<Message>> = BTreeMap::new();
        let mut updates = BTreeMap::new();
        for &index in chosen {
            let part = parts.of_client[index];
            if parts.sent[part].is_none() {
                continue;
            }
            if encoded == Some(true) || !sent.contains_key(&part) {
                let update = self.update(index, round, encoded.unwrap_or(true));
                let update = update.map_err(|fault| {
                    if encoded.is_some() || matches!(fault.error().place(), Some(Place::Key(_))) {
                        self.result.faults.add(failures.located(fault, self.clients.name(index)));
                    }
                });
                sent.insert(part, update.ok());
            }
            updates.extend(sent.get(&part).cloned().flatten().map(|message| (index, message)));
        }
        updates
    }

    /// A client's message as the aggregator receives it.
    fn update(&mut self, index: usize, round: u64, encoded: bool) -> Result<Message, ComponentError> {
        let client = self.clients.get_mut(index);
        let name = client.name().to_owned();
        let scope = server::scope(self.services, Some(ClientRef { index, name: &name }), Some(round));
        let order = self.server.order(round, &scope)?;
        // If the stand-in or the server rejects a message, the filters on its way are the cause.
        let by_filters = |fault: ComponentError, positions| match fault.table() {
            [] => fault.of_table(self.dry_run.last_filter(positions)),
            _ => fault,
        };
        let outcome = client
            .round(&order, &Pause::never(), self.services)
            .map_err(|fault| by_filters(fault, [FilterPosition::ClientInput, FilterPosition::ServerOutput]))?;
        let mut outcome =
            outcome.ok_or_else(|| ComponentError::new("rehearsal".to_owned(), plugin_api::Error::cancelled()))?;
        let Server { filters, global, layout, .. } = &mut self.server;
        let message =
            Receiver { filters: &mut filters.input, global, layout, encoded }
                .receive(&mut outcome, &scope)
                .map_err(|fault| by_filters(fault, [FilterPosition::ServerInput, FilterPosition::ClientOutput]))?;
        self.result.withheld.extend(outcome.withheld);
        Ok(message)
    }

    /// Passes the messages to the aggregator, as if the clients had trained on all their rows.
    fn aggregate(
        &mut self,
        round: u64,
        updates: BTreeMap<usize, Message>,
        failures: &DryRunFailures<'_>,
    ) -> Result<(), LocatedFault> {
        for (index, message) in updates {
            let spec = &self.dry_run.setup.shared.description.clients[index];
            let examples = spec.tasks.iter().map(|task| task.train as u64).sum();
            let client = spec.name.clone();
            let update = Update { client, message, steps: u64::from(examples > 0), examples };
            self.server
                .aggregator
                .call(Some(round), self.services, |aggregator, ctx| aggregator.add(update, ctx))
                .map_err(|fault| failures.of_aggregator(fault))?;
        }
        Ok(())
    }
}
