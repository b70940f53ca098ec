//! The costs of a client's work: time and bytes.

use serde::{Deserialize, Serialize};

/// Seconds in which a model trained and evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// In [`plugin_api::Model::train`].
    pub training: f64,
    /// In [`plugin_api::Model::evaluate`].
    pub evaluation: f64,
}

/// Bytes of tensors sent between server and clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// From the server.
    pub received: u64,
    /// To the server.
    pub sent: u64,
}
