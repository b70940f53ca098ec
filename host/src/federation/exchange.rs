//! An aggregator's queries to the clients in a round, and their replies.

use plugin_api::{Aggregator, Context, Message, Query, Reply, Stage};

use crate::federation::client::Client;
use crate::federation::ordered_pool::{ahead, in_order};
use crate::federation::services::{ComponentError, HostServices};

/// How often an aggregator may send queries in one stage of a round: more than any protocol needs, but finite.
const MOST_EXCHANGES: u64 = 10_000;

/// Returns the clients at the `chosen` indices, which must be sorted.
pub(crate) fn pick<'c>(clients: &'c mut [Box<dyn Client>], chosen: &[usize]) -> Vec<&'c mut Box<dyn Client>> {
    let all = clients.iter_mut().enumerate();
    all.filter(|(index, _)| chosen.binary_search(index).is_ok()).map(|(_, client)| client).collect()
}

/// The clients that an aggregator can query in a round.
pub(crate) struct Exchange<'c, 'a> {
    /// All clients of the run.
    pub clients: &'c mut [Box<dyn Client>],
    /// The round, from zero.
    pub round: u64,
    /// The services that clients may call.
    pub services: &'a HostServices<'a>,
    /// The number of clients that answer at the same time.
    pub workers: usize,
}

impl Exchange<'_, '_> {
    /// Passes queries and replies between the aggregator and the clients until the aggregator has no more queries. A
    /// client that fails is removed from `present`, unless `lost` returns an error and so ends the exchange. Returns
    /// whether there was any query.
    ///
    /// # Errors
    /// If the aggregator fails, queries a client that is not present, or queries clients out of order. `failed`
    /// converts these errors. Also if `lost` returns an error.
    pub(crate) fn run_queries<E>(
        &mut self,
        aggregator: &mut dyn Aggregator,
        stage: Stage,
        present: &mut Vec<usize>,
        ctx: &Context<'_>,
        failed: &dyn Fn(plugin_api::Error) -> E,
        lost: &dyn Fn(ComponentError, &str) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut questions = aggregator.ask(stage, Vec::new(), ctx).map_err(failed)?;
        let mut exchanges = 0;
        while !questions.is_empty() {
            exchanges += 1;
            if exchanges > MOST_EXCHANGES {
                return Err(failed(plugin_api::Error::other(format!(
                    "it still sends queries after {MOST_EXCHANGES} exchanges"
                ))));
            }
            let mut addressed: Vec<(usize, Message)> = Vec::new();
            // Queries come in the order of clients, so one pass over the clients finds all of them.
            let mut others = present.iter().copied();
            for Query { client, message } in questions {
                let Some(place) = others.find(|&place| self.clients[place].name() == client) else {
                    let error = format!("it queries client `{client}`, which is unknown or out of order");
                    return Err(failed(plugin_api::Error::other(error)));
                };
                addressed.push((place, message));
            }
            let places: Vec<usize> = addressed.iter().map(|(place, _)| *place).collect();
            let mut asked = pick(self.clients, &places);
            let names: Vec<String> = asked.iter().map(|client| client.name().to_owned()).collect();
            let mut answers = Vec::new();
            let (round, services) = (self.round, self.services);
            let mut silent = Vec::new();
            in_order(
                (self.workers, ahead(self.workers, 0)),
                &mut asked,
                |index, client| client.answer(&addressed[index].1, round, services),
                |index, answer| match answer {
                    Ok(message) => {
                        answers.push(Reply { client: names[index].clone(), message });
                        Ok(())
                    }
                    Err(fault) => {
                        silent.push(places[index]);
                        lost(fault, &names[index])
                    }
                },
            )?;
            present.retain(|place| silent.binary_search(place).is_err());
            questions = aggregator.ask(stage, answers, ctx).map_err(failed)?;
        }
        Ok(exchanges > 0)
    }
}
