//! The other side of `native.cpp`: what libtorch can do and tch has no call for.

use std::ffi::{CStr, c_char};

use plugin_api::{Error, Result};
use tch::Tensor;

use torch_sys::C_tensor;

/// A queue of a GPU's work.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    id: i64,
    device: i8,
}

type Told = *mut c_char;

// SAFETY: the functions of `native.cpp`, with their types: `C_tensor` is libtorch's `at::Tensor`.
unsafe extern "C" {
    fn amplify_free(message: Told);
    fn amplify_allow_tf32() -> Told;
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
    ) -> Told;
    fn amplify_begin_copy(to: *mut C_tensor, from: *const C_tensor) -> Told;
    fn amplify_new_stream(device: i8, out: *mut Stream) -> Told;
    fn amplify_enter_stream(stream: Stream, before: *mut Stream) -> Told;
    fn amplify_wait(stream: Stream) -> Told;
    fn amplify_peak_bytes(device: i8, out: *mut i64) -> Told;
}

/// What a function of `native.cpp` told.
///
/// # Safety
/// It must be what such a function returned, and be heard once.
unsafe fn heard(told: Told) -> Result<()> {
    if told.is_null() {
        return Ok(());
    }
    // SAFETY: a message of `native.cpp` is a string that ends with a zero, and is given back here, once.
    let message = unsafe {
        let message = CStr::from_ptr(told).to_string_lossy().into_owned();
        amplify_free(told);
        message
    };
    // What follows is libtorch's own stack.
    Err(Error::other("libtorch failed").because_of(message.lines().next().unwrap_or_default()))
}

/// Lets products of this process's GPUs read 19 of 32 bits.
pub(crate) fn allow_tf32() -> Result<()> {
    // SAFETY: it takes nothing.
    unsafe { heard(amplify_allow_tf32()) }
}

/// The numbers of a step of AdamW that are the same for all of its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// How many steps the parameters took, this one included.
    pub(crate) steps: i32,
    pub(crate) rate: f64,
    pub(crate) betas: [f64; 2],
    pub(crate) decay: f64,
    pub(crate) eps: f64,
}

/// A parameter, its gradient, and its moments.
pub(crate) type Learning<'a> = [&'a Tensor; 4];

/// Takes a step of AdamW with some parameters at once, all on one device.
pub(crate) fn adamw(all: &[Learning<'_>], step: Step) -> Result<()> {
    let [p, g, m, v] = [0, 1, 2, 3].map(|which| all.iter().map(|one| one[which].as_ptr()).collect::<Vec<_>>());
    let [beta1, beta2] = step.betas;
    // SAFETY: four lists of as many tensors, which live until it returns.
    unsafe {
        heard(amplify_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            all.len(),
            f64::from(step.steps),
            step.rate,
            beta1,
            beta2,
            step.decay,
            step.eps,
        ))
    }
}

/// Copies a tensor into another of its shape. Between a GPU and pinned memory it only begins to, on the thread's stream.
pub(crate) fn begin_copy(to: &Tensor, from: &Tensor) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // SAFETY: two tensors, which live until it returns; libtorch keeps pinned memory until the copy is done.
    unsafe { heard(amplify_begin_copy(to.shallow_clone().as_mut_ptr(), from.as_ptr())) }
}

impl Stream {
    /// One of the pool of the GPU with this number.
    pub(crate) fn of_gpu(number: usize) -> Result<Self> {
        let device = i8::try_from(number).map_err(|e| Error::other(format!("there is no GPU {number}")).because(&e))?;
        let mut stream = Self::default();
        // SAFETY: it writes a stream.
        unsafe { heard(amplify_new_stream(device, &raw mut stream)) }.map(|()| stream)
    }

    /// Lets this thread's work go to the stream until what is returned is dropped, which waits for the work.
    pub(crate) fn enter(self) -> Result<OnStream> {
        let mut before = Self::default();
        // SAFETY: it takes a stream that libtorch gave, and writes another.
        unsafe { heard(amplify_enter_stream(self, &raw mut before)) }.map(|()| OnStream { own: self, before })
    }

    /// Waits until all is done that was begun on it.
    pub(crate) fn wait(self) -> Result<()> {
        // SAFETY: it takes a stream that libtorch gave.
        unsafe { heard(amplify_wait(self)) }
    }

    /// The most bytes of its GPU that this process's tensors had at a time.
    pub(crate) fn peak_bytes(self) -> Result<i64> {
        let mut bytes = 0;
        // SAFETY: it writes a number.
        unsafe { heard(amplify_peak_bytes(self.device, &raw mut bytes)) }.map(|()| bytes)
    }
}

/// A thread whose work goes to a stream. What a client computed is there when its call ends, whoever comes next.
#[derive(Debug)]
pub(crate) struct OnStream {
    own: Stream,
    before: Stream,
}

impl Drop for OnStream {
    fn drop(&mut self) {
        // An error of the GPU's work shows in the next call that waits for a number of it.
        let _ = self.own.wait();
        let mut own = Stream::default();
        // SAFETY: as in `enter`.
        let _ = unsafe { heard(amplify_enter_stream(self.before, &raw mut own)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Where there is no GPU it changes nothing.
    #[test]
    fn tensor_float_32_can_be_switched_on() {
        allow_tf32().unwrap();
    }

    #[test]
    fn an_error_of_libtorch_is_told() {
        let [a, b] = [[2], [3]].map(|size| Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        let error = begin_copy(&a, &b).unwrap_err();
        assert!(error.causes().iter().any(|cause| cause.contains("must match")), "{error:?}");
    }

    #[test]
    fn without_a_gpu_there_is_no_stream() {
        if !tch::Cuda::is_available() {
            assert!(Stream::of_gpu(0).is_err());
        }
    }
}
