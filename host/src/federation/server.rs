//! The server's side of a round: what it sends, receives and aggregates.

use std::collections::BTreeSet;

use plugin_api::{Cohort, Message};

use crate::federation::absent;
use crate::federation::aggregation::NamedAggregator;
use crate::federation::client::{Order, Outcome};
use crate::federation::component_error::ComponentError;
use crate::federation::filters::{FilterChain, Filters};
use crate::federation::services::{CallScope, ClientRef, HostServices};
use crate::plugins::validate::{self, Layout};

/// The server's component and the global model.
pub(crate) struct Server {
    /// The aggregator.
    pub aggregator: NamedAggregator,
    /// The filters on incoming and on outgoing messages.
    pub filters: Filters,
    /// The global model.
    pub global: Message,
    /// The layout that updates and global models must match.
    pub layout: Layout,
}

/// The scope of the server's filters, for a client's message or for none.
pub(crate) fn scope<'a>(
    services: &'a HostServices<'a>,
    client: Option<ClientRef<'a>>,
    round: Option<u64>,
) -> CallScope<'a> {
    CallScope::new(services, "server", client, round)
}

impl Server {
    /// Starts the aggregation of a round in which the cohort takes part.
    ///
    /// # Errors
    /// If the aggregator fails.
    pub(crate) fn begin(
        &mut self,
        round: u64,
        cohort: &Cohort,
        services: &HostServices<'_>,
    ) -> Result<(), ComponentError> {
        let global = &self.global;
        self.aggregator.call(Some(round), services, |aggregator, ctx| aggregator.begin(global, cohort, ctx))
    }

    /// Makes an order without training for one client.
    ///
    /// # Errors
    /// If a filter fails.
    pub(crate) fn order(&mut self, round: u64, scope: &CallScope<'_>) -> Result<Order, ComponentError> {
        let global = self.filters.output.apply(self.global.clone(), &self.global, scope)?;
        Ok(Order { round, epochs: 0, global })
    }

    /// Ends the aggregation of a round and returns the next global model. Parameters that the aggregate lacks keep
    /// their values, except those that were `withheld`.
    ///
    /// # Errors
    /// If the aggregator fails, or its model does not fit.
    pub(crate) fn finish(
        &mut self,
        round: u64,
        withheld: &BTreeSet<String>,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError> {
        let layout = &self.layout;
        let mut next = self.aggregator.call(Some(round), services, |aggregator, ctx| {
            aggregator.finish(ctx).and_then(|next| validate::aggregated(layout, next))
        })?;
        absent::complete(&mut next.params, &self.global.params, withheld);
        Ok(next)
    }
}

/// The receiving end of the server, for one round.
pub(crate) struct Receiver<'s> {
    /// The filters on incoming messages.
    pub filters: &'s mut FilterChain,
    /// The round's global model.
    pub global: &'s Message,
    /// The layout that updates must match.
    pub layout: &'s Layout,
    /// Whether clients may have encoded their updates for the aggregator, as its queries told them.
    pub encoded: bool,
}

impl Receiver<'_> {
    /// Filters and checks a client's message. Adds to [`Outcome::withheld`] what the filters removed, and returns the
    /// message.
    ///
    /// # Errors
    /// If a filter fails, or the update does not fit. In the second case the error has no table.
    pub(crate) fn receive(&mut self, outcome: &mut Outcome, scope: &CallScope<'_>) -> Result<Message, ComponentError> {
        let sent = absent::names(&outcome.message.params);
        let message = self.filters.apply(std::mem::take(&mut outcome.message), self.global, scope)?;
        validate::update(self.layout, self.global, &message, self.encoded)
            .map_err(|error| ComponentError::new("update".to_owned(), error))?;
        let withheld = std::mem::take(&mut outcome.withheld).into_iter().chain(sent);
        outcome.withheld = absent::missing(withheld, &message.params);
        Ok(message)
    }
}
