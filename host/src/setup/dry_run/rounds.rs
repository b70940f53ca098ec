//! Dry runs of the filters and the aggregator, with the messages of the models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plugin_api::{Cohort, Context, Message, Params, Sampling, Stage as At, Update};

use super::understudy::{StandIn, cut};
use super::{Faults, Parts};
use crate::experiment::config::FilterPosition;
use crate::federation::absent;
use crate::federation::client::{Client, Order};
use crate::federation::exchange::Exchange;
use crate::federation::filters::FilterChain;
use crate::federation::local_client::LocalClient;
use crate::federation::model_store::{ModelFactory, ModelHandle, Store};
use crate::federation::sampling::{few, select};
use crate::federation::services::{CallScope, ComponentError, HostServices};
use crate::plugins::validate::{self, Layout};
use crate::setup::Setup;
use crate::terminal::signals::Pause;

/// How many rounds are drawn to find one with other clients than the first round.
const DRAWS: u64 = 1000;

/// An experiment and the messages of its models.
pub(super) struct Stage<'s> {
    pub(super) setup: &'s Setup,
    pub(super) parts: &'s Parts,
    /// Tensors with more elements are cut.
    pub(super) most: usize,
}

/// An error and where it occurred.
type Placed = (String, ComponentError);

/// The global model, and the filters and layout of the server.
struct Server {
    layout: Layout,
    global: Message,
    input: FilterChain,
    output: FilterChain,
}

