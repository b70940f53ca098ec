//! What a local client keeps in a checkpoint.

use std::sync::{Arc, Mutex, PoisonError};

use super::LocalClient;
use crate::federation::client::{ClientState, Failed, Progress};
use crate::federation::component_error::ComponentError;
use crate::federation::filters::FilterStates;
use crate::federation::model_store::as_error;
use crate::federation::services::HostServices;

impl LocalClient {
    /// Returns the state that a resumed run needs.
    pub(super) fn saved(&mut self, services: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let progress = self.progress.clone().map(|progress| Progress { trace, spent: self.spent, ..progress });
        let (position, failed, last_aggregated) = (self.position, self.failed.clone(), self.last_aggregated);
        let saved = ClientState { progress, position, failed, last_aggregated, ..ClientState::default() };
        if self.lost_before(None).is_err() {
            let filters = self.round_start.clone().and_then(Result::ok).unwrap_or_default();
            return Ok(ClientState { filters, ..saved });
        }
        let all = |client: &mut Self| {
            let filters = match client.round_start.clone() {
                Some(states) => states?,
                None => client.filters.states(&scope)?,
            };
            let model = client.model.state(&scope.context()).map_err(|e| me.fault(e))?;
            let sent = client.sent.get().map_err(|e| me.fault(as_error(e)))?;
            Ok(ClientState { model, filters, sent, ..saved })
        };
        // A client that cannot be saved would resume in a different state, so it is lost permanently.
        all(self).inspect_err(|fault: &ComponentError| {
            self.failed = Some(Failed { round: None, permanent: true, fault: fault.clone() });
        })
    }

    /// Restores a saved state.
    pub(super) fn restore_saved(
        &mut self,
        saved: ClientState,
        services: &HostServices<'_>,
    ) -> Result<(), ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None);
        self.failed = saved.failed;
        let lost = self.lost_before(None).is_err();
        let FilterStates { input, output } = &saved.filters;
        for (chain, states) in [(&mut self.filters.input, input), (&mut self.filters.output, output)] {
            if !lost || !states.is_empty() {
                chain.restore(states, &scope)?;
            }
        }
        (self.position, self.last_aggregated) = (saved.position, saved.last_aggregated);
        if let Some(mut progress) = saved.progress {
            self.spent = progress.spent;
            self.trace = Arc::new(Mutex::new(std::mem::take(&mut progress.trace)));
            self.progress = Some(progress);
        }
        if let Some(message) = saved.sent {
            self.sent.put(message).map_err(|e| me.fault(as_error(e)))?;
            self.sent.release();
        }
        saved.model.map_or(Ok(()), |state| self.model.restore(state, &scope)).map_err(|e| me.fault(e))
    }
}
