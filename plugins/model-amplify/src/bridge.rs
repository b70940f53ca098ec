//! Conversions between libtorch's tensors and the contract's.

use plugin_api::{Error, Params, Result};
use tch::{Kind, TchError, Tensor};

use crate::native;

/// A libtorch error as the contract's, without libtorch's stack.
pub(crate) fn torch_error(error: TchError) -> Error {
    let text = match error {
        TchError::Torch(text) => text,
        other => other.to_string(),
    };
    Error::other("libtorch failed").because_of(text.lines().next().unwrap_or_default())
}

/// A contiguous fp32 tensor on the CPU as the contract's, which keeps the owner of its memory.
///
/// # Safety
/// `owner` must own the memory of `tensor`, and nobody may write to that from here on.
pub(crate) unsafe fn into_contract_tensor(
    tensor: &Tensor,
    owner: impl std::any::Any + Send + Sync,
) -> plugin_api::Tensor {
    // SAFETY: nobody writes to it, as the caller promises.
    let elements = unsafe { slice(tensor) };
    let (data, bytes) = (elements.as_ptr().cast::<u8>(), size_of_val(elements));
    // SAFETY: the caller's promise.
    let buffer = unsafe { plugin_api::Buffer::from_owner(data, bytes, owner) };
    plugin_api::Tensor::new(plugin_api::DType::F32, &shape_of(tensor), buffer).expect("the shape is the tensor's own")
}

/// A tensor on the host as one on a device. A copy to a GPU runs on the thread's stream, and may still run when this returns.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn to_device(tensor: &Tensor, device: tch::Device) -> Result<Tensor, TchError> {
    match device {
        _ if tensor.device() == device => Ok(tensor.shallow_clone()),
        tch::Device::Cuda(number) => {
            let gpu = i8::try_from(number).unwrap_or(-1);
            native::to_gpu(tensor, gpu).map_err(|error| TchError::Torch(error.causes().join(": ")))
        }
        _ => tensor.f_to_device(device),
    }
}

/// Checks that a tensor from outside has the shape of `ours`, and is fp32.
///
/// # Errors
/// If it does not.
pub(crate) fn expect_like(name: &str, tensor: &plugin_api::Tensor, ours: &Tensor) -> Result<()> {
    let shape = shape_of(ours);
    if tensor.shape() != shape {
        return Err(Error::tensor(name, format!("has shape {:?}, not {shape:?}", tensor.shape())));
    }
    if tensor.dtype() != plugin_api::DType::F32 {
        return Err(Error::tensor(name, format!("holds {}, not f32", tensor.dtype())));
    }
    Ok(())
}

/// Makes a tensor and all its handles use these elements as their memory.
///
/// # Safety
/// While the tensor uses them, the elements must stay valid; nobody may write to them while libtorch reads the tensor; and
/// libtorch may write to the tensor only if the elements are ours to write.
pub(crate) unsafe fn set_memory(tensor: &Tensor, elements: &[f32]) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // SAFETY: the caller's promise.
    let view = unsafe { view_of(elements, &tensor.size()) };
    view.and_then(|view| tensor.shallow_clone().f_set_data(&view)).map_err(torch_error)
}

/// Elements as a contiguous tensor of this shape, without a copy.
///
/// # Safety
/// While a handle of the tensor exists, the elements must stay valid, nobody may write to them, and libtorch may only read
/// the tensor.
pub(crate) unsafe fn view_of(elements: &[f32], shape: &[i64]) -> Result<Tensor, TchError> {
    // SAFETY: the caller's promise.
    unsafe { view(elements.as_ptr(), elements.len(), shape) }
}

/// The same, which libtorch may write to.
///
/// # Safety
/// While a handle of the tensor exists, the elements must stay valid, and nobody else may read or write them.
pub(crate) unsafe fn view_of_mut(elements: &mut [f32], shape: &[i64]) -> Result<Tensor, TchError> {
    // SAFETY: the caller's promise.
    unsafe { view(elements.as_mut_ptr(), elements.len(), shape) }
}

/// # Safety
/// `data` must point to `len` elements; otherwise as in [`view_of`] or [`view_of_mut`].
unsafe fn view(data: *const f32, len: usize, shape: &[i64]) -> Result<Tensor, TchError> {
    assert_eq!(len as i64, shape.iter().product::<i64>(), "the number of elements of shape {shape:?}");
    let strides = shape.iter().rev().scan(1, |all, &n| Some(std::mem::replace(all, *all * n)));
    let strides: Vec<i64> = strides.collect::<Vec<_>>().into_iter().rev().collect();
    // SAFETY: the shape has `len` elements; the rest is the caller's promise.
    unsafe { Tensor::f_from_blob(data.cast(), shape, &strides, Kind::Float, tch::Device::Cpu) }
}

/// The tensor of this name, which must be like `ours`.
///
/// # Errors
/// If it is missing, or differs in shape or type.
pub(crate) fn get_like<'a>(params: &'a Params, name: &str, ours: &Tensor) -> Result<&'a plugin_api::Tensor> {
    let tensor = params.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
    expect_like(name, tensor, ours).map(|()| tensor)
}

/// Copies elements to a new tensor of `rows` rows on the CPU.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn matrix(elements: &[f32], rows: usize) -> Result<Tensor> {
    Tensor::f_from_slice(elements).and_then(|all| all.f_reshape([rows as i64, -1])).map_err(torch_error)
}

/// The elements of a contiguous fp32 tensor on the CPU.
///
/// # Safety
/// Nobody may write to the tensor's memory while the slice exists, through any handle.
pub(crate) unsafe fn slice(tensor: &Tensor) -> &[f32] {
    let device_and_kind = (tensor.device(), tensor.kind());
    assert!(
        device_and_kind == (tch::Device::Cpu, Kind::Float) && tensor.is_contiguous(),
        "{tensor:?} is not a contiguous fp32 tensor on the CPU"
    );
    if tensor.numel() == 0 {
        // It has no memory, and a slice must not be null.
        return &[];
    }
    // SAFETY: the assertion says that the memory holds this many elements, and it lives as long as the tensor; the rest is the
    // caller's promise.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// Copies the elements of an fp32 tensor, which waits for its device.
///
/// # Errors
/// If libtorch fails.
pub(crate) fn to_vec(tensor: &Tensor) -> Result<Vec<f32>> {
    let mut elements = vec![0.0; tensor.numel()];
    tensor.f_contiguous().and_then(|tensor| tensor.f_copy_data(&mut elements, tensor.numel())).map_err(torch_error)?;
    Ok(elements)
}

/// The shape, in the contract's integers.
pub(crate) fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&n| n as usize).collect()
}
