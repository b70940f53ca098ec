//! Batches without padding, for libtorch: the tokens of all sequences in one list. [`fedplug_amplify_cpu`] has a form of its own.

use plugin_api::Result;
use tch::{Device, Kind, TchError, Tensor};

use crate::bridge;

/// Where the tokens of a batch are.
#[derive(Debug)]
pub(crate) struct Packing {
    /// Token ids, (tokens).
    pub(crate) ids: Tensor,
    /// Each token's position in its sequence, (tokens).
    pub(crate) positions: Tensor,
    /// Each token's number among all positions of the padded batch, (tokens).
    padded: Tensor,
    /// The first token of each sequence, and the number of tokens: (sequences + 1), `int32`, as attention kernels want them.
    pub(crate) offsets: Tensor,
    /// The first token of each sequence, and its length.
    pub(crate) sequences: Vec<(i64, i64)>,
    /// The shape of the padded batch.
    pub(crate) shape: [i64; 2],
}

impl Packing {
    /// Of sequences that are padded with `pad` to `length`. None if one is empty or contains `pad` itself, which attention
    /// would have to mask.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn new(rows: &[Vec<u32>], pad: i64, length: i64, device: Device) -> Result<Option<Self>> {
        let is_masked = |row: &Vec<u32>| row.is_empty() || row.iter().any(|&id| i64::from(id) == pad);
        if rows.is_empty() || rows.iter().any(is_masked) {
            return Ok(None);
        }
        let (mut ids, mut positions, mut padded, mut sequences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, row) in rows.iter().enumerate() {
            sequences.push((ids.len() as i64, row.len() as i64));
            ids.extend(row.iter().map(|&id| i64::from(id)));
            positions.extend(0..row.len() as i64);
            padded.extend((0..row.len() as i64).map(|position| number as i64 * length + position));
        }
        let offsets: Vec<i64> = sequences.iter().map(|&(start, _)| start).chain([ids.len() as i64]).collect();
        let new = || -> Result<Self, TchError> {
            // In one copy.
            let parts = [&ids, &positions, &padded, &offsets].map(|part| part.len() as i64);
            let all = Tensor::f_from_slice(&[ids, positions, padded, offsets].concat())?;
            let parts = bridge::to_device(&all, device)?.f_split_with_sizes(&parts[..], 0)?;
            let [ids, positions, padded, offsets] = &parts[..] else { unreachable!("four parts") };
            Ok(Self {
                ids: ids.shallow_clone(),
                positions: positions.shallow_clone(),
                padded: padded.shallow_clone(),
                offsets: offsets.f_to_kind(Kind::Int)?,
                sequences,
                shape: [rows.len() as i64, length],
            })
        };
        new().map(Some).map_err(bridge::torch_error)
    }

    /// The rows of the tokens, of a tensor with one row for each position of the padded batch: (sequences, length, …) to
    /// (tokens, …).
    pub(crate) fn take(&self, padded: &Tensor) -> Result<Tensor, TchError> {
        padded.f_flatten(0, 1)?.f_index_select(0, &self.padded)
    }

    /// The length of the longest sequence.
    pub(crate) fn longest(&self) -> i64 {
        self.sequences.iter().map(|&(_, length)| length).max().unwrap_or_default()
    }
}
