//! The published encoder of AMPLIFY on the CPU, written by hand: the function of `model_amplify::trunk` in fewer passes over
//! memory, and its derivative.
//!
//! - It computes the tokens and no padding ([`PackedBatch`]).
//! - It saves what the backward pass needs in a [`Workspace`], and recomputes norms, SwiGLU and attention
//!   probabilities.
//! - With activation checkpointing it saves the input of each block alone, and recomputes the rest.
//! - It passes on each parameter's gradient as soon as it is computed, so that only one exists at a time.
//! - Any number of threads gives the same bits ([`ThreadPool`]).
//!
//! It supports the published arrangement: RMSNorm, SwiGLU, no biases, no norm after the embedding, no dropout in the trunk,
//! in fp32. libtorch computes every other arrangement and precision, and all on GPUs.
//!
//! Nothing here knows libtorch: parameters are slices that a [`ParameterStore`] lends.
//!
//! Notation: matrices are row-major with one row per token of all sequences. `d` before a name is the derivative of the
//! loss with respect to it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attention;
mod block;
mod gemm;
mod kernels;
mod packed_batch;
mod threads;
mod workspace;

use plugin_api::Result;

pub use kernels::{AdamWStep, adamw};
pub use packed_batch::PackedBatch;
pub use threads::{Matrix, SplitRows, ThreadPool};
pub use workspace::{Workspace, WorkspacePool};

use block::Pass;
use workspace::{grown, prefix};

/// The smallest norm that pooling divides by, as in PyTorch's `functional.normalize`.
const NORMALIZE_EPS: f32 = 1e-12;

/// Lends the parameters' values.
pub trait ParameterStore {
    /// The elements of a parameter, row-major.
    ///
    /// # Errors
    /// If it has no values, or they are on another device.
    fn values(&self, index: usize) -> Result<&[f32]>;
}

/// A weight: its index in the [`ParameterStore`], and its shape.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Its index in the store.
    pub index: usize,
    /// Outputs of a linear layer, tokens of the embedding, 1 for a norm.
    pub rows: usize,
    /// Inputs of a linear layer, features.
    pub columns: usize,
}

impl Weight {
    fn len(&self) -> usize {
        self.rows * self.columns
    }
}

/// A linear layer, `x Wᵀ`, or `x Wᵀ + s · x Aᵀ Bᵀ` with an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// `W`, (outputs, inputs).
    pub weight: Weight,
    /// `A` and `B`.
    pub adapter: Option<Adapter>,
}

/// A low-rank addition to a weight.
#[derive(Clone, Copy, Debug)]
pub struct Adapter {
    /// `A`, (rank, inputs).
    pub a: Weight,
    /// `B`, (outputs, rank).
    pub b: Weight,
    /// `s`.
    pub scale: f32,
}

/// The weights of a block, with their published names.
#[derive(Debug)]
pub struct BlockWeights {
    /// Queries, (size, size).
    pub q: Layer,
    /// Keys, (size, size).
    pub k: Layer,
    /// Values, (size, size).
    pub v: Layer,
    /// The output of attention, (size, size).
    pub wo: Layer,
    /// The gate and the input of SwiGLU, one above the other, (2 · inner, size).
    pub w12: Layer,
    /// The output of the feed-forward layer, (size, inner).
    pub w3: Layer,
    /// The norm before attention, (1, size).
    pub attention_norm: Weight,
    /// The norm before the feed-forward layer, (1, size).
    pub ffn_norm: Weight,
}

/// The encoder of the published arrangement.
#[derive(Debug)]
pub struct Encoder {
    /// (vocabulary, size).
    pub embedding: Weight,
    /// The blocks in order.
    pub blocks: Vec<BlockWeights>,
    /// `cos θ, sin θ` of each position and pair of features: (positions, head size).
    pub rope_table: Vec<f32>,
    /// Heads of attention.
    pub heads: usize,
    /// What RMSNorm adds to the mean square.
    pub norm_eps: f32,
    /// The padding token, whose embedding gets no gradient.
    pub pad: u32,
    /// Whether only adapters are trained, so that other linear layers need no gradient.
    pub is_frozen: bool,
    /// The blocks that are not trained, from the first one on, with the embedding, if there are any.
    pub frozen_blocks: usize,
    /// Whether the blocks that are trained save their inputs alone, and one block at a time has the other activations.
    pub checkpointing: bool,
}

