//! Trunk and heads together.

use plugin_api::{Error, ModelSetup, Result};
use tch::{Device, Tensor};

use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::config::{Config, Pooling};
use crate::noise::Noise;
use crate::parameters::Parameters;
use crate::regressor::{Regressor, pool};
use crate::trunk::Trunk;

/// The whole model: one trunk, and a head for each task that this instance holds.
#[derive(Debug)]
pub struct Network {
    /// The tensors of all layers.
    pub parameters: Parameters,
    /// The encoder.
    pub trunk: Trunk,
    heads: Vec<Head>,
    pooling: Pooling,
    frozen: bool,
}

#[derive(Debug)]
struct Head {
    task: String,
    regressor: Regressor,
}

impl Network {
    /// Without values yet.
    pub fn new(architecture: &Architecture, config: &Config, setup: &ModelSetup, device: Device) -> Result<Self> {
        let mut parameters = Parameters::new(device);
        let trunk = Trunk::new(parameters.root().at("trunk"), architecture)?;
        let mut heads = Vec::new();
        for (number, task) in setup.tasks.iter().enumerate().filter(|(_, task)| setup.held.contains(&task.name)) {
            let mut root = parameters.root();
            let mut regressors = root.at("regressors");
            let (inputs, sizes) = (architecture.hidden_size, &config.layer_sizes);
            let regressor = Regressor::new(regressors.at(number), inputs, sizes, config.dropout)?;
            heads.push(Head { task: task.name.clone(), regressor });
        }
        Ok(Self { parameters, trunk, heads, pooling: config.pooling, frozen: config.frozen_trunk })
    }

    /// Whether there is a head for this task.
    pub fn holds(&self, task: &str) -> bool {
        self.heads.iter().any(|head| head.task == task)
    }

    /// The sequences' vectors: (batch, hidden size).
    pub fn pooled(&self, batch: &Batch, pooling: Pooling, noise: &mut Noise) -> Tensor {
        let _guard = self.frozen.then(tch::no_grad_guard);
        // A frozen trunk is a fixed function of the sequence: without dropout.
        let trunk_noise = if self.frozen { &mut Noise::none() } else { noise };
        pool(&self.trunk.forward(batch, trunk_noise), batch, pooling)
    }

    /// One number for each sequence.
    ///
    /// # Errors
    /// If there is no head for the task.
    pub fn forward(&self, task: &str, batch: &Batch, noise: &mut Noise) -> Result<Tensor> {
        let head = self.heads.iter().find(|head| head.task == task).ok_or_else(|| {
            let held: Vec<_> = self.heads.iter().map(|head| format!("`{}`", head.task)).collect();
            Error::data(format!("this model has no head for task `{task}`"))
                .help(format!("it has: {}", held.join(", ")))
        })?;
        Ok(head.regressor.forward(&self.pooled(batch, self.pooling, noise), noise))
    }
}
