//! Poolings of chosen positions: the mean of `hₗ / ‖hₗ‖` over segments of a sequence, or a mean with learned weights.

use std::ops::Range;

use plugin_api::Result;
use tch::{Kind, Tensor};

use crate::batch::Batch;
use crate::bridge;
use crate::config::Pooling;
use crate::regressor::directions;

/// Segments of a batch's sequences. Each gives a vector, and those of a sequence are concatenated.
#[derive(Debug)]
pub(crate) struct Segments {
    /// A row of the batch and a position of its sequence, segment by segment.
    pub(crate) positions: Vec<(usize, usize)>,
    lengths: Vec<usize>,
    sequences: usize,
}

impl Segments {
    /// None for a pooling of whole sequences of a padded batch without weights, which [`crate::regressor::pool`] computes.
    pub(crate) fn of(pooling: Pooling, batch: &Batch) -> Option<Self> {
        let mut segments = Self { positions: Vec::new(), lengths: Vec::new(), sequences: batch.rows() };
        for (row, ids) in batch.sequences().iter().enumerate() {
            let ranges: Vec<_> = match pooling {
                Pooling::Bos => std::iter::once(0..1).collect(),
                Pooling::Tokens | Pooling::AllPositions if batch.packing.is_none() => return None,
                Pooling::Attention | Pooling::Tokens | Pooling::AllPositions => std::iter::once(0..ids.len()).collect(),
                Pooling::Chains => batch.chains.get(row).cloned().unwrap_or_default(),
            };
            for range in ranges {
                segments.lengths.push(range.len());
                segments.positions.extend(range.map(|position| (row, position)));
            }
        }
        Some(segments)
    }

    /// The vectors of the sequences, (sequences, vectors · size), from the hidden states of the positions, (positions, size).
    /// With `attention`, a vector `w`, the weights in a segment are the softmax of `w · hₗ / ‖hₗ‖`; without, they are equal.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn pool(&self, hidden: &Tensor, attention: Option<&Tensor>) -> Result<Tensor> {
        let longest = self.lengths.iter().copied().max().unwrap_or_default();
        let (mut numbers, mut padding) = (Vec::new(), Vec::new());
        let mut first = 0;
        for &length in &self.lengths {
            // Padding repeats the first position, with a weight of 0.
            numbers.extend((0..longest).map(|i| (first + if i < length { i } else { 0 }) as i64));
            padding.extend((0..longest).map(|i| i >= length));
            first += length;
        }
        let pool = || {
            let (device, shape) = (hidden.device(), [self.lengths.len() as i64, longest as i64]);
            let [numbers, padding] = [Tensor::f_from_slice(&numbers)?, Tensor::f_from_slice(&padding)?];
            let padding = bridge::to_device(&padding, device)?.f_reshape(shape)?;
            let all = directions(hidden)?.f_index_select(0, &bridge::to_device(&numbers, device)?)?;
            let all = all.f_reshape([shape[0], shape[1], hidden.size()[1]])?;
            let scores = match attention {
                Some(attention) => all.f_matmul(attention)?,
                None => Tensor::f_zeros(shape, (Kind::Float, device))?,
            };
            let weights = scores.f_masked_fill(&padding, f64::NEG_INFINITY)?.f_softmax(-1, Kind::Float)?;
            weights.f_unsqueeze(1)?.f_bmm(&all)?.f_reshape([self.sequences as i64, -1])
        };
        pool().map_err(bridge::torch_error)
    }
}

/// The tokens that bound chains.
#[derive(Clone, Debug)]
pub(crate) struct ChainBounds {
    /// Between two chains.
    pub(crate) separator: u32,
    /// Before the first and after the last one.
    pub(crate) ends: Vec<u32>,
}

impl ChainBounds {
    /// The positions of each chain.
    pub(crate) fn chains(&self, ids: &[u32]) -> Vec<Range<usize>> {
        let is_end = |id: &&u32| self.ends.contains(id);
        let mut start = 0;
        let mut range = |chain: &[u32]| {
            let from = start + chain.iter().take_while(is_end).count();
            let to = start + chain.len() - chain.iter().rev().take_while(is_end).count();
            start += chain.len() + 1;
            from..to.max(from)
        };
        ids.split(|&id| id == self.separator).map(&mut range).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_the_letters_between_bounds() {
        let bounds = ChainBounds { separator: 5, ends: vec![3, 4] };
        assert_eq!(bounds.chains(&[3, 6, 7, 5, 8, 4]), [1..3, 4..5]);
        assert_eq!(bounds.chains(&[3, 6, 7, 4]), std::iter::once(1..3).collect::<Vec<_>>());
        assert_eq!(bounds.chains(&[3, 6, 5, 4]).iter().map(Range::len).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(bounds.chains(&[3, 4])[0].len(), 0);
    }

    /// By NumPy's formulas: `d = h / norm(h)`, `a = exp(d @ w)`, `(a[:, None] * d).sum(0) / a.sum()`.
    #[test]
    fn pooled_vectors_are_those_of_the_formulas() {
        let rows: Vec<&[u32]> = vec![&[3, 6, 7, 4], &[3, 8, 4]];
        let batch = Batch::new(&rows, 0, 64, tch::Device::Cpu).unwrap();
        let w = [0.5_f32, -2.0];
        for pooling in [Pooling::Bos, Pooling::Attention] {
            let segments = Segments::of(pooling, &batch).unwrap();
            let hidden: Vec<[f32; 2]> =
                segments.positions.iter().map(|&(row, at)| [1.0 + row as f32, at as f32 - 1.5]).collect();
            let tensor = Tensor::from_slice(hidden.as_flattened()).reshape([-1, 2]);
            let attention = Tensor::from_slice(&w);
            let pooled = segments.pool(&tensor, (pooling == Pooling::Attention).then_some(&attention)).unwrap();
            let mut expected = Vec::new();
            for row in 0..2 {
                let (mut sums, mut total) = ([0.0; 2], 0.0);
                for (h, _) in hidden.iter().zip(&segments.positions).filter(|(_, position)| position.0 == row) {
                    let d = h.map(|x| x / h[0].hypot(h[1]));
                    let a = (d[0] * w[0] + d[1] * w[1]).exp();
                    total += a;
                    (0..2).for_each(|i| sums[i] += a * d[i]);
                }
                expected.extend(sums.map(|sum| sum / total));
            }
            let found = bridge::to_vec(&pooled).unwrap();
            assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
        }
    }
}
