//! Where a client's model is while the client is not at work: nowhere, in memory, or on disk. So is the best global model.
//!
//! A model that has never taken anything over is what its constructor makes of it, so it is made when it is needed and
//! let go again: a client costs memory from its first round on. What a model has learnt is its state. Where the models
//! of idle clients would take more memory together than the experiment allows, those that find no place wait as files,
//! and are made anew and restored when their client works again. The contract says that this is the same model, so
//! results do not depend on the limit.
//!
//! A model that once has its place keeps it. Clients work in turns, and whoever gave the place of the one that waits
//! longest to the one that worked last would write and read every model in every round.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use plugin_api::{Component, Context, Error, Level, Message, Model, ModelSetup, Params, Result, State};
use serde_json::{Map, Value};

use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::experiment::byte_size::ByteSize;
use crate::federation::services::CallScope;

/// What all models of a run are made of.
#[derive(Debug)]
pub struct ModelFactory {
    /// The plugin.
    pub component: Component,
    /// Its table.
    pub config: Value,
    /// The experiment, without what a client holds.
    pub plan: ModelSetup,
}

/// What the idle clients of a run may keep in memory, and the folder for all else.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    limit: Option<ByteSize>,
    taken: Mutex<u64>,
}

impl Store {
    /// An empty store for files in `folder`, which is made when it is needed. Without a limit it never is.
    ///
    /// # Errors
    /// If what an interrupted run left in the folder cannot be removed.
    pub fn new(folder: PathBuf, limit: Option<ByteSize>) -> Result<Self, CliError> {
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::io(&folder, "remove what an earlier run left", &e))
            }
            _ => Ok(Self { folder, limit, taken: Mutex::new(0) }),
        }
    }

    /// An empty store that never needs a folder.
    pub fn in_memory() -> Self {
        Self { folder: PathBuf::new(), limit: None, taken: Mutex::new(0) }
    }

    /// Takes room for this many bytes, if there is any.
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
        std::fs::create_dir_all(folder).map_err(|e| CliError::io(folder, "make the folder", &e))?;
        safetensors::write(file, params, &[])
    }
}

/// A message that waits until it is asked for, in memory if there is room. Others may take its place.
#[derive(Debug)]
pub struct SpillableMessage {
    store: Arc<Store>,
    /// Files of parameters and of extra tensors.
    files: [PathBuf; 2],
    at: Location,
}

#[derive(Debug)]
enum Location {
    /// There is none.
    Nowhere,
    /// In memory that others hold as well, so that it costs nothing.
    Shared(Message),
    /// In memory, for which these bytes were taken in the store.
    Here(Message, u64),
    /// On its way to the files. Rounds go on meanwhile.
    Leaving(JoinHandle<Result<Map<String, Value>, CliError>>),
    /// In the files, but for its small values.
    OnDisk(Map<String, Value>),
}

impl SpillableMessage {
    /// No message yet; one of this name.
    pub fn new(store: Arc<Store>, name: &str) -> Self {
        // A folder, since files bear the names of clients.
        let files = ["model", "extra"].map(|part| store.folder.join(name).join(format!("{part}.safetensors")));
        Self { store, files, at: Location::Nowhere }
    }

    /// A message, held by others as well, takes the place of the one before.
    ///
    /// # Errors
    /// If the one before could not be written.
    pub fn put(&mut self, message: Message) -> Result<(), CliError> {
        self.arrive()?;
        if let Location::Here(_, bytes) = std::mem::replace(&mut self.at, Location::Shared(message)) {
            self.store.give_back(bytes);
        }
        Ok(())
    }

