//! Where a client's model is kept while the client is idle: nowhere, in memory or on disk. The best global models are
//! stored in the same way.
//!
//! A model that has not changed since its construction is made when needed and dropped afterwards, so a client takes no
//! memory before its first round. Everything a model has learnt is in its state. If the models of idle clients together
//! exceed the experiment's memory limit, those that do not fit are written to files. Such a model is made again and
//! restored when its client next works. The plugin contract guarantees that this is the same model, so results do not
//! depend on the limit.
//!
//! A model that has a place in memory keeps it. Clients work in turns, so evicting the least recently used model would
//! write and read every model in every round.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plugin_api::{Component, Error, ErrorKind, Message, ModelSetup, Params};
use serde_json::Value;

use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::experiment::byte_size::ByteSize;
use crate::federation::component_error::OF_HOST;
use crate::federation::parked::Parked;

/// Makes the models of a run.
#[derive(Debug)]
pub(crate) struct ModelFactory {
    /// The model's component.
    pub component: Component,
    /// The model's table in the experiment file.
    pub config: Value,
    /// The experiment's setup, without the tasks that a client holds.
    pub plan: ModelSetup,
}

/// The memory limit for the models of idle clients, and the folder for those that do not fit.
#[derive(Debug)]
pub(crate) struct Store {
    pub(super) folder: PathBuf,
    pub(super) limit: Option<ByteSize>,
    /// The bytes that are reserved.
    reserved: Mutex<u64>,
}

impl Store {
    /// Creates an empty store with files in `folder`, which is created when needed. Without a limit it is never needed.
    ///
    /// # Errors
    /// If files of an interrupted run cannot be removed from the folder.
    pub(crate) fn new(folder: PathBuf, limit: Option<ByteSize>) -> Result<Self, CliError> {
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::io(&folder, "remove what an earlier run left behind", &e))
            }
            _ => Ok(Self { folder, limit, reserved: Mutex::new(0) }),
        }
    }

    /// Creates an empty store without a limit or a folder.
    pub(crate) fn in_memory() -> Self {
        Self { folder: PathBuf::new(), limit: None, reserved: Mutex::new(0) }
    }

    /// Reserves this many bytes, if they are within the limit. Returns whether it did.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let limit = self.limit.map_or(u64::MAX, |ByteSize(limit)| limit);
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = reserved.checked_add(bytes).is_some_and(|sum| sum <= limit);
        if fits {
            *reserved += bytes;
        }
        fits
    }

    /// Gives reserved bytes back.
    pub(super) fn give_back(&self, bytes: u64) {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
    }

    /// Moves a message to a file if it does not fit in the memory that is left.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn park(&self, message: &Message) -> Result<Option<(Parked, Message)>, CliError> {
        let bytes = message.bytes() as u64;
        if self.reserve(bytes) {
            self.give_back(bytes);
            return Ok(None);
        }
        Parked::new(message, &self.folder).map(Some)
    }

    /// Writes parameters to a file in the store.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, file: &Path, params: &Params) -> Result<(), CliError> {
        let folder = file.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, "create the folder", &e))?;
        safetensors::write(file, params, &[])
    }
}

/// Converts a file error of the host to an error that passes through a client's calls. It is not the client's failure.
pub(crate) fn as_error(failure: CliError) -> Error {
    Error::new(
        ErrorKind::Other(OF_HOST.to_owned()),
        failure.reports().iter().map(crate::error::Diagnostic::line).collect::<Vec<_>>().join("; "),
    )
}
