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
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use plugin_api::{Component, Context, Error, Level, Message, Model, ModelSetup, Params, Result, State};
use serde_json::{Map, Value};

use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::experiment::byte_size::ByteSize;
use crate::federation::services::CallScope;

/// The recipe for all models of a run.
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
    folder: PathBuf,
    limit: Option<ByteSize>,
    taken: Mutex<u64>,
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
            _ => Ok(Self { folder, limit, taken: Mutex::new(0) }),
        }
    }

    /// Creates an empty store without a limit or a folder.
    pub(crate) fn in_memory() -> Self {
        Self { folder: PathBuf::new(), limit: None, taken: Mutex::new(0) }
    }

    /// Reserves this many bytes, if they are within the limit. Returns whether it did.
    fn take(&self, bytes: u64) -> bool {
        let limit = self.limit.map_or(u64::MAX, |ByteSize(limit)| limit);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = taken.checked_add(bytes).is_some_and(|sum| sum <= limit);
        if fits {
            *taken += bytes;
        }
        fits
    }

    fn give_back(&self, bytes: u64) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
    }

    fn write(&self, file: &Path, params: &Params) -> Result<(), CliError> {
        let folder = file.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, "create the folder", &e))?;
        safetensors::write(file, params, &[])
    }
}

/// A message that is stored for later, in memory if it fits and otherwise on disk. It can be replaced.
#[derive(Debug)]
pub(crate) struct SpillableMessage {
    store: Arc<Store>,
    /// The files of parameters and of extra tensors.
    files: [PathBuf; 2],
    at: Location,
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
        let files = ["model", "extra"].map(|part| store.folder.join(name).join(format!("{part}.safetensors")));
        Self { store, files, at: Location::Nowhere }
    }

    /// Replaces the message. Others still hold the new one until [`release`](Self::release).
    ///
    /// # Errors
    /// If the previous message could not be written.
    pub(crate) fn put(&mut self, message: Message) -> Result<(), CliError> {
        self.arrive()?;
        if let Location::Here(_, bytes) = std::mem::replace(&mut self.at, Location::Shared(message)) {
            self.store.give_back(bytes);
        }
        Ok(())
    }

    /// Removes the message.
    pub(crate) fn clear(&mut self) {
        // The message is no longer needed, so a failed write does not matter.
        let _ = self.arrive();
        match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Here(_, bytes) => self.store.give_back(bytes),
            Location::OnDisk(_) => self.files.iter().for_each(|file| drop(std::fs::remove_file(file))),
            _ => {}
        }
    }

    /// Stores the message, which others no longer hold: in memory if it fits, otherwise on disk.
    pub(crate) fn release(&mut self) {
        self.at = match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Shared(message) => {
                let bytes = message.bytes() as u64;
                if self.store.take(bytes) { Location::Here(message, bytes) } else { self.leave(message) }
            }
            other => other,
        };
    }

    fn leave(&self, message: Message) -> Location {
        let (store, [params, extra]) = (self.store.clone(), self.files.clone());
        Location::Leaving(std::thread::spawn(move || {
            store.write(&params, &message.params)?;
            store.write(&extra, &message.extra)?;
            Ok(message.values)
        }))
    }

    /// Waits until a message that is being written is on disk.
    fn arrive(&mut self) -> Result<(), CliError> {
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
        self.arrive()?;
        match &self.at {
            Location::Nowhere | Location::Leaving(_) => Ok(None),
            Location::Shared(message) | Location::Here(message, _) => Ok(Some(message.clone())),
            Location::OnDisk(values) => {
                let [params, extra] = self.files.each_ref().map(|file| safetensors::read(file));
                Ok(Some(Message { params: params?, extra: extra?, values: values.clone() }))
            }
        }
    }
}

impl Drop for SpillableMessage {
    /// Releases the memory or the files.
    fn drop(&mut self) {
        let _ = self.arrive(); // Nobody asks any more whether it could be written.
        match &self.at {
            Location::Here(_, bytes) => self.store.give_back(*bytes),
            Location::OnDisk(_) => {
                let _ = self.files[0].parent().map(std::fs::remove_dir_all);
            }
            _ => {}
        }
    }
}

/// A client's model, wherever it is stored.
pub(crate) struct ModelHandle {
    recipe: Arc<ModelFactory>,
    store: Arc<Store>,
    held: Vec<String>,
    file: PathBuf,
    model: Option<Box<dyn Model>>,
    /// Whether the model differs from what its constructor or its file gives.
    changed: bool,
    /// The small values of the state whose tensors are in the file.
    on_disk: Option<Map<String, Value>>,
    /// The bytes reserved for the model in the store, if any.
    place: Option<u64>,
}

impl ModelHandle {
    /// Creates a handle for a client that holds these tasks. The model is made when needed.
    pub(crate) fn new(recipe: Arc<ModelFactory>, store: Arc<Store>, client: &str, held: Vec<String>) -> Self {
        let file = store.folder.join(format!("{client}.safetensors"));
        Self { recipe, store, held, file, model: None, changed: false, on_disk: None, place: None }
    }

    /// Sets a model that has already been made.
    #[must_use]
    pub(crate) fn with(self, model: Box<dyn Model>) -> Self {
        Self { model: Some(model), changed: true, ..self }
    }