/// What is read of the last block's output.
#[derive(Debug)]
pub enum Reading {
    /// Each sequence's mean of normalised hidden states, (sequences, size).
    Pooled,
    /// The hidden states of these tokens, by their numbers in the batch, each at most once: (numbers, size).
    Tokens(Vec<usize>),
}

/// What a pass computes with besides the parameters.
#[derive(Debug)]
pub struct PassResources<'a> {
    /// The threads that compute.
    pub pool: &'a ThreadPool,
    /// The memory of the pass, which a backward pass takes over from its forward pass.
    pub workspace: &'a mut Workspace,
}

impl Encoder {
    fn size(&self) -> usize {
        self.embedding.columns
    }

    /// The number of blocks whose activations the backward pass needs.
    fn trained_blocks(&self) -> usize {
        self.blocks.len() - self.frozen_blocks
    }

    /// The width of the feed-forward layer.
    fn inner(&self) -> usize {
        self.blocks.first().map_or(1, |block| block.w3.weight.columns)
    }

    /// What is read of the last block's output. `backward` keeps what [`Self::backward`] needs.
    ///
    /// # Errors
    /// Those of the store.
    pub fn forward(
        &self,
        store: &impl ParameterStore,
        batch: &PackedBatch,
        reading: &Reading,
        resources: &mut PassResources<'_>,
        backward: bool,
    ) -> Result<Vec<f32>> {
        self.run_blocks(store, batch, resources, backward)?;
        let (size, hidden) = (self.size(), resources.workspace.hidden.as_slice());
        if let Reading::Tokens(numbers) = reading {
            return Ok(numbers.iter().flat_map(|number| &hidden[number * size..][..size]).copied().collect());
        }
        let mut pooled = vec![0.0; batch.sequences().len() * size];
        for (sequence, out) in batch.sequences().iter().zip(pooled.chunks_exact_mut(size)) {
            for row in hidden[sequence.range(size)].chunks_exact(size) {
                kernels::add_normalized(out, row, NORMALIZE_EPS);
            }
            out.iter_mut().for_each(|x| *x /= sequence.length as f32);
        }
        Ok(pooled)
    }

    /// The last block's output, (tokens, size).
    ///
    /// # Errors
    /// Those of the store.
    pub fn hidden(
        &self,
        store: &impl ParameterStore,
        batch: &PackedBatch,
        resources: &mut PassResources<'_>,
    ) -> Result<Vec<f32>> {
        self.run_blocks(store, batch, resources, false)?;
        Ok(resources.workspace.hidden.as_slice()[..batch.tokens() * self.size()].to_vec())
    }

    /// Writes the last block's output to `workspace.hidden`.
    fn run_blocks(
        &self,
        store: &impl ParameterStore,
        batch: &PackedBatch,
        resources: &mut PassResources<'_>,
        backward: bool,
    ) -> Result<()> {
        let (pool, size) = (resources.pool, self.size());
        let len = batch.tokens() * size;
        resources.workspace.reserve(self, batch, backward);
        let Workspace { inputs, activations, hidden, scratch, gradient, .. } = &mut *resources.workspace;
        let embedding = store.values(self.embedding.index)?;
        let pass = Pass { encoder: self, batch, pool, gradient };
        let mut x = std::mem::take(hidden);
        pool.for_rows((prefix(&mut x, len), size), |first, (rows, _)| {
            for (row, &id) in rows.chunks_exact_mut(size).zip(&batch.ids()[first..]) {
                row.copy_from_slice(&embedding[id as usize * size..][..size]);
            }
        });
        let result = self.blocks.iter().enumerate().try_for_each(|(i, block)| {
            // A frozen block's are overwritten by the next block's.
            let number = if backward { i.saturating_sub(self.frozen_blocks) } else { 0 };
            std::mem::swap(&mut inputs[number], &mut x);
            let saved = &mut activations[if self.checkpointing { 0 } else { number }];
            pass.forward(block, store, inputs[number].as_slice(), saved, prefix(&mut x, len), scratch)
        });
        // The workspace keeps its buffers after an error too.
        *hidden = x;
        result
    }

