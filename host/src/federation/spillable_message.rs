//! A message that is stored for later.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use plugin_api::Message;
use serde_json::{Map, Value};

use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::federation::model_store::Store;

/// A message that is stored for later, in memory if it fits and otherwise on disk. It can be replaced.
#[derive(Debug)]
pub(crate) struct SpillableMessage {
    store: Arc<Store>,
    files: Files,
    at: Location,
}

/// The files of a message.
#[derive(Clone, Debug)]
struct Files {
    params: PathBuf,
    extra: PathBuf,
}

#[derive(Debug)]
enum Location {
    /// There is no message.
    Nowhere,
    /// In memory that others also hold, so it does not count against the limit.
    Shared(Message),
    /// In memory, with this many bytes reserved in the store.
    Here(Message, u64),
    /// Being written by this thread, while the rounds continue.
    Leaving(JoinHandle<Result<Map<String, Value>, CliError>>),
    /// In the files, except for these small values.
    OnDisk(Map<String, Value>),
}

impl SpillableMessage {
    /// Creates an empty slot for a message, which is stored under this name.
    pub(crate) fn new(store: Arc<Store>, name: &str) -> Self {
        // A folder of its own, since the files in the store's folder are named after clients.
        let folder = store.folder.join(name);
        let files = Files { params: folder.join("model.safetensors"), extra: folder.join("extra.safetensors") };
        Self { store, files, at: Location::Nowhere }
    }

    /// Replaces the message. Others still hold the new one until [`release`](Self::release).
    ///
    /// # Errors
    /// If the previous message could not be written.
    pub(crate) fn put(&mut self, message: Message) -> Result<(), CliError> {
        self.finish_writing()?;
        if let Location::Here(_, bytes) = std::mem::replace(&mut self.at, Location::Shared(message)) {
            self.store.give_back(bytes);
        }
        Ok(())
    }

    /// Removes the message.
    pub(crate) fn clear(&mut self) {
        // The message is no longer needed, so a failed write does not matter.
        let _ = self.finish_writing();
        match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Here(_, bytes) => self.store.give_back(bytes),
            Location::OnDisk(_) => {
                [&self.files.params, &self.files.extra].into_iter().for_each(|file| drop(std::fs::remove_file(file)));
            }
            _ => {}
        }
    }

    /// Stores the message, which others no longer hold: in memory if it fits, otherwise on disk.
    pub(crate) fn release(&mut self) {
        self.at = match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Shared(message) => {
                let bytes = message.bytes() as u64;
                if self.store.reserve(bytes) { Location::Here(message, bytes) } else { self.leave(message) }
            }
            other => other,
        };
    }

    fn leave(&self, message: Message) -> Location {
        let (store, Files { params, extra }) = (self.store.clone(), self.files.clone());
        Location::Leaving(std::thread::spawn(move || {
            store.write(&params, &message.params)?;
            store.write(&extra, &message.extra)?;
            Ok(message.values)
        }))
    }

    /// Waits until a message that is being written is on disk.
    fn finish_writing(&mut self) -> Result<(), CliError> {
        self.at = match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Leaving(thread) => Location::OnDisk(thread.join().expect("writing does not panic")?),
            other => other,
        };
        Ok(())
    }

    /// Returns the message, or `None` if there is none.
    ///
    /// # Errors
    /// If the message could not be written, or cannot be read back.
    pub(crate) fn get(&mut self) -> Result<Option<Message>, CliError> {
        self.finish_writing()?;
        match &self.at {
            Location::Nowhere | Location::Leaving(_) => Ok(None),
            Location::Shared(message) | Location::Here(message, _) => Ok(Some(message.clone())),
            Location::OnDisk(values) => {
                let Files { params, extra } = &self.files;
                let (params, extra) = (safetensors::read(params)?, safetensors::read(extra)?);
                Ok(Some(Message { params, extra, values: values.clone() }))
            }
        }
    }
}

impl Drop for SpillableMessage {
    /// Releases the memory or the files.
    fn drop(&mut self) {
        let _ = self.finish_writing(); // Nobody asks any more whether it could be written.
        match &self.at {
            Location::Here(_, bytes) => self.store.give_back(*bytes),
            Location::OnDisk(_) => {
                let _ = self.files.params.parent().map(std::fs::remove_dir_all);
            }
            _ => {}
        }
    }
}
