//! The order in which the updates of clients at other machines are received.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::federation::parked::Parking;

/// Admits the replies of clients one after the other, in the order of aggregation: each once the update before it has been
/// aggregated. So the server holds the tensors of one update beside their mean.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// The clients whose updates are not yet aggregated.
    pending: Mutex<BTreeSet<usize>>,
    changed: Condvar,
    /// The global model that waits in a file. Its memory is for the replies.
    parking: Arc<Parking>,
}

impl Admission {
    pub(crate) fn new(parking: Arc<Parking>) -> Self {
        Self { parking, ..Self::default() }
    }

    /// Lets later clients wait for this one, until the returned place is dropped.
    pub(crate) fn enter(self: &Arc<Self>, client: usize) -> Place {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(client);
        Place { admission: self.clone(), client }
    }

    /// Waits until no earlier client has a place.
    pub(crate) fn wait(&self, client: usize) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = |pending: &mut BTreeSet<usize>| pending.first().is_some_and(|first| *first < client);
        drop(self.changed.wait_while(pending, earlier).unwrap_or_else(PoisonError::into_inner));
        self.parking.leave_memory();
    }
}

/// A client's place in the order. Later clients wait until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    client: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
        self.admission.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn replies_are_admitted_in_the_order_of_clients() {
        let admission = Arc::new(Admission::default());
        let order = Mutex::new(Vec::new());
        let places = [0, 1, 2].map(|client| admission.enter(client));
        std::thread::scope(|scope| {
            for place in places.into_iter().rev() {
                let (admission, order) = (&admission, &order);
                scope.spawn(move || {
                    // The later ones come first.
                    std::thread::sleep(Duration::from_millis(20 * (2 - place.client as u64)));
                    admission.wait(place.client);
                    order.lock().unwrap().push(place.client);
                    drop(place);
                });
            }
        });
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        // Nobody waits for a client that has no reply to come.
        admission.wait(5);
    }
}
