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

use plugin_api::{Params, Result, Tensor};
use tch::{Kind, TchError};

use crate::bridge::torch_error;

/// A trunk's values, and the vectors of sequences under it.
#[derive(Debug)]
pub(crate) struct FrozenTrunk {
    /// What the vectors depend on besides the values: the architecture, the precision and the device.
    key: String,
    weights: Mutex<Weights>,
    vectors: Mutex<Vectors>,
}

/// The frozen parameters, in the memory that they are used in.
#[derive(Debug)]
pub(crate) enum Weights {
    /// In host memory.
    Host(Params),
    /// In a device's memory, whose copies from the host are done.
    Device(Vec<(String, tch::Tensor)>),
}

impl Weights {
    /// Whether all bits are the same.
    fn are_same(&self, other: &Self) -> Result<bool, TchError> {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => Ok(have_same_values(a, b)),
            (Self::Device(a), Self::Device(b)) => are_same_on_device(a, b),
            _ => Ok(false),
        }
    }
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
    /// The trunk of these weights: the one that another model holds already, if there is one.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn of(key: &str, weights: Weights) -> Result<Arc<Self>> {
        let mut trunks = TRUNKS.lock().unwrap_or_else(PoisonError::into_inner);
        trunks.held.retain(|trunk| trunk.strong_count() > 0);
        let mut found = None;
        for trunk in trunks.held.iter().filter_map(Weak::upgrade).filter(|trunk| trunk.key == key) {
            if trunk.weights().are_same(&weights).map_err(torch_error)? {
                found = Some(trunk);
                break;
            }
        }
        let trunk = found.unwrap_or_else(|| {
            let trunk = Arc::new(Self { key: key.to_owned(), weights: Mutex::new(weights), vectors: Mutex::default() });
            trunks.held.push(Arc::downgrade(&trunk));
            trunk
        });
        trunks.last = Some(trunk.clone());
        Ok(trunk)
    }

    /// The weights, in the memory that all its models share.
    pub(crate) fn weights(&self) -> MutexGuard<'_, Weights> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Compares fp32 tensors as integers, since numbers would not tell 0 from -0.
fn are_same_on_device(a: &[(String, tch::Tensor)], b: &[(String, tch::Tensor)]) -> Result<bool, TchError> {
    let _guard = tch::no_grad_guard();
    if a.len() != b.len() {
        return Ok(false);
    }
    for ((name, a), (other, b)) in a.iter().zip(b) {
        let same = || a.f_view_dtype(Kind::Int)?.f_equal(&b.f_view_dtype(Kind::Int)?);
        if name != other || !(a.data_ptr() == b.data_ptr() || same()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_host(value: f32) -> Weights {
        Weights::Host([("trunk.a", Tensor::from_slice(&[2], &[value, 1.0]).unwrap())].into_iter().collect())
    }

    fn on_device(value: f32) -> Weights {
        Weights::Device(vec![("trunk.a".to_owned(), tch::Tensor::from_slice(&[value, 1.0]))])
    }

    #[test]
    fn trunks_with_the_same_values_are_one() {
        for (device, weights) in [("host", on_host as fn(f32) -> Weights), ("device", on_device)] {
            let of = |name: &str, value| FrozenTrunk::of(&format!("{name} {device}"), weights(value)).unwrap();
            let first = of("one", 0.0);
            assert!(Arc::ptr_eq(&first, &of("one", 0.0)));
            for other in [of("one", 0.25), of("one", -0.0), of("another", 0.0)] {
                assert!(!Arc::ptr_eq(&first, &other));
            }
            assert!(Arc::ptr_eq(&of("not a number", f32::NAN), &of("not a number", f32::NAN)));
            // One that nobody holds is kept if it was the last.
            let last = Arc::as_ptr(&of("last", 0.5));
            assert_eq!(Arc::as_ptr(&of("last", 0.5)), last);
        }
    }

    #[test]
    fn no_trunk_is_one_of_other_shapes_or_names() {
        let tensor =
            |name: &str, shape: &[i64]| (name.to_owned(), tch::Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu)));
        let of = |tensors| FrozenTrunk::of("shapes", Weights::Device(tensors)).unwrap();
        let first = of(vec![tensor("a", &[2, 3])]);
        for other in
            [vec![tensor("a", &[3, 2])], vec![tensor("b", &[2, 3])], vec![tensor("a", &[2, 3]), tensor("b", &[1])]]
        {
            assert!(!Arc::ptr_eq(&first, &of(other)));
        }
    }

    #[test]
    fn vectors_are_kept_up_to_the_limit() {
        let trunk = FrozenTrunk::of("vectors", on_host(0.5)).unwrap();
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
