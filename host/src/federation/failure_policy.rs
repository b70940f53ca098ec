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
        } else if fault.is_of_host() {
            CliError::of_host(report)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::artefacts::journal::NONE;
    use crate::artefacts::tracking::Reporter;
    use crate::experiment::config::Terms;
    use crate::federation::model_store::as_error;
    use crate::federation::notes::Notes;
    use crate::terminal::console::Console;

    #[test]
    fn a_full_disk_is_nobodys_failure() {
        let (console, notes, stop) = (Console::new(Level::Error), Notes::default(), AtomicBool::new(false));
        let services = HostServices {
            console: &console,
            reporter: Reporter::nowhere(),
            notes: &notes,
            journal: &NONE,
            stop: &stop,
            activity: None,
            seed: plugin_api::Seed::new(1),
            terms: Terms::default(),
            threads: 1,
        };
        let policy = FailurePolicy { on_failure: OnClientFailure::LeaveOut, services: &services };
        let of = |error| ComponentError::new("model `m`".to_owned(), error);
        policy.apply(&of(plugin_api::Error::other("diverged")), "round 1").unwrap();
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = || of(as_error(CliError::io(std::path::Path::new("idle/a"), "write the parameters", &full)));
        let failure = policy.apply(&full(), "round 1").unwrap_err();
        assert!(failure.is_of_host() && failure.to_string().contains("idle/a: cannot write"), "{failure}");
        // At another host it is that client's failure.
        policy.apply(&full().of_another_host(), "round 1").unwrap();
    }
}
