//! Where the numbers of a parameter or a moment lie on the CPU.

use plugin_api::{Arena, Tensor, TensorBuf};

/// Numbers in memory that is written to, or in a tensor that others may hold as well. Those are moved before they are
/// written, so that what comes from the server and what goes to it is copied by the step that changes it and by nobody
/// before.
#[derive(Debug)]
pub(crate) enum Numbers {
    /// To be written to.
    Own(TensorBuf<f32>),
    /// To be read, of type f32; and memory to move to, if there is some from before.
    Shared(Tensor, Option<TensorBuf<f32>>),
}

impl Numbers {
    /// Those of a tensor of type f32.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        Self::Shared(tensor.clone(), None)
    }

    /// Whether they lie in memory that is written to.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The numbers.
    pub(crate) fn read(&self) -> &[f32] {
        match self {
            Self::Own(draft) => draft.as_slice(),
            Self::Shared(tensor, _) => tensor.elements().expect("it was f32 when it was taken over"),
        }
    }

    /// How many bytes they take of a [`Arena`] when they are moved; 0 if they need not be, or have a place.
    pub(crate) fn moved_bytes(&self) -> usize {
        match self {
            Self::Own(_) | Self::Shared(_, Some(_)) => 0,
            Self::Shared(tensor, None) => Arena::bytes::<f32>(tensor.len()),
        }
    }

    /// Hands them out.
    pub(crate) fn share(&mut self, shape: &[usize]) -> Tensor {
        let (tensor, memory) = match self.take() {
            Self::Own(draft) => (draft.freeze(shape).expect("its shape is that of its numbers"), None),
            Self::Shared(tensor, memory) => (tensor, memory),
        };
        *self = Self::Shared(tensor.clone(), memory);
        tensor
    }

    /// Others take their place, of the same number. Their memory waits to be written to, if it is nobody else's. A fresh
    /// page costs more than all else that is done with it in a round.
    pub(crate) fn replace(self, tensor: &Tensor) -> Self {
        let memory = match self {
            Self::Own(draft) => Some(draft),
            Self::Shared(before, memory) => memory.or_else(|| TensorBuf::reclaim(before).ok()),
        };
        Self::Shared(tensor.clone(), memory)
    }

    /// The memory to write to. If it is another than before, the numbers that belong there still lie in the tensor.
    pub(crate) fn write(&mut self, arena: impl FnOnce(usize) -> TensorBuf<f32>) -> (&mut [f32], Option<Tensor>) {
        let (draft, before) = match self.take() {
            Self::Own(draft) => (draft, None),
            Self::Shared(tensor, Some(memory)) => (memory, Some(tensor)),
            Self::Shared(tensor, None) => match TensorBuf::reclaim(tensor) {
                Ok(draft) => (draft, None),
                Err(tensor) => (arena(tensor.len()), Some(tensor)),
            },
        };
        *self = Self::Own(draft);
        let Self::Own(draft) = self else { unreachable!("just made") };
        (draft.as_mut_slice(), before)
    }

    /// Leaves nothing behind.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Own(TensorBuf::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(numbers: &[f32]) -> Tensor {
        Tensor::from_slice(&[numbers.len()], numbers).unwrap()
    }

    #[test]
    fn what_is_shared_stays_as_it_was_and_memory_comes_back() {
        let mut numbers = Numbers::Own(TensorBuf::copy_of(&[1.0, 2.0]));
        let start = numbers.read().as_ptr();
        let held = numbers.share(&[2, 1]);
        assert_eq!((held.shape(), held.elements::<f32>().unwrap().as_ptr()), (&[2, 1][..], start));
        let again = numbers.share(&[2, 1]);
        assert!(again.buffer().is_same(held.buffer()));
        drop(again);
        let (memory, before) = numbers.write(TensorBuf::zeroed);
        assert!(before.unwrap().buffer().is_same(held.buffer()));
        memory.copy_from_slice(&[3.0, 4.0]);
        assert_eq!(held.elements::<f32>().unwrap(), [1.0, 2.0]);
        let start = numbers.read().as_ptr();
        drop(numbers.share(&[2]));
        let (memory, before) = numbers.write(|_| panic!("there is memory"));
        assert_eq!((memory.as_ptr(), &*memory, before.is_none()), (start, &[3.0, 4.0][..], true));
    }

    #[test]
    fn what_is_replaced_leaves_its_memory() {
        let mut numbers = Numbers::Own(TensorBuf::copy_of(&[1.0, 2.0]));
        let start = numbers.read().as_ptr();
        for round in 0..3 {
            // A round: numbers go out and are let go of, others come, and are written to.
            drop(numbers.share(&[2]));
            let came = tensor(&[round as f32, 0.0]);
            numbers = numbers.replace(&came);
            assert_eq!((numbers.read(), numbers.moved_bytes()), (&[round as f32, 0.0][..], 0));
            let (memory, before) = numbers.write(|_| panic!("there is memory"));
            assert!(before.unwrap().buffer().is_same(came.buffer()));
            assert_eq!(memory.as_ptr(), start);
        }
        // What others hold is theirs.
        let held = numbers.share(&[2]);
        let mut numbers = numbers.replace(&tensor(&[7.0, 7.0]));
        assert!(numbers.moved_bytes() > 0);
        assert_ne!(numbers.write(TensorBuf::zeroed).0.as_ptr(), held.elements::<f32>().unwrap().as_ptr());
    }
}
