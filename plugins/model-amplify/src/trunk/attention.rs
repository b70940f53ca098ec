//! Attention, over padded sequences and over packed ones.

use plugin_api::Result;
use tch::{Device, Kind, TchError, Tensor};

use super::layers::{Linear, rotate};
use super::native;
use super::pass::Pass;
use super::weights::Kept;
use crate::architecture::Architecture;
use crate::bridge;
use crate::config::{Lora, LoraTarget};
use crate::packing::Packing;
use crate::parameters::{Init, Scope};
use crate::random::DropoutRng;

/// `wo(softmax(q kᵀ / √d) v)` (Vaswani et al. 2017, equation 1) for each head, without padded keys.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) wo: Linear,
    pub(super) heads: i64,
    pub(super) dropout: f64,
    /// The weights and the biases of `q`, `k` and `v` beneath one another, where one product computes all three.
    pub(super) fused: Option<[Kept; 2]>,
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
            fused: None,
        })
    }

    /// The type in which it reads its input, best: that of its product if there is a single one. The derivatives of several
    /// are added up in `residual`, the type of the sum before the norm.
    pub(super) fn input_kind(&self, residual: Kind) -> Kind {
        if self.fused.is_some() { self.q.kind } else { residual }
    }

    /// `x` is (batch, length, size), or (tokens, size) of a packed batch.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass<'_>, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let qkv = self.rotated(x, pass, dropout)?;
        let attended = match &pass.batch.packing {
            Some(packing) => self.packed(&qkv, packing, dropout)?,
            None => {
                let [q, k, v] = qkv.map(|x| x.f_transpose(1, 2));
                let qkv = [q?, k?, v?];
                let [rows, heads, length, _] = qkv[0].size()[..] else { unreachable!("four dimensions") };
                let mask = dropout.mask(&[rows, heads, length, length], self.dropout)?;
                attend(&qkv, pass.batch.keys.as_ref(), mask.as_ref())?.f_transpose(1, 2)?
            }
        };
        let attended = self.wo.forward_adapted(&attended.f_reshape(x.size())?, pass, dropout)?;
        pass.dropout(attended, self.dropout, dropout)
    }

    /// Queries and keys, rotated by their positions, and values: (…, heads, head size).
    fn rotated(&self, x: &Tensor, pass: &Pass<'_>, dropout: &mut DropoutRng) -> Result<[Tensor; 3], TchError> {
        let layers = [&self.q, &self.k, &self.v];
        let product = self.fused.as_ref().map(|weights| self.product(x, weights, pass)).transpose()?;
        let has_adapters = layers.iter().any(|layer| layer.adapter.is_some());
        if let (Some(kernels), Some(product), false) = (pass.kernels, &product, has_adapters) {
            return kernels.rotate_packed(product, self.heads, &pass.angles);
        }
        let [q, k, v] = match product {
            Some(product) => {
                let mut parts = product.f_chunk(3, -1)?.into_iter();
                layers.map(|layer| layer.adapt(parts.next().unwrap_or_default(), x, pass, dropout))
            }
            None => layers.map(|layer| layer.forward_adapted(x, pass, dropout)),
        };
        let mut shape = x.size();
        let size = shape.pop().unwrap_or_default();
        shape.extend([self.heads, size / self.heads]);
        let [q, k, v] = [q?.f_reshape(&shape)?, k?.f_reshape(&shape)?, v?.f_reshape(&shape)?];
        let [q, k] = match pass.kernels {
            Some(kernels) => kernels.rotate(&q, &k, &pass.angles)?,
            None => [rotate(&q, &pass.angles)?, rotate(&k, &pass.angles)?],
        };
        Ok([q, k, v])
    }

    /// Queries, keys and values by one product, without adapters: (…, 3 · size). `weights` keeps its weight and bias.
    fn product(&self, x: &Tensor, [weight, bias]: &[Kept; 2], pass: &Pass<'_>) -> Result<Tensor, TchError> {
        let (layers, kind) = ([&self.q, &self.k, &self.v], self.q.kind);
        let cat = |parts: [Option<&Tensor>; 3]| {
            Tensor::f_cat(&parts.into_iter().flatten().collect::<Vec<_>>(), 0)?.f_to_kind(kind)
        };
        let weight = pass.kept(weight, || cat(layers.map(|layer| Some(&*layer.weight))))?;
        let has_bias = layers.iter().any(|layer| layer.bias.is_some());
        let bias = has_bias.then(|| pass.kept(bias, || cat(layers.map(|layer| layer.bias.as_deref())))).transpose()?;
        x.f_to_kind(kind)?.f_linear(&weight, bias)
    }

    /// The attention of each sequence of a packed batch. `q`, `k`, `v` and the result are (tokens, heads, head size).
    fn packed(&self, qkv: &[Tensor; 3], packing: &Packing, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let [q, k, v] = qkv;
        let (heads, size) = (q.size()[1], q.size()[2]);
        let [rows, length] = packing.shape;
        let mask = dropout.mask(&[rows, heads, length, length], self.dropout)?;
        // The kernels read rows of a multiple of 16 bytes.
        if matches!(q.device(), Device::Cuda(_)) && mask.is_none() && size % 8 == 0 {
            return native::attention_of_sequences([q, k, v], &packing.offsets, packing.longest());
        }
        let of_sequence = |(number, &(start, length)): (usize, &(i64, i64))| {
            let own = |x: &Tensor| x.f_narrow(0, start, length)?.f_transpose(0, 1)?.f_unsqueeze(0);
            let mask = mask.as_ref().map(|mask| {
                let own = mask.f_narrow(0, number as i64, 1)?;
                own.f_narrow(2, 0, length)?.f_narrow(3, 0, length)
            });
            let attended = attend(&[own(q)?, own(k)?, own(v)?], None, mask.transpose()?.as_ref())?;
            attended.f_squeeze_dim(0)?.f_transpose(0, 1)
        };
        let attended = packing.sequences.iter().enumerate().map(of_sequence).collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&attended, 0)
    }
}

/// `softmax(q kᵀ / √d) v` of (batch, heads, length, head size), without the keys where `keys` is false, and with
/// probabilities multiplied by `mask`.
fn attend([q, k, v]: &[Tensor; 3], keys: Option<&Tensor>, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    let Some(mask) = mask else {
        return Tensor::f_scaled_dot_product_attention(q, k, v, keys, 0.0, false, None, false);
    };
    let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?.f_div_scalar((q.size()[3] as f64).sqrt())?;
    let scores = match keys {
        Some(keys) => scores.f_masked_fill(&keys.f_logical_not()?, f64::NEG_INFINITY)?,
        None => scores,
    };
    let probabilities = scores.f_softmax(-1, Kind::Float)?.f_mul(&bridge::to_device(mask, q.device())?)?;
    probabilities.f_to_kind(v.kind())?.f_matmul(v)
}