    /// Calls `on_gradient` with the index and the gradient of each parameter, after [`Self::forward`] with `backward`.
    ///
    /// `d_read` is the derivative with respect to what that returned. `on_gradient` may change the parameter that it is
    /// called for, and no other. It may overwrite the gradient.
    ///
    /// # Errors
    /// Those of the store and of `on_gradient`.
    pub fn backward<S: ParameterStore>(
        &self,
        store: &mut S,
        batch: &PackedBatch,
        reading: &Reading,
        resources: &mut PassResources<'_>,
        d_read: &[f32],
        mut on_gradient: impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let (pool, size) = (resources.pool, self.size());
        let Workspace { inputs, activations, hidden, scratch, gradient, .. } = &mut *resources.workspace;
        let mut buffer = std::mem::take(&mut scratch.dx);
        let dx = prefix(&mut buffer, batch.tokens() * size);
        match reading {
            Reading::Pooled => self.backward_pooling(batch, pool, hidden.as_slice(), d_read, dx),
            Reading::Tokens(numbers) => {
                dx.fill(0.0);
                for (number, d) in numbers.iter().zip(d_read.chunks_exact(size)) {
                    dx[number * size..][..size].copy_from_slice(d);
                }
            }
        }
        let mut pass = Pass { encoder: self, batch, pool, gradient };
        let mut blocks = self.blocks[self.frozen_blocks..].iter().enumerate().rev();
        let result = blocks.try_for_each(|(number, block)| {
            let (x, saved) = (inputs[number].as_slice(), &mut activations[if self.checkpointing { 0 } else { number }]);
            // The last block's are still there.
            if self.checkpointing && number + 1 < self.trained_blocks() {
                pass.recompute(block, store, x, saved, scratch)?;
            }
            pass.backward(block, store, (x, saved), dx, scratch, &mut on_gradient)
        });
        if self.frozen_blocks > 0 {
            scratch.dx = buffer;
            return result;
        }
        let d_embedding = grown(pass.gradient, self.embedding.len());
        d_embedding.fill(0.0);
        for (dx, &id) in dx.chunks_exact(size).zip(batch.ids()).filter(|&(_, &id)| id != self.pad) {
            kernels::add(&mut d_embedding[id as usize * size..][..size], dx);
        }
        // The workspace keeps its buffers after an error too.
        scratch.dx = buffer;
        result.and_then(|()| on_gradient(store, self.embedding.index, d_embedding))
    }

    /// Writes the derivative with respect to the last block's output to `dx`, (tokens, size).
    fn backward_pooling(
        &self,
        batch: &PackedBatch,
        pool: &ThreadPool,
        hidden: &[f32],
        d_pooled: &[f32],
        dx: &mut [f32],
    ) {
        let size = self.size();
        pool.for_each(batch.split((dx, size)), |(sequence, (dx, _))| {
            let d_mean = &d_pooled[sequence.index * size..][..size];
            let d_sum: Vec<f32> = d_mean.iter().map(|d| d / sequence.length as f32).collect();
            for (dx, row) in dx.chunks_exact_mut(size).zip(hidden[sequence.range(size)].chunks_exact(size)) {
                kernels::normalize_backward(dx, &d_sum, row, NORMALIZE_EPS);
            }
        });
    }
}

#[cfg(test)]
mod tests;
