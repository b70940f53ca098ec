//! Frozen trunks: their memory, and the vectors that they give for sequences, once per process.
//!
//! A frozen trunk is the same function in each epoch, so a sequence's pooled vector is computed once and kept. Clients whose
//! trunks have the same values, which is the usual case, share the tensors and the vectors; the values are compared, so
//! trunks that a message has made different do not mix.
//!
//! In host memory a vector is computed from its sequence alone, not in a batch, since padding and the shapes of matrix
//! products change the last bits. So it does not matter whether a vector was kept or is computed once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use plugin_api::{Params, Tensor};

/// A trunk's values, and the vectors of sequences under it.
#[derive(Debug)]
pub(crate) struct FrozenTrunk {
    /// What the vectors depend on besides the values: the architecture, the precision and the device.
    key: String,
    tensors: Params,
    /// The same values in the device's memory, unless that is the host's.
    on_device: Mutex<Vec<(String, tch::Tensor)>>,
    vectors: Mutex<Vectors>,
}

#[derive(Debug, Default)]
struct Vectors {
    by_sequence: HashMap<Box<[u32]>, Box<[f32]>>,
    bytes: u64,
}

/// The trunks that models hold, and the last one that was asked for, which outlives models that wait on disk for their turn.
#[derive(Debug, Default)]
struct Trunks {
    held: Vec<Weak<FrozenTrunk>>,
    last: Option<Arc<FrozenTrunk>>,
}

static TRUNKS: Mutex<Trunks> = Mutex::new(Trunks { held: Vec::new(), last: None });

impl FrozenTrunk {
    /// The trunk of these values: the one that another model holds already, if there is one.
    pub(crate) fn of(key: &str, tensors: Params) -> Arc<Self> {
        let mut trunks = TRUNKS.lock().unwrap_or_else(PoisonError::into_inner);
        trunks.held.retain(|trunk| trunk.strong_count() > 0);
        let known = trunks.held.iter().filter_map(Weak::upgrade);
        let found = known.into_iter().find(|trunk| trunk.key == key && have_same_values(&trunk.tensors, &tensors));
        let trunk = found.unwrap_or_else(|| {
            let trunk =
                Arc::new(Self { key: key.to_owned(), tensors, on_device: Mutex::default(), vectors: Mutex::default() });
            trunks.held.push(Arc::downgrade(&trunk));
            trunk
        });
        trunks.last = Some(trunk.clone());
        trunk
    }

    /// The values, in the memory that all its models share.
    pub(crate) fn tensors(&self) -> &Params {
        &self.tensors
    }

    /// The values in the device's memory, which all its models share: those of the first model. Their copies to the device must
    /// be done.
    pub(crate) fn on_device(&self, own: impl FnOnce() -> Vec<(String, tch::Tensor)>) -> Vec<(String, tch::Tensor)> {
        let mut shared = self.on_device.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_empty() {
            *shared = own();
        }
        shared.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Writes the vectors of these sequences that are kept to the rows of `out`. Returns the numbers of the others.
    pub(crate) fn read(&self, sequences: &[Vec<u32>], out: &mut [f32]) -> Vec<usize> {
        let vectors = self.lock();
        let size = out.len() / sequences.len().max(1);
        let mut missing = Vec::new();
        for (number, sequence) in sequences.iter().enumerate() {
            match vectors.by_sequence.get(sequence.as_slice()) {
                Some(vector) => out[number * size..][..size].copy_from_slice(vector),
                None => missing.push(number),
            }
        }
        missing
    }

    /// Keeps a sequence's vector, unless all of them would then take more than `limit` bytes.
    pub(crate) fn keep(&self, sequence: &[u32], vector: &[f32], limit: u64) {
        /// The two pointers with their lengths, and the map's share of its table, roughly.
        const ENTRY: usize = 64;
        let bytes = (size_of_val(sequence) + size_of_val(vector) + ENTRY) as u64;
        let mut vectors = self.lock();
        if vectors.bytes + bytes <= limit && !vectors.by_sequence.contains_key(sequence) {
            vectors.by_sequence.insert(sequence.into(), vector.into());
            vectors.bytes += bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vectors> {
        self.vectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn have_same_values(a: &Params, b: &Params) -> bool {
    let same = |(name, a): (&str, &Tensor)| {
        b.get(name).is_some_and(|b| {
            a.shape() == b.shape() && (a.buffer().is_same(b.buffer()) || a.buffer().as_slice() == b.buffer().as_slice())
        })
    };
    a.len() == b.len() && a.iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(value: f32) -> Params {
        [("trunk.a", Tensor::from_slice(&[2], &[value, 1.0]).unwrap())].into_iter().collect()
    }

    #[test]
    fn trunks_with_the_same_values_are_one() {
        let first = FrozenTrunk::of("one", trunk(0.5));
        assert!(Arc::ptr_eq(&first, &FrozenTrunk::of("one", trunk(0.5))));
        assert!(!Arc::ptr_eq(&first, &FrozenTrunk::of("one", trunk(0.25))));
        assert!(!Arc::ptr_eq(&first, &FrozenTrunk::of("another", trunk(0.5))));
        // One that nobody holds is kept if it was the last.
        let last = Arc::as_ptr(&FrozenTrunk::of("last", trunk(0.5)));
        assert_eq!(Arc::as_ptr(&FrozenTrunk::of("last", trunk(0.5))), last);
    }

    #[test]
    fn vectors_are_kept_up_to_the_limit() {
        let trunk = FrozenTrunk::of("vectors", trunk(0.5));
        let sequences = [vec![1, 2], vec![3], vec![1, 2]];
        let mut out = [0.0; 6];
        assert_eq!(trunk.read(&sequences, &mut out), [0, 1, 2]);
        trunk.keep(&[1, 2], &[5.0, 6.0], 100);
        trunk.keep(&[3], &[7.0, 8.0], 100);
        assert_eq!(trunk.read(&sequences, &mut out), [1]);
        assert_eq!(out, [5.0, 6.0, 0.0, 0.0, 5.0, 6.0]);
        trunk.keep(&[3], &[7.0, 8.0], 200);
        assert!(trunk.read(&sequences, &mut out).is_empty());
        assert_eq!(out, [5.0, 6.0, 7.0, 8.0, 5.0, 6.0]);
    }
}
