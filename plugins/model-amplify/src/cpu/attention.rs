//! Scaled dot-product attention of whole sequences, `softmax(q kᵀ / √d) v` for each head, and its derivative.
//!
//! The scores of a block of queries exist at a time, as in FlashAttention (Dao et al. 2022): what is kept for the
//! derivative is the logarithm of each query's sum of exponentials, and probabilities are computed again from it.

use super::kernels;
use super::pack::Sequence;
use super::product::{Into, Rows, RowsMut, by_transpose, of_transpose, plain};
use super::team::Team;

/// How many scores a block may have: what the second cache holds beside queries, keys and values.
const BLOCK: usize = 1 << 16;

/// The sizes of attention over one sequence. Rows of queries, keys and values stand in one matrix of `3 · size` columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Features of a position: of all heads together.
    size: usize,
    /// Heads.
    heads: usize,
    /// Positions that attend.
    queries: usize,
    /// Positions that are attended to: the first ones.
    keys: usize,
}

impl Shape {
    /// That of a sequence.
    pub(super) fn new(size: usize, heads: usize, sequence: Sequence) -> Self {
        Self { size, heads, queries: sequence.length, keys: sequence.keys }
    }

    fn width(&self) -> usize {
        self.size / self.heads
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.width() as f64).sqrt()) as f32
    }

    /// Queries, keys or values of a head, from the row `from` on.
    fn part<'a>(&self, all: &'a [f32], which: usize, head: usize, rows: std::ops::Range<usize>) -> Rows<'a> {
        let (stride, width) = (3 * self.size, self.width());
        let column = which * self.size + head * width;
        Rows::within(&all[rows.start * stride + column..(rows.end - 1) * stride + column + width], width, stride)
    }

    fn part_mut<'a>(&self, all: &'a mut [f32], which: usize, head: usize, rows: std::ops::Range<usize>) -> RowsMut<'a> {
        let (stride, width) = (3 * self.size, self.width());
        let column = which * self.size + head * width;
        RowsMut::within(&mut all[rows.start * stride + column..(rows.end - 1) * stride + column + width], width, stride)
    }

    /// A head's columns of the output.
    fn columns(&self, head: usize, rows: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let column = head * self.width();
        rows.start * self.size + column..(rows.end - 1) * self.size + column + self.width()
    }

    /// Blocks of queries, with room for the scores of one.
    fn blocks(&self) -> (impl Iterator<Item = std::ops::Range<usize>> + use<>, usize) {
        let (queries, rows) = (self.queries, (BLOCK / self.keys).clamp(1, self.queries));
        ((0..queries).step_by(rows).map(move |from| from..(from + rows).min(queries)), rows * self.keys)
    }
}

/// `out` is (queries, size), `all` (queries, 3 · size), `logs` (heads, queries).
pub(super) fn forward(shape: &Shape, alone: &Team, all: &[f32], out: &mut [f32], logs: &mut [f32]) {
    let (width, keys) = (shape.width(), shape.keys);
    let mut scores = vec![0.0; shape.blocks().1];
    for head in 0..shape.heads {
        for rows in shape.blocks().0 {
            let scores = &mut scores[..rows.len() * keys];
            let (q, k, v) = (
                shape.part(all, 0, head, rows.clone()),
                shape.part(all, 1, head, 0..keys),
                shape.part(all, 2, head, 0..keys),
            );
            by_transpose(alone, RowsMut::new(scores, keys), Into::Set, shape.scale(), q, k);
            let first = head * shape.queries;
            kernels::softmax(scores, keys, &mut logs[first + rows.start..first + rows.end]);
            let out = RowsMut::within(&mut out[shape.columns(head, rows)], width, shape.size);
            plain(alone, out, Into::Set, 1.0, Rows::new(scores, keys), v);
        }
    }
}

/// Writes to `by` the derivative by `all`, from `by_out`, the derivative by `out`.
pub(super) fn backward(
    shape: &Shape,
    alone: &Team,
    by: &mut [f32],
    all: &[f32],
    out: &[f32],
    by_out: &[f32],
    logs: &[f32],
) {
    let (width, keys, size) = (shape.width(), shape.keys, shape.size);
    let mut scores = vec![0.0; shape.blocks().1];
    let mut by_scores = scores.clone();
    let mut sums = vec![0.0; shape.queries];
    // Padding is no key and no value.
    by[keys * 3 * size..].fill(0.0);
    for head in 0..shape.heads {
        for (row, sum) in sums.iter_mut().enumerate() {
            let columns = shape.columns(head, row..row + 1);
            *sum = kernels::product_sum(&out[columns.clone()], &by_out[columns]);
        }
        for rows in shape.blocks().0 {
            let (scores, by_scores) = (&mut scores[..rows.len() * keys], &mut by_scores[..rows.len() * keys]);
            let (q, k, v) = (
                shape.part(all, 0, head, rows.clone()),
                shape.part(all, 1, head, 0..keys),
                shape.part(all, 2, head, 0..keys),
            );
            let given = Rows::within(&by_out[shape.columns(head, rows.clone())], width, size);
            by_transpose(alone, RowsMut::new(scores, keys), Into::Set, shape.scale(), q, k);
            by_transpose(alone, RowsMut::new(by_scores, keys), Into::Set, 1.0, given, v);
            let first = head * shape.queries;
            let logs = &logs[first + rows.start..first + rows.end];
            kernels::softmax_backward(scores, by_scores, keys, logs, &sums[rows.clone()]);
            let (scores, by_scores) = (Rows::new(scores, keys), Rows::new(by_scores, keys));
            let into = if rows.start == 0 { Into::Set } else { Into::Add };
            plain(alone, shape.part_mut(by, 0, head, rows), Into::Set, shape.scale(), by_scores, k);
            of_transpose(alone, shape.part_mut(by, 1, head, 0..keys), into, shape.scale(), by_scores, q);
            of_transpose(alone, shape.part_mut(by, 2, head, 0..keys), into, 1.0, scores, given);
        }
    }
}
