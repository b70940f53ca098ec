//! Messages between server and clients, and saved state.

use serde_json::{Map, Value};

use crate::{Error, Params, Result};

/// A message from one side to the other: parameters, and anything else a method needs.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The model's parameters.
    pub params: Params,
    /// A method's other tensors: control variates, masks, residuals. A model ignores those that it does not know.
    pub extra: Params,
    /// A method's small values.
    pub values: Map<String, Value>,
}

impl Message {
    /// The size of all tensors' elements in bytes. This is the cost of sending the message, apart from names and small
    /// values.
    pub fn bytes(&self) -> usize {
        self.params.bytes() + self.extra.bytes()
    }
}

impl From<Params> for Message {
    fn from(params: Params) -> Self {
        Self { params, ..Self::default() }
    }
}

/// A component's state for a checkpoint: named tensors and small values.
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

    /// Checks that the state is empty, for a component without state.
    ///
    /// # Errors
    /// If there is anything to restore.
    pub fn expect_empty(&self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::config("the checkpoint has a state for a component that keeps none"))
        }
    }

    /// The small value of this name.
    ///
    /// # Errors
    /// If there is no value with this name and type.
    pub fn value<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value =
            self.values.get(name).ok_or_else(|| Error::config(format!("the checkpoint has no value `{name}`")))?;
        serde_json::from_value(value.clone())
            .map_err(|e| Error::config(format!("the checkpoint's value `{name}` cannot be used")).because(&e))
    }
}
