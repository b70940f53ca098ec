//! Activation checkpointing (Chen et al. 2016, section 3): a pass keeps the input of each block, and the backward pass computes
//! the rest of a block once more when its turn comes.
//!
//! The parts of a trunk are numbered by their depth ([`crate::parameters::depth`]): 0 is the embedding, `n` the `n`th block.

use plugin_api::Result;
use tch::{Kind, TchError, Tensor};

use super::Trunk;
use super::layers::Sum;
use super::native::gradients;
use super::pass::Pass;
use crate::batch::Batch;
use crate::bridge::torch_error;
use crate::random::DropoutRng;

/// What a pass keeps for its backward pass.
#[derive(Debug)]
pub(crate) struct Checkpoints<'a> {
    trunk: &'a Trunk,
    pass: Pass<'a>,
    /// The lowest part that is trained.
    first: usize,
    /// From that part on.
    inputs: Vec<Input>,
}

/// What a part read.
#[derive(Debug)]
struct Input {
    /// None for the embedding.
    x: Option<Tensor>,
    /// The numbers that it drew from here on.
    dropout: DropoutRng,
}

impl Trunk {
    /// [`Self::forward`] without a graph. The last block's output is a leaf, whose gradient [`Checkpoints::backward`] takes.
    /// Parts below the depth `first` are not trained.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn forward_checkpointed<'a>(
        &'a self,
        batch: &'a Batch,
        first: usize,
        dropout: &mut DropoutRng,
    ) -> Result<(Tensor, Checkpoints<'a>)> {
        let _guard = tch::no_grad_guard();
        let mut forward = || {
            let (pass, mut inputs, mut x) = (Pass::new(self, batch)?, Vec::new(), None);
            for number in 0..=self.blocks() {
                let before = dropout.clone();
                let y = self.part(number, x.as_ref(), &pass, dropout)?;
                let x = x.replace(y);
                if number >= first {
                    inputs.push(Input { x, dropout: before });
                }
            }
            let hidden = x.unwrap_or_default().f_to_kind(Kind::Float)?.f_set_requires_grad(true)?;
            Ok((hidden, Checkpoints { trunk: self, pass, first, inputs }))
        };
        forward().map_err(torch_error)
    }

    /// The output of the part of this depth.
    fn part(
        &self,
        depth: usize,
        x: Option<&Tensor>,
        pass: &Pass<'_>,
        dropout: &mut DropoutRng,
    ) -> Result<Tensor, TchError> {
        match (depth.checked_sub(1), x) {
            (Some(block), Some(x)) => {
                self.transformer_encoder[block].forward(Sum::new(x.shallow_clone()), pass, dropout)?.resolve()
            }
            _ => self.embed(pass),
        }
    }
}

impl Checkpoints<'_> {
    /// The gradients of the parameters of each part that `trained` gives for its depth, from that of the last block's output.
    /// An undefined tensor is that of a parameter on which the output does not depend.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn backward<'p>(
        self,
        d_hidden: Tensor,
        trained: impl Fn(usize) -> Vec<&'p Tensor>,
        mut on_gradients: impl FnMut(usize, Vec<Tensor>),
    ) -> Result<()> {
        let mut d = d_hidden;
        for (number, Input { x, mut dropout }) in self.inputs.into_iter().enumerate().rev() {
            let depth = self.first + number;
            // Nothing below the first part needs a gradient.
            let x = x.map(|x| x.f_detach()?.f_set_requires_grad(number > 0)).transpose().map_err(torch_error)?;
            let y = tch::with_grad(|| self.trunk.part(depth, x.as_ref(), &self.pass, &mut dropout));
            let y = y.map_err(torch_error)?;
            let mut inputs = trained(depth);
            inputs.extend(x.as_ref().filter(|_| number > 0));
            let mut found = gradients(&y, &d.f_to_kind(y.kind()).map_err(torch_error)?, &inputs)?;
            if number > 0 {
                d = found.pop().unwrap_or_default();
            }
            on_gradients(depth, found);
        }
        Ok(())
    }
}
