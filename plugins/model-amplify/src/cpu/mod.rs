//! The published trunk on the CPU, computed by hand: the same function as [`crate::trunk`] in fewer passes over memory,
//! with its derivative written out.
//!
//! It computes what tokens there are and no padding, keeps of each block what the derivative needs and not each step in
//! between, and gives each parameter's gradient away as soon as it is there, so that at no time all gradients exist. Any
//! number of threads computes the same bits.
//!
//! It serves the arrangement of the published checkpoints: RMSNorm, SwiGLU, no biases, no norm after the embedding, no
//! dropout within the trunk. Everything else, and every other device, is left to [`crate::trunk`] and libtorch.
//!
//! Notation: `x` are the rows of a block's input, one for each token of all sequences; of the norms `r` is the scale of
//! each row; a name that begins with `d` is the derivative of the loss by what follows.

mod attention;
mod block;
mod half;
pub(crate) mod kernels;
mod pack;
mod product;
mod space;
mod team;

use plugin_api::Result;
use tch::Tensor;

use crate::bridge;
use crate::parameters::{Handle, Parameters};

pub(crate) use pack::Pack;
pub(crate) use space::{Spaces, Workspace};
pub(crate) use team::Team;

use block::{Pass, gradient_like};

/// Shorter vectors are not made longer when positions are pooled, as in `functional.normalize`.
const LEAST_LENGTH: f32 = 1e-12;

/// The weights of a block.
#[derive(Debug)]
pub(crate) struct BlockWeights {
    pub(crate) q: Handle,
    pub(crate) k: Handle,
    pub(crate) v: Handle,
    pub(crate) wo: Handle,
    pub(crate) w12: Handle,
    pub(crate) w3: Handle,
    pub(crate) attention_norm: Handle,
    pub(crate) ffn_norm: Handle,
}

/// The weights of a trunk of the published arrangement, on the CPU: which of the parameters they are. Their numbers are
/// read from the parameters, which are lent to each pass.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Handle,
    pub(crate) blocks: Vec<BlockWeights>,
    /// Cosine and sine of each position and pair.
    pub(crate) turns: Vec<f32>,
    pub(crate) heads: usize,
    /// Whether linear layers compute in bfloat16.
    pub(crate) half: bool,
    pub(crate) eps: f32,
    /// The token without an embedding of its own.
    pub(crate) pad: u32,
}

impl Weights {
    fn size(&self) -> usize {
        self.embedding.size()[1] as usize
    }

    /// The features of the feed-forward layer.
    fn inner(&self) -> usize {
        self.blocks.first().map_or(1, |block| block.w3.size()[1] as usize)
    }

    /// The vectors of a batch's sequences, (sequences, size). `keep` tells whether [`Self::backward`] is to follow.
    ///
    /// # Errors
    /// If a parameter has no values.
    pub(crate) fn forward(
        &self,
        parameters: &Parameters,
        pack: &Pack,
        team: &Team,
        space: &mut Workspace,
        keep: bool,
    ) -> Result<Vec<f32>> {
        self.last_block(parameters, pack, team, space, keep)?;
        let (size, hidden) = (self.size(), space.hidden.as_slice());
        let mut pooled = vec![0.0; pack.sequences() * size];
        for (sequence, out) in pack.iter().zip(pooled.chunks_exact_mut(size)) {
            for row in hidden[sequence.start * size..][..sequence.counted * size].chunks_exact(size) {
                kernels::add_direction(out, row, LEAST_LENGTH);
            }
            out.iter_mut().for_each(|x| *x /= sequence.counted as f32);
        }
        Ok(pooled)
    }

    /// The last block's output, (positions, size).
    ///
    /// # Errors
    /// If a parameter has no values.
    pub(crate) fn hidden(
        &self,
        parameters: &Parameters,
        pack: &Pack,
        team: &Team,
        space: &mut Workspace,
    ) -> Result<Vec<f32>> {
        self.last_block(parameters, pack, team, space, false)?;
        Ok(space.hidden.as_slice()[..pack.positions() * self.size()].to_vec())
    }

    /// Leaves the last block's output in the workspace.
    fn last_block(
        &self,
        parameters: &Parameters,
        pack: &Pack,
        team: &Team,
        space: &mut Workspace,
        keep: bool,
    ) -> Result<()> {
        let size = self.size();
        let len = pack.positions() * size;
        space.fit(self, pack, keep);
        let Workspace { kept: all_kept, hidden, scratch, gradient, halves, .. } = space;
        let mut pass = Pass { weights: self, pack, team, gradient, halves };
        let mut x = std::mem::take(hidden);
        let embedding = parameters.numbers(&self.embedding)?;
        team.rows((&mut x.as_mut_slice()[..len], size), |first, (rows, _)| {
            for (row, &id) in rows.chunks_exact_mut(size).zip(&pack.ids()[first..]) {
                row.copy_from_slice(&embedding[id as usize * size..][..size]);
            }
        });
        for (i, block) in self.blocks.iter().enumerate() {
            let kept = &mut all_kept[if keep { i } else { 0 }];
            std::mem::swap(&mut kept.x, &mut x);
            pass.block(block, parameters, kept, &mut x.as_mut_slice()[..len], scratch)?;
        }
        *hidden = x;
        Ok(())
    }

    /// Gives away the gradient of each parameter under its place, from the derivative by what [`Self::forward`] returned.
    /// Whoever gets it may change that parameter and no other. The next gradient takes the memory of the one before.
    ///
    /// # Errors
    /// If libtorch has no memory for a gradient, or that of `give`.
    pub(crate) fn backward(
        &self,
        parameters: &mut Parameters,
        pack: &Pack,
        team: &Team,
        space: &mut Workspace,
        by_pooled: &[f32],
        mut give: impl FnMut(&mut Parameters, usize, Tensor) -> Result<()>,
    ) -> Result<()> {
        let size = self.size();
        let len = pack.positions() * size;
        let Workspace { kept, hidden, scratch, gradient, halves, .. } = space;
        let mut pass = Pass { weights: self, pack, team, gradient, halves };
        let hidden = hidden.as_slice();
        let mut buffer = std::mem::take(&mut scratch.dx);
        let dx = &mut buffer.as_mut_slice()[..len];
        team.each(pack.cut((&mut *dx, size)), |(sequence, (dx, _))| {
            let by = &by_pooled[sequence.index * size..][..size];
            let by: Vec<f32> = by.iter().map(|by| by / sequence.counted as f32).collect();
            for (dx, row) in dx.chunks_exact_mut(size).zip(hidden[sequence.start * size..].chunks_exact(size)) {
                kernels::direction_backward(dx, &by, row, LEAST_LENGTH);
            }
        });
        for (block, kept) in self.blocks.iter().zip(kept).rev() {
            pass.block_backward(block, parameters, kept, dx, scratch, &mut give)?;
        }
        let mut gradient = gradient_like(&self.embedding, pass.gradient)?;
        // SAFETY: the memory is the workspace's own; who got the gradient that was there before reads it while `give` runs.
        let sums = unsafe { bridge::slice_mut(&mut gradient) };
        sums.fill(0.0);
        for (dx, &id) in dx.chunks_exact(size).zip(pack.ids()).filter(|&(_, &id)| id != self.pad) {
            kernels::add(&mut sums[id as usize * size..][..size], dx);
        }
        scratch.dx = buffer;
        give(parameters, self.embedding.place, gradient)
    }
}

#[cfg(test)]
mod tests;
