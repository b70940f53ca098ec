//! Fused kernels: a norm with the sum before it, rotary embedding, and SwiGLU, each one pass over memory in place of several.
//!
//! `kernels.cu` is compiled for the GPU at hand when the first model asks for it (`gpu`), so that one build serves CPU and GPU.
//! `functions.cpp` gives the kernels derivatives in libtorch. The plain path of [`crate::trunk`] computes the same up to rounding
//! errors: `check` compares both on a GPU before the kernels are used, and the tests run the same source on the CPU
//! (`host.cpp`).

mod check;
mod driver;
mod gpu;
mod nvrtc;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_char, c_void};

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::native::{self, ErrorMessage};
pub(crate) use gpu::of_gpu;

/// The source of all kernels, in CUDA C++.
pub const SOURCE: &str = include_str!("fused/kernels.cu");

/// Queues kernels: `AmplifyLauncher` of `launcher.h`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Launcher {
    launch: unsafe extern "C" fn(
        launcher: *const Launcher,
        kernel: u32,
        blocks: u32,
        threads: u32,
        shared_bytes: u32,
        stream: *mut c_void,
        arguments: *mut *mut c_void,
    ) -> *const c_char,
    /// The threads that a block may have, a power of two.
    most_threads: u32,
    /// The number of the GPU, which only its own `launch` reads.
    gpu: i32,
}

// SAFETY: the functions of `functions.cpp`, with their types: `C_tensor` is libtorch's `at::Tensor`.
unsafe extern "C" {
    fn amplify_kernel_name(number: usize) -> *const c_char;
    fn amplify_swiglu(launcher: &'static Launcher, ab: *const C_tensor, out: *mut *mut C_tensor) -> ErrorMessage;
    fn amplify_rotate(
        launcher: &'static Launcher,
        q: *const C_tensor,
        k: *const C_tensor,
        angles: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> ErrorMessage;
    fn amplify_rotate_packed(
        launcher: &'static Launcher,
        packed: *const C_tensor,
        heads: i64,
        angles: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> ErrorMessage;
    fn amplify_add_norm(
        launcher: &'static Launcher,
        x: *const C_tensor,
        r: *const C_tensor,
        w: *const C_tensor,
        eps: f64,
        to_bf16: bool,
        out: *mut *mut C_tensor,
    ) -> ErrorMessage;
}

/// The kernels of a device. Their results have no second derivative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels(&'static Launcher);

impl Kernels {
    /// The same source on the CPU.
    #[cfg(test)]
    pub(crate) fn on_host() -> Self {
        // SAFETY: the functions of `host.cpp`. The launcher is a constant there.
        unsafe extern "C" {
            fn amplify_host_launcher() -> &'static Launcher;
        }
        // SAFETY: it takes nothing.
        Self(unsafe { amplify_host_launcher() })
    }

    /// `SiLU(a) · b` of (…, 2 n), with `a` in the first half and `b` in the second: (…, n). The backward pass reads the input
    /// alone.
    ///
    /// # Errors
    /// If libtorch or a kernel fails.
    pub(crate) fn swiglu(self, ab: &Tensor) -> Result<Tensor, TchError> {
        // SAFETY: the tensor outlives the call, which writes one.
        let [out] = unsafe { results(|out| amplify_swiglu(self.0, ab.as_ptr(), out)) }?;
        Ok(out)
    }

    /// Rotates queries and keys, (…, length, heads, head size), by the angles of their positions: complex, (length, 1, head size
    /// / 2).
    ///
    /// # Errors
    /// If libtorch or a kernel fails.
    pub(crate) fn rotate(self, q: &Tensor, k: &Tensor, angles: &Tensor) -> Result<[Tensor; 2], TchError> {
        let (q, k, angles) = (q.as_ptr(), k.as_ptr(), angles.as_ptr());
        // SAFETY: the tensors outlive the call, which writes two.
        unsafe { results(|out| amplify_rotate(self.0, q, k, angles, out)) }
    }

    /// The same of the product of a single layer, (…, length, 3 · heads · head size): queries, keys and values, (…, length, heads,
    /// head size).
    ///
    /// # Errors
    /// If libtorch or a kernel fails.
    pub(crate) fn rotate_packed(self, qkv: &Tensor, heads: i64, angles: &Tensor) -> Result<[Tensor; 3], TchError> {
        let (qkv, angles) = (qkv.as_ptr(), angles.as_ptr());
        // SAFETY: the tensors outlive the call, which writes three.
        unsafe { results(|out| amplify_rotate_packed(self.0, qkv, heads, angles, out)) }
    }

    /// The sum `x + r` in the type of `x`, and its RMSNorm with the weight `w` in the type `kind`; or `x` and its norm, without
    /// `r`. The shapes are (…, n) and (n).
    ///
    /// # Errors
    /// If libtorch or a kernel fails.
    pub(crate) fn add_norm(
        self,
        x: &Tensor,
        r: Option<&Tensor>,
        w: &Tensor,
        eps: f64,
        kind: Kind,
    ) -> Result<[Tensor; 2], TchError> {
        let (x, w, to_bf16) = (x.as_ptr(), w.as_ptr(), kind == Kind::BFloat16);
        let r = r.map_or(std::ptr::null(), Tensor::as_ptr);
        // SAFETY: the tensors outlive the call, which writes two.
        unsafe { results(|out| amplify_add_norm(self.0, x, r, w, eps, to_bf16, out)) }
    }
}

/// The tensors that `call` writes.
///
/// # Safety
/// Without an error, `call` must write `N` new tensors, which are ours.
unsafe fn results<const N: usize>(
    call: impl FnOnce(*mut *mut C_tensor) -> ErrorMessage,
) -> Result<[Tensor; N], TchError> {
    let mut out = [std::ptr::null_mut(); N];
    let message = call(out.as_mut_ptr());
    // SAFETY: a message of `functions.cpp`, which is made as those of `native.cpp`.
    unsafe { native::check(message) }.map_err(|error| TchError::Torch(error.causes().join(": ")))?;
    // SAFETY: the caller's promise.
    Ok(out.map(|tensor| unsafe { Tensor::from_ptr(tensor) }))
}

/// The names of all kernels, in the order of their numbers.
pub fn kernel_names() -> Vec<&'static CStr> {
    let name = |number| {
        // SAFETY: it takes any number.
        let name = unsafe { amplify_kernel_name(number) };
        // SAFETY: a name of the library's own, unless it is null, as beyond the last number.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
    };
    (0..).map_while(name).collect()
}

/// Compiles CUDA C++ for GPUs of an architecture, such as `sm_90`, to a CUBIN, by the machine's NVRTC. It needs no GPU.
///
/// # Errors
/// If there is no NVRTC, or it refuses the source: one line with the reason.
pub fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, String> {
    nvrtc::Nvrtc::find()?.compile(source, architecture)
}
