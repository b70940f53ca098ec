//! A message's tensors in pinned memory, which several clients copy to their devices.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plugin_api::Result;
use tch::Tensor;

use super::{Place, places, view};
use crate::bridge::{self, torch_error};
use crate::native;

/// The pages of the last message.
pub(super) static LAST: Pages = Pages { models: AtomicUsize::new(0), last: Mutex::new(None) };

/// Tensors in blocks of host memory, on their way to a device.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) places: Vec<Place>,
    pub(super) blocks: Vec<Tensor>,
}

impl Staged {
    /// Copies the elements of tensors to new blocks.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new(tensors: &[&[f32]], pinned: bool) -> Result<Self> {
        let (places, lengths) = places(tensors.iter().map(|elements| elements.len()));
        let blocks = lengths.into_iter().map(|length| native::host_memory(length, pinned));
        let blocks: Vec<Tensor> = blocks.collect::<Result<_>>()?;
        for (elements, &place) in tensors.iter().zip(&places) {
            let shape = [elements.len() as i64];
            let part = view(&blocks[place.block], place, &shape).map_err(torch_error)?;
            // SAFETY: the view is only read, by a copy on the host that is done when the call returns.
            let source = unsafe { bridge::view_of(elements, &shape) }.map_err(torch_error)?;
            native::begin_copy(&part, &source)?;
        }
        Ok(Self { places, blocks })
    }

    /// The tensors with these numbers.
    fn part(&self, numbers: &[usize]) -> Self {
        let places = numbers.iter().map(|&number| self.places[number]).collect();
        Self { places, blocks: self.blocks.iter().map(Tensor::shallow_clone).collect() }
    }
}

/// The last message that was staged, while there are several models that may receive it.
pub(super) struct Pages {
    /// The models on devices.
    models: AtomicUsize,
    /// Its tensors, and their copy.
    last: Mutex<Option<(Vec<plugin_api::Tensor>, Staged)>>,
}

impl Pages {
    /// The pages of these tensors, which are not copied again if they were among the last ones.
    ///
    /// # Errors
    /// If a tensor is not fp32, or there is no memory.
    pub(super) fn stage(&self, tensors: &[&plugin_api::Tensor], pinned: bool) -> Result<Staged> {
        // Who wants the same waits, and then has them.
        let mut last = self.lock();
        if let Some((held, staged)) = &*last {
            let is_same = |held: &plugin_api::Tensor, tensor: &plugin_api::Tensor| {
                held.buffer().is_same(tensor.buffer()) && held.shape() == tensor.shape()
            };
            let number = |tensor: &&plugin_api::Tensor| held.iter().position(|held| is_same(held, tensor));
            if let Some(numbers) = tensors.iter().map(number).collect::<Option<Vec<_>>>() {
                return Ok(staged.part(&numbers));
            }
        }
        // Not both at a time.
        *last = None;
        let elements = tensors.iter().map(|tensor| tensor.elements());
        let staged = Staged::new(&elements.collect::<Result<Vec<_>>>()?, pinned)?;
        if self.models.load(Ordering::Relaxed) > 1 {
            let all: Vec<usize> = (0..tensors.len()).collect();
            *last = Some((tensors.iter().map(|&tensor| tensor.clone()).collect(), staged.part(&all)));
        }
        Ok(staged)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Vec<plugin_api::Tensor>, Staged)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model on a device. While there is only one, no pages are kept.
#[derive(Debug)]
pub(crate) struct DeviceModel(());

impl DeviceModel {
    pub(crate) fn new() -> Self {
        LAST.models.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for DeviceModel {
    fn drop(&mut self) {
        if LAST.models.fetch_sub(1, Ordering::Relaxed) <= 2 {
            *LAST.lock() = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_the_last_message_are_used_again() {
        let tensor = |x: f32| plugin_api::Tensor::from_slice(&[2], &[x, 2.0]).unwrap();
        let (a, b, other) = (tensor(1.0), tensor(3.0), tensor(1.0));
        let pages = Pages { models: AtomicUsize::new(2), last: Mutex::default() };
        let memory = |tensors: &[&plugin_api::Tensor]| pages.stage(tensors, false).unwrap().blocks[0].data_ptr();
        let first = pages.stage(&[&a, &b], false).unwrap();
        let values = Vec::<f32>::try_from(&first.blocks[0]).unwrap();
        assert_eq!((values[0], values[16]), (1.0, 3.0));
        assert_eq!(memory(&[&a.clone(), &b]), first.blocks[0].data_ptr());
        let part = pages.stage(&[&b], false).unwrap();
        assert_eq!((part.blocks[0].data_ptr(), part.places[0].start), (first.blocks[0].data_ptr(), 16));
        assert_ne!(memory(&[&other, &b]), first.blocks[0].data_ptr());
        // A single model keeps none.
        pages.models.store(1, Ordering::Relaxed);
        drop(pages.stage(&[&a, &b], false).unwrap());
        assert!(pages.lock().is_none());
    }
}
