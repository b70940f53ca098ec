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
    fn amplify_set_deterministic(on: bool) -> ErrorMessage;
    #[cfg(test)]
    fn amplify_is_deterministic() -> bool;
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
    fn amplify_adamw_on_device(
        parameters: *const *const C_tensor,
        gradients: *const *const C_tensor,
        first: *const *const C_tensor,
        second: *const *const C_tensor,
        count: usize,
        step: *const C_tensor,
        rate: *const C_tensor,
        beta1: f64,
        beta2: f64,
        decay: f64,
        eps: f64,
    ) -> ErrorMessage;
    fn amplify_squared_norm(tensors: *const *const C_tensor, count: usize, out: *mut *mut C_tensor) -> ErrorMessage;
    fn amplify_scale(tensors: *const *const C_tensor, count: usize, factor: *const C_tensor) -> ErrorMessage;
    fn amplify_distance(from: *const C_tensor, to: *const C_tensor) -> i64;
    fn amplify_copy_all(to: *const *const C_tensor, from: *const *const C_tensor, count: usize) -> ErrorMessage;
    fn amplify_host_memory(count: i64, pinned: bool, out: *mut *mut C_tensor) -> ErrorMessage;
    fn amplify_to_gpu(from: *const C_tensor, device: i8, out: *mut *mut C_tensor) -> ErrorMessage;
    fn amplify_begin_copy(to: *mut C_tensor, from: *const C_tensor) -> ErrorMessage;
    fn amplify_new_stream(device: i8, out: *mut Stream) -> ErrorMessage;
    fn amplify_enter_stream(stream: Stream, before: *mut Stream) -> ErrorMessage;
    fn amplify_wait(device: i8) -> ErrorMessage;
    fn amplify_peak_bytes(device: i8, out: *mut i64) -> ErrorMessage;
    fn amplify_free_bytes(device: i8, out: *mut i64) -> ErrorMessage;
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

/// Switches the deterministic algorithms of all GPUs on or off, for the whole process.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: it takes a value. libtorch sets the environment variable under the lock under which it reads variables.
    unsafe { check(amplify_set_deterministic(on)) }
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
pub(crate) struct FusedStep<'a> {
    pub(crate) at: StepPoint<'a>,
    pub(crate) betas: [f64; 2],
    pub(crate) decay: f64,
    pub(crate) eps: f64,
}

/// The number of a step, from 1, and its learning rate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StepPoint<'a> {
    Numbers {
        step: i32,
        rate: f64,
    },
    /// fp32 tensors of the parameters' device, which a recorded graph reads at each launch.
    OnDevice {
        step: &'a Tensor,
        rate: &'a Tensor,
    },
}

/// Takes a step of libtorch's fused AdamW with several parameters of one device, each with its gradient and its two moments of the
/// same shape.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn adamw(all: &[[Tensor; 4]], step: FusedStep<'_>) -> Result<()> {
    let list = |which: usize| all.iter().map(|tensors| tensors[which].as_ptr()).collect::<Vec<_>>();
    let [parameters, gradients, first, second] = [0, 1, 2, 3].map(list);
    let (parameters, gradients, first, second) =
        (parameters.as_ptr(), gradients.as_ptr(), first.as_ptr(), second.as_ptr());
    let FusedStep { at, betas: [beta1, beta2], decay, eps } = step;
    let count = all.len();
    // SAFETY: four lists of `count` tensors, which outlive the call, as the tensors of `at` do.
    unsafe {
        check(match at {
            StepPoint::Numbers { step, rate } => amplify_adamw(
                parameters,
                gradients,
                first,
                second,
                count,
                f64::from(step),
                rate,
                beta1,
                beta2,
                decay,
                eps,
            ),
            StepPoint::OnDevice { step, rate } => amplify_adamw_on_device(
                parameters,
                gradients,
                first,
                second,
                count,
                step.as_ptr(),
                rate.as_ptr(),
                beta1,
                beta2,
                decay,
                eps,
            ),
        })
    }
}

