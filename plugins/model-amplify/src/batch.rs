//! Batches of token ids.

use plugin_api::Result;
use tch::{Device, Tensor};

use crate::bridge;

/// Sequences padded to one length.
#[derive(Debug)]
pub struct Batch {
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
        Ok(Self { ids, keys })
    }
}

/// Cuts `0..rows.len()`, sorted by the rows' lengths, into batches of at most `size`, so that little is padded.
pub fn by_length(rows: &[Vec<u32>], size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i].len());
    order.chunks(size).map(<[usize]>::to_vec).collect()
}
