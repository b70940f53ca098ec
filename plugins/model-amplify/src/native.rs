//! Bindings of `native.cpp`: what libtorch offers and tch does not.

use std::ffi::{CStr, c_char};

use plugin_api::{Error, Result};
use tch::Tensor;

use torch_sys::C_tensor;

/// A CUDA stream of libtorch: a queue of a GPU's work.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    id: i64,
    device: i8,
}

/// Null, or an error message that the caller frees.
pub(crate) type ErrorMessage = *mut c_char;

// SAFETY: the functions of `native.cpp`, with their types: `C_tensor` is libtorch's `at::Tensor`.
unsafe extern "C" {
    fn amplify_free(message: ErrorMessage);
    fn amplify_allow_tf32() -> ErrorMessage;
    fn amplify_adamw(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first: *const *const C_tensor,
        second: *const *const C_tensor,
        count: usize,
        steps: f64,
        rate: f64,
        beta1: f64,
        beta2: f64,
        decay: f64,
        eps: f64,
    ) -> ErrorMessage;
    fn amplify_begin_copy(to: *mut C_tensor, from: *const C_tensor) -> ErrorMessage;
    fn amplify_new_stream(device: i8, out: *mut Stream) -> ErrorMessage;
    fn amplify_enter_stream(stream: Stream, before: *mut Stream) -> ErrorMessage;
    fn amplify_wait(stream: Stream) -> ErrorMessage;
    fn amplify_peak_bytes(device: i8, out: *mut i64) -> ErrorMessage;
    fn amplify_empty_cache() -> ErrorMessage;
}

/// Turns an error message into an error, and frees it.
///
/// # Safety
/// `message` must be what a function of `native.cpp` returned, and not be checked before.
pub(crate) unsafe fn check(message: ErrorMessage) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: `native.cpp` returns a null-terminated string, which is freed here, once.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        amplify_free(message);
        text
    };
    // The lines after the first are libtorch's stack.
    Err(Error::other("libtorch failed").because_of(text.lines().next().unwrap_or_default()))
}

/// Allows TensorFloat-32 in the matrix products of all GPUs, for the whole process.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn allow_tf32() -> Result<()> {
    // SAFETY: it takes nothing.
    unsafe { check(amplify_allow_tf32()) }
}

/// Returns the GPU memory that libtorch caches for later tensors.
///
/// # Errors
/// If libtorch fails, or has no GPU.
pub(crate) fn empty_cache() -> Result<()> {
    // SAFETY: it takes nothing.
    unsafe { check(amplify_empty_cache()) }
}

/// What all parameters of one AdamW call share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FusedStep {
    /// The number of this step, from 1.
    pub(crate) step: i32,
    pub(crate) rate: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) decay: f64,
    pub(crate) eps: f64,
}

/// A parameter with what AdamW needs, all of one shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWTensors<'a> {
    pub(crate) parameter: &'a Tensor,
    pub(crate) gradient: &'a Tensor,
    pub(crate) moments: &'a [Tensor; 2],
}

/// Takes a step of libtorch's fused AdamW with several parameters of one device.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn adamw(all: &[AdamWTensors<'_>], step: FusedStep) -> Result<()> {
    let list = |tensor: fn(&AdamWTensors<'_>) -> *const C_tensor| all.iter().map(tensor).collect::<Vec<_>>();
    let (parameters, gradients) = (list(|t| t.parameter.as_ptr()), list(|t| t.gradient.as_ptr()));
    let (first, second) = (list(|t| t.moments[0].as_ptr()), list(|t| t.moments[1].as_ptr()));
    let [beta1, beta2] = step.betas;
    // SAFETY: four lists of `all.len()` tensors, which outlive the call.
    unsafe {
        check(amplify_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            all.len(),
            f64::from(step.step),
            step.rate,
            beta1,
            beta2,
            step.decay,
            step.eps,
        ))
    }
}

/// Copies a tensor into another one of its shape. Between a GPU and pinned memory it returns before the copy is done, which
/// runs on the thread's stream.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn begin_copy(to: &Tensor, from: &Tensor) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // SAFETY: both tensors outlive the call, and libtorch keeps pinned memory until the copy is done.
    unsafe { check(amplify_begin_copy(to.shallow_clone().as_mut_ptr(), from.as_ptr())) }
}

impl Stream {
    /// A stream of libtorch's pool for this GPU.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub(crate) fn of_gpu(number: usize) -> Result<Self> {
        let device = i8::try_from(number).map_err(|e| Error::other(format!("there is no GPU {number}")).because(&e))?;
        let mut stream = Self::default();
        // SAFETY: it writes a stream.
        unsafe { check(amplify_new_stream(device, &raw mut stream)) }.map(|()| stream)
    }

    /// Makes it the thread's current stream until the guard is dropped.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn enter(self) -> Result<StreamGuard> {
        let mut previous = Self::default();
        // SAFETY: it takes a stream of libtorch, and writes another.
        unsafe { check(amplify_enter_stream(self, &raw mut previous)) }.map(|()| StreamGuard { own: self, previous })
    }

    /// Waits for all of its work.
    ///
    /// # Errors
    /// If libtorch or the work fails.
    pub(crate) fn wait(self) -> Result<()> {
        // SAFETY: it takes a stream of libtorch.
        unsafe { check(amplify_wait(self)) }
    }

    /// The most bytes of its GPU that this process's tensors used at a time.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn peak_bytes(self) -> Result<i64> {
        let mut bytes = 0;
        // SAFETY: it writes a number.
        unsafe { check(amplify_peak_bytes(self.device, &raw mut bytes)) }.map(|()| bytes)
    }
}

/// A thread's current stream. Dropping the guard waits for the stream's work, and restores the stream before it.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    own: Stream,
    previous: Stream,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        // The next call that waits for a result reports an error of the work.
        let _ = self.own.wait();
        let mut own = Stream::default();
        // SAFETY: as in `enter`.
        let _ = unsafe { check(amplify_enter_stream(self.previous, &raw mut own)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu_count;
    use tch::{Device, Kind};

    #[test]
    fn allow_tf32_works_with_and_without_a_gpu() {
        // Opens the CUDA library: libtorch caches its first answer about CUDA.
        gpu_count();
        allow_tf32().unwrap();
    }

    #[test]
    fn an_error_of_libtorch_keeps_its_first_line() {
        let [a, b] = [[2], [3]].map(|size| Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        let error = begin_copy(&a, &b).unwrap_err();
        assert!(
            matches!(error.causes(), [cause] if cause.contains("must match") && !cause.contains('\n')),
            "{error:?}"
        );
    }

    #[test]
    fn without_a_gpu_streams_and_caches_are_errors() {
        if gpu_count() == 0 {
            assert!(Stream::of_gpu(0).is_err());
            assert!(empty_cache().is_err());
        }
    }
}
