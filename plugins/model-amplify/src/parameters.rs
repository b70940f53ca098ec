//! The model's named tensors.

mod names;
mod on_device;
mod relocation;

use std::ops::Deref;

use fedplug_amplify_cpu::ParameterStore;
use plugin_api::{Arena, Error, Params, Received, Result, Seed, TensorBuf};
use tch::{Device, Kind, Tensor};

use crate::cow_buffer::CowBuffer;
use crate::device::DeviceContext;
use crate::transfer::DeviceModel;
use crate::{bridge, random, transfer};

pub(crate) use names::{TRUNK, blocks_above, depth, is_below, is_of_base, is_of_decoder, is_of_trunk};

/// The initial values of a tensor that no checkpoint provides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Uniform within this distance of 0.
    Uniform(f64),
}

/// A named tensor.
#[derive(Debug)]
pub struct Parameter {
    /// Its published name, with `trunk.` before the trunk's.
    pub name: String,
    /// The tensor that the layers hold handles of. On the CPU its memory is that of `values`, and libtorch only reads it.
    pub(crate) tensor: Tensor,
    init: Init,
    values: Values,
    /// Whether it stays where it is: it is no part of messages and states, since every client has the same.
    is_local: bool,
}

/// Where a parameter's values are.
#[derive(Debug)]
enum Values {
    /// There are none yet: they are initialised, or received, when they are first needed.
    Missing,
    /// In libtorch's memory on another device.
    Device,
    /// The same, in memory that other models use too and nobody changes.
    SharedDevice,
    /// In host memory, which the tensor uses too.
    Host(CowBuffer),
}

impl Parameter {
    /// The shape, in the contract's integers.
    pub fn shape(&self) -> Vec<usize> {
        bridge::shape_of(&self.tensor)
    }

    /// The address of its values, for tests.
    #[doc(hidden)]
    pub fn memory(&self) -> usize {
        self.tensor.data_ptr() as usize
    }

    /// Whether it has no values yet.
    pub fn is_missing(&self) -> bool {
        matches!(self.values, Values::Missing)
    }

    /// Takes over the values of a tensor, without a copy. Returns whether the previous memory was lost because others hold it.
    fn replace(&mut self, tensor: &plugin_api::Tensor) -> Result<bool> {
        // SAFETY: as in `set_buffer`; `values` holds the tensor from here on.
        unsafe { bridge::set_memory(&self.tensor, tensor.elements()?) }?;
        let (buffer, lost) = match std::mem::replace(&mut self.values, Values::Missing) {
            Values::Host(buffer) => {
                let buffer = buffer.replace(tensor);
                let lost = buffer.relocation_bytes() > 0;
                (buffer, lost)
            }
            Values::Missing | Values::Device | Values::SharedDevice => (CowBuffer::shared(tensor), false),
        };
        self.values = Values::Host(buffer);
        Ok(lost)
    }

    /// Makes the tensor use a buffer, and only then frees its previous one.
    fn set_buffer(&mut self, buffer: CowBuffer) -> Result<()> {
        // SAFETY: `values` holds the buffer while the tensor uses it. Only `Parameters::write` writes to it, with the parameters
        // borrowed mutably, so no libtorch call reads the tensor meanwhile; libtorch writes to no parameter on the CPU.
        unsafe { bridge::set_memory(&self.tensor, buffer.read()) }?;
        self.values = Values::Host(buffer);
        Ok(())
    }
}

/// A layer's handle of a parameter.
#[derive(Debug)]
pub struct Handle {
    tensor: Tensor,
    /// The parameter's index.
    pub index: usize,
}

impl Deref for Handle {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// All parameters, in the order in which the layers were made.
#[derive(Debug)]
pub struct Parameters {
    context: DeviceContext,
    all: Vec<Parameter>,
    /// How often values of the trunk, without adapters, came from outside a step.
    trunk_changes: u64,
    /// How often tensors of a device got other memory.
    moves: u64,
    _on_device: Option<DeviceModel>,
}

impl Parameters {
    /// Without any parameters yet.
    pub fn new(context: DeviceContext) -> Self {
        let _on_device = (!context.on_host).then(DeviceModel::new);
        Self { context, all: Vec::new(), trunk_changes: 0, moves: 0, _on_device }
    }

    /// Where their values are.
    pub(crate) fn context(&self) -> &DeviceContext {
        &self.context
    }

    /// How often values of the trunk came from outside a step: as long as it stays, a frozen trunk is the same.
    pub(crate) fn trunk_changes(&self) -> u64 {
        self.trunk_changes
    }

