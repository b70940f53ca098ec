//! Which heads hold something worth keeping.
//!
//! Every instance starts with a head for each task that it holds, but not each comes to mean something: where heads
//! stay private to the clients, the server's have their first random values to the end. A head is *known* if this
//! instance trained it, or if all of it came with the last message (before the first one: from the file that the key
//! `regressors` names). What came with an earlier message, but not with the last, is out of date beside the trunk that
//! did, and no longer known.

use std::collections::BTreeSet;

use plugin_api::{Result, State};
use serde_json::json;

use crate::parameters::Parameters;

const TRAINED: &str = "trained-heads";
const RECEIVED: &str = "received-heads";

/// The numbers of the heads that were trained here, and of those that were received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads {
    trained: BTreeSet<usize>,
    received: BTreeSet<usize>,
}

impl Heads {
    /// Notes a step of a head.
    pub(crate) fn trained(&mut self, head: usize) {
        self.trained.insert(head);
    }

    /// Notes that all parameters came but the `missing` ones.
    pub(crate) fn received(&mut self, parameters: &Parameters, missing: &[String]) {
        self.received = parameters.iter().filter_map(|parameter| number(&parameter.name)).collect();
        for head in missing.iter().filter_map(|name| number(name)) {
            self.received.remove(&head);
        }
    }

    /// Whether a head holds more than random values.
    pub(crate) fn known(&self, head: usize) -> bool {
        self.trained.contains(&head) || self.received.contains(&head)
    }

    /// Adds them to a state.
    pub(crate) fn save(&self, state: &mut State) {
        state.values.insert(TRAINED.to_owned(), json!(self.trained));
        state.values.insert(RECEIVED.to_owned(), json!(self.received));
    }

    /// Those of a state.
    pub(crate) fn read(state: &State) -> Result<Self> {
        Ok(Self { trained: state.value(TRAINED)?, received: state.value(RECEIVED)? })
    }
}

/// The `T` of `regressors.T.K.weight`; none for a parameter of the trunk.
pub(crate) fn number(name: &str) -> Option<usize> {
    name.strip_prefix("regressors.")?.split('.').next()?.parse().ok()
}
