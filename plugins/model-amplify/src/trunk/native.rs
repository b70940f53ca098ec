//! Bindings of `native.cpp`: what libtorch offers for a trunk and tch does not.

use plugin_api::Result;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::native::{ErrorMessage, check};

// SAFETY: the functions of `native.cpp`, with their types: `C_tensor` is libtorch's `at::Tensor`.
unsafe extern "C" {
    fn amplify_gradients(
        of: *const C_tensor,
        d_of: *const C_tensor,
        inputs: *const *const C_tensor,
        count: usize,
        out: *mut *mut C_tensor,
    ) -> ErrorMessage;
}

/// The gradients of `inputs` from that of `of`, which is computed from them: undefined where it does not depend on one.
///
/// # Errors
/// If libtorch fails.
pub(super) fn gradients(of: &Tensor, d_of: &Tensor, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let list: Vec<*const C_tensor> = inputs.iter().map(|tensor| tensor.as_ptr()).collect();
    let mut out = vec![std::ptr::null_mut(); inputs.len()];
    // SAFETY: a list of `inputs.len()` tensors that outlive the call, and room for as many.
    unsafe { check(amplify_gradients(of.as_ptr(), d_of.as_ptr(), list.as_ptr(), list.len(), out.as_mut_ptr())) }?;
    // SAFETY: without an error, each is a new tensor, which is ours.
    Ok(out.into_iter().map(|tensor| unsafe { Tensor::from_ptr(tensor) }).collect())
}
