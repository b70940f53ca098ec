//! A frozen trunk: shared with other models, and the vectors of sequences computed once.

use std::sync::Arc;

use plugin_api::{Context, Result};
use serde_json::json;

use super::{Network, Resources};
use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::bridge;
use crate::config::{Config, Pooling};
use crate::device::DeviceContext;
use crate::frozen_trunk::{FrozenTrunk, Weights};
use crate::memory;
use crate::parameters::{is_below, is_of_base};

/// What a network with a frozen trunk needs to keep the vectors of sequences.
#[derive(Debug)]
pub(super) struct Frozen {
    /// See [`FrozenTrunk::of`].
    key: String,
    keeps_vectors: bool,
    /// The blocks that are frozen with the embedding; 0 if the whole trunk is.
    layers: usize,
    /// Those of each sequence.
    vectors: usize,
    /// The bytes that the vectors may take.
    limit: u64,
    /// The trunk, and the [`Parameters::trunk_changes`] for which it is right.
    trunk: Option<(u64, Arc<FrozenTrunk>)>,
}

impl Frozen {
    /// None if all of the trunk is trained. A trunk with adapters or the frozen part of one is shared, and vectors are not
    /// kept; neither are those that depend on the padding of their batch, or that heads weigh.
    pub(super) fn new(architecture: &Architecture, config: &Config, context: &DeviceContext) -> Option<Self> {
        let is_fixed = matches!(config.pooling, Pooling::Tokens | Pooling::Bos | Pooling::Chains);
        let keeps_vectors = config.frozen_trunk && is_fixed;
        let (packing, fused_qkv) = (config.packing, config.fused_qkv);
        let fused_kernels = config.fused_kernels && context.kernels.is_some();
        let trunk = format!("{} {:?} {:?}", json!(architecture), config.precision, context.device);
        let trunk = format!("{trunk} {packing} {fused_qkv} {fused_kernels}");
        let vectors = config.vectors();
        (keeps_vectors || config.has_fixed_weights()).then(|| Self {
            keeps_vectors,
            layers: config.frozen_layers,
            vectors,
            key: format!("{trunk} {} {:?} {vectors}", context.on_host, config.pooling),
            limit: config.embedding_memory.as_u64(),
            trunk: None,
        })
    }
}

impl Network {
    /// Shares the memory and the vectors of a frozen trunk with the models of this process that have the same. Does nothing
    /// for a trunk that is not frozen, or that has not changed since.
    ///
    /// # Errors
    /// If one has no values, or libtorch fails.
    pub(crate) fn share_frozen_trunk(&mut self) -> Result<()> {
        let Some(Frozen { key, trunk, layers, .. }) = &mut self.frozen else { return Ok(()) };
        let layers = *layers;
        if trunk.as_ref().is_some_and(|(changes, _)| *changes == self.parameters.trunk_changes()) {
            return Ok(());
        }
        let is_frozen = |name: &str| match layers {
            0 => is_of_base(name),
            _ => is_below(name, layers),
        };
        let weights = if self.parameters.context().on_host {
            Weights::Host(self.parameters.snapshot_of(is_frozen)?)
        } else {
            Weights::Device(self.parameters.on_device(is_frozen)?)
        };
        let found = FrozenTrunk::of(key, weights)?;
        match &*found.weights() {
            Weights::Host(shared) => self.parameters.adopt(shared)?,
            Weights::Device(shared) => self.parameters.adopt_on_device(shared)?,
        }
        *trunk = Some((self.parameters.trunk_changes(), found));
        Ok(())
    }

    /// Gives a batch its pooled vectors, if the trunk is frozen, after [`Self::share_frozen_trunk`]. Those that are not kept
    /// are computed; `key` is the one that lowers the memory that this takes.
    ///
    /// # Errors
    /// If the context asks to stop, a parameter has no values, or libtorch fails.
    pub(crate) fn pool_frozen(
        &self,
        batch: &mut Batch,
        key: &str,
        resources: &mut Resources,
        ctx: &Context<'_>,
    ) -> Result<()> {
        let Some(Frozen { limit, vectors, trunk: Some((_, trunk)), keeps_vectors: true, .. }) = &self.frozen else {
            return Ok(());
        };
        let _guard = tch::no_grad_guard();
        let size = self.layers.trunk.size() * vectors;
        let mut pooled = vec![0.0; batch.rows() * size];
        let missing = trunk.read(batch.sequences(), &mut pooled);
        let on_host = self.parameters.context().on_host;
        let mut rest = missing.as_slice();
        // It asks for each row, so that where a run stops does not depend on what was kept.
        for row in 0..batch.rows() {
            ctx.check()?;
            // In host memory one by one: see `frozen_trunk`.
            let due = if on_host { usize::from(rest.first() == Some(&row)) } else { rest.len() };
            let (numbers, later) = rest.split_at(due);
            rest = later;
            if numbers.is_empty() {
                continue;
            }
            let vectors = memory::retry(self.parameters.context(), key, || {
                self.pooled(&batch.select(numbers)?, self.layers.pooling, resources)
            })?;
            for (&number, vector) in numbers.iter().zip(bridge::to_vec(&vectors)?.chunks_exact(size)) {
                pooled[number * size..][..size].copy_from_slice(vector);
                trunk.keep(&batch.sequences()[number], vector, *limit);
            }
        }
        let pooled = bridge::matrix(&pooled, batch.rows())?;
        let to_device = || bridge::to_device(&pooled, batch.ids.device()).map_err(bridge::torch_error);
        batch.pooled = Some(memory::retry(self.parameters.context(), key, to_device)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