impl Stage<'_> {
    /// Runs the rounds. Returns all errors, and the parameters that clients keep private.
    pub(super) fn play(&self, services: &HostServices<'_>) -> (Faults, BTreeSet<String>) {
        let (mut faults, mut withheld) = (Faults::default(), BTreeSet::new());
        if let Err((place, fault)) = self.rounds(services, &mut faults, &mut withheld) {
            faults.add(place, fault);
        }
        (faults, withheld)
    }

    fn rounds(
        &self,
        services: &HostServices<'_>,
        faults: &mut Faults,
        withheld: &mut BTreeSet<String>,
    ) -> Result<(), Placed> {
        let Setup { aggregation, experiment, plan, placement, description, .. } = self.setup;
        let at_server = |fault| ("rehearsal".to_owned(), fault);
        let by_aggregator = |e| at_server(aggregation.fault(e));
        let whole = cut(&self.setup.initial, self.most).map_err(by_aggregator)?;
        let make = |ctx: &Context<'_>| aggregation.component.new_aggregator(&aggregation.choice.config, ctx);
        let mut aggregator = aggregation.with_line(services, "cpu", make).map_err(by_aggregator)?;
        let places = [FilterPosition::ServerInput, FilterPosition::ServerOutput];
        let [input, output] = self.setup.chains(places, None, services).map_err(at_server)?;
        let mut clients = self.clients(&whole, services)?;
        let mut server = Server { layout: Layout::of(&whole), global: whole.into(), input, output };
        let federation = &experiment.federation;
        let count = clients.len();
        let draw = |round| match federation.sampling() {
            // One draw may select all clients, and another only a few.
            Sampling::Poisson(_) if round == 0 => (0..count).collect(),
            Sampling::Poisson(probability) => select(count, 0.0, few(count, probability), services.seed, round),
            Sampling::Fixed => select(count, federation.fraction, federation.min_clients, services.seed, round),
        };
        // The second round of the dry run has other clients than the first, if there is such a round: the global model
        // may then lack parameters that these clients send.
        let (first, later) = (draw(0), 1..plan.rounds.min(DRAWS));
        let others =
            if first.len() == clients.len() { None } else { later.clone().find(|&round| draw(round) != first) };
        let rounds: Vec<(u64, Vec<usize>)> =
            [Some(0), others.or(later.min())].into_iter().flatten().map(|round| (round, draw(round))).collect();
        for (round, mut chosen) in rounds {
            let place = format!("rehearsal of round {}", round + 1);
            let names = chosen.iter().map(|&k| description.clients[k].name.clone());
            let cohort = Cohort::new(names.collect(), clients.len());
            let scope = CallScope::new(services, &aggregation.choice.plugin, None, Some(round));
            let ctx = scope.context();
            let failed = |e| (place.clone(), aggregation.fault(e));
            let of_client = |fault: ComponentError, client: &str| {
                let fault = if fault.table().is_empty() { fault.of_table(&aggregation.choice.table) } else { fault };
                (format!("{place}, client `{client}`"), fault)
            };
            let lost = |fault, client: &str| Err(of_client(fault, client));
            chosen.iter().for_each(|&k| clients[k].open(round, services));
            let mut asked = Exchange { clients: &mut clients, round, services, workers: placement.workers };
            let opened = aggregator
                .begin(&server.global, &cohort, &ctx)
                .map_err(failed)
                .and_then(|()| asked.run_queries(&mut *aggregator, At::Opening, &mut chosen, &ctx, &failed, &lost));
            // If the aggregator failed, only independent errors are reported: those at a filter's own key.
            let opened = opened.map_err(|(place, fault)| faults.add(place, fault)).ok();
            let mut sent: BTreeMap<usize, Option<Message>> = BTreeMap::new();
            let mut updates = Vec::new();
            for &k in &chosen {
                let part = self.parts.of_client[k];
                if self.parts.sent[part].is_none() {
                    continue;
                }
                if opened == Some(true) || !sent.contains_key(&part) {
                    let update = self.update(&mut *clients[k], k, round, &mut server, opened.unwrap_or(true), services);
                    let update = update.map_err(|fault| {
                        if opened.is_some() || matches!(fault.error().place(), Some(plugin_api::Place::Key(_))) {
                            let (place, fault) = of_client(fault, &description.clients[k].name);
                            faults.add(place, fault);
                        }
                    });
                    sent.insert(
                        part,
                        update.ok().map(|(message, taken)| {
                            withheld.extend(taken);
                            message
                        }),
                    );
                }
                updates.extend(sent.get(&part).cloned().flatten().map(|message| (k, message)));
            }
            if opened.is_none() || updates.len() < chosen.len() {
                return Ok(());
            }
            for (k, message) in updates {
                let spec = &description.clients[k];
                let examples = spec.tasks.iter().map(|task| task.train as u64).sum();
                let client = spec.name.clone();
                let update = Update { client, message, steps: u64::from(examples > 0), examples };
                aggregator.add(update, &ctx).map_err(failed)?;
            }
            let mut asked = Exchange { clients: &mut clients, round, services, workers: placement.workers };
            asked.run_queries(&mut *aggregator, At::Closing, &mut chosen, &ctx, &failed, &lost)?;
            let next = aggregator.finish(&ctx).and_then(|next| validate::aggregated(&server.layout, next));
            let mut next = next.map_err(failed)?;
            absent::complete(&mut next.params, &server.global.params, withheld);
            server.global = next;
        }
        Ok(())
    }

    /// A client's message as the aggregator receives it, and the names of the parameters that were removed on the way.
    fn update(
        &self,
        client: &mut dyn Client,
        index: usize,
        round: u64,
        server: &mut Server,
        encoded: bool,
        services: &HostServices<'_>,
    ) -> Result<(Message, Vec<String>), ComponentError> {
        let name = client.name().to_owned();
        let scope = CallScope::new(services, "server", Some((index, &name)), Some(round));
        let Server { layout, global, input, output } = server;
        let order = Order { round, epochs: 0, global: output.apply(global.clone(), global, &scope)? };
        // If the stand-in rejects a message, the filters on its way are the cause.
        let at = |places| self.last_filter(places);
        let received = client.round(&order, &Pause::never(), services).map_err(|fault| match fault.table() {
            [] => fault.of_table(at([FilterPosition::ClientInput, FilterPosition::ServerOutput])),
            _ => fault,
        })?;
        let received =
            received.ok_or_else(|| ComponentError::new("rehearsal".to_owned(), plugin_api::Error::cancelled()))?;
        let crossed = absent::names(&received.message.params);
        let message = input.apply(received.message, global, &scope)?;
        validate::update(layout, global, &message, encoded).map_err(|error| {
            ComponentError::new("update".to_owned(), error)
                .of_table(at([FilterPosition::ServerInput, FilterPosition::ClientOutput]))
        })?;
        let withheld = absent::missing(received.withheld.into_iter().chain(crossed), &message.params);
        Ok((message, withheld))
    }

    /// The table of the last filter at one of these positions, in order of preference, or the model's table if there is
    /// none.
    fn last_filter(&self, places: [FilterPosition; 2]) -> &[String] {
        let last = |wanted| self.setup.filters.iter().rev().find(|(place, _)| *place == wanted);
        let filter = places.into_iter().find_map(last).map(|(_, used)| &used.choice.table);
        filter.unwrap_or(&self.setup.model.choice.table)
    }

    /// The clients, each with new filters and a stand-in for its model.
    fn clients(&self, whole: &Params, services: &HostServices<'_>) -> Result<Vec<Box<dyn Client>>, Placed> {
        let Setup { model, plan, description, .. } = self.setup;
        let of_model = |e| ("rehearsal".to_owned(), model.fault(e));
        let part = |sent: &Option<Message>| -> plugin_api::Result<Arc<Message>> {
            let sent = sent.clone().unwrap_or_default();
            // An untrained model has the values of the global model, so the memory is shared.
            let params = sent.params.names().filter_map(|name| Some((name, whole.get(name)?.clone()))).collect();
            Ok(Arc::new(Message { params, extra: cut(&sent.extra, self.most)?, values: sent.values }))
        };
        let parts = self.parts.sent.iter().map(part).collect::<plugin_api::Result<Vec<_>>>().map_err(of_model)?;
        let (component, config) = (model.component.clone(), model.choice.config.clone());
        let recipe = Arc::new(ModelFactory { component, config, plan: plan.clone() });
        let store = Arc::new(Store::in_memory());
        let client = |index: usize| -> Result<Box<dyn Client>, Placed> {
            let identity = self.setup.identity(index);
            let places = [FilterPosition::ClientInput, FilterPosition::ClientOutput];
            let chains = self.setup.chains(places, Some((index, &identity.name)), services);
            let [input, output] = chains.map_err(|fault| (format!("rehearsal, client `{}`", identity.name), fault))?;
            let understudy = StandIn::new(parts[self.parts.of_client[index]].clone(), super::MOST);
            let model = ModelHandle::new(recipe.clone(), store.clone(), &identity.name, Vec::new());
            let (model, tasks) = (model.with(Box::new(understudy)), Vec::new());
            Ok(Box::new(LocalClient::new(identity, model, tasks, [input, output], store.clone())))
        };
        (0..description.clients.len()).map(client).collect()
    }
}
