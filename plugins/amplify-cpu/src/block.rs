//! A transformer block, forward and backward: `x ← x + wo(attention(norm(x)))`, then `x ← x + w3(swiglu(w12(norm(x))))`.

use plugin_api::{Result, TensorBuf};

use super::attention::{self, Saved, Shape};
use super::gemm::{Accumulate, MatMut, MatRef, gemm_nn, gemm_nt, gemm_tn};
use super::kernels::{self, Direction};
use super::workspace::{Activations, Scratch, grown, prefix};
use super::{Adapter, BlockWeights, Encoder, Layer, PackedBatch, ParameterStore, ThreadPool, Weight};

/// A forward or backward pass over one batch.
pub(super) struct Pass<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) batch: &'a PackedBatch,
    pub(super) pool: &'a ThreadPool,
    /// The gradient of one parameter at a time.
    pub(super) gradient: &'a mut TensorBuf<f32>,
}

/// Tokens and the widths of the matrices.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    size: usize,
    inner: usize,
    heads: usize,
}

/// The columns of queries, keys or values in a matrix of `(q, k, v)` rows, from the first element to the last.
fn part(part: usize, Sizes { tokens, size, .. }: Sizes) -> std::ops::Range<usize> {
    part * size..tokens * 3 * size - (2 - part) * size
}

