//! A client's model, wherever it is stored.

use std::path::PathBuf;
use std::sync::Arc;

use plugin_api::{Context, Level, Model, Result, State};
use serde_json::{Map, Value};

use crate::artefacts::safetensors;
use crate::federation::model_store::{ModelFactory, Store, as_error};
use crate::federation::services::CallScope;

/// A client's model, wherever it is stored.
pub(crate) struct ModelHandle {
    factory: Arc<ModelFactory>,
    store: Arc<Store>,
    held: Vec<String>,
    file: PathBuf,
    model: Option<Box<dyn Model>>,
    /// Whether the model differs from what its constructor or its file gives.
    changed: bool,
    /// The small values of the state whose tensors are in the file.
    on_disk: Option<Map<String, Value>>,
    /// The bytes reserved for the model in the store, if any.
    reserved: Option<u64>,
}

impl ModelHandle {
    /// Creates a handle for a client that holds these tasks. The model is made when needed.
    pub(crate) fn new(factory: Arc<ModelFactory>, store: Arc<Store>, client: &str, held: Vec<String>) -> Self {
        let file = store.folder.join(format!("{client}.safetensors"));
        Self { factory, store, held, file, model: None, changed: false, on_disk: None, reserved: None }
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
            let ModelFactory { component, config, plan } = &*self.factory;
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
    pub(crate) fn restoring<T>(
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
        if self.changed && self.reserved.is_none() && self.store.limit.is_some() {
            let state = self.get(&scope.context())?.state(&scope.context())?;
            self.admit(state)?;
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
        if self.store.limit.is_some() && self.reserved.is_none() {
            self.changed = true;
            self.admit(state.clone())?;
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
        if let Some(bytes) = self.reserved.take() {
            self.store.give_back(bytes);
        }
    }

    /// Reserves memory for a model with this state. If there is not enough, writes the state to the file, after which
    /// the model can be dropped.
    fn admit(&mut self, state: State) -> Result<()> {
        let bytes = state.tensors.bytes() as u64;
        if self.store.reserve(bytes) {
            self.reserved = Some(bytes);
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
        let component = &self.factory.component;
        for panic in component.mishaps() {
            scope.log_line(Level::Warn, &format!("{component:?}: {}", crate::plugins::validate::line(&panic)));
        }
    }
}
