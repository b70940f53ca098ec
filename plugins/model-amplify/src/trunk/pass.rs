//! What the blocks of a pass share.

use tch::{TchError, Tensor};

use super::Trunk;
use super::weights::Kept;
use crate::batch::Batch;
use crate::bridge;
use crate::fused::Kernels;
use crate::random::DropoutRng;

/// A pass of a trunk over a batch. Its rows are the positions of the padded batch, or the tokens of a packed one.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) batch: &'a Batch,
    /// The rotations of the rows' positions: (length, 1, d / 2) or (tokens, 1, d / 2).
    pub(super) angles: Tensor,
    pub(super) kernels: Option<Kernels>,
    /// Whether [`Trunk::keep_weights`] is in force.
    keeps_weights: bool,
}

impl<'a> Pass<'a> {
    pub(super) fn new(trunk: &Trunk, batch: &'a Batch) -> Result<Self, TchError> {
        let table = &trunk.rope.table;
        let angles = match &batch.packing {
            Some(packing) => table.f_index_select(0, &packing.positions)?,
            None => table.f_narrow(0, 0, batch.ids.size()[1])?,
        };
        let (kernels, keeps_weights) = (trunk.kernels, trunk.keeps_weights.get());
        Ok(Self { batch, angles: angles.f_unsqueeze(1)?, kernels, keeps_weights })
    }

    /// The token ids, (batch, length) or (tokens).
    pub(super) fn ids(&self) -> &Tensor {
        self.batch.packing.as_ref().map_or(&self.batch.ids, |packing| &packing.ids)
    }

    /// Dropout of a tensor with a row for each of the pass. A packed batch drops what a padded one would, so that the
    /// numbers that are drawn do not depend on it.
    pub(super) fn dropout(&self, x: Tensor, p: f64, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let Some(packing) = &self.batch.packing else { return dropout.dropout(x, p) };
        let shape = [&packing.shape[..], &x.size()[1..]].concat();
        match dropout.mask(&shape, p)? {
            Some(mask) => x.f_mul(&packing.take(&bridge::to_device(&mask, x.device())?)?),
            None => Ok(x),
        }
    }

    /// A weight in the form that products read: what `make` gives, or gave before in the same step.
    pub(super) fn kept(
        &self,
        kept: &Kept,
        make: impl FnOnce() -> Result<Tensor, TchError>,
    ) -> Result<Tensor, TchError> {
        if self.keeps_weights { kept.get_or_make(make) } else { make() }
    }
}
