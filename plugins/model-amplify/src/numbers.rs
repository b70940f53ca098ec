//! Where the numbers of a parameter or a moment lie on the CPU.

use plugin_api::{Draft, Room, Tensor};

/// Numbers in memory that is written to, or in a tensor that others may hold as well. Those are moved before they are
/// written, so that what comes from the server and what goes to it is copied by the step that changes it and by nobody
/// before.
#[derive(Debug)]
pub(crate) enum Numbers {
    /// To be written to.
    Own(Draft<f32>),
    /// To be read, of type f32.
    Shared(Tensor),
}

impl Numbers {
    /// The numbers.
    pub(crate) fn read(&self) -> &[f32] {
        match self {
            Self::Own(draft) => draft.as_slice(),
            Self::Shared(tensor) => tensor.elements().expect("it was f32 when it was taken over"),
        }
    }

    /// How many bytes they take of a [`Room`] when they are moved; 0 if they need not be.
    pub(crate) fn moved_bytes(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Shared(tensor) => Room::bytes::<f32>(tensor.len()),
        }
    }

    /// Hands them out.
    pub(crate) fn share(&mut self, shape: &[usize]) -> Tensor {
        let tensor = match std::mem::replace(self, Self::Own(Draft::default())) {
            Self::Own(draft) => draft.freeze(shape).expect("its shape is that of its numbers"),
            Self::Shared(tensor) => tensor,
        };
        *self = Self::Shared(tensor.clone());
        tensor
    }

    /// The memory to write to. If it is new, taken from `room`, the numbers that belong there still lie in the tensor.
    pub(crate) fn write(&mut self, room: impl FnOnce(usize) -> Draft<f32>) -> (&mut [f32], Option<Tensor>) {
        let mut before = None;
        if let Self::Shared(_) = self {
            let Self::Shared(tensor) = std::mem::replace(self, Self::Own(Draft::default())) else { unreachable!() };
            *self = Self::Own(Draft::reclaim(tensor).unwrap_or_else(|tensor| {
                let draft = room(tensor.len());
                before = Some(tensor);
                draft
            }));
        }
        let Self::Own(draft) = self else { unreachable!("made above") };
        (draft.as_mut_slice(), before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_stays_as_it_was_and_memory_comes_back() {
        let mut numbers = Numbers::Own(Draft::copy_of(&[1.0, 2.0]));
        let start = numbers.read().as_ptr();
        let held = numbers.share(&[2, 1]);
        assert_eq!((held.shape(), held.elements::<f32>().unwrap().as_ptr()), (&[2, 1][..], start));
        let again = numbers.share(&[2, 1]);
        assert!(again.buffer().is_same(held.buffer()));
        drop(again);
        let (memory, before) = numbers.write(Draft::zeroed);
        assert!(before.unwrap().buffer().is_same(held.buffer()));
        memory.copy_from_slice(&[3.0, 4.0]);
        assert_eq!(held.elements::<f32>().unwrap(), [1.0, 2.0]);
        let start = numbers.read().as_ptr();
        drop(numbers.share(&[2]));
        let (memory, before) = numbers.write(|_| panic!("there is memory"));
        assert_eq!((memory.as_ptr(), &*memory, before.is_none()), (start, &[3.0, 4.0][..], true));
    }
}
