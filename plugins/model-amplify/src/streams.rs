//! The CUDA streams of this process: one for each call that computes on a GPU at the same time.
//!
//! libtorch caches memory by stream, and cuBLAS has a workspace for each, so streams are few: a call takes one that is free,
//! and gives it back. Work of one call never overlaps with the next one on the same tensors, since a call waits for its
//! stream at its end.
//!
//! A tensor's memory returns to the stream on which it was allocated, where another call may use it at once. So a tensor that
//! lives longer than a call must not be dropped in a call that has used it, before its work is done.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use plugin_api::Result;

use crate::native::{self, Stream};

/// The streams that no call uses.
static FREE: FreeList<Stream> = FreeList(Mutex::new(BTreeMap::new()));

thread_local! {
    /// The GPU whose stream this thread has entered.
    static ENTERED: Cell<Option<i8>> = const { Cell::new(None) };
}

/// A GPU's stream, which is this thread's current one until the guard is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    gpu: i8,
    own: Stream,
    previous: Stream,
    entered_before: Option<i8>,
}

impl StreamGuard {
    /// Enters a stream of this GPU; none if this thread is on one already.
    ///
    /// # Errors
    /// If there is no such GPU, or libtorch fails.
    pub(crate) fn enter(gpu: i8) -> Result<Option<Self>> {
        let entered_before = ENTERED.get();
        if entered_before == Some(gpu) {
            return Ok(None);
        }
        let own = FREE.take(gpu, || Stream::of_gpu(gpu))?;
        let previous = own.enter().inspect_err(|_| FREE.put(gpu, own))?;
        ENTERED.set(Some(gpu));
        Ok(Some(Self { gpu, own, previous, entered_before }))
    }
}

impl Drop for StreamGuard {
    /// Waits for the stream's work. The next call that waits for a result reports an error of it.
    fn drop(&mut self) {
        let _ = native::wait(self.gpu);
        let _ = self.previous.enter();
        ENTERED.set(self.entered_before);
        FREE.put(self.gpu, self.own);
    }
}

/// What is free of each GPU, the last used last.
struct FreeList<T>(Mutex<BTreeMap<i8, Vec<T>>>);

impl<T> FreeList<T> {
    /// The one that was used last, or a new one.
    fn take(&self, gpu: i8, new: impl FnOnce() -> Result<T>) -> Result<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&gpu).and_then(Vec::pop);
        free.map_or_else(new, Ok)
    }

    fn put(&self, gpu: i8, one: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(gpu).or_default().push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_one_after_the_other_get_the_same_stream_and_others_their_own() {
        let (free, mut made) = (FreeList(Mutex::new(BTreeMap::new())), 0);
        let mut take = |gpu| {
            free.take(gpu, || {
                made += 1;
                Ok(made)
            })
            .unwrap()
        };
        let first = take(0);
        let second = take(0);
        assert_ne!(first, second);
        free.put(0, first);
        free.put(0, second);
        assert_eq!((take(0), take(1), take(0)), (second, 3, first));
        assert_eq!(made, 3);
    }

    #[test]
    fn a_stream_of_a_gpu_that_is_not_there_is_an_error() {
        assert!(StreamGuard::enter(i8::MAX).is_err());
        assert_eq!(ENTERED.get(), None);
    }
}
