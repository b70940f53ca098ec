//! What travels between server and clients, and what is saved.

use serde_json::{Map, Value};

use crate::{Error, Params, Result};

/// What one side sends to the other: parameters, and whatever else a method needs.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The model's parameters.
    pub params: Params,
    /// Other tensors of a method: control variates, masks, residuals. A model that does not know them ignores them.
    pub extra: Params,
    /// Small values of a method.
    pub values: Map<String, Value>,
}

impl Message {
    /// Bytes that the elements of all its tensors take: what it costs to send, but for names and small values.
    pub fn bytes(&self) -> usize {
        self.params.bytes() + self.extra.bytes()
    }
}

impl From<Params> for Message {
    fn from(params: Params) -> Self {
        Self { params, ..Self::default() }
    }
}

/// A component's memory, for a checkpoint: named tensors and small values.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The tensors.
    pub tensors: Params,
    /// The small values.
    pub values: Map<String, Value>,
}

impl State {
    /// Whether there is nothing to save.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty() && self.values.is_empty()
    }

    /// For a component without state.
    ///
    /// # Errors
    /// If there is something that it would have to restore.
    pub fn expect_empty(&self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::config("the checkpoint holds a state for a component that keeps none"))
        }
    }

    /// A small value.
    ///
    /// # Errors
    /// If there is none of this name and type.
    pub fn value<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value =
            self.values.get(name).ok_or_else(|| Error::config(format!("the checkpoint has no value `{name}`")))?;
        serde_json::from_value(value.clone())
            .map_err(|e| Error::config(format!("the checkpoint's value `{name}` cannot be used")).because(&e))
    }
}
