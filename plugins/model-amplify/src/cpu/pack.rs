//! A batch's tokens, one sequence behind the other.

use super::team::Pieces;

/// The tokens of some sequences without what fills the shorter ones, or with it where it counts.
#[derive(Debug)]
pub(crate) struct Pack {
    ids: Vec<u32>,
    /// The position of each token in its sequence.
    places: Vec<u32>,
    sequences: Vec<Sequence>,
}

/// A sequence's place among the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// Which one it is.
    pub(super) index: usize,
    /// Its first row.
    pub(super) start: usize,
    /// How many rows it has.
    pub(super) length: usize,
    /// How many of them, from the first on, are tokens that others attend to.
    pub(super) keys: usize,
    /// How many of them, from the first on, its vector is the mean of.
    pub(super) counted: usize,
}

impl Sequence {
    pub(super) fn end(&self) -> usize {
        self.start + self.length
    }
}

impl Pack {
    /// Of these rows of token ids, filled up with `pad` to `length` if `padded`. None if a row has no token or holds
    /// `pad` among its tokens, which attention would have to step over.
    pub(crate) fn new(rows: &[&[u32]], pad: u32, length: usize, padded: bool) -> Option<Self> {
        let mut pack = Self { ids: Vec::new(), places: Vec::new(), sequences: Vec::new() };
        for (index, row) in rows.iter().enumerate() {
            if row.is_empty() || row.contains(&pad) {
                return None;
            }
            let (start, length) = (pack.ids.len(), if padded { length } else { row.len() });
            pack.ids.extend_from_slice(row);
            pack.ids.resize(start + length, pad);
            pack.places.extend(0..length as u32);
            pack.sequences.push(Sequence { index, start, length, keys: row.len(), counted: length });
        }
        Some(pack)
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    /// How many rows there are.
    pub(crate) fn positions(&self) -> usize {
        self.ids.len()
    }

    /// How many sequences there are.
    pub(super) fn sequences(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter()
    }

    /// Matrices with a row for each position, cut into the sequences.
    pub(super) fn cut<T: Pieces>(&self, mut rows: T) -> Vec<(Sequence, T)> {
        let mut all = Vec::with_capacity(self.sequences.len());
        for sequence in &self.sequences {
            let (own, others) = rows.split(sequence.length);
            all.push((*sequence, own));
            rows = others;
        }
        all
    }
}
