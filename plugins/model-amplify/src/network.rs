//! Trunk and heads together.

mod frozen;

use std::collections::HashSet;
use std::sync::Arc;

use fedplug_amplify_cpu::{Encoder, PackedBatch, PassResources, Reading, ThreadPool, Workspace, WorkspacePool};
use plugin_api::{Error, ModelSetup, Result, TaskSpec};
use tch::Tensor;

use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::bridge;
use crate::config::{Config, LORA_A, Objective, Pooling};
use crate::device::DeviceContext;
use crate::parameters::{Parameters, depth};
use crate::random::DropoutRng;
use crate::regressor::{Regressor, pool};
use crate::segments::Segments;
use crate::trunk::{Checkpoints, Trunk};
use frozen::Frozen;

/// The whole model: a trunk, and a head for each task that this instance holds, unless the decoder takes their place.
#[derive(Debug)]
pub struct Network {
    layers: Layers,
    /// The tensors of all layers.
    pub parameters: Parameters,
    frozen: Option<Frozen>,
}

/// The layers, which need parameters with values.
#[derive(Debug)]
pub struct Layers {
    trunk: Trunk,
    /// The trunk's encoder again, where [`fedplug_amplify_cpu`] computes it.
    cpu_encoder: Option<Encoder>,
    heads: Vec<Head>,
    objective: Objective,
    pooling: Pooling,
    frozen_trunk: bool,
    /// With activation checkpointing: the depth from which on the trunk is trained ([`crate::parameters::depth`]).
    checkpointed_from: Option<usize>,
}

#[derive(Debug)]
struct Head {
    task: String,
    regressor: Regressor,
}

/// Threads, and memory that is used again from batch to batch.
#[derive(Debug)]
pub struct Resources {
    pool: ThreadPool,
    workspace: Workspace,
    /// Where the workspace returns to.
    workspaces: Arc<WorkspacePool>,
    /// Whether training steps report the norm of their gradient.
    pub track_gradient_norm: bool,
}

impl Resources {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_workspace(&Arc::default(), threads)
    }

    /// Starts `threads` threads, and takes a workspace from a pool.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn with_workspace(workspaces: &Arc<WorkspacePool>, threads: usize) -> Result<Self> {
        let pool = ThreadPool::new(threads)?;
        let (workspace, workspaces) = (workspaces.take(), workspaces.clone());
        Ok(Self { pool, workspace, workspaces, track_gradient_norm: false })
    }

    /// For a pass of [`fedplug_amplify_cpu`].
    pub(crate) fn for_pass(&mut self) -> PassResources<'_> {
        PassResources { pool: &self.pool, workspace: &mut self.workspace }
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        self.workspaces.put(std::mem::take(&mut self.workspace));
    }
}

impl Network {
    /// Its parameters have no values yet.
    ///
    /// # Errors
    /// If a task has several numbers as its target, or libtorch fails.
    pub fn new(
        architecture: &Architecture,
        config: &Config,
        setup: &ModelSetup,
        context: DeviceContext,
    ) -> Result<Self> {
        let mut parameters = Parameters::new(context);
        let trunk = Trunk::new(parameters.root().at("trunk"), architecture, config.precision, config.lora.as_ref())?;
        let trunk = trunk.with_fused_qkv(config.fused_qkv);
        let trunk = trunk.with_kernels(context.kernels.filter(|_| config.fused_kernels));
        let mut heads = Vec::new();
        let supervised = config.objective == Objective::Supervised;
        let has_head = |task: &TaskSpec| supervised && setup.held.contains(&task.name);
        for (number, task) in setup.tasks.iter().enumerate().filter(|(_, task)| has_head(task)) {
            let mut root = parameters.root();
            let mut regressors = root.at("regressors");
            let (size, sizes) = (architecture.hidden_size, &config.layer_sizes);
            let (inputs, outputs) = (size * config.vectors() as i64, task.outputs()? as i64);
            let mut regressor = Regressor::new(regressors.at(number), inputs, sizes, outputs, config.dropout)?;
            if config.pooling == Pooling::Attention {
                regressor = regressor.with_attention(regressors.at(number), size)?;
            }
            heads.push(Head { task: task.name.clone(), regressor });
        }
        if config.flat_buffers {
            parameters.join(|name| config.trains(name))?;
        }
        let adapted = parameters.iter().filter(|_| config.has_moving_base());
        let adapted = adapted.filter_map(|parameter| parameter.name.strip_suffix(LORA_A));
        let moving: HashSet<String> = adapted.map(|layer| format!("{layer}weight")).collect();
        parameters.send_only(|name| config.sends(name) || moving.contains(name));
        let checkpointing = config.activation_checkpointing;
        let cpu_encoder = context.on_host.then(|| trunk.cpu_encoder(config.frozen_layers, checkpointing)).flatten();
        // The decoder reads tokens alone.
        let pooling = if supervised { config.pooling } else { Pooling::Tokens };
        let (objective, frozen_trunk) = (config.objective, config.frozen_trunk);
        let trained = parameters.iter().filter(|parameter| config.trains(&parameter.name));
        let first = trained.filter_map(|parameter| depth(&parameter.name)).min();
        let checkpointed_from = first.filter(|_| checkpointing && !frozen_trunk);
        let frozen = Frozen::new(architecture, config, &context);
        let layers = Layers { trunk, cpu_encoder, heads, objective, pooling, frozen_trunk, checkpointed_from };
        Ok(Self { layers, parameters, frozen })
    }