    /// How often tensors of a device got other memory: as long as it stays, their addresses do.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// The root of the names, where layers make their parameters.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new() }
    }

    /// The parameters by index.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter()
    }

    /// The parameter of this index.
    pub(crate) fn at(&self, index: usize) -> &Parameter {
        &self.all[index]
    }

    /// Gives the parameters without values whose names start with `prefix` their initial ones. Random values depend on the
    /// seed and the name alone, so that instances with different heads start with the same trunk.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn initialise(&mut self, prefix: &str, seed: Seed) -> Result<()> {
        self.initialise_where(|name| name.starts_with(prefix), seed)
    }

    /// Those whose names are `selected`, as [`Self::initialise`]. They get an allocation of their own.
    ///
    /// # Errors
    /// As [`Self::initialise`].
    pub(crate) fn initialise_where(&mut self, selected: impl Fn(&str) -> bool, seed: Seed) -> Result<()> {
        self.fill_missing(selected, |parameter, out| {
            match parameter.init {
                Init::Zeros => {}
                Init::Ones => out.fill(1.0),
                Init::Uniform(range) => random::uniform(out, range, seed.of(&parameter.name)),
            }
            Ok(())
        })
    }

    /// Gives values to the parameters without values whose names are `selected`. `write` gets zeros to write to.
    ///
    /// # Errors
    /// That of `write`, or if libtorch fails. On the CPU the parameters before have their values then.
    pub(crate) fn fill_missing(
        &mut self,
        selected: impl Fn(&str) -> bool,
        mut write: impl FnMut(&Parameter, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let selected = |parameter: &&mut Parameter| parameter.is_missing() && selected(&parameter.name);
        let bytes = self.all.iter_mut().filter(selected).map(|p| Arena::bytes::<f32>(p.tensor.numel()));
        let mut arena = Arena::of(bytes);
        let mut drafts = Vec::new();
        for parameter in self.all.iter_mut().filter(selected) {
            self.trunk_changes += u64::from(is_of_base(&parameter.name));
            let mut draft = arena.alloc::<f32>(parameter.tensor.numel());
            write(parameter, draft.as_mut_slice())?;
            if self.context.on_host {
                parameter.set_buffer(CowBuffer::Owned(draft))?;
            } else {
                drafts.push(draft);
            }
        }
        if self.context.on_host {
            return Ok(());
        }
        let mut filled: Vec<&mut Parameter> = self.all.iter_mut().filter(selected).collect();
        let copies: Vec<_> = filled.iter().map(|p| &p.tensor).zip(drafts.iter().map(TensorBuf::as_slice)).collect();
        transfer::upload(&copies, &self.context)?;
        filled.iter_mut().for_each(|parameter| parameter.values = Values::Device);
        Ok(())
    }

    /// Keeps the parameters that are not `sent` out of messages and states.
    pub(crate) fn send_only(&mut self, sent: impl Fn(&str) -> bool) {
        self.all.iter_mut().for_each(|parameter| parameter.is_local = !sent(&parameter.name));
    }

    /// The parameters of messages and states.
    pub(crate) fn sent(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter().filter(|parameter| !parameter.is_local)
    }

    /// Takes over the values of parameters that have none.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn take_missing(&mut self, params: &Params) -> Result<()> {
        let missing = self.all.iter().filter(|parameter| parameter.is_missing());
        let found =
            missing.filter_map(|parameter| Some((parameter.name.clone(), params.get(&parameter.name)?.clone())));
        let found: Params = found.collect();
        self.take(&found, |_| true).map(drop)
    }

    /// The parameters of messages and states as the contract's tensors: shared on the CPU, where the next step relocates those
    /// that are still held; copied from other devices.
    ///
    /// # Errors
    /// If one has no values, or cannot be copied.
    pub fn snapshot(&mut self) -> Result<Params> {
        let selected = |parameter: &Parameter| !parameter.is_local;
        self.snapshot_where(selected)
    }

    /// Those whose names are `selected`, as [`Self::snapshot`].
    ///
    /// # Errors
    /// As [`Self::snapshot`].
    pub(crate) fn snapshot_of(&mut self, selected: impl Fn(&str) -> bool) -> Result<Params> {
        self.snapshot_where(|parameter| selected(&parameter.name))
    }

    fn expect_values(&self, selected: impl Fn(&Parameter) -> bool) -> Result<()> {
        match self.all.iter().find(|parameter| selected(parameter) && parameter.is_missing()) {
            Some(missing) => Err(Error::tensor(&missing.name, "has no values yet")),
            None => Ok(()),
        }
    }

    fn snapshot_where(&mut self, selected: impl Fn(&Parameter) -> bool) -> Result<Params> {
        self.expect_values(&selected)?;
        let is_on_device = |parameter: &&Parameter| {
            selected(parameter) && matches!(parameter.values, Values::Device | Values::SharedDevice)
        };
        let on_device = self.all.iter().filter(is_on_device);
        let mut fetched = transfer::fetch(on_device.map(|parameter| &parameter.tensor), &self.context)?;
        let shared = |parameter: &mut Parameter| {
            let shape = parameter.shape();
            let tensor = match &mut parameter.values {
                Values::Host(buffer) => buffer.share(&shape),
                _ => fetched.next().expect("every parameter on the device was fetched"),
            };
            (parameter.name.clone(), tensor)
        };
        Ok(self.all.iter_mut().filter(|parameter| selected(parameter)).map(shared).collect())
    }

    /// Takes over the tensors of a message or state whose names it has: without a copy on the CPU.
    ///
    /// # Errors
    /// If a tensor has another shape or type; then nothing has changed. If it cannot be copied to the device.
    pub fn receive(&mut self, params: &Params) -> Result<Received> {
        self.take(params, |parameter| !parameter.is_local)
    }

    /// Takes over all tensors whose names it has, to share their memory: what it had before is freed.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub(crate) fn adopt(&mut self, params: &Params) -> Result<()> {
        self.take(params, |_| true)?;
        for parameter in self.all.iter_mut().filter(|parameter| params.get(&parameter.name).is_some()) {
            if let Values::Host(buffer) = &mut parameter.values {
                buffer.release_spare();
            }
        }
        Ok(())
    }

    fn take(&mut self, params: &Params, wanted: impl Fn(&Parameter) -> bool) -> Result<Received> {
        let mut received = Received::default();
        let mut fitting = Vec::new();
        for (index, parameter) in self.all.iter().enumerate().filter(|(_, parameter)| wanted(parameter)) {
            match params.get(&parameter.name) {
                Some(tensor) => {
                    bridge::expect_like(&parameter.name, tensor, &parameter.tensor)?;
                    fitting.push((index, tensor));
                }
                None => received.missing.push(parameter.name.clone()),
            }
        }
        let known = |name: &str| self.all.iter().any(|parameter| parameter.name == name && wanted(parameter));
        received.unexpected = params.names().filter(|name| !known(name)).map(str::to_owned).collect();
        let mut lost = false;
        if !self.context.on_host {
            self.leave_shared(|name| params.get(name).is_some())?;
            let copies = fitting.iter().map(|&(index, tensor)| (&self.all[index].tensor, tensor));
            transfer::upload_message(&copies.collect::<Vec<_>>(), &self.context)?;
        }
        for (index, tensor) in fitting {
            let parameter = &mut self.all[index];
            self.trunk_changes += u64::from(is_of_base(&parameter.name));
            if self.context.on_host {
                lost |= parameter.replace(tensor)?;
            } else {
                parameter.values = Values::Device;
            }
        }
        if lost {
            self.detach_retained(&received.missing)?;
        }
        Ok(received)
    }
}

