//! The model's named tensors.

mod moving;

use std::ops::Deref;

use plugin_api::{Arena, Error, Params, Received, Result, Seed};
use tch::{Device, Kind, Tensor};

use crate::device::Place;
use crate::numbers::Numbers;
use crate::{bridge, noise};

/// How a tensor starts where no checkpoint gives it.
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
    /// Its values as libtorch sees them. The layers hold handles of the same tensor, so whoever changes its values, or
    /// where they lie, changes the layer. On the CPU libtorch only reads it: the memory is Rust's, and others may share it.
    pub(crate) tensor: Tensor,
    init: Init,
    values: Values,
}

/// Where a parameter's values are.
#[derive(Debug)]
enum Values {
    /// Nowhere: nobody asked for them yet, and what comes from the server may take their place.
    Missing,
    /// In libtorch's memory on another device.
    OnDevice,
    /// Here, and the tensor points there.
    Here(Numbers),
}

impl Parameter {
    /// The shape, in the contract's integers.
    pub fn shape(&self) -> Vec<usize> {
        bridge::shape_of(&self.tensor)
    }

    /// Whether it has no values yet.
    pub fn is_missing(&self) -> bool {
        matches!(self.values, Values::Missing)
    }

    /// Takes over numbers that others hold as well. Tells whether others keep the memory of those before.
    fn replace(&mut self, tensor: &plugin_api::Tensor) -> Result<bool> {
        // SAFETY: as in `point`; the numbers are those that `values` holds from here on.
        unsafe { bridge::point(&self.tensor, tensor.elements()?) }?;
        let (numbers, lost) = match std::mem::replace(&mut self.values, Values::Missing) {
            Values::Here(numbers) => {
                let numbers = numbers.replace(tensor);
                let lost = numbers.moved_bytes() > 0;
                (numbers, lost)
            }
            Values::Missing | Values::OnDevice => (Numbers::of(tensor), false),
        };
        self.values = Values::Here(numbers);
        Ok(lost)
    }

    /// Lets the tensor point to where its numbers lie, before any other memory of it goes.
    fn point(&mut self, numbers: Numbers) -> Result<()> {
        // SAFETY: the numbers stand in `values` as long as the tensor points to them, and are as many as it has elements.
        // `write` alone writes to them, with the parameters borrowed for writing; libtorch reads the tensor in calls that
        // end before, and writes to none on the CPU.
        unsafe { bridge::point(&self.tensor, numbers.read()) }?;
        self.values = Values::Here(numbers);
        Ok(())
    }
}

/// A layer's handle of a parameter.
#[derive(Debug)]
pub struct Handle {
    tensor: Tensor,
    /// The parameter's place among all.
    pub place: usize,
}

impl Handle {
    /// Another one.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { tensor: self.tensor.shallow_clone(), place: self.place }
    }
}

impl Deref for Handle {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// All of them, in the order in which the layers were made.
#[derive(Debug)]
pub struct Parameters {
    place: Place,
    all: Vec<Parameter>,
}

impl Parameters {
    /// None yet.
    pub fn new(place: Place) -> Self {
        Self { place, all: Vec::new() }
    }

    /// Where their values are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The place where layers make their tensors.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new() }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter()
    }

    /// The one at a place.
    pub(crate) fn at(&self, place: usize) -> &Parameter {
        &self.all[place]
    }

    /// The numbers of one, which lie in this process's memory.
    ///
    /// # Errors
    /// If it has no values, or they lie on another device.
    pub(crate) fn numbers(&self, handle: &Handle) -> Result<&[f32]> {
        let parameter = &self.all[handle.place];
        match &parameter.values {
            Values::Here(numbers) => Ok(numbers.read()),
            Values::Missing | Values::OnDevice => Err(Error::tensor(&parameter.name, "has no values here")),
        }
    }

    /// The one with this name.
    fn find(&self, name: &str) -> Option<&Tensor> {
        self.all.iter().find(|parameter| parameter.name == name).map(|parameter| &parameter.tensor)
    }

    /// Gives all that have no values and whose names begin with `prefix` their first ones. Each draws from a seed of its
    /// own name, so that instances with other heads still start with the same values.
    ///
    /// # Errors
    /// If libtorch has no memory for them.
    pub fn initialise(&mut self, prefix: &str, seed: Seed) -> Result<()> {
        self.give(
            |name| name.starts_with(prefix),
            |parameter, out| {
                match parameter.init {
                    Init::Zeros => {}
                    Init::Ones => out.fill(1.0),
                    Init::Uniform(range) => noise::uniform(out, range, seed.of(&parameter.name)),
                }
                Ok(())
            },
        )
    }