    /// There is no message any more.
    pub fn clear(&mut self) {
        // Whether one that nobody asks for could be written matters to nobody.
        let _ = self.arrive();
        match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Here(_, bytes) => self.store.give_back(bytes),
            Location::OnDisk(_) => self.files.iter().for_each(|file| drop(std::fs::remove_file(file))),
            _ => {}
        }
    }

    /// Others hold the message no more: it finds a place in memory, or leaves for the disk.
    pub fn release(&mut self) {
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

    /// Waits until a message that leaves is on disk.
    fn arrive(&mut self) -> Result<(), CliError> {
        self.at = match std::mem::replace(&mut self.at, Location::Nowhere) {
            Location::Leaving(thread) => Location::OnDisk(thread.join().expect("writing does not panic")?),
            other => other,
        };
        Ok(())
    }

    /// The message; none if there never was one.
    ///
    /// # Errors
    /// If it could not be written, or cannot be read back.
    pub fn get(&mut self) -> Result<Option<Message>, CliError> {
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
    /// Gives up its place, and its files.
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

/// A client's model, wherever it is.
pub struct ModelHandle {
    recipe: Arc<ModelFactory>,
    store: Arc<Store>,
    held: Vec<String>,
    file: PathBuf,
    model: Option<Box<dyn Model>>,
    /// Whether the model is another than what its constructor or its file gives.
    changed: bool,
    /// The small values of the state whose tensors are in the file.
    on_disk: Option<Map<String, Value>>,
    /// Bytes that were taken for it in the store, if any.
    place: Option<u64>,
}

impl ModelHandle {
    /// The model of a client with these tasks, to be made when it is needed.
    pub fn new(recipe: Arc<ModelFactory>, store: Arc<Store>, client: &str, held: Vec<String>) -> Self {
        let file = store.folder.join(format!("{client}.safetensors"));
        Self { recipe, store, held, file, model: None, changed: false, on_disk: None, place: None }
    }

    /// The same with a model that was made already.
    #[must_use]
    pub fn with(self, model: Box<dyn Model>) -> Self {
        Self { model: Some(model), changed: true, ..self }
    }

    /// The model, for a call that leaves it as it is.
    ///
    /// # Errors
    /// If it cannot be made, or not be read back.
    pub fn get(&mut self, ctx: &Context<'_>) -> Result<&mut dyn Model> {
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

    /// The model, for a call that changes it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_mut(&mut self, ctx: &Context<'_>) -> Result<&mut dyn Model> {
        self.get(ctx)?;
        self.changed = true;
        if self.on_disk.take().is_some() {
            // Out of date. What the system has not written to the disk yet, it need not write any more.
            let _ = std::fs::remove_file(&self.file);
        }
        self.get(ctx)
    }

    /// Lets the model play another part, after which it is as it was, whatever that did to it.
    ///
    /// # Errors
    /// As [`get`](Self::get), if the part fails, or if the model cannot go back.
    pub fn aside<T>(
        &mut self,
        scope: &CallScope<'_>,
        part: impl FnOnce(&mut dyn Model, &Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let ctx = scope.context();
        if !self.changed {
            // The same one can be had again.
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

    /// Ends the client's work for now: lets go of a model that can be had again, writing it to disk if it must.
    ///
    /// # Errors
    /// If the model cannot tell its state, or it cannot be written. Then the model stays.
    pub fn release(&mut self, scope: &CallScope<'_>) -> Result<()> {
        if self.changed && self.place.is_none() && self.store.limit.is_some() {
            let state = self.get(&scope.context())?.state(&scope.context())?;
            self.keep(state)?;
        }
        if !self.changed {
            self.evict(scope);
        }
        Ok(())
    }

    /// The state that another instance goes on from; none of a model that is as it was made.
    ///
    /// # Errors
    /// If the model cannot tell, or it cannot be read back.
    pub fn state(&mut self, ctx: &Context<'_>) -> Result<Option<State>> {
        if self.changed {
            return self.get(ctx)?.state(ctx).map(Some);
        }
        let read = |values: &Map<String, Value>| {
            Ok(State { tensors: safetensors::read(&self.file).map_err(as_error)?, values: values.clone() })
        };
        self.on_disk.as_ref().map(read).transpose()
    }

    /// Goes back to a state. One that finds no room in memory stays on disk, and the model with it.
    ///
    /// # Errors
    /// If it does not fit, or cannot be written.
    pub fn restore(&mut self, state: State, scope: &CallScope<'_>) -> Result<()> {
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

    /// Gives up all that it holds: nothing more is asked of the client.
    pub fn retire(&mut self, scope: &CallScope<'_>) {
        self.evict(scope);
        self.changed = false;
        if self.on_disk.take().is_some() {
            let _ = std::fs::remove_file(&self.file);
        }
        if let Some(bytes) = self.place.take() {
            self.store.give_back(bytes);
        }
    }

    /// Finds a place for a model of this state: room in memory, or its file, after which it can be let go.
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

    /// A panic of its drop is told by the thread that it came on, so it is asked for at once.
    fn evict(&mut self, scope: &CallScope<'_>) {
        let Some(model) = self.model.take() else { return };
        drop(model);
        let component = &self.recipe.component;
        for mishap in component.mishaps() {
            scope.tell(Level::Warn, &format!("{component:?}: {}", crate::plugins::validate::line(&mishap)));
        }
    }
}

/// A file's failure, as a component's error: it ends the same way.
pub(crate) fn as_error(failure: CliError) -> Error {
    Error::other(failure.reports().iter().map(crate::error::Diagnostic::line).collect::<Vec<_>>().join("; "))
}
