//! The directory of several runs of one experiment, for this process alone.

use std::path::Path;

use crate::artefacts::lock::Lock;
use crate::artefacts::names;
use crate::artefacts::run_dir::Existing;
use crate::artefacts::series::{Listed, Series};
use crate::error::{CliError, Diagnostic};
use crate::setup::changes;

/// Locks the directory and writes the list of runs. With `Resume` these are the runs that it lists already, and new ones.
///
/// # Errors
/// If another process uses the directory, if it holds something else, if such runs are there and should not be or the
/// reverse, or if those to resume are of another experiment.
pub(crate) fn claim<R: Listed>(
    folder: &Path,
    now: Series<R>,
    existing: Existing,
    extended: impl FnOnce(Vec<R>, Vec<R>) -> Vec<R>,
) -> Result<(Series<R>, Lock), CliError> {
    let (shown, what) = (folder.display(), R::NAMED);
    let series = match (there::<R>(folder)?, existing) {
        (None, Existing::Resume) => {
            let report = Diagnostic::new(format!("{shown}: there are no {what} to resume"));
            return Err(CliError::usage(report.hint("start them without --resume")));
        }
        (Some(_), Existing::Refuse) => {
            let report = Diagnostic::new(format!("{shown}: this directory already contains {what}"));
            let hint = "give these another name with --name, run the missing ones with --resume, or replace all with \
                        --force";
            return Err(CliError::usage(report.hint(hint)));
        }
        (Some(before), Existing::Resume) => {
            let found = changes::keys_that_matter(&before.experiment, &now.experiment);
            if !found.is_empty() {
                let report = Diagnostic::new(format!("the {what} were started with something else"));
                let report = found.into_iter().fold(report, Diagnostic::cause);
                return Err(CliError::usage(
                    report.hint("undo the changes to resume them, or start over with --force"),
                ));
            }
            Series { runs: extended(before.runs.clone(), now.runs), ..before }
        }
        _ => now,
    };
    std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, "create the directory of the runs", &e))?;
    let lock = Lock::take(folder)?;
    series.write(folder)?;
    Ok((series, lock))
}

/// The runs that a directory lists; `None` if there is nothing, or none of them began, as with an error in the experiment.
fn there<R: Listed>(folder: &Path) -> Result<Option<Series<R>>, CliError> {
    if let Some(series) = Series::<R>::read(folder)? {
        let begun = series.runs.iter().any(|run| folder.join(run.folder()).join(names::MANIFEST).is_file());
        return Ok(Some(series).filter(|_| begun));
    }
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(|e| CliError::io(folder, "read the directory", &e))?,
    };
    if entries.flatten().all(|entry| entry.file_name() == names::LOCK) {
        return Ok(None);
    }
    let report = Diagnostic::new(format!("{}: contains files that are not {}", folder.display(), R::NAMED));
    Err(CliError::usage(report.hint("choose another folder with --output or another name with --name")))
}