/// The sum of the squares of all elements of these tensors, as a double on their device. Waits for nothing.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn squared_norm(tensors: &[&Tensor]) -> Result<Tensor> {
    let list: Vec<_> = tensors.iter().map(|tensor| tensor.as_ptr()).collect();
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensors outlive the call, which writes a new tensor that is ours.
    unsafe {
        check(amplify_squared_norm(list.as_ptr(), list.len(), &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Multiplies all elements of these tensors by a number on their device. Waits for nothing.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn scale(tensors: &[&Tensor], factor: &Tensor) -> Result<()> {
    let list: Vec<_> = tensors.iter().map(|tensor| tensor.as_ptr()).collect();
    // SAFETY: the tensors outlive the call.
    unsafe { check(amplify_scale(list.as_ptr(), list.len(), factor.as_ptr())) }
}

/// The elements from the start of one tensor to that of another, if both are contiguous in the same memory in this order.
pub(crate) fn distance(from: &Tensor, to: &Tensor) -> Option<usize> {
    // SAFETY: the tensors outlive the call, which reads where they are.
    usize::try_from(unsafe { amplify_distance(from.as_ptr(), to.as_ptr()) }).ok()
}

/// Copies each tensor into another one of its shape on the same device, of which there are as many. Waits for nothing.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn copy_all(to: &[&Tensor], from: &[&Tensor]) -> Result<()> {
    assert_eq!(to.len(), from.len(), "tensors to copy to and from");
    let [to, from] = [to, from].map(|all| all.iter().map(|tensor| tensor.as_ptr()).collect::<Vec<_>>());
    // SAFETY: two lists of as many tensors, which outlive the call.
    unsafe { check(amplify_copy_all(to.as_ptr(), from.as_ptr(), to.len())) }
}

/// Host memory for this many floats, which a GPU reads and writes on its own if it is `pinned`.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn host_memory(count: usize, pinned: bool) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the call writes a new tensor that is ours.
    unsafe {
        check(amplify_host_memory(count as i64, pinned, &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// A copy on a GPU of a tensor on the host, by way of pinned memory. It returns before the copy is done, which runs on the
/// thread's stream.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn to_gpu(tensor: &Tensor, gpu: i8) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensor outlives the call, which writes a new tensor that is ours. libtorch keeps pinned memory until its
    // copies are done.
    unsafe {
        check(amplify_to_gpu(tensor.as_ptr(), gpu, &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Waits for all work of this thread's current stream on a GPU.
///
/// # Errors
/// If libtorch or the work fails.
pub(crate) fn wait(gpu: i8) -> Result<()> {
    // SAFETY: it takes a number.
    unsafe { check(amplify_wait(gpu)) }
}

/// The most bytes of a GPU that this process's tensors used at a time.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn peak_bytes(gpu: i8) -> Result<i64> {
    let mut bytes = 0;
    // SAFETY: it writes a number.
    unsafe { check(amplify_peak_bytes(gpu, &raw mut bytes)) }.map(|()| bytes)
}

/// The bytes of a GPU that new tensors of this process can have.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn free_bytes(gpu: i8) -> Result<i64> {
    let mut bytes = 0;
    // SAFETY: it writes a number.
    unsafe { check(amplify_free_bytes(gpu, &raw mut bytes)) }.map(|()| bytes)
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
    /// A new stream of libtorch's pool for this GPU.
    ///
    /// # Errors
    /// If there is no such GPU.
    pub(crate) fn of_gpu(device: i8) -> Result<Self> {
        let mut stream = Self::default();
        // SAFETY: it writes a stream.
        unsafe { check(amplify_new_stream(device, &raw mut stream)) }.map(|()| stream)
    }

    /// Makes it this thread's current stream, and returns the one before.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn enter(self) -> Result<Self> {
        let mut previous = Self::default();
        // SAFETY: it takes a stream of libtorch, and writes another.
        unsafe { check(amplify_enter_stream(self, &raw mut previous)) }.map(|()| previous)
    }
}

#[cfg(test)]
mod tests;