    /// Returns the model for a call that does not change it.
    ///
    /// # Errors
    /// If the model cannot be made or read back.
    pub(crate) fn get(&mut self, ctx: &Context<'_>) -> Result<&mut dyn Model> {
        if self.model.is_none() {
            let ModelFactory { component, config, plan } = &*self.recipe;
            let mut model = component.new_model(config, &plan.holding(self.held.clone()), ctx)?;
            if let Some(values) = &self.on_disk {
                let tensors = safetensors::read(&self.file).map_err(as_error)?;
                model.restore(&State { tensors, values: values.clone() }, ctx)?;
            }
            self.model = Some(model);
        }
        Ok(&mut **self.model.as_mut().expect("made above"))
    }

    /// Returns the model for a call that changes it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn get_mut(&mut self, ctx: &Context<'_>) -> Result<&mut dyn Model> {
        self.get(ctx)?;
        self.changed = true;
        if self.on_disk.take().is_some() {
            // The file is out of date. Removing it also spares the system from writing cached data to the disk.
            let _ = std::fs::remove_file(&self.file);
        }
        self.get(ctx)
    }

    /// Runs `part` on the model and then restores the model's state, whatever `part` did to it.
    ///
    /// # Errors
    /// As [`get`](Self::get), if `part` fails, or if the model's state cannot be read or restored.
    pub(crate) fn aside<T>(
        &mut self,
        scope: &CallScope<'_>,
        part: impl FnOnce(&mut dyn Model, &Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let ctx = scope.context();
        if !self.changed {
            // The same model can be made again.
            let found = self.get(&ctx).and_then(|model| part(model, &ctx));
            self.evict(scope);
            return found;
        }
        let model = self.get(&ctx)?;
        let own = model.state(&ctx)?;
        let found = part(model, &ctx);
        let back = model.restore(&own, &ctx);
        found.and_then(|found| back.map(|()| found))
    }

    /// Ends the client's work for now. Drops a model that can be made again, after writing its state to disk if
    /// necessary.
    ///
    /// # Errors
    /// If the model cannot return its state, or the state cannot be written. The model is then kept.
    pub(crate) fn release(&mut self, scope: &CallScope<'_>) -> Result<()> {
        if self.changed && self.place.is_none() && self.store.limit.is_some() {
            let state = self.get(&scope.context())?.state(&scope.context())?;
            self.keep(state)?;
        }
        if !self.changed {
            self.evict(scope);
        }
        Ok(())
    }

    /// Returns the state from which another instance can continue; `None` if the model has not changed since its
    /// construction.
    ///
    /// # Errors
    /// If the model cannot return its state, or the state cannot be read back.
    pub(crate) fn state(&mut self, ctx: &Context<'_>) -> Result<Option<State>> {
        if self.changed {
            return self.get(ctx)?.state(ctx).map(Some);
        }
        let read = |values: &Map<String, Value>| {
            Ok(State { tensors: safetensors::read(&self.file).map_err(as_error)?, values: values.clone() })
        };
        self.on_disk.as_ref().map(read).transpose()
    }

    /// Restores a state. If the state does not fit in memory, it is written to disk and the model is dropped.
    ///
    /// # Errors
    /// If the state does not fit the model, or cannot be written.
    pub(crate) fn restore(&mut self, state: State, scope: &CallScope<'_>) -> Result<()> {
        let ctx = scope.context();
        if self.store.limit.is_some() && self.place.is_none() {
            self.changed = true;
            self.keep(state.clone())?;
            if !self.changed {
                self.evict(scope);
                return Ok(());
            }
        }
        self.get_mut(&ctx)?.restore(&state, &ctx)
    }

    /// Releases everything: the client is not called again.
    pub(crate) fn retire(&mut self, scope: &CallScope<'_>) {
        self.evict(scope);
        self.changed = false;
        if self.on_disk.take().is_some() {
            let _ = std::fs::remove_file(&self.file);
        }
        if let Some(bytes) = self.place.take() {
            self.store.give_back(bytes);
        }
    }

    /// Reserves memory for a model with this state. If there is not enough, writes the state to the file, after which
    /// the model can be dropped.
    fn keep(&mut self, state: State) -> Result<()> {
        let bytes = state.tensors.bytes() as u64;
        if self.store.take(bytes) {
            self.place = Some(bytes);
        } else {
            self.store.write(&self.file, &state.tensors).map_err(as_error)?;
            self.on_disk = Some(state.values);
            self.changed = false;
        }
        Ok(())
    }

    /// Drops the model and logs panics of the drop at once, since only this thread can ask for them.
    fn evict(&mut self, scope: &CallScope<'_>) {
        let Some(model) = self.model.take() else { return };
        drop(model);
        let component = &self.recipe.component;
        for mishap in component.mishaps() {
            scope.tell(Level::Warn, &format!("{component:?}: {}", crate::plugins::validate::line(&mishap)));
        }
    }
}

/// Converts a file error to a component's error, which is handled in the same way.
pub(crate) fn as_error(failure: CliError) -> Error {
    Error::other(failure.reports().iter().map(crate::error::Diagnostic::line).collect::<Vec<_>>().join("; "))
}
