//! Whom a local client's calls are made for.

use crate::federation::component_error::ComponentError;
use crate::federation::services::{CallScope, ClientRef, HostServices};

/// The identity of a local client: whom its calls are made for, and on which device.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The client's index in the order of clients.
    pub index: usize,
    /// The client's name.
    pub name: String,
    /// The device on which it computes.
    pub device: String,
    /// The name of the model's plugin.
    pub plugin: String,
}

impl Identity {
    /// The scope of a call of the client's model.
    pub(crate) fn scope<'a>(&'a self, services: &'a HostServices<'a>, round: Option<u64>) -> CallScope<'a> {
        CallScope::new(services, &self.plugin, Some(ClientRef { index: self.index, name: &self.name }), round)
            .on(&self.device)
    }

    /// Names the model in an error.
    pub(super) fn fault(&self, error: plugin_api::Error) -> ComponentError {
        ComponentError::new(format!("model `{}`", self.plugin), error)
    }
}