impl ParameterStore for Parameters {
    fn values(&self, index: usize) -> Result<&[f32]> {
        let parameter = &self.all[index];
        match &parameter.values {
            Values::Host(buffer) => Ok(buffer.read()),
            Values::Missing | Values::Device | Values::SharedDevice => {
                Err(Error::tensor(&parameter.name, "has no values in host memory"))
            }
        }
    }
}

/// A prefix of names, such as `trunk.transformer_encoder.3.ffn`.
#[derive(Debug)]
pub struct Scope<'a> {
    parameters: &'a mut Parameters,
    prefix: String,
}

impl Scope<'_> {
    /// The scope `name` within this one.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        Scope { prefix: format!("{}{name}.", self.prefix), parameters: self.parameters }
    }

    /// Makes a parameter, which has no values yet.
    ///
    /// # Errors
    /// If libtorch cannot allocate it.
    pub fn tensor(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Handle> {
        let name = format!("{}{name}", self.prefix);
        let tensor = Tensor::f_empty(shape, (Kind::Float, self.parameters.context.device))
            .map_err(|e| Error::tensor(&name, "could not be allocated").because(&e))?;
        let handle = Handle { tensor: tensor.shallow_clone(), index: self.parameters.all.len() };
        self.parameters.all.push(Parameter { name, tensor, init, values: Values::Missing, is_local: false });
        Ok(handle)
    }

    /// The parameters' device.
    pub fn device(&self) -> Device {
        self.parameters.context.device
    }
}