impl Pass<'_> {
    fn sizes(&self) -> Sizes {
        let Encoder { heads, .. } = *self.encoder;
        Sizes { tokens: self.batch.tokens(), size: self.encoder.size(), inner: self.encoder.inner(), heads }
    }

    /// Computes `out` from `x`, of which the first (tokens, size) count, and fills in `saved`.
    pub(super) fn forward(
        &self,
        weights: &BlockWeights,
        store: &impl ParameterStore,
        x: &[f32],
        saved: &mut Activations,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.recompute(weights, store, x, saved, scratch)?;
        self.forward_out(weights, store, saved, out, scratch)
    }

    /// Fills in `saved` from `x`.
    pub(super) fn recompute(
        &self,
        weights: &BlockWeights,
        store: &impl ParameterStore,
        x: &[f32],
        saved: &mut Activations,
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.forward_attention(weights, store, x, saved, scratch)?;
        self.forward_gate_up(weights, store, saved, scratch)
    }

    fn forward_attention(
        &self,
        weights: &BlockWeights,
        store: &impl ParameterStore,
        x: &[f32],
        saved: &mut Activations,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let sizes @ Sizes { tokens, size, heads, .. } = self.sizes();
        let x = &x[..tokens * size];
        let normed = prefix(&mut scratch.normed, tokens * size);
        self.norm(normed, prefix(&mut saved.attention_scales, tokens), x, store.values(weights.attention_norm.index)?);
        let qkv = prefix(&mut saved.qkv, tokens * 3 * size);
        for (i, layer) in [weights.q, weights.k, weights.v].into_iter().enumerate() {
            let out = MatMut::with_stride(&mut qkv[part(i, sizes)], size, 3 * size);
            self.linear(store, layer, out, Accumulate::Overwrite, MatRef::new(normed, size), &mut scratch.low)?;
        }
        self.rope(qkv, Direction::Forward);
        let attended = prefix(&mut saved.attended, tokens * size);
        let log_sums = prefix(&mut saved.log_sums, tokens * heads);
        let sequences = self.batch.split(((&mut *attended, size), (log_sums, heads)));
        self.pool.for_each(sequences, |(sequence, ((attended, _), (log_sums, _)))| {
            let shape = Shape::new(size, heads, sequence);
            attention::forward(&shape, &qkv[sequence.range(3 * size)], attended, log_sums);
        });
        let residual = prefix(&mut saved.residual, tokens * size);
        residual.copy_from_slice(x);
        let (residual, attended) = (MatMut::new(residual, size), MatRef::new(attended, size));
        self.linear(store, weights.wo, residual, Accumulate::Add, attended, &mut scratch.low)
    }

    fn forward_gate_up(
        &self,
        weights: &BlockWeights,
        store: &impl ParameterStore,
        saved: &mut Activations,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Sizes { tokens, size, inner, .. } = self.sizes();
        let residual = &saved.residual.as_slice()[..tokens * size];
        let normed = prefix(&mut scratch.normed, tokens * size);
        self.norm(normed, prefix(&mut saved.ffn_scales, tokens), residual, store.values(weights.ffn_norm.index)?);
        let gate_up = prefix(&mut saved.gate_up, tokens * 2 * inner);
        let (to, normed) = (MatMut::new(gate_up, 2 * inner), MatRef::new(normed, size));
        self.linear(store, weights.w12, to, Accumulate::Overwrite, normed, &mut scratch.low)
    }

    fn forward_out(
        &self,
        weights: &BlockWeights,
        store: &impl ParameterStore,
        saved: &Activations,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Sizes { tokens, size, inner, .. } = self.sizes();
        let (residual, gate_up) = (&saved.residual.as_slice()[..tokens * size], saved.gate_up.as_slice());
        let gated = prefix(&mut scratch.gated, tokens * inner);
        self.pool.for_rows((&mut *gated, inner), |first, (gated, _)| {
            kernels::swiglu(gated, &gate_up[first * 2 * inner..][..gated.len() * 2], inner);
        });
        out.copy_from_slice(residual);
        let (out, gated) = (MatMut::new(out, size), MatRef::new(gated, inner));
        self.linear(store, weights.w3, out, Accumulate::Add, gated, &mut scratch.low)
    }

    /// Turns `dx`, (tokens, size), from the derivative with respect to the block's output into that with respect to its
    /// input `x`, and calls `on_gradient` for each weight. Overwrites `saved.gate_up`.
    pub(super) fn backward<S: ParameterStore>(
        &mut self,
        weights: &BlockWeights,
        store: &mut S,
        (x, saved): (&[f32], &mut Activations),
        dx: &mut [f32],
        scratch: &mut Scratch,
        on_gradient: &mut impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        self.backward_ffn(weights, store, saved, dx, scratch, on_gradient)?;
        self.backward_attention(weights, store, (x, saved), dx, scratch, on_gradient)
    }

    fn backward_ffn<S: ParameterStore>(
        &mut self,
        weights: &BlockWeights,
        store: &mut S,
        saved: &mut Activations,
        dx: &mut [f32],
        scratch: &mut Scratch,
        on_gradient: &mut impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let Sizes { tokens, size, inner, .. } = self.sizes();
        let (pool, residual) = (self.pool, &saved.residual.as_slice()[..tokens * size]);
        let gate_up = prefix(&mut saved.gate_up, tokens * 2 * inner);
        let gated = prefix(&mut scratch.gated, tokens * inner);
        let (to, d_out) = (MatMut::new(gated, inner), MatRef::new(dx, size));
        self.input_gradient(store, weights.w3, to, Accumulate::Overwrite, d_out, &mut scratch.low)?;
        pool.for_rows(((&mut *gate_up, 2 * inner), (&mut *gated, inner)), |_, ((gate_up, _), (gated, _))| {
            kernels::swiglu_backward(gate_up, gated, inner);
        });
        self.weight_gradient(store, weights.w3, d_out, MatRef::new(gated, inner), &mut scratch.low, on_gradient)?;
        let normed = prefix(&mut scratch.normed, tokens * size);
        self.norm_recompute(normed, saved.ffn_scales.as_slice(), residual, store.values(weights.ffn_norm.index)?);
        let d_gate_up = MatRef::new(gate_up, 2 * inner);
        let d_normed = prefix(&mut scratch.d_branch, tokens * size);
        let to = MatMut::new(d_normed, size);
        self.input_gradient(store, weights.w12, to, Accumulate::Overwrite, d_gate_up, &mut scratch.low)?;
        self.weight_gradient(store, weights.w12, d_gate_up, MatRef::new(normed, size), &mut scratch.low, on_gradient)?;
        let norm = NormInput { x: residual, scales: saved.ffn_scales.as_slice() };
        self.norm_backward(store, weights.ffn_norm, dx, d_normed, norm, on_gradient)
    }

    fn backward_attention<S: ParameterStore>(
        &mut self,
        weights: &BlockWeights,
        store: &mut S,
        (x, saved): (&[f32], &Activations),
        dx: &mut [f32],
        scratch: &mut Scratch,
        on_gradient: &mut impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let sizes @ Sizes { tokens, size, .. } = self.sizes();
        let x = &x[..tokens * size];
        let attended = &saved.attended.as_slice()[..tokens * size];
        let d_attended = prefix(&mut scratch.d_branch, tokens * size);
        let (to, d_out) = (MatMut::new(d_attended, size), MatRef::new(dx, size));
        self.input_gradient(store, weights.wo, to, Accumulate::Overwrite, d_out, &mut scratch.low)?;
        self.weight_gradient(store, weights.wo, d_out, MatRef::new(attended, size), &mut scratch.low, on_gradient)?;
        let d_qkv = prefix(&mut scratch.d_qkv, tokens * 3 * size);
        self.scores_backward(d_qkv, d_attended, saved);
        self.rope(d_qkv, Direction::Backward);
        let normed = prefix(&mut scratch.normed, tokens * size);
        let scales = saved.attention_scales.as_slice();
        self.norm_recompute(normed, scales, x, store.values(weights.attention_norm.index)?);
        // The attention's derivative has been read.
        let d_normed = d_attended;
        for (i, layer) in [weights.q, weights.k, weights.v].into_iter().enumerate() {
            let d_out = MatRef::with_stride(&d_qkv[part(i, sizes)], size, 3 * size);
            let accumulate = if i == 0 { Accumulate::Overwrite } else { Accumulate::Add };
            self.input_gradient(store, layer, MatMut::new(d_normed, size), accumulate, d_out, &mut scratch.low)?;
            self.weight_gradient(store, layer, d_out, MatRef::new(normed, size), &mut scratch.low, on_gradient)?;
        }
        self.norm_backward(store, weights.attention_norm, dx, d_normed, NormInput { x, scales }, on_gradient)
    }

    /// Writes the derivative with respect to the rotated queries and keys and the values to `d_qkv`.
    fn scores_backward(&self, d_qkv: &mut [f32], d_attended: &[f32], saved: &Activations) {
        let Sizes { size, heads, .. } = self.sizes();
        self.pool.for_each(self.batch.split((d_qkv, 3 * size)), |(sequence, (d_qkv, _))| {
            let saved = Saved {
                qkv: &saved.qkv.as_slice()[sequence.range(3 * size)],
                out: &saved.attended.as_slice()[sequence.range(size)],
                log_sums: &saved.log_sums.as_slice()[sequence.range(heads)],
                d_out: &d_attended[sequence.range(size)],
            };
            attention::backward(&Shape::new(size, heads, sequence), d_qkv, saved);
        });
    }

    /// `out ← input Wᵀ + s (input Aᵀ) Bᵀ`. `low` is for the second factor.
    fn linear(
        &self,
        store: &impl ParameterStore,
        Layer { weight, adapter }: Layer,
        mut out: MatMut<'_>,
        accumulate: Accumulate,
        input: MatRef<'_>,
        low: &mut TensorBuf<f32>,
    ) -> Result<()> {
        gemm_nt(self.pool, out.reborrow(), accumulate, 1.0, input, matrix(store, weight)?);
        let Some(Adapter { a, b, scale }) = adapter else { return Ok(()) };
        let low = grown(low, self.batch.tokens() * a.rows);
        gemm_nt(self.pool, MatMut::new(low, a.rows), Accumulate::Overwrite, 1.0, input, matrix(store, a)?);
        gemm_nt(self.pool, out, Accumulate::Add, scale, MatRef::new(low, a.rows), matrix(store, b)?);
        Ok(())
    }

    /// `d_input ← d_out W + s (d_out B) A`.
    fn input_gradient(
        &self,
        store: &impl ParameterStore,
        Layer { weight, adapter }: Layer,
        mut d_input: MatMut<'_>,
        accumulate: Accumulate,
        d_out: MatRef<'_>,
        low: &mut TensorBuf<f32>,
    ) -> Result<()> {
        gemm_nn(self.pool, d_input.reborrow(), accumulate, 1.0, d_out, matrix(store, weight)?);
        let Some(Adapter { a, b, scale }) = adapter else { return Ok(()) };
        let d_low = grown(low, self.batch.tokens() * a.rows);
        gemm_nn(self.pool, MatMut::new(d_low, a.rows), Accumulate::Overwrite, scale, d_out, matrix(store, b)?);
        gemm_nn(self.pool, d_input, Accumulate::Add, 1.0, MatRef::new(d_low, a.rows), matrix(store, a)?);
        Ok(())
    }

    /// Calls `on_gradient` with `d_outᵀ input`, the gradient of a linear layer's weight, or with those of its adapter:
    /// `s (d_out B)ᵀ input` and `s d_outᵀ (input Aᵀ)`. A layer without one among others that have one is not trained.
    fn weight_gradient<S: ParameterStore>(
        &mut self,
        store: &mut S,
        Layer { weight, adapter }: Layer,
        d_out: MatRef<'_>,
        input: MatRef<'_>,
        low: &mut TensorBuf<f32>,
        on_gradient: &mut impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let Some(Adapter { a, b, scale }) = adapter else {
            if self.encoder.is_frozen {
                return Ok(());
            }
            let gradient = grown(self.gradient, weight.len());
            gemm_tn(self.pool, MatMut::new(gradient, weight.columns), Accumulate::Overwrite, 1.0, d_out, input);
            return on_gradient(store, weight.index, gradient);
        };
        // A and B are read before either changes.
        let tokens = self.batch.tokens();
        let (d_low, low) = grown(low, 2 * tokens * a.rows).split_at_mut(tokens * a.rows);
        gemm_nn(self.pool, MatMut::new(d_low, a.rows), Accumulate::Overwrite, scale, d_out, matrix(store, b)?);
        gemm_nt(self.pool, MatMut::new(low, a.rows), Accumulate::Overwrite, 1.0, input, matrix(store, a)?);
        let gradient = grown(self.gradient, a.len());
        let (to, d_low) = (MatMut::new(gradient, a.columns), MatRef::new(d_low, a.rows));
        gemm_tn(self.pool, to, Accumulate::Overwrite, 1.0, d_low, input);
        on_gradient(store, a.index, gradient)?;
        let gradient = grown(self.gradient, b.len());
        let (to, low) = (MatMut::new(gradient, b.columns), MatRef::new(low, a.rows));
        gemm_tn(self.pool, to, Accumulate::Overwrite, scale, d_out, low);
        on_gradient(store, b.index, gradient)
    }

    /// Rotates queries and keys by their positions.
    fn rope(&self, qkv: &mut [f32], direction: Direction) {
        let Sizes { size, heads, .. } = self.sizes();
        let (head_size, table) = (size / heads, &self.encoder.rope_table);
        self.pool.for_rows((qkv, 3 * size), |first, (rows, _)| {
            for (row, &position) in rows.chunks_exact_mut(3 * size).zip(&self.batch.positions()[first..]) {
                let angles = &table[position as usize * head_size..][..head_size];
                kernels::rope(&mut row[..2 * size], angles, direction);
            }
        });
    }

    fn norm(&self, y: &mut [f32], scales: &mut [f32], x: &[f32], weight: &[f32]) {
        let (size, eps) = (weight.len(), self.encoder.norm_eps);
        self.pool.for_rows(((y, size), (scales, 1)), |first, ((y, _), (scales, _))| {
            kernels::rms_norm(y, scales, &x[first * size..][..y.len()], weight, eps);
        });
    }

    fn norm_recompute(&self, y: &mut [f32], scales: &[f32], x: &[f32], weight: &[f32]) {
        let size = weight.len();
        self.pool.for_rows((y, size), |first, (y, _)| {
            kernels::rms_norm_recompute(y, &scales[first..], &x[first * size..][..y.len()], weight);
        });
    }

    /// Adds the derivative through a norm to `dx`, and calls `on_gradient` for its weight.
    fn norm_backward<S: ParameterStore>(
        &mut self,
        store: &mut S,
        weight: Weight,
        dx: &mut [f32],
        dy: &[f32],
        NormInput { x, scales }: NormInput<'_>,
        on_gradient: &mut impl FnMut(&mut S, usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let (size, values) = (weight.len(), store.values(weight.index)?);
        let d_weight = self.pool.sum_rows(dx.len() / size, size, |row, sum| {
            let range = row * size..(row + 1) * size;
            kernels::rms_norm_weight_backward(sum, &dy[range.clone()], &x[range], scales[row]);
        });
        self.pool.for_rows((dx, size), |first, (dx, _)| {
            let range = first * size..first * size + dx.len();
            kernels::rms_norm_backward(dx, &dy[range.clone()], &x[range], &scales[first..], values);
        });
        let gradient = grown(self.gradient, size);
        gradient.copy_from_slice(&d_weight);
        on_gradient(store, weight.index, gradient)
    }
}

/// A norm's input, (tokens, size), and the scales that it wrote, (tokens).
#[derive(Clone, Copy)]
struct NormInput<'a> {
    x: &'a [f32],
    scales: &'a [f32],
}

fn matrix(store: &impl ParameterStore, weight: Weight) -> Result<MatRef<'_>> {
    Ok(MatRef::new(store.values(weight.index)?, weight.columns))
}
