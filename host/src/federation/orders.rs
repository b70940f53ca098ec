//! The orders that clients receive in a round. Each is made when its client starts: filters may give every client its
//! own message, and no more of these should exist than clients are at work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::CliError;
use crate::federation::client::Order;
use crate::federation::filters::FilterChain;
use crate::federation::server;
use crate::federation::services::{ClientRef, HostServices};
use plugin_api::Message;

/// The orders of one round. The server's filters are one instance for all clients. They get messages in the order of
/// clients, whichever worker asks first, so results do not depend on the number of workers.
pub(crate) struct Orders<'f> {
    round: u64,
    epochs: u64,
    global: &'f Message,
    services: &'f HostServices<'f>,
    /// Whose turn it is.
    turn: Mutex<Turn<'f>>,
    next: Condvar,
    paused: AtomicBool,
}

struct Turn<'f> {
    /// The position of the next client.
    next: usize,
    filters: &'f mut FilterChain,
}

impl<'f> Orders<'f> {
    /// Creates the orders to train this many epochs on the global model, which passes `filters` first.
    pub(crate) fn new(
        round: u64,
        epochs: u64,
        global: &'f Message,
        filters: &'f mut FilterChain,
        services: &'f HostServices<'f>,
    ) -> Self {
        Self {
            round,
            epochs,
            global,
            services,
            turn: Mutex::new(Turn { next: 0, filters }),
            next: Condvar::new(),
            paused: AtomicBool::new(false),
        }
    }

    /// Starts after this many orders that were already made.
    #[must_use]
    pub(crate) fn after(self, made: usize) -> Self {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).next = made;
        self
    }

    /// The number of orders made, earlier ones included.
    pub(crate) fn made(&self) -> usize {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Makes the order for `client`, the `position`-th one of the round. Waits until the orders for all earlier
    /// positions are made. So each position must be requested exactly once, and only after all earlier ones are at
    /// least requested. Returns `None` if the round pauses first; later positions then get `None` too.
    ///
    /// # Errors
    /// If a filter fails. The round cannot continue then.
    pub(crate) fn order(
        &self,
        position: usize,
        client: ClientRef<'_>,
        pauses: &dyn Fn() -> bool,
    ) -> Result<Option<Order>, CliError> {
        // Declared first, so that it is dropped after the lock, also on a panic.
        let _wake = Wake(&self.next);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |turn: &mut Turn<'_>| turn.next != position && !self.paused.load(Ordering::Relaxed);
        let mut turn = self.next.wait_while(turn, waits).unwrap_or_else(PoisonError::into_inner);
        if self.paused.load(Ordering::Relaxed) || pauses() {
            self.paused.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        turn.next += 1;
        let scope = server::scope(self.services, Some(client), Some(self.round));
        let global = turn.filters.apply(self.global.clone(), self.global, &scope);
        let global = global.map_err(|fault| {
            CliError::run(fault.report(&format!("round {}, client `{}`", self.round + 1, client.name)))
        })?;
        Ok(Some(Order { round: self.round, epochs: self.epochs, global }))
    }
}

struct Wake<'a>(&'a Condvar);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use plugin_api::{Context, Filter, Level, Params, Seed, Tensor};

    use super::*;
    use crate::artefacts::journal::NONE;
    use crate::artefacts::tracking::Reporter;
    use crate::experiment::config::Terms;
    use crate::federation::notes::Notes;
    use crate::federation::ordered_pool::{Limits, in_order};
    use crate::terminal::console::Console;

    /// Replaces each message by one tensor with the number of the call.
    struct Counting(f32);

    impl Filter for Counting {
        fn apply(&mut self, _: Message, _: &Message, _: &Context<'_>) -> plugin_api::Result<Message> {
            self.0 += 1.0;
            if self.0 > 30.0 {
                return Err(plugin_api::Error::other("enough"));
            }
            let call = Tensor::from_slice(&[1], &[self.0])?;
            Ok(Message::from([("call", call)].into_iter().collect::<Params>()))
        }
    }

    fn services<R>(act: impl FnOnce(&HostServices<'_>) -> R) -> R {
        let (console, notes, stop) = (Console::new(Level::Error), Notes::default(), AtomicBool::new(false));
        let (seed, terms, reporter) = (Seed::new(1), Terms::default(), Reporter::nowhere());
        act(&HostServices {
            console: &console,
            reporter,
            notes: &notes,
            journal: &NONE,
            stop: &stop,
            activity: None,
            seed,
            terms,
            threads: 1,
        })
    }

    fn chain() -> FilterChain {
        let mut chain = FilterChain::default();
        chain.push("counting".to_owned(), Vec::new(), Box::new(Counting(0.0)));
        chain
    }

    #[test]
    fn no_more_messages_live_than_workers_and_each_client_gets_its_own() {
        for workers in [1, 3] {
            let (mut chain, global) = (chain(), Message::default());
            let (live, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut clients: Vec<String> = (0..30).map(|k| format!("c{k}")).collect();
            let mut calls = Vec::new();
            services(|services| {
                let orders = Orders::new(0, 1, &global, &mut chain, services);
                let work = |position: usize, name: &mut String| {
                    let order =
                        orders.order(position, ClientRef { index: position, name }, &|| false).unwrap().unwrap();
                    most.fetch_max(live.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // The first clients take longest, so later ones would overtake them.
                    std::thread::sleep(std::time::Duration::from_millis(if position < 3 { 20 } else { 1 }));
                    let call = order.global.params.elements::<f32>("call", &[1]).unwrap()[0];
                    drop(order);
                    live.fetch_sub(1, Ordering::SeqCst);
                    call
                };
                let outcome: Result<(), ()> = in_order(Limits::new(workers, 0), &mut clients, work, |_, call| {
                    calls.push(call);
                    Ok(())
                });
                outcome.unwrap();
            });
            assert_eq!(calls, (1..=30).map(|call| call as f32).collect::<Vec<_>>());
            assert!(most.into_inner() <= workers);
        }
    }

    #[test]
    fn a_filter_that_fails_is_told_with_round_and_client_and_holds_nobody_up() {
        let (mut chain, global) = (chain(), Message::default());
        let mut clients: Vec<String> = (0..40).map(|k| format!("c{k}")).collect();
        let found = services(|services| {
            let orders = Orders::new(4, 1, &global, &mut chain, services);
            let work = |position: usize, name: &mut String| {
                orders.order(position, ClientRef { index: position, name }, &|| false)
            };
            in_order(Limits::new(3, 0), &mut clients, work, |_, order| order.map(drop))
        });
        let message = found.unwrap_err().to_string();
        assert_eq!(message, "error: round 5, client `c30`, filter `counting`: enough");
    }
}
