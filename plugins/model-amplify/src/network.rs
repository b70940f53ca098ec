//! Trunk and heads together.

use std::sync::Arc;

use plugin_api::{Error, ModelSetup, Result};
use tch::Tensor;

use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::bridge;
use crate::config::{Config, Pooling};
use crate::cpu::{Pack, Spaces, Team, Weights, Workspace};
use crate::device::Place;
use crate::noise::Noise;
use crate::parameters::Parameters;
use crate::regressor::{Regressor, pool};
use crate::trunk::Trunk;

/// The whole model: one trunk, and a head for each task that this instance holds.
#[derive(Debug)]
pub struct Network {
    layers: Layers,
    /// The tensors of all layers.
    pub parameters: Parameters,
}

/// What computes with the parameters, which must have values.
#[derive(Debug)]
pub struct Layers {
    trunk: Trunk,
    /// The encoder's weights, where [`crate::cpu`] computes it.
    weights: Option<Weights>,
    heads: Vec<Head>,
    pooling: Pooling,
    frozen: bool,
}

/// What a network computes with for a while: threads, and memory that is used again from batch to batch.
#[derive(Debug)]
pub struct Work {
    pub(crate) team: Team,
    pub(crate) space: Workspace,
    /// Where the memory goes back to.
    spaces: Arc<Spaces>,
    /// Whether steps tell the length of their gradient.
    pub norms: bool,
}

impl Work {
    /// With so many threads.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        Self::within(&Arc::default(), threads)
    }

    /// With so many threads and memory of these.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn within(spaces: &Arc<Spaces>, threads: usize) -> Result<Self> {
        let team = Team::new(threads)?;
        Ok(Self { team, space: spaces.take(), spaces: spaces.clone(), norms: false })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.spaces.put(std::mem::take(&mut self.space));
    }
}

#[derive(Debug)]
struct Head {
    task: String,
    regressor: Regressor,
}

impl Network {
    /// Without values yet.
    pub fn new(architecture: &Architecture, config: &Config, setup: &ModelSetup, place: Place) -> Result<Self> {
        let mut parameters = Parameters::new(place);
        let trunk = Trunk::new(parameters.root().at("trunk"), architecture, config.precision)?;
        let mut heads = Vec::new();
        for (number, task) in setup.tasks.iter().enumerate().filter(|(_, task)| setup.held.contains(&task.name)) {
            let mut root = parameters.root();
            let mut regressors = root.at("regressors");
            let (inputs, sizes) = (architecture.hidden_size, &config.layer_sizes);
            let regressor = Regressor::new(regressors.at(number), inputs, sizes, config.dropout)?;
            heads.push(Head { task: task.name.clone(), regressor });
        }
        let weights = place.here.then(|| trunk.weights()).flatten();
        let layers = Layers { trunk, weights, heads, pooling: config.pooling, frozen: config.frozen_trunk };
        Ok(Self { layers, parameters })
    }

    /// The layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The last block's output of whichever trunk trains, (batch, length, hidden size).
    ///
    /// # Errors
    /// If a parameter has no values.
    pub fn hidden(&self, batch: &Batch, work: &mut Work) -> Result<Tensor> {
        match self.layers.by_hand(batch, Pooling::AllPositions) {
            Some((weights, pack)) => {
                let hidden = weights.hidden(&self.parameters, &pack, &work.team, &mut work.space)?;
                let shape = [batch.ids.size()[0], batch.ids.size()[1], -1];
                Ok(bridge::matrix(&hidden, pack.positions()).reshape(shape))
            }
            None => Ok(self.layers.trunk.forward(batch, &mut Noise::none())),
        }
    }

    /// The sequences' vectors, (batch, hidden size).
    ///
    /// # Errors
    /// If a parameter has no values.
    pub fn pooled(&self, batch: &Batch, pooling: Pooling, work: &mut Work) -> Result<Tensor> {
        self.layers.pooled(&self.parameters, batch, pooling, (&work.team, &mut work.space))
    }

    /// One number for each sequence.
    ///
    /// # Errors
    /// If there is no head for the task, or a parameter has no values.
    pub fn predict(&self, task: &str, batch: &Batch, work: &mut Work) -> Result<Tensor> {
        let pooled = self.pooled(batch, self.layers.pooling, work)?;
        self.layers.of_pooled(task, &pooled, &mut Noise::none())
    }

    /// The layers, and the parameters to be changed.
    pub(crate) fn parts(&mut self) -> (&Layers, &mut Parameters) {
        (&self.layers, &mut self.parameters)
    }
}

impl Layers {
    /// The encoder.
    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// Whether there is a head for this task.
    pub fn holds(&self, task: &str) -> bool {
        self.heads.iter().any(|head| head.task == task)
    }

    /// Whether [`crate::cpu`] computes the encoder, and not libtorch.
    pub fn are_by_hand(&self) -> bool {
        self.weights.is_some()
    }

    /// What [`crate::cpu`] needs for a batch, unless that is left to libtorch.
    pub(crate) fn by_hand(&self, batch: &Batch, pooling: Pooling) -> Option<(&Weights, Pack)> {
        self.weights.as_ref().zip(batch.pack(pooling))
    }

    /// The same for a training step, in which the trunk learns.
    pub(crate) fn learns_by_hand(&self, batch: &Batch) -> Option<(&Weights, Pack)> {
        self.by_hand(batch, self.pooling).filter(|_| !self.frozen)
    }

    /// The sequences' vectors, (batch, hidden size).
    fn pooled(
        &self,
        parameters: &Parameters,
        batch: &Batch,
        pooling: Pooling,
        (team, space): (&Team, &mut Workspace),
    ) -> Result<Tensor> {
        match self.by_hand(batch, pooling) {
            Some((weights, pack)) => {
                Ok(bridge::matrix(&weights.forward(parameters, &pack, team, space, false)?, batch.rows()))
            }
            None => Ok(pool(&self.trunk.forward(batch, &mut Noise::none()), batch, pooling)),
        }
    }

    fn head(&self, task: &str) -> Result<&Regressor> {
        let head = self.heads.iter().find(|head| head.task == task).ok_or_else(|| {
            let held: Vec<_> = self.heads.iter().map(|head| format!("`{}`", head.task)).collect();
            Error::data(format!("this model has no head for task `{task}`"))
                .help(format!("it has: {}", held.join(", ")))
        });
        head.map(|head| &head.regressor)
    }

    /// One number for each sequence, from their vectors.
    ///
    /// # Errors
    /// If there is no head for the task.
    pub(crate) fn of_pooled(&self, task: &str, pooled: &Tensor, noise: &mut Noise) -> Result<Tensor> {
        Ok(self.head(task)?.forward(pooled, noise))
    }

    /// One number for each sequence, with the graph that libtorch derives gradients from: of trunk and head, or of the head
    /// alone where the trunk is frozen.
    ///
    /// # Errors
    /// If there is no head for the task.
    pub(crate) fn forward(
        &self,
        parameters: &Parameters,
        task: &str,
        batch: &Batch,
        noise: &mut Noise,
        work: (&Team, &mut Workspace),
    ) -> Result<Tensor> {
        let pooled = if self.frozen {
            let _guard = tch::no_grad_guard();
            self.pooled(parameters, batch, self.pooling, work)?
        } else {
            pool(&self.trunk.forward(batch, noise), batch, self.pooling)
        };
        self.of_pooled(task, &pooled, noise)
    }
}
