//! What is compared: a run, or the runs of one experiment with several seeds and folds.

use std::path::Path;

use serde_json::Value;

use crate::artefacts::names;
use crate::artefacts::series::{Repeat, Series};
use crate::error::{CliError, Diagnostic};
use crate::federation::summary::Summary;

/// The seed and the fold of a run.
pub(super) type Key = (Option<u32>, Option<usize>);

/// A row of the comparison.
pub(super) struct Entry {
    pub(super) name: String,
    /// The finished runs.
    pub(super) runs: Vec<(Key, Summary)>,
    /// What is known of repeats; `None` for a single run.
    pub(super) repeats: Option<Repeated>,
}

/// What is known of an experiment's repeats.
pub(super) struct Repeated {
    /// How many runs there are to be.
    pub(super) listed: usize,
    /// The number of folds, if the runs are folds.
    pub(super) folds: Option<usize>,
    /// The dataset's table.
    pub(super) dataset: Value,
}

impl Entry {
    /// Reads a directory.
    ///
    /// # Errors
    /// If it holds neither a finished run nor repeats of which one is finished.
    pub(super) fn read(folder: &Path) -> Result<Self, CliError> {
        let Some(series) = Series::<Repeat>::read(folder)? else {
            let summary = Summary::read(folder)?;
            return Ok(Self { name: summary.name.clone(), runs: vec![((None, None), summary)], repeats: None });
        };
        let mut runs = Vec::new();
        for run in &series.runs {
            let path = folder.join(&run.folder);
            if path.join(names::SUMMARY).is_file() {
                runs.push(((run.seed, run.fold), Summary::read(&path)?));
            }
        }
        if runs.is_empty() {
            let report =
                Diagnostic::new(format!("{}: none of its {} runs is finished", folder.display(), series.runs.len()));
            return Err(CliError::usage(report));
        }
        let dataset = series.experiment["dataset"].clone();
        let folds = series.runs.iter().any(|run| run.fold.is_some()).then(|| dataset["folds"].as_u64()).flatten();
        let repeats =
            Repeated { listed: series.runs.len(), folds: folds.and_then(|n| usize::try_from(n).ok()), dataset };
        Ok(Self { name: series.name, runs, repeats: Some(repeats) })
    }

    /// The number of folds, if the runs are folds.
    pub(super) fn folds(&self) -> Option<usize> {
        self.repeats.as_ref()?.folds
    }
}
