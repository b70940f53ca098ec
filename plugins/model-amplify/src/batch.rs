//! Batches of token ids.

use plugin_api::Result;
use tch::{Device, Tensor};

use crate::bridge;
use crate::config::Pooling;
use crate::cpu::Pack;

/// Sequences padded to one length.
#[derive(Debug)]
pub struct Batch {
    rows: Vec<Vec<u32>>,
    pad: i64,
    /// Token ids, (rows, length).
    pub ids: Tensor,
    /// Which keys attention may look at, (rows, 1, 1, length); none where no row is padded.
    pub keys: Option<Tensor>,
}

impl Batch {
    /// Pads to the longest row, rounded up to a multiple of 8 but not beyond `longest`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(rows: &[&[u32]], pad: i64, longest: usize, device: Device) -> Result<Self> {
        let length = rows.iter().map(|row| row.len()).max().unwrap_or(0).next_multiple_of(8).min(longest);
        let padded = rows.iter().any(|row| row.len() < length);
        let mut ids = vec![pad; rows.len() * length];
        for (space, row) in ids.chunks_exact_mut(length).zip(rows) {
            space.iter_mut().zip(*row).for_each(|(place, &id)| *place = i64::from(id));
        }
        let shape = [rows.len() as i64, length as i64];
        let ids = Tensor::f_from_slice(&ids).and_then(|ids| ids.f_reshape(shape)).map_err(bridge::torch)?;
        let ids = ids.f_to_device(device).map_err(bridge::torch)?;
        let keys = padded.then(|| ids.ne(pad).unsqueeze(1).unsqueeze(1));
        Ok(Self { rows: rows.iter().map(|row| row.to_vec()).collect(), pad, ids, keys })
    }

    /// How many sequences there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The tokens one sequence behind the other; with padding only where `pooling` counts it. None where that cannot be.
    pub(crate) fn pack(&self, pooling: Pooling) -> Option<Pack> {
        let rows: Vec<&[u32]> = self.rows.iter().map(Vec::as_slice).collect();
        let length = usize::try_from(self.ids.size()[1]).ok()?;
        Pack::new(&rows, u32::try_from(self.pad).ok()?, length, pooling == Pooling::AllPositions)
    }
}

/// Cuts `0..rows.len()`, sorted by the rows' lengths, into batches of at most `size`, so that little is padded.
pub fn by_length(rows: &[Vec<u32>], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i].len());
    order.chunks(size).map(<[usize]>::to_vec).collect()
}
