//! Being a node: registered, online, and both again if the SuperLink forgets it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use crate::endpoint::{Scope, public_key};
use crate::error::Error;
use crate::events::Event;
use crate::parallel::{self, lock};
use crate::wire::{ActivateNode, Node, NodeHeartbeat, NodeId, RegisterNode, Success};

/// Codes of Flower's errors: the key is registered already; only the operator registers keys; the node is online already,
/// or its key is not registered.
const KNOWN: i64 = 23;
const BY_OPERATOR: i64 = 2001;
const CANNOT_ACTIVATE: i64 = 2004;

/// Keeps the site online until it stops.
pub(super) fn beat(shared: &Shared) {
    loop {
        parallel::pause(shared.options.heartbeat / 3, &|| shared.stopped());
        if shared.stopped() {
            return;
        }
        let node = shared.node();
        match shared.heartbeat(node) {
            Ok(true) | Err(Error::Stopped) => {}
            Ok(false) => shared.join_again(node),
            Err(error) if error.is_unauthorised() => shared.join_again(node),
            Err(error) => shared.trouble("heartbeat", &error),
        }
    }
}

impl Shared {
    fn heartbeat(&self, node: u64) -> Result<bool, Error> {
        let abort = || self.cancelled();
        let request = NodeHeartbeat {
            node: Some(Node { node_id: node }),
            heartbeat_interval: self.options.heartbeat.as_secs_f64(),
        };
        let answer: Success =
            self.fleet.call("send-node-heartbeat", &request, Scope { abort: &abort, counter: &self.other })?;
        Ok(answer.success)
    }

    /// Comes online: as the node that it was, if the SuperLink remembers it.
    pub(super) fn join(&self) -> Result<(), Error> {
        if let Some(node) = self.store.node()? {
            // It marks the node online, whatever it was.
            match self.heartbeat(node) {
                Ok(true) => return self.joined(node),
                Ok(false) => {}
                Err(error) if error.is_unauthorised() => {}
                Err(error) => return Err(error),
            }
        }
        let abort = || self.cancelled();
        let scope = Scope { abort: &abort, counter: &self.other };
        let public_key = public_key(&self.options.identity);
        let registered =
            self.fleet.call::<NodeId>("register-node", &RegisterNode { public_key: public_key.clone() }, scope);
        let registered = match registered {
            Ok(NodeId { node_id }) => Some(node_id),
            Err(error) if error.has_code(KNOWN) || error.has_code(BY_OPERATOR) => None,
            Err(error) => return Err(error),
        };
        let until = Instant::now() + self.options.heartbeat * 3;
        loop {
            let heartbeat_interval = self.options.heartbeat.as_secs_f64();
            let request = ActivateNode { public_key: public_key.clone(), heartbeat_interval };
            match self.fleet.call::<NodeId>("activate-node", &request, scope) {
                Ok(NodeId { node_id }) => return self.joined(node_id),
                // Activated already: the first answer was lost.
                Err(error) if error.has_code(CANNOT_ACTIVATE) && registered.is_some() => {
                    let node = registered.unwrap_or_default();
                    return if self.heartbeat(node)? { self.joined(node) } else { Err(error) };
                }
                // The same code says that the key is unknown, and that the node is online by an earlier life, which is over
                // when two heartbeats are missed.
                Err(error) if error.has_code(CANNOT_ACTIVATE) && Instant::now() < until => {
                    self.tell(Event::RegistrationRefused { reason: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            parallel::pause(Duration::from_secs(2), &abort);
        }
    }

    fn joined(&self, node: u64) -> Result<(), Error> {
        self.store.set_node(node)?;
        self.node.store(node, Ordering::Relaxed);
        self.tell(Event::Registered { node });
        Ok(())
    }

    /// Joins again after the SuperLink has refused `lost`.
    pub(super) fn join_again(&self, lost: u64) {
        let _one = lock(&self.registering);
        if self.node() != lost || self.stopped() {
            return;
        }
        self.tell(Event::NodeLost);
        let mut wait = Duration::from_secs(1);
        while !self.stopped() {
            match self.join() {
                Ok(()) => {
                    // What it had for the node is gone with it.
                    lock(&self.table).pending.clear();
                    return;
                }
                Err(error) => self.trouble("register", &error),
            }
            parallel::pause(wait, &|| self.stopped());
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }
}
