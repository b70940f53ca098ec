//! What an aggregator asks the clients in a round, and what they answer.

use plugin_api::{Aggregator, Context, Message, Query, Reply, Stage};

use crate::federation::client::Client;
use crate::federation::ordered_pool::{ahead, in_order};
use crate::federation::services::{ComponentError, HostServices};

/// How often an aggregator may ask in one stage of a round: more than any protocol, and less than for ever.
const MOST_EXCHANGES: u64 = 10_000;

/// The clients of these places, which are in order.
pub fn pick<'c>(clients: &'c mut [Box<dyn Client>], chosen: &[usize]) -> Vec<&'c mut Box<dyn Client>> {
    let all = clients.iter_mut().enumerate();
    all.filter(|(index, _)| chosen.binary_search(index).is_ok()).map(|(_, client)| client).collect()
}

/// The clients, as an aggregator asks them in a round.
pub struct Exchange<'c, 'a> {
    /// All of the run.
    pub clients: &'c mut [Box<dyn Client>],
    /// The round.
    pub round: u64,
    /// What they may call.
    pub services: &'a HostServices<'a>,
    /// How many answer at the same time.
    pub workers: usize,
}

impl Exchange<'_, '_> {
    /// Carries questions and answers to and fro until the aggregator has nothing more to ask. Clients that fail are
    /// `present` no more, unless `lost` says that this is the end. Says whether anything was asked.
    ///
    /// # Errors
    /// If the aggregator `failed` or asks a client that is not there, or a client's failure is the end.
    pub fn run_queries<E>(
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
                return Err(failed(plugin_api::Error::other(format!("it still asks after {MOST_EXCHANGES} answers"))));
            }
            let mut addressed: Vec<(usize, Message)> = Vec::new();
            // Queries come in the clients' order, so one walk over the clients finds all.
            let mut others = present.iter().copied();
            for Query { client, message } in questions {
                let Some(place) = others.find(|&place| self.clients[place].name() == client) else {
                    let error = format!("it asks client `{client}`, which is not there, or not in the clients' order");
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