    /// The layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The last block's output, of the encoder that trains: (batch, length, size), or (tokens, size) of a packed batch.
    ///
    /// # Errors
    /// If a parameter has no values, or libtorch fails.
    pub fn hidden(&self, batch: &Batch, resources: &mut Resources) -> Result<Tensor> {
        match self.layers.cpu_encoder(batch, Pooling::AllPositions) {
            Some((encoder, packed)) => {
                let hidden = encoder.hidden(&self.parameters, &packed, &mut resources.for_pass())?;
                let shape = [batch.ids.size()[0], batch.ids.size()[1], -1];
                bridge::matrix(&hidden, packed.tokens())?.f_reshape(shape).map_err(bridge::torch_error)
            }
            None => self.layers.trunk.forward(batch, &mut DropoutRng::disabled()),
        }
    }

    /// The pooled vectors of the sequences, (batch, size).
    ///
    /// # Errors
    /// If a parameter has no values, or libtorch fails.
    pub fn pooled(&self, batch: &Batch, pooling: Pooling, resources: &mut Resources) -> Result<Tensor> {
        self.layers.pooled(&self.parameters, batch, pooling, None, &mut resources.for_pass())
    }

    /// A prediction for each sequence, (batch), or its logits, (batch, classes).
    ///
    /// # Errors
    /// If there is no head for the task, a parameter has no values, or libtorch fails.
    pub fn predict(&self, task: &str, batch: &Batch, resources: &mut Resources) -> Result<Tensor> {
        let Layers { pooling, .. } = self.layers;
        let attention = self.layers.attention(task);
        let pooled = self.layers.pooled(&self.parameters, batch, pooling, attention, &mut resources.for_pass())?;
        self.layers.predict_pooled(task, &pooled, &mut DropoutRng::disabled())
    }

    /// The decoder's logits at these positions, each a row of the batch and a position of its sequence: (positions,
    /// vocabulary).
    ///
    /// # Errors
    /// If a parameter has no values, or libtorch fails.
    pub fn logits(&self, batch: &Batch, positions: &[(usize, usize)], resources: &mut Resources) -> Result<Tensor> {
        let hidden = self.layers.hidden_at(&self.parameters, batch, positions, &mut resources.for_pass())?;
        self.layers.trunk.logits(&hidden)
    }

    /// The layers, and the parameters to change.
    pub(crate) fn split_mut(&mut self) -> (&Layers, &mut Parameters) {
        (&self.layers, &mut self.parameters)
    }
}

impl Layers {
    /// The trunk in libtorch.
    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// Whether there is a head for this task.
    pub fn holds(&self, task: &str) -> bool {
        self.heads.iter().any(|head| head.task == task)
    }

    /// Whether [`fedplug_amplify_cpu`] computes the encoder, not libtorch.
    pub fn uses_cpu_encoder(&self) -> bool {
        self.cpu_encoder.is_some()
    }

    /// The hand-written encoder and its form of a batch. None if libtorch has to compute it.
    fn cpu_encoder(&self, batch: &Batch, pooling: Pooling) -> Option<(&Encoder, PackedBatch)> {
        self.cpu_encoder.as_ref().zip(batch.pack(pooling))
    }

    /// The same for a training step. None for a frozen trunk too, which needs no derivative.
    pub(crate) fn trainable_cpu_encoder(&self, batch: &Batch) -> Option<(&Encoder, PackedBatch)> {
        self.cpu_encoder(batch, self.pooling).filter(|_| !self.frozen_trunk)
    }

    /// The segments that the heads read; none where [`pool`] gives what they read.
    pub(crate) fn segments(&self, batch: &Batch) -> Option<Segments> {
        Segments::of(self.pooling, batch)
    }

    /// The vector with which the head of a task weighs positions.
    pub(crate) fn attention(&self, task: &str) -> Option<&Tensor> {
        let head = self.heads.iter().find(|head| head.task == task)?;
        head.regressor.attention.as_deref()
    }

