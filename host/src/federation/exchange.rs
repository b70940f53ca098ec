//! An aggregator's queries to the clients in a round, and their replies.

use plugin_api::{Error, Message, Query, Reply, Stage};

use crate::federation::aggregation::NamedAggregator;
use crate::federation::clients::Clients;
use crate::federation::failure_policy::RoundFailures;

/// How often an aggregator may send queries in one stage of a round: more than any protocol needs, but finite.
const MOST_EXCHANGES: u64 = 10_000;

/// The clients that an aggregator queries at once, with the messages for them, in the order of clients.
#[derive(Default)]
struct Addressed {
    clients: Vec<usize>,
    messages: Vec<Message>,
}

impl Clients<'_> {
    /// Passes queries and replies between the aggregator and the clients until the aggregator has no more queries. A
    /// client that fails is removed from `present`, unless `failures` ends the round. Returns whether there was any
    /// query.
    ///
    /// # Errors
    /// If the aggregator fails, queries a client that is not present, or queries clients out of order. Also if a
    /// client's failure ends the round.
    pub(crate) fn run_queries<F: RoundFailures>(
        &mut self,
        aggregator: &mut NamedAggregator,
        stage: Stage,
        present: &mut Vec<usize>,
        round: u64,
        failures: &F,
    ) -> Result<bool, F::Error> {
        let services = self.policy.services;
        let mut replies = Vec::new();
        for exchanges in 0.. {
            let queries = aggregator
                .call(Some(round), services, |aggregator, ctx| aggregator.ask(stage, replies, ctx))
                .map_err(|fault| failures.of_aggregator(fault))?;
            if queries.is_empty() {
                return Ok(exchanges > 0);
            }
            if exchanges == MOST_EXCHANGES {
                break;
            }
            let addressed =
                self.address(queries, present).map_err(|error| failures.of_aggregator(aggregator.fault(error)))?;
            replies = self.replies(&addressed, present, round, failures)?;
        }
        let error = Error::other(format!("it still sends queries after {MOST_EXCHANGES} exchanges"));
        Err(failures.of_aggregator(aggregator.fault(error)))
    }

    /// Finds the clients of the queries among those that are present.
    fn address(&self, queries: Vec<Query>, present: &[usize]) -> Result<Addressed, Error> {
        let mut addressed = Addressed::default();
        // Queries come in the order of clients, so one pass over the clients finds all of them.
        let mut others = present.iter().copied();
        for Query { client, message } in queries {
            let Some(index) = others.find(|&index| self.name(index) == client) else {
                let error = format!("it queries client `{client}`, which is unknown or out of order");
                return Err(Error::other(error));
            };
            addressed.clients.push(index);
            addressed.messages.push(message);
        }
        Ok(addressed)
    }

    /// Collects the replies. Clients that fail are removed from `present`.
    fn replies<F: RoundFailures>(
        &mut self,
        addressed: &Addressed,
        present: &mut Vec<usize>,
        round: u64,
        failures: &F,
    ) -> Result<Vec<Reply>, F::Error> {
        let (Addressed { clients, messages }, services) = (addressed, self.policy.services);
        let names = self.names_of(clients);
        let (mut replies, mut failed) = (Vec::new(), Vec::new());
        self.in_order(
            clients,
            0,
            |position, client| client.answer(&messages[position], round, services),
            |position, reply| match reply {
                Ok(message) => {
                    replies.push(Reply { client: names[position].clone(), message });
                    Ok(())
                }
                Err(fault) => {
                    failed.push(clients[position]);
                    failures.of_client(fault, &names[position])
                }
            },
        )?;
        present.retain(|index| failed.binary_search(index).is_err());
        Ok(replies)
    }
}
