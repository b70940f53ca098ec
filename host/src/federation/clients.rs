//! All clients of a run.

use crate::error::CliError;
use crate::federation::client::{Client, Order};
use crate::federation::component_error::ComponentError;
use crate::federation::device_slots::DeviceSlots;
use crate::federation::failure_policy::FailurePolicy;
use crate::federation::ordered_pool::{Limits, in_order};
use crate::federation::orders::Orders;
use crate::federation::services::ClientRef;

/// All clients of a run, in the order of aggregation. Parts of them are given as sorted lists of indices.
pub(crate) struct Clients<'a> {
    all: Vec<Box<dyn Client>>,
    /// The number of clients that work at the same time.
    workers: usize,
    slots: DeviceSlots,
    /// What happens when a client fails.
    pub policy: FailurePolicy<'a>,
}

impl<'a> Clients<'a> {
    /// Takes the clients, of which `workers` work at the same time.
    pub(crate) fn new(all: Vec<Box<dyn Client>>, workers: usize, policy: FailurePolicy<'a>) -> Self {
        Self { all, workers, slots: DeviceSlots::default(), policy }
    }

    /// With a limit on the clients that compute on one device at the same time.
    pub(crate) fn with_slots(self, slots: DeviceSlots) -> Self {
        Self { slots, ..self }
    }

    /// The number of clients.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The indices of all clients.
    pub(crate) fn indices(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// A client's name.
    pub(crate) fn name(&self, index: usize) -> &str {
        self.all[index].name()
    }

    /// The names of all clients.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all.iter().map(|client| client.name().to_owned()).collect()
    }

    /// The names of the chosen clients.
    pub(crate) fn names_of(&self, chosen: &[usize]) -> Vec<String> {
        chosen.iter().map(|&index| self.name(index).to_owned()).collect()
    }

    /// One client.
    pub(crate) fn get_mut(&mut self, index: usize) -> &mut dyn Client {
        &mut *self.all[index]
    }

    /// All clients, one after the other.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut dyn Client> {
        self.all.iter_mut().map(|client| &mut **client as &mut dyn Client)
    }

    /// Calls `work` for the chosen clients on the workers, and `take` with the results on this thread, in the clients'
    /// order. Both get the client's position among the chosen ones. `bytes` is about the size of a result. After an
    /// error of `take` no other client starts.
    ///
    /// # Errors
    /// The first error of `take`.
    pub(crate) fn in_order<R: Send, E>(
        &mut self,
        chosen: &[usize],
        bytes: usize,
        work: impl Fn(usize, &mut dyn Client) -> R + Sync,
        take: impl FnMut(usize, R) -> Result<(), E>,
    ) -> Result<(), E> {
        let limits = Limits::new(self.workers, bytes);
        let turns = self.slots.turns(chosen);
        let all = self.all.iter_mut().enumerate();
        let chosen = all.filter(|(index, _)| chosen.binary_search(index).is_ok());
        let mut chosen: Vec<&mut Box<dyn Client>> = chosen.map(|(_, client)| client).collect();
        let work = |position: usize, client: &mut &mut Box<dyn Client>| {
            let _slot = turns.take(position);
            work(position, &mut ***client)
        };
        in_order(limits, &mut chosen, work, take)
    }

    /// Calls `work` for the chosen clients with their orders, and `take` with the results, as [`Self::in_order`] does.
    /// Once `pauses` says so, no other client starts, and there are no results of the remaining ones.
    ///
    /// # Errors
    /// If an order cannot be made, and the first error of `take`.
    pub(crate) fn with_orders<T: Send>(
        &mut self,
        chosen: &[usize],
        orders: &Orders<'_>,
        pauses: &(dyn Fn() -> bool + Sync),
        work: impl Fn(&mut dyn Client, &Order) -> Result<T, ComponentError> + Sync,
        mut take: impl FnMut(ClientRef<'_>, Result<T, ComponentError>) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let names = self.names_of(chosen);
        let at = |position: usize| ClientRef { index: chosen[position], name: &names[position] };
        let work = |position: usize, client: &mut dyn Client| {
            let order = orders.order(position, at(position), pauses)?;
            Ok(order.map(|order| work(client, &order)))
        };
        self.in_order(chosen, 0, work, |position, found: Result<_, CliError>| {
            found?.map_or(Ok(()), |found| take(at(position), found))
        })
    }
}
