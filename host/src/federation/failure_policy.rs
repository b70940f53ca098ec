//! What happens when a client fails.

use std::sync::atomic::Ordering;

use plugin_api::Level;

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::OnClientFailure;
use crate::federation::component_error::ComponentError;
use crate::federation::services::HostServices;

/// Whether a client's failure ends the run, as the experiment says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailurePolicy<'a> {
    /// The experiment's choice.
    pub on_failure: OnClientFailure,
    /// Shows warnings, and stops the other clients.
    pub services: &'a HostServices<'a>,
}

impl FailurePolicy<'_> {
    /// Handles a client's failure: logs a warning to continue without the client, or ends the run. A failure of the host
    /// ends it in any case: it may be resumed when there is room on the disk again. `at` says what the client was doing.
    ///
    /// # Errors
    /// If the run ends.
    pub(crate) fn apply(&self, fault: &ComponentError, at: &str) -> Result<(), CliError> {
        let report = fault.report(at);
        if self.on_failure == OnClientFailure::LeaveOut && !fault.is_cancelled() && !fault.is_of_host() {
            self.services.console.log(Level::Warn, &format!("left out: {}", report.message()));
            return Ok(());
        }
        // The other clients need not finish work that will not be used.
        let stopping = self.services.stop.swap(true, Ordering::Relaxed);
        Err(if stopping && fault.is_cancelled() {
            let hint = "resume it with --resume, from the last checkpoint if there is one";
            CliError::stopped(Diagnostic::new("stopped on request").hint(hint))
        } else {
            CliError::run(report)
        })
    }
}

/// Handles failures in a round: of the aggregator, and of the clients that it queries.
pub(crate) trait RoundFailures {
    /// An error that ends the round.
    type Error;

    /// The aggregator failed, so the round ends.
    fn of_aggregator(&self, fault: ComponentError) -> Self::Error;

    /// A client failed.
    ///
    /// # Errors
    /// If the round cannot continue without the client.
    fn of_client(&self, fault: ComponentError, client: &str) -> Result<(), Self::Error>;
}

/// The failures of a round of training.
pub(crate) struct TrainingFailures<'a> {
    /// The experiment's policy for clients.
    pub policy: FailurePolicy<'a>,
    /// Names the round in messages.
    pub round: String,
}

impl RoundFailures for TrainingFailures<'_> {
    type Error = CliError;

    fn of_aggregator(&self, fault: ComponentError) -> CliError {
        CliError::run(fault.report(&self.round))
    }

    fn of_client(&self, fault: ComponentError, client: &str) -> Result<(), CliError> {
        self.policy.apply(&fault, &format!("{}, client `{client}`", self.round))
    }
}
