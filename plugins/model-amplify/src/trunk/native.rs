//! Bindings of `native.cpp`: what libtorch offers for a trunk and tch does not.

use plugin_api::Result;
use tch::{TchError, Tensor};
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
    fn amplify_attention_of_sequences(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        offsets: *const C_tensor,
        longest: i64,
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

/// `softmax(q kᵀ / √d) v` within each sequence of a GPU's rows, (rows, heads, size). Sequence `i` has the rows from `offsets[i]`
/// to `offsets[i + 1]`, at most `longest`.
///
/// # Errors
/// If libtorch fails.
pub(super) fn attention_of_sequences(
    [q, k, v]: [&Tensor; 3],
    offsets: &Tensor,
    longest: i64,
) -> Result<Tensor, TchError> {
    let mut out = std::ptr::null_mut();
    let (q, k, v, offsets) = (q.as_ptr(), k.as_ptr(), v.as_ptr(), offsets.as_ptr());
    // SAFETY: tensors that outlive the call, and room for one.
    unsafe { check(amplify_attention_of_sequences(q, k, v, offsets, longest, &raw mut out)) }
        .map_err(|error| TchError::Torch(error.causes().join(": ")))?;
    // SAFETY: without an error, it is a new tensor, which is ours.
    Ok(unsafe { Tensor::from_ptr(out) })
}
