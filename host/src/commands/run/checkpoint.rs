//! The checkpoint that a run resumes from.

use plugin_api::Level;
use serde_json::Value;

use crate::artefacts::checkpoint::Reader;
use crate::artefacts::run_dir::RunDir;
use crate::error::{CliError, Diagnostic};
use crate::federation::resume::CheckpointIndex;
use crate::setup::{Shared, changes};
use crate::terminal::console::Console;

/// The checkpoint that a run resumes from.
pub(super) struct Checkpoint {
    /// Reads the states of components.
    pub(super) reader: Reader,
    /// The host's part.
    pub(super) index: CheckpointIndex,
}

/// The checkpoint to resume from, if resuming was requested and there is one. The experiment must be unchanged.
pub(super) fn find(
    run_dir: &RunDir,
    shared: &Shared,
    manifest: &Value,
    console: &Console,
) -> Result<Option<Checkpoint>, CliError> {
    let Some(then) = run_dir.to_resume() else { return Ok(None) };
    if run_dir.is_complete() {
        // A process that was killed in its last steps left something behind.
        run_dir.finish(&mut |line| console.log(Level::Warn, line))?;
        let report = Diagnostic::new(format!("{}: the run is finished; nothing to resume", run_dir.shown()));
        let hint = "a finished run keeps no checkpoint: for more rounds, start a run with another name";
        return Err(CliError::usage(report.hint(hint)));
    }
    if let Some(experiment) = run_dir.experiment()? {
        changes::check(&experiment, then, shared, manifest)?;
    }
    let found = Reader::open::<CheckpointIndex>(run_dir.path(), &mut |line| console.log(Level::Warn, line))?;
    let found = found.map(|(reader, index)| Checkpoint { reader, index });
    let rounds = shared.experiment.federation.rounds;
    match &found {
        None => console.log(Level::Warn, "no checkpoint yet; starting over"),
        Some(found) if found.index.least_rounds() > rounds => {
            let report = Diagnostic::new(format!(
                "`{}`: {rounds}, but more have already been done or started",
                "federation.rounds"
            ));
            return Err(CliError::usage(report.hint(format!("at least {}", found.index.least_rounds()))));
        }
        Some(_) => {}
    }
    Ok(found)
}