    /// Gives values to those that have none and whose names are `wanted`: `write` writes them into zeros.
    ///
    /// # Errors
    /// That of `write`, or if libtorch has no memory. Those before have their values then.
    pub(crate) fn give(
        &mut self,
        wanted: impl Fn(&str) -> bool,
        mut write: impl FnMut(&Parameter, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let wanted = |parameter: &&mut Parameter| parameter.is_missing() && wanted(&parameter.name);
        let bytes = self.all.iter_mut().filter(wanted).map(|p| Arena::bytes::<f32>(p.tensor.numel()));
        let mut arena = Arena::of(bytes);
        for parameter in self.all.iter_mut().filter(wanted) {
            let mut draft = arena.alloc::<f32>(parameter.tensor.numel());
            write(parameter, draft.as_mut_slice())?;
            if self.place.here {
                parameter.point(Numbers::Own(draft))?;
            } else {
                bridge::write_to(&parameter.tensor, draft.as_slice())?;
                parameter.values = Values::OnDevice;
            }
        }
        Ok(())
    }

    /// All of them, as the contract has them: shared on the CPU, which costs nothing now and a new place at the next step
    /// if somebody still holds them then; copied from other devices.
    ///
    /// # Errors
    /// If one has no values, or cannot be copied.
    pub fn snapshot(&mut self) -> Result<Params> {
        if let Some(missing) = self.all.iter().find(|parameter| parameter.is_missing()) {
            return Err(Error::tensor(&missing.name, "has no values yet"));
        }
        let elsewhere = self.all.iter().filter(|parameter| matches!(parameter.values, Values::OnDevice));
        let mut fetched = bridge::fetch(elsewhere.map(|parameter| &parameter.tensor), &self.place)?;
        let shared = |parameter: &mut Parameter| {
            let shape = parameter.shape();
            let tensor = match &mut parameter.values {
                Values::Here(numbers) => numbers.share(&shape),
                _ => fetched.next().expect("as many were fetched"),
            };
            (parameter.name.clone(), tensor)
        };
        Ok(self.all.iter_mut().map(shared).collect())
    }

    /// Takes over the tensors that it knows. Changes nothing if one of them does not fit.
    ///
    /// # Errors
    /// If a tensor has another shape or type, or cannot be copied to the device.
    pub fn receive(&mut self, params: &Params) -> Result<Received> {
        let mut received = Received::default();
        let mut fitting = Vec::new();
        for (place, parameter) in self.all.iter().enumerate() {
            match params.get(&parameter.name) {
                Some(tensor) => {
                    bridge::expect_like(&parameter.name, tensor, &parameter.tensor)?;
                    fitting.push((place, tensor));
                }
                None => received.missing.push(parameter.name.clone()),
            }
        }
        received.unexpected = params.names().filter(|name| self.find(name).is_none()).map(str::to_owned).collect();
        let mut lost = false;
        for (place, tensor) in fitting {
            let parameter = &mut self.all[place];
            if self.place.here {
                lost |= parameter.replace(tensor)?;
            } else {
                bridge::copy_into(&parameter.name, tensor, &parameter.tensor)?;
                parameter.values = Values::OnDevice;
            }
        }
        if lost {
            self.part_from_the_others(&received.missing)?;
        }
        Ok(received)
    }
}

/// A place in the tree of names: `trunk.transformer_encoder.3.ffn`.
#[derive(Debug)]
pub struct Scope<'a> {
    parameters: &'a mut Parameters,
    prefix: String,
}

impl Scope<'_> {
    /// The place one name further down.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        Scope { prefix: format!("{}{name}.", self.prefix), parameters: self.parameters }
    }

    /// Makes a tensor here. It has no values yet.
    ///
    /// # Errors
    /// If libtorch has no memory for it.
    pub fn tensor(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Handle> {
        let name = format!("{}{name}", self.prefix);
        let tensor = Tensor::f_empty(shape, (Kind::Float, self.parameters.place.device))
            .map_err(|e| Error::tensor(&name, "could not be allocated").because(&e))?;
        let handle = Handle { tensor: tensor.shallow_clone(), place: self.parameters.all.len() };
        self.parameters.all.push(Parameter { name, tensor, init, values: Values::Missing });
        Ok(handle)
    }

    /// The device of the tensors made here.
    pub fn device(&self) -> Device {
        self.parameters.place.device
    }
}
