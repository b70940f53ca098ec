//! What happens when a device runs out of memory.
//!
//! Several clients may compute on one GPU at the same time. If one of them gets no memory, it waits until the others have
//! finished their current batches, frees what libtorch caches, and tries once more, alone on the device.

mod need;

use std::sync::{PoisonError, RwLock};

use plugin_api::{Error, Result};
use tch::Device;

use crate::device::DeviceContext;
pub(crate) use need::{activation_bytes, shortage};

/// One lock per device: every batch holds it shared, a batch that is repeated holds it exclusively. Devices beyond the last
/// share locks.
static LOCKS: [RwLock<()>; 17] = [const { RwLock::new(()) }; 17];

fn lock(device: Device) -> &'static RwLock<()> {
    match device {
        Device::Cuda(number) => &LOCKS[1 + number % (LOCKS.len() - 1)],
        _ => &LOCKS[0],
    }
}

/// Calls `work`, which must change nothing if it fails; if the device is out of memory, calls it once more. `key` is the
/// configuration key that lowers its need.
///
/// # Errors
/// That of `work`; after a second failure, one that says which key to lower.
pub(crate) fn retry<T>(context: &DeviceContext, key: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let lock = lock(context.device);
    let first = {
        let _shared = lock.read().unwrap_or_else(PoisonError::into_inner);
        let first = work();
        #[cfg(test)]
        let first = failures::or_fail(first);
        first
    };
    if !first.as_ref().is_err_and(is_out_of_memory) {
        return first;
    }
    let _exclusive = lock.write().unwrap_or_else(PoisonError::into_inner);
    context.empty_cache()?;
    work().map_err(|error| explain(error, context, key))
}

/// An out-of-memory error with what to do about it; any other error as it is.
fn explain(error: Error, context: &DeviceContext, key: &str) -> Error {
    if !is_out_of_memory(&error) {
        return error;
    }
    let explained = Error::other(format!("device `{}` is out of memory", context.name()));
    let explained = error.causes().iter().fold(explained, |explained, cause| explained.because_of(cause));
    explained.help(format!("lower `{key}` in `[model]`, or `clients-per-device` in `[federation]`"))
}

/// Whether libtorch failed for want of memory. It reports only text.
fn is_out_of_memory(error: &Error) -> bool {
    let texts = ["out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED"];
    error.causes().iter().any(|cause| texts.iter().any(|text| cause.contains(text)))
}

/// Devices without memory, for tests.
#[cfg(test)]
pub(crate) mod failures {
    use std::cell::Cell;

    use super::{Error, Result};

    thread_local! {
        /// Whether each piece of work fails once, and how many have.
        static FAILING: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// What `work` gives if all its work on the device fails once for want of memory, and how often that was.
    pub(crate) fn everywhere<T>(work: impl FnOnce() -> T) -> (T, usize) {
        FAILING.set(Some(0));
        let done = work();
        (done, FAILING.take().unwrap_or_default())
    }

    pub(super) fn or_fail<T>(done: Result<T>) -> Result<T> {
        let Some(count) = FAILING.get() else { return done };
        FAILING.set(Some(count + 1));
        done.and(Err(Error::other("libtorch failed").because_of("CUDA out of memory.")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::torch_error;
    use tch::{Kind, Tensor};

    fn allocate(elements: i64) -> Result<Tensor> {
        Tensor::f_empty([elements], (Kind::Float, Device::Cpu)).map_err(torch_error)
    }

    /// More than an address space holds.
    const TOO_MANY: i64 = 1 << 50;

    #[test]
    fn work_that_runs_out_of_memory_is_repeated_once() {
        let mut calls = 0;
        let tensor = retry(&DeviceContext::cpu(), "batch-size", || {
            calls += 1;
            allocate(if calls == 1 { TOO_MANY } else { 8 })
        });
        assert_eq!((tensor.unwrap().numel(), calls), (8, 2));
    }

    #[test]
    fn a_second_failure_names_the_key_to_lower() {
        let mut calls = 0;
        let error = retry(&DeviceContext::cpu(), "batch-size", || {
            calls += 1;
            allocate(TOO_MANY)
        });
        let error = error.unwrap_err();
        assert_eq!((error.message(), calls), ("device `cpu` is out of memory", 2));
        assert!(error.hint().unwrap().contains("lower `batch-size`"), "{error:?}");
        assert!(error.causes()[0].contains("allocate"), "{error:?}");
    }

    #[test]
    fn other_failures_are_not_repeated() {
        let mut calls = 0;
        let error = retry(&DeviceContext::cpu(), "batch-size", || {
            calls += 1;
            let tensor = allocate(2)?;
            tensor.f_reshape([3]).map_err(torch_error)
        });
        assert_eq!((error.unwrap_err().message(), calls), ("libtorch failed", 1));
    }

    #[test]
    fn errors_of_gpu_libraries_are_recognised() {
        for text in ["CUDA out of memory. Tried to allocate 2.00 GiB.", "CUBLAS_STATUS_ALLOC_FAILED when calling"] {
            assert!(is_out_of_memory(&Error::other("libtorch failed").because_of(text)), "{text}");
        }
        assert!(!is_out_of_memory(&Error::other("libtorch failed").because_of("shapes must match")));
    }
}