    /// The hidden states at these positions, each a row of the batch and a position of its sequence: (positions, size).
    fn hidden_at(
        &self,
        parameters: &Parameters,
        batch: &Batch,
        positions: &[(usize, usize)],
        resources: &mut PassResources<'_>,
    ) -> Result<Tensor> {
        match self.cpu_encoder(batch, Pooling::Tokens) {
            Some((encoder, packed)) => {
                let reading = packed.reading(positions);
                let read = encoder.forward(parameters, &packed, &reading, resources, false)?;
                bridge::matrix(&read, positions.len())
            }
            None => select(&self.trunk.forward(batch, &mut DropoutRng::disabled())?, batch, positions),
        }
    }

    /// What the head with this `attention` reads, without a graph of the trunk where there are segments.
    fn pooled(
        &self,
        parameters: &Parameters,
        batch: &Batch,
        pooling: Pooling,
        attention: Option<&Tensor>,
        resources: &mut PassResources<'_>,
    ) -> Result<Tensor> {
        if let Some(pooled) = &batch.pooled {
            return Ok(pooled.shallow_clone());
        }
        if let Some(segments) = Segments::of(pooling, batch) {
            let hidden = {
                let _guard = tch::no_grad_guard();
                self.hidden_at(parameters, batch, &segments.positions, resources)?
            };
            return segments.pool(&hidden, attention);
        }
        match self.cpu_encoder(batch, pooling) {
            Some((encoder, packed)) => {
                let pooled = encoder.forward(parameters, &packed, &Reading::Pooled, resources, false)?;
                bridge::matrix(&pooled, batch.rows())
            }
            None => pool(&self.trunk.forward(batch, &mut DropoutRng::disabled())?, batch, pooling),
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

    /// A prediction for each pooled vector, (batch).
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails.
    pub(crate) fn predict_pooled(&self, task: &str, pooled: &Tensor, dropout: &mut DropoutRng) -> Result<Tensor> {
        self.head(task)?.forward(pooled, dropout).map_err(bridge::torch_error)
    }

    /// What the objective compares with targets, from what is read of the trunk's output: the predictions of the task's head
    /// for pooled vectors, or the decoder's logits for hidden states.
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails.
    pub(crate) fn outputs(&self, task: &str, read: &Tensor, dropout: &mut DropoutRng) -> Result<Tensor> {
        match self.objective {
            Objective::Supervised => self.predict_pooled(task, read, dropout),
            Objective::MaskedLm => self.trunk.logits(read),
        }
    }

    /// The outputs for a batch, with libtorch's graph of trunk and head, or of the head alone if the trunk is frozen. With
    /// `positions`, these are read, and not pooled vectors.
    ///
    /// # Errors
    /// If there is no head for the task, a parameter has no values, or libtorch fails.
    pub(crate) fn forward(
        &self,
        parameters: &Parameters,
        task: &str,
        batch: &Batch,
        positions: Option<&[(usize, usize)]>,
        dropout: &mut DropoutRng,
        resources: &mut PassResources<'_>,
    ) -> Result<Tensor> {
        if !self.frozen_trunk {
            return self.outputs_of(&self.trunk.forward(batch, dropout)?, task, batch, positions, dropout);
        }
        let attention = self.attention(task);
        let read = {
            // Attention is the head's, and learns.
            let _guard = attention.is_none().then(tch::no_grad_guard);
            self.pooled(parameters, batch, self.pooling, attention, resources)?
        };
        self.outputs(task, &read, dropout)
    }

    /// [`Self::forward`] from the trunk's output.
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails.
    pub(crate) fn outputs_of(
        &self,
        hidden: &Tensor,
        task: &str,
        batch: &Batch,
        positions: Option<&[(usize, usize)]>,
        dropout: &mut DropoutRng,
    ) -> Result<Tensor> {
        let read = match (positions, self.segments(batch)) {
            (Some(positions), _) => select(hidden, batch, positions)?,
            (None, Some(segments)) => {
                segments.pool(&select(hidden, batch, &segments.positions)?, self.attention(task))?
            }
            (None, None) => pool(hidden, batch, self.pooling)?,
        };
        self.outputs(task, &read, dropout)
    }

    /// With activation checkpointing, the trunk's output without a graph, and what its backward pass needs.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn checkpointed<'a>(
        &'a self,
        batch: &'a Batch,
        dropout: &mut DropoutRng,
    ) -> Result<Option<(Tensor, Checkpoints<'a>)>> {
        let from = self.checkpointed_from;
        from.map(|first| self.trunk.forward_checkpointed(batch, first, dropout)).transpose()
    }
}

/// The hidden states at these positions, (positions, size), of the trunk's output for the batch.
fn select(hidden: &Tensor, batch: &Batch, positions: &[(usize, usize)]) -> Result<Tensor> {
    let numbers: Vec<i64> = positions.iter().map(|&(row, position)| batch.number(row, position)).collect();
    let select = || {
        let numbers = bridge::to_device(&Tensor::f_from_slice(&numbers)?, hidden.device())?;
        hidden.f_flatten(0, -2)?.f_index_select(0, &numbers)
    };
    select().map_err(bridge::torch_error)
}
