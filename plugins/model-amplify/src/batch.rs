//! Batches of token ids.

use std::ops::Range;

use fedplug_amplify_cpu::PackedBatch;
use plugin_api::Result;
use tch::{Device, TchError, Tensor};

use crate::bridge;
use crate::config::Pooling;
use crate::packing::Packing;
use crate::segments::ChainBounds;

/// Sequences padded to one length.
#[derive(Debug)]
pub struct Batch {
    rows: Vec<Vec<u32>>,
    pad: i64,
    longest: usize,
    /// Token ids, (sequences, length).
    pub ids: Tensor,
    /// True where a token is not padding, (sequences, 1, 1, length). None if there is no padding.
    pub keys: Option<Tensor>,
    /// The tokens without padding, if libtorch is to compute them so.
    pub(crate) packing: Option<Packing>,
    /// The sequences' pooled vectors, (sequences, size), if a frozen trunk has computed them before.
    pub(crate) pooled: Option<Tensor>,
    /// The positions of each chain of each sequence, where the pooling needs them.
    pub(crate) chains: Vec<Vec<Range<usize>>>,
}

impl Batch {
    /// Pads to the longest row, rounded up to a multiple of 8 but not beyond `longest`.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn new(rows: &[&[u32]], pad: i64, longest: usize, device: Device) -> Result<Self> {
        let length = rows.iter().map(|row| row.len()).max().unwrap_or(0).next_multiple_of(8).min(longest);
        let padded = rows.iter().any(|row| row.len() < length);
        let mut ids = vec![pad; rows.len() * length];
        for (out, row) in ids.chunks_exact_mut(length).zip(rows) {
            out.iter_mut().zip(*row).for_each(|(out, &id)| *out = i64::from(id));
        }
        let shape = [rows.len() as i64, length as i64];
        let to_device = || bridge::to_device(&Tensor::f_from_slice(&ids)?.f_reshape(shape)?, device);
        let mask = |ids: &Tensor| -> Result<Tensor, TchError> { ids.f_ne(pad)?.f_unsqueeze(1)?.f_unsqueeze(1) };
        let ids = to_device().map_err(bridge::torch_error)?;
        let keys = padded.then(|| mask(&ids)).transpose().map_err(bridge::torch_error)?;
        let rows = rows.iter().map(|row| row.to_vec()).collect();
        Ok(Self { rows, pad, longest, ids, keys, packing: None, pooled: None, chains: Vec::new() })
    }

    /// What the trunk reads of it in libtorch, unless it is packed.
    pub(crate) fn inputs(&self) -> Vec<&Tensor> {
        std::iter::once(&self.ids).chain(&self.keys).collect()
    }

    /// The same batch with inputs of its own.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn copied(&self) -> Result<Self, TchError> {
        let keys = self.keys.as_ref().map(Tensor::f_detach_copy).transpose()?;
        let (rows, ids, chains) = (self.rows.clone(), self.ids.f_detach_copy()?, self.chains.clone());
        Ok(Self { rows, pad: self.pad, longest: self.longest, ids, keys, packing: None, pooled: None, chains })
    }

    /// With the chains of each sequence.
    #[must_use]
    pub(crate) fn with_chains(mut self, bounds: &ChainBounds) -> Self {
        self.chains = self.rows.iter().map(|ids| bounds.chains(ids)).collect();
        self
    }

    /// Without padding in libtorch, where that is possible.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn with_packing(mut self) -> Result<Self> {
        self.packing = Packing::new(&self.rows, self.pad, self.ids.size()[1], self.ids.device())?;
        Ok(self)
    }

    /// The row of a token in the trunk's output, whose rows are positions or tokens.
    pub(crate) fn number(&self, sequence: usize, position: usize) -> i64 {
        let start = match &self.packing {
            Some(packing) => packing.sequences[sequence].0,
            None => sequence as i64 * self.ids.size()[1],
        };
        start + position as i64
    }

    /// The number of sequences.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The token ids of each sequence.
    pub(crate) fn sequences(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// A batch of some of the sequences.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn select(&self, numbers: &[usize]) -> Result<Self> {
        let rows: Vec<&[u32]> = numbers.iter().map(|&number| self.rows[number].as_slice()).collect();
        let chains = numbers.iter().filter_map(|&number| self.chains.get(number).cloned()).collect();
        let batch = Self { chains, ..Self::new(&rows, self.pad, self.longest, self.ids.device())? };
        if self.packing.is_some() { batch.with_packing() } else { Ok(batch) }
    }

    /// The sequences concatenated, with padding only if `pooling` counts it. None if a row contains the padding token.
    pub(crate) fn pack(&self, pooling: Pooling) -> Option<PackedBatch> {
        let rows: Vec<&[u32]> = self.rows.iter().map(Vec::as_slice).collect();
        let length = usize::try_from(self.ids.size()[1]).ok()?;
        PackedBatch::new(&rows, u32::try_from(self.pad).ok()?, length, pooling == Pooling::AllPositions)
    }
}

/// Splits `0..rows.len()`, sorted by the rows' lengths, into batches of at most `size`, which keeps padding small.
pub fn by_length(rows: &[Vec<u32>], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i].len());
    order.chunks(size).map(<[usize]>::to_vec).collect()
}
