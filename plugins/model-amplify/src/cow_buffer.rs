//! Copy-on-write memory of a parameter or a moment on the host.

use plugin_api::{Arena, Tensor, TensorBuf};

/// Elements in memory of our own, or in a tensor that others may hold too. Shared elements are relocated when they are first
/// written, so that only the step that changes them copies them.
#[derive(Debug)]
pub(crate) enum CowBuffer {
    /// Ours to write.
    Owned(TensorBuf<f32>),
    /// An fp32 tensor to read, and memory to relocate to that is left from before.
    Shared(Tensor, Option<TensorBuf<f32>>),
}

impl CowBuffer {
    /// The elements of an fp32 tensor.
    pub(crate) fn shared(tensor: &Tensor) -> Self {
        Self::Shared(tensor.clone(), None)
    }

    /// Whether they are in memory of our own.
    pub(crate) fn is_owned(&self) -> bool {
        matches!(self, Self::Owned(_))
    }

    /// The elements.
    pub(crate) fn read(&self) -> &[f32] {
        match self {
            Self::Owned(draft) => draft.as_slice(),
            Self::Shared(tensor, _) => tensor.elements().expect("only fp32 tensors are shared"),
        }
    }

    /// The bytes of a [`Arena`] that the next write takes: 0 for elements that are ours, or that have memory to relocate to.
    pub(crate) fn relocation_bytes(&self) -> usize {
        match self {
            Self::Owned(_) | Self::Shared(_, Some(_)) => 0,
            Self::Shared(tensor, None) => Arena::bytes::<f32>(tensor.len()),
        }
    }

    /// The elements as a tensor of this shape, without a copy. The next write relocates them if the tensor still exists.
    pub(crate) fn share(&mut self, shape: &[usize]) -> Tensor {
        let (tensor, memory) = match self.take() {
            Self::Owned(draft) => (draft.freeze(shape).expect("the shape is the parameter's"), None),
            Self::Shared(tensor, memory) => (tensor, memory),
        };
        *self = Self::Shared(tensor.clone(), memory);
        tensor
    }

    /// Replaces the elements by those of a tensor of the same length. Their memory is kept to relocate to, unless others
    /// hold it: new pages cost more than the rest of a round's copies.
    pub(crate) fn replace(self, tensor: &Tensor) -> Self {
        let memory = match self {
            Self::Owned(draft) => Some(draft),
            Self::Shared(before, memory) => memory.or_else(|| TensorBuf::reclaim(before).ok()),
        };
        Self::Shared(tensor.clone(), memory)
    }

    /// Frees the memory to relocate to, if there is any: for elements that are not written.
    pub(crate) fn release_spare(&mut self) {
        if let Self::Shared(_, spare) = self {
            *spare = None;
        }
    }

    /// The memory to write to. If it was relocated, it has no values yet, and the second part holds the elements. `allocate`
    /// is called where there is no memory to relocate to.
    pub(crate) fn write(&mut self, allocate: impl FnOnce(usize) -> TensorBuf<f32>) -> (&mut [f32], Option<Tensor>) {
        let (draft, before) = match self.take() {
            Self::Owned(draft) => (draft, None),
            Self::Shared(tensor, Some(memory)) => (memory, Some(tensor)),
            Self::Shared(tensor, None) => match TensorBuf::reclaim(tensor) {
                Ok(draft) => (draft, None),
                Err(tensor) => (allocate(tensor.len()), Some(tensor)),
            },
        };
        *self = Self::Owned(draft);
        let Self::Owned(draft) = self else { unreachable!("assigned above") };
        (draft.as_mut_slice(), before)
    }

    /// Leaves an empty buffer behind.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Owned(TensorBuf::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(elements: &[f32]) -> Tensor {
        Tensor::from_slice(&[elements.len()], elements).unwrap()
    }

    #[test]
    fn shared_elements_do_not_change_and_their_memory_is_reclaimed() {
        let mut buffer = CowBuffer::Owned(TensorBuf::copy_of(&[1.0, 2.0]));
        let start = buffer.read().as_ptr();
        let held = buffer.share(&[2, 1]);
        assert_eq!((held.shape(), held.elements::<f32>().unwrap().as_ptr()), (&[2, 1][..], start));
        let again = buffer.share(&[2, 1]);
        assert!(again.buffer().is_same(held.buffer()));
        drop(again);
        let (memory, before) = buffer.write(TensorBuf::zeroed);
        assert!(before.unwrap().buffer().is_same(held.buffer()));
        memory.copy_from_slice(&[3.0, 4.0]);
        assert_eq!(held.elements::<f32>().unwrap(), [1.0, 2.0]);
        let start = buffer.read().as_ptr();
        drop(buffer.share(&[2]));
        let (memory, before) = buffer.write(|_| panic!("there is memory"));
        assert_eq!((memory.as_ptr(), &*memory, before.is_none()), (start, &[3.0, 4.0][..], true));
    }

    #[test]
    fn replaced_elements_leave_their_memory_to_the_next_write() {
        let mut buffer = CowBuffer::Owned(TensorBuf::copy_of(&[1.0, 2.0]));
        let start = buffer.read().as_ptr();
        for round in 0..3 {
            // A round sends the elements, receives others, and writes to them.
            drop(buffer.share(&[2]));
            let received = tensor(&[round as f32, 0.0]);
            buffer = buffer.replace(&received);
            assert_eq!((buffer.read(), buffer.relocation_bytes()), (&[round as f32, 0.0][..], 0));
            let (memory, before) = buffer.write(|_| panic!("there is memory"));
            assert!(before.unwrap().buffer().is_same(received.buffer()));
            assert_eq!(memory.as_ptr(), start);
        }
        // Memory that others hold is not reused.
        let held = buffer.share(&[2]);
        let mut buffer = buffer.replace(&tensor(&[7.0, 7.0]));
        assert!(buffer.relocation_bytes() > 0);
        assert_ne!(buffer.write(TensorBuf::zeroed).0.as_ptr(), held.elements::<f32>().unwrap().as_ptr());
    }
}
