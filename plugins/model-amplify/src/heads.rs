//! Which heads hold more than their initial random values.
//!
//! An instance has a head for each task that it holds, but not every head gets meaningful values: where heads are private to
//! the clients, the server's keep their random ones. A head is *known* if this instance trained it, or if all of it came with
//! the last message; before the first message, if it came from the file of the key `regressors`. A head that came with an
//! earlier message only does not match the trunk of the last one.

use std::collections::BTreeSet;

use plugin_api::{Result, State};
use serde_json::json;

use crate::parameters::Parameters;

const TRAINED: &str = "trained-heads";
const RECEIVED: &str = "received-heads";

/// The numbers of the known heads.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownHeads {
    trained: BTreeSet<usize>,
    received: BTreeSet<usize>,
}

impl KnownHeads {
    /// Records a training step of a head.
    pub(crate) fn mark_trained(&mut self, head: usize) {
        self.trained.insert(head);
    }

    /// Records a message with all parameters except `missing`.
    pub(crate) fn set_received(&mut self, parameters: &Parameters, missing: &[String]) {
        self.received = parameters.iter().filter_map(|parameter| head_number(&parameter.name)).collect();
        for head in missing.iter().filter_map(|name| head_number(name)) {
            self.received.remove(&head);
        }
    }

    /// Whether a head is known.
    pub(crate) fn contains(&self, head: usize) -> bool {
        self.trained.contains(&head) || self.received.contains(&head)
    }

    /// Adds them to a state.
    pub(crate) fn save(&self, state: &mut State) {
        state.values.insert(TRAINED.to_owned(), json!(self.trained));
        state.values.insert(RECEIVED.to_owned(), json!(self.received));
    }

    /// Reads those of a state.
    ///
    /// # Errors
    /// If the state lacks them.
    pub(crate) fn read(state: &State) -> Result<Self> {
        Ok(Self { trained: state.value(TRAINED)?, received: state.value(RECEIVED)? })
    }
}

/// The `T` of `regressors.T.K.weight`; none for a parameter of the trunk.
pub(crate) fn head_number(name: &str) -> Option<usize> {
    name.strip_prefix("regressors.")?.split('.').next()?.parse().ok()
}
