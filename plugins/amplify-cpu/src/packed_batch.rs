//! A batch's tokens in one list, sequence after sequence.

use super::Reading;
use super::threads::SplitRows;

/// Token ids of several sequences, concatenated. A matrix with one row per token belongs to it.
#[derive(Debug)]
pub struct PackedBatch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<Sequence>,
}

/// The rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// Its index in the batch.
    pub(super) index: usize,
    /// Its first row.
    pub(super) start: usize,
    /// Its number of rows.
    pub(super) length: usize,
    /// The rows that attention reads as keys and values: the first `keys`. The others are padding.
    pub(super) keys: usize,
}

impl Sequence {
    /// The elements of its rows in a matrix of `width` columns.
    pub(super) fn range(&self, width: usize) -> std::ops::Range<usize> {
        self.start * width..(self.start + self.length) * width
    }
}

impl PackedBatch {
    /// Concatenates `rows` of token ids; if `padded`, each is first padded with `pad` to `length`.
    ///
    /// None if a row is empty or contains `pad` itself, which attention would have to mask.
    pub fn new(rows: &[&[u32]], pad: u32, length: usize, padded: bool) -> Option<Self> {
        let mut batch = Self { ids: Vec::new(), positions: Vec::new(), sequences: Vec::new() };
        for (index, row) in rows.iter().enumerate() {
            if row.is_empty() || row.contains(&pad) {
                return None;
            }
            let (start, length) = (batch.ids.len(), if padded { length } else { row.len() });
            batch.ids.extend_from_slice(row);
            batch.ids.resize(start + length, pad);
            batch.positions.extend(0..length as u32);
            batch.sequences.push(Sequence { index, start, length, keys: row.len() });
        }
        Some(batch)
    }

    /// The id of each token.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The position of each token in its sequence.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The number of tokens.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The sequences in order.
    pub(super) fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Reads tokens: each is a sequence, and a position of it, which it must have.
    pub fn reading(&self, positions: &[(usize, usize)]) -> Reading {
        let number = |&(sequence, position): &(usize, usize)| {
            let Sequence { start, length, .. } = self.sequences[sequence];
            assert!(position < length, "position {position} of a sequence of {length} tokens");
            start + position
        };
        Reading::Tokens(positions.iter().map(number).collect())
    }

    /// Splits matrices with one row per token into those of each sequence.
    pub(super) fn split<T: SplitRows>(&self, mut rows: T) -> Vec<(Sequence, T)> {
        let mut all = Vec::with_capacity(self.sequences.len());
        for sequence in &self.sequences {
            let (own, others) = rows.split(sequence.length);
            all.push((*sequence, own));
            rows = others;
        }
        all
    }
}
