//! The model's named tensors.

use plugin_api::{Error, Params, Received, Result, Seed};
use tch::{Device, Kind, Tensor};

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

/// A named tensor. The layers hold handles to the same memory, so whoever writes to it changes the layer.
#[derive(Debug)]
pub struct Parameter {
    /// Its published name, with `trunk.` before the trunk's.
    pub name: String,
    /// Its values.
    pub tensor: Tensor,
    init: Init,
}

/// All of them, in the order in which the layers were made.
#[derive(Debug)]
pub struct Parameters {
    device: Device,
    all: Vec<Parameter>,
}

impl Parameters {
    /// None yet.
    pub fn new(device: Device) -> Self {
        Self { device, all: Vec::new() }
    }

    /// The place where layers make their tensors.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new() }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.all.iter()
    }

    /// The one with this name.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.all.iter().find(|parameter| parameter.name == name).map(|parameter| &parameter.tensor)
    }

    /// Gives all whose names begin with `prefix` their first values. Each draws from a seed of its own name, so that
    /// instances with other heads still start with the same values.
    pub fn initialise(&self, prefix: &str, seed: Seed) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for parameter in self.all.iter().filter(|parameter| parameter.name.starts_with(prefix)) {
            let mut tensor = parameter.tensor.shallow_clone();
            match parameter.init {
                Init::Zeros => drop(tensor.zero_()),
                Init::Ones => drop(tensor.fill_(1.0)),
                Init::Uniform(range) => {
                    let values = noise::uniform(tensor.numel(), range, seed.of(&parameter.name));
                    tensor.f_copy_(&Tensor::from_slice(&values).reshape(tensor.size())).map_err(bridge::torch)?;
                }
            }
        }
        Ok(())
    }

    /// Copies of all, in fresh memory: the optimiser writes to the tensors in place, and what was handed out must not
    /// change.
    pub fn snapshot(&self) -> Result<Params> {
        self.all.iter().map(|p| Ok((p.name.as_str(), bridge::to_plugin(&p.tensor)?))).collect()
    }

    /// Takes over the tensors that it knows. Changes nothing if one of them does not fit.
    pub fn receive(&self, params: &Params) -> Result<Received> {
        let mut received = Received::default();
        let mut fitting = Vec::new();
        for parameter in &self.all {
            match params.get(&parameter.name) {
                Some(tensor) => {
                    bridge::expect_like(&parameter.name, tensor, &parameter.tensor)?;
                    fitting.push((parameter, tensor));
                }
                None => received.missing.push(parameter.name.clone()),
            }
        }
        received.unexpected = params.names().filter(|name| self.find(name).is_none()).map(str::to_owned).collect();
        for (parameter, tensor) in fitting {
            bridge::copy_into(&parameter.name, tensor, &parameter.tensor)?;
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
    pub fn tensor(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        let tensor = Tensor::f_empty(shape, (Kind::Float, self.parameters.device))
            .map_err(|e| Error::tensor(&name, "could not be allocated").because(&e))?;
        let shared = tensor.shallow_clone();
        self.parameters.all.push(Parameter { name, tensor, init });
        Ok(shared)
    }

    /// The device of the tensors made here.
    pub fn device(&self) -> Device {
        self.parameters.device
    }
}
