//! A run's state between two rounds, on disk: what it takes to go on as if nothing had happened.
//!
//! A checkpoint is written beside the one before and takes its place when it is whole, so that a killed process leaves
//! one or the other. Each component's tensors are a safetensors file; small values and all else are `index.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_api::{Message, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Failure, Report};
use crate::tensors;

const FOLDER: &str = "checkpoint";
const INDEX: &str = "index.json";

/// What stands in `index.json`: what the host wants to keep, and each component's small values.
#[derive(Serialize, Deserialize)]
struct Index<T> {
    run: T,
    values: BTreeMap<String, Map<String, Value>>,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct Writer {
    run: PathBuf,
    folder: PathBuf,
    values: BTreeMap<String, Map<String, Value>>,
}

impl Writer {
    /// Begins a checkpoint of the run in this directory.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn new(run: &Path) -> Result<Self, Failure> {
        let folder = run.join(format!("{FOLDER}.part"));
        let made = match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => std::fs::create_dir_all(&folder),
        };
        made.map_err(|e| Failure::io(&folder, "begin a checkpoint", &e))?;
        Ok(Self { run: run.to_owned(), folder, values: BTreeMap::new() })
    }

    /// Adds a component's state under a name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn state(&mut self, name: &str, state: &State) -> Result<(), Failure> {
        self.values.insert(name.to_owned(), state.values.clone());
        tensors::write(&self.folder.join(format!("{name}.safetensors")), &state.tensors, &[])
    }

    /// Adds a message under a name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn message(&mut self, name: &str, message: &Message) -> Result<(), Failure> {
        tensors::write(&self.folder.join(format!("{name}.extra.safetensors")), &message.extra, &[])?;
        self.state(name, &State { tensors: message.params.clone(), values: message.values.clone() })
    }

    /// Puts the checkpoint in the place of the one before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self, run: &impl Serialize) -> Result<(), Failure> {
        let index = serde_json::to_string(&Index { run, values: self.values });
        let index = index.map_err(|e| Failure::run(Report::new("cannot write the checkpoint's index").cause(e)))?;
        tensors::write_text(&self.folder.join(INDEX), &index)?;
        let (place, old) = (self.run.join(FOLDER), self.run.join(format!("{FOLDER}.old")));
        let ignore_absent = |outcome: std::io::Result<()>| match outcome {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        ignore_absent(std::fs::remove_dir_all(&old))
            .and_then(|()| ignore_absent(std::fs::rename(&place, &old)))
            .and_then(|()| std::fs::rename(&self.folder, &place))
            .and_then(|()| ignore_absent(std::fs::remove_dir_all(&old)))
            .map_err(|e| Failure::io(&place, "put the checkpoint in its place", &e))
    }
}

/// A checkpoint that is there.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    values: BTreeMap<String, Map<String, Value>>,
}

impl Reader {
    /// Opens the checkpoint of the run in this directory, if there is one, with what the host kept in it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open<T: DeserializeOwned>(run: &Path) -> Result<Option<(Self, T)>, Failure> {
        // A process that was killed between the two renames of `finish` leaves the old one under its second name.
        let folder = [FOLDER.to_owned(), format!("{FOLDER}.old")].map(|name| run.join(name));
        let Some(folder) = folder.into_iter().find(|folder| folder.join(INDEX).is_file()) else { return Ok(None) };
        let path = folder.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, "read the checkpoint", &e))?;
        let index: Index<T> = serde_json::from_str(&text).map_err(|e| {
            let report = Report::new(format!("{}: not a checkpoint that this version can read", path.display()));
            Failure::run(report.cause(e).hint("begin anew with --force, or use the version that wrote it"))
        })?;
        Ok(Some((Self { folder, values: index.values }, index.run)))
    }

    /// A component's state.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn state(&self, name: &str) -> Result<State, Failure> {
        let values = self.values.get(name).cloned().ok_or_else(|| {
            Failure::run(Report::new(format!("{}: holds nothing of `{name}`", self.folder.display())))
        })?;
        Ok(State { tensors: tensors::read(&self.folder.join(format!("{name}.safetensors")))?, values })
    }

    /// A message.
    ///
    /// # Errors
    /// If it is not there or cannot be read.
    pub fn message(&self, name: &str) -> Result<Message, Failure> {
        let State { tensors, values } = self.state(name)?;
        let extra = tensors::read(&self.folder.join(format!("{name}.extra.safetensors")))?;
        Ok(Message { params: tensors, extra, values })
    }
}
