//! Several runs of one experiment in one directory, and the file that lists them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::artefacts::names;
use crate::artefacts::safetensors::write_text;
use crate::error::{CliError, Diagnostic};

/// A run of a series.
pub(crate) trait Listed: Clone + PartialEq + Serialize + DeserializeOwned {
    /// The file that lists such runs.
    const FILE: &str;
    /// What they are called.
    const NAMED: &str;
    /// Its folder in the series' directory.
    fn folder(&self) -> &str;
}

/// Runs of one experiment that differ in some keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series<R> {
    /// The name of the experiment.
    pub name: String,
    /// The version of fedplug that started it.
    pub fedplug: String,
    /// The runs, in order.
    pub runs: Vec<R>,
    /// The effective experiment without what the runs differ in.
    pub experiment: Value,
}

/// A run that differs from others in seed and fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repeat {
    /// Its folder in the series' directory.
    pub folder: String,
    /// Its seed, if the runs differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Its fold, if the runs differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<usize>,
}

impl Listed for Repeat {
    const FILE: &str = names::REPEATS;
    const NAMED: &str = "repeats";

    fn folder(&self) -> &str {
        &self.folder
    }
}

/// A run that differs from others in the values of some keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// Its folder in the series' directory.
    pub folder: String,
    /// The values, by dotted key.
    pub values: Map<String, Value>,
}

impl Listed for Choice {
    const FILE: &str = names::SWEEP;
    const NAMED: &str = "runs of a sweep";

    fn folder(&self) -> &str {
        &self.folder
    }
}

impl<R: Listed> Series<R> {
    /// Reads the list in a directory; `None` if the directory has none.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, CliError> {
        let path = folder.join(R::FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory].contains(&e.kind()) => {
                return Ok(None);
            }
            text => text.map_err(|e| CliError::io(&path, "read the list of runs", &e))?,
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            CliError::usage(Diagnostic::new(format!("{}: is not a list of {}", path.display(), R::NAMED)).cause(error))
        })
    }

    /// Writes the list to the directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), CliError> {
        let path = folder.join(R::FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| CliError::io(&path, "write", &e.into()))?;
        write_text(&path, &format!("{text}\n"))
    }
}

/// The path of the log of a run in a directory of several runs.
pub(crate) fn log(folder: &Path, run: &str) -> PathBuf {
    folder.join(format!("{run}.log"))
}
