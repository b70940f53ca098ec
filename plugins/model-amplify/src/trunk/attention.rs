//! Attention, and the layout of the rows that it reads.

use plugin_api::Result;
use tch::{Kind, TchError, Tensor};

use super::layers::{Linear, Rope, rotate};
use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::config::{Lora, LoraTarget};
use crate::parameters::{Init, Scope};
use crate::random::DropoutRng;

/// What all blocks of a pass share.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    batch: &'a Batch,
    /// The rotations of the positions: (length, 1, d / 2).
    angles: Tensor,
}

impl<'a> Pass<'a> {
    pub(super) fn new(batch: &'a Batch, rope: &Rope) -> Result<Self, TchError> {
        let angles = rope.table.f_narrow(0, 0, batch.ids.size()[1])?.f_unsqueeze(1)?;
        Ok(Self { batch, angles })
    }

    /// The token ids, (batch, length).
    pub(super) fn ids(&self) -> &Tensor {
        &self.batch.ids
    }
}

/// `wo(softmax(q kᵀ / √d) v)` (Vaswani et al. 2017, equation 1) for each head, without padded keys.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) wo: Linear,
    pub(super) heads: i64,
    pub(super) dropout: f64,
}

impl Attention {
    /// Its linear layers are named in the block's scope.
    pub(super) fn new(at: &mut Scope<'_>, a: &Architecture, kind: Kind, lora: Option<&Lora>) -> Result<Self> {
        let (n, weight) = (a.hidden_size, Init::Uniform(a.decoder_init_range));
        let bias = a.att_bias.then_some(Init::Zeros);
        let mut linear = |name, target| -> Result<Linear> {
            Linear::new(at.at(name), n, n, weight, bias)?.with_kind(kind).with_adapter(at.at(name), lora, target)
        };
        Ok(Self {
            q: linear("q", LoraTarget::Q)?,
            k: linear("k", LoraTarget::K)?,
            v: linear("v", LoraTarget::V)?,
            wo: linear("wo", LoraTarget::Wo)?,
            heads: a.num_attention_heads,
            dropout: a.dropout_prob,
        })
    }

    /// `x` is (batch, length, size).
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let [rows, length, size] = x.size()[..] else { unreachable!("three dimensions") };
        let split = |y: Tensor| y.f_reshape([rows, length, self.heads, size / self.heads]);
        let q = rotate(&split(self.q.forward_adapted(x, dropout)?)?, &pass.angles)?.f_transpose(1, 2)?;
        let k = rotate(&split(self.k.forward_adapted(x, dropout)?)?, &pass.angles)?.f_transpose(1, 2)?;
        let v = split(self.v.forward_adapted(x, dropout)?)?.f_transpose(1, 2)?;
        let attended = if dropout.is_active(self.dropout) {
            let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?.f_div_scalar(((size / self.heads) as f64).sqrt())?;
            let scores = match &pass.batch.keys {
                Some(keys) => scores.f_masked_fill(&keys.f_logical_not()?, f64::NEG_INFINITY)?,
                None => scores,
            };
            let probabilities = dropout.dropout(scores.f_softmax(-1, Kind::Float)?, self.dropout)?;
            probabilities.f_to_kind(v.kind())?.f_matmul(&v)?
        } else {
            Tensor::f_scaled_dot_product_attention(&q, &k, &v, pass.batch.keys.as_ref(), 0.0, false, None, false)?
        };
        let attended = attended.f_transpose(1, 2)?.f_reshape([rows, length, size])?;
        let attended = self.wo.forward_adapted(&attended, dropout)?;
        dropout.dropout(attended, self.dropout)
    }
}
