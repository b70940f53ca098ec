//! Scaled dot-product attention (Vaswani et al. 2017, equation 1) of one sequence, forward and backward.
//!
//! As in FlashAttention (Dao et al. 2022), only a block of scores exists at a time. The forward pass keeps the logarithm of
//! each query's sum of exponentials, from which the backward pass computes the probabilities again. With `S = q kᵀ / √d`,
//! `P = softmax(S)` and `O = P v`, the derivatives are (appendix B.2 there)
//!
//! ```text
//! dv = Pᵀ dO,  dP = dO vᵀ,  D = Σ dO · O,  dS = P (dP − D),  dq = dS k / √d,  dk = dSᵀ q / √d
//! ```

use std::ops::Range;

use super::gemm::{Accumulate, MatMut, MatRef, gemm_nn, gemm_nt, gemm_tn};
use super::kernels;
use super::packed_batch::Sequence;
use super::threads::CALLING_THREAD;

/// Scores in a block: what fits into the second-level cache beside queries, keys and values.
const BLOCK: usize = 1 << 16;

/// The sizes of one sequence's attention. A row of `qkv` is `(q, k, v)`, each of `size` features; each head has
/// `size / heads` consecutive ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    size: usize,
    heads: usize,
    /// Rows that attend: all.
    queries: usize,
    /// Rows that are attended to: the first ones.
    keys: usize,
}

/// Which third of a row of `qkv`.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl Shape {
    pub(super) fn new(size: usize, heads: usize, sequence: Sequence) -> Self {
        Self { size, heads, queries: sequence.length, keys: sequence.keys }
    }

    fn head_size(&self) -> usize {
        self.size / self.heads
    }

    /// `1 / √d`.
    fn scale(&self) -> f32 {
        (1.0 / (self.head_size() as f64).sqrt()) as f32
    }

    /// The elements of `qkv` from the first to the last one of a head's part of these rows.
    fn part(&self, part: Part, head: usize, rows: &Range<usize>) -> Range<usize> {
        let (stride, column) = (3 * self.size, part as usize * self.size + head * self.head_size());
        rows.start * stride + column..(rows.end - 1) * stride + column + self.head_size()
    }

    fn read<'a>(&self, qkv: &'a [f32], part: Part, head: usize, rows: &Range<usize>) -> MatRef<'a> {
        MatRef::with_stride(&qkv[self.part(part, head, rows)], self.head_size(), 3 * self.size)
    }

    fn write<'a>(&self, qkv: &'a mut [f32], part: Part, head: usize, rows: &Range<usize>) -> MatMut<'a> {
        MatMut::with_stride(&mut qkv[self.part(part, head, rows)], self.head_size(), 3 * self.size)
    }

    /// The elements of the output from the first to the last one of a head in these rows.
    fn output(&self, head: usize, rows: &Range<usize>) -> Range<usize> {
        let column = head * self.head_size();
        rows.start * self.size + column..(rows.end - 1) * self.size + column + self.head_size()
    }

    /// The queries of a block.
    fn block_rows(&self) -> usize {
        (BLOCK / self.keys).clamp(1, self.queries)
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (queries, rows) = (self.queries, self.block_rows());
        (0..queries).step_by(rows).map(move |first| first..(first + rows).min(queries))
    }
}

/// Writes the attention of each head to its columns of `out`, and `log Σ exp` of each query's scores to `log_sums`.
///
/// `qkv` is (queries, 3 · size), `out` is (queries, size), `log_sums` is (heads, queries).
pub(super) fn forward(shape: &Shape, qkv: &[f32], out: &mut [f32], log_sums: &mut [f32]) {
    let (pool, keys) = (&CALLING_THREAD, 0..shape.keys);
    let mut scores = vec![0.0; shape.block_rows() * keys.len()];
    for head in 0..shape.heads {
        let log_sums = &mut log_sums[head * shape.queries..][..shape.queries];
        let (k, v) = (shape.read(qkv, Part::Key, head, &keys), shape.read(qkv, Part::Value, head, &keys));
        for rows in shape.blocks() {
            let scores = &mut scores[..rows.len() * keys.len()];
            let q = shape.read(qkv, Part::Query, head, &rows);
            gemm_nt(pool, MatMut::new(scores, keys.len()), Accumulate::Overwrite, shape.scale(), q, k);
            kernels::softmax(scores, keys.len(), &mut log_sums[rows.clone()]);
            let out = MatMut::with_stride(&mut out[shape.output(head, &rows)], shape.head_size(), shape.size);
            gemm_nn(pool, out, Accumulate::Overwrite, 1.0, MatRef::new(scores, keys.len()), v);
        }
    }
}

/// What [`backward`] reads of the forward pass, and the derivative with respect to its output.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) qkv: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) log_sums: &'a [f32],
    pub(super) d_out: &'a [f32],
}

/// Writes the derivative with respect to `qkv` to `d_qkv`; both have the same shape.
pub(super) fn backward(shape: &Shape, d_qkv: &mut [f32], saved: Saved<'_>) {
    let Saved { qkv, out, log_sums, d_out } = saved;
    let (pool, keys, scale) = (&CALLING_THREAD, 0..shape.keys, shape.scale());
    let mut scores = vec![0.0; shape.block_rows() * keys.len()];
    let mut d_scores = scores.clone();
    let mut d_sums = vec![0.0; shape.queries];
    // No query attends to padding.
    d_qkv[keys.end * 3 * shape.size..].fill(0.0);
    for head in 0..shape.heads {
        for (row, d_sum) in d_sums.iter_mut().enumerate() {
            let columns = shape.output(head, &(row..row + 1));
            *d_sum = kernels::dot(&out[columns.clone()], &d_out[columns]);
        }
        let log_sums = &log_sums[head * shape.queries..][..shape.queries];
        let (k, v) = (shape.read(qkv, Part::Key, head, &keys), shape.read(qkv, Part::Value, head, &keys));
        for rows in shape.blocks() {
            let len = rows.len() * keys.len();
            let (scores, d_scores) = (&mut scores[..len], &mut d_scores[..len]);
            let q = shape.read(qkv, Part::Query, head, &rows);
            let d_out = MatRef::with_stride(&d_out[shape.output(head, &rows)], shape.head_size(), shape.size);
            gemm_nt(pool, MatMut::new(scores, keys.len()), Accumulate::Overwrite, scale, q, k);
            gemm_nt(pool, MatMut::new(d_scores, keys.len()), Accumulate::Overwrite, 1.0, d_out, v);
            kernels::softmax_backward(scores, d_scores, keys.len(), &log_sums[rows.clone()], &d_sums[rows.clone()]);
            let (scores, d_scores) = (MatRef::new(scores, keys.len()), MatRef::new(d_scores, keys.len()));
            let accumulate = if rows.start == 0 { Accumulate::Overwrite } else { Accumulate::Add };
            gemm_nn(pool, shape.write(d_qkv, Part::Query, head, &rows), Accumulate::Overwrite, scale, d_scores, k);
            gemm_tn(pool, shape.write(d_qkv, Part::Key, head, &keys), accumulate, scale, d_scores, q);
            gemm_tn(pool, shape.write(d_qkv, Part::Value, head, &keys), accumulate, 1.0, scores, d_out);
        }
    }
}
