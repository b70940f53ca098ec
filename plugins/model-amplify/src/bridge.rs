//! Between libtorch's tensors and the contract's.
//!
//! Both ways copy. Handing out libtorch's own memory would save one copy of the parameters a round, but they are
//! updated in place, and memory that was handed out must never change.

use plugin_api::{Error, Params, Result};
use tch::{Kind, TchError, Tensor};

/// A libtorch error as the contract's.
pub(crate) fn torch(error: TchError) -> Error {
    Error::other("libtorch failed").because(&error)
}

/// A copy of an fp32 tensor of any device.
pub(crate) fn to_plugin(tensor: &Tensor) -> Result<plugin_api::Tensor> {
    let shape = shape_of(tensor);
    let mut copied = Ok(());
    let copy = plugin_api::Tensor::build(&shape, |elements: &mut [f32]| {
        copied = tensor.f_copy_data(elements, elements.len());
    });
    copied.map(|()| copy).map_err(torch)
}

/// Whether a tensor from outside has the shape and type of one of ours.
pub(crate) fn expect_like(name: &str, tensor: &plugin_api::Tensor, ours: &Tensor) -> Result<()> {
    let wanted = shape_of(ours);
    if tensor.shape() != wanted {
        return Err(Error::tensor(name, format!("has shape {:?}, not {wanted:?}", tensor.shape())));
    }
    if tensor.dtype() != plugin_api::DType::F32 {
        return Err(Error::tensor(name, format!("holds {}, not f32", tensor.dtype())));
    }
    Ok(())
}

/// Writes a tensor that passed [`expect_like`] into one of ours.
pub(crate) fn copy_into(name: &str, tensor: &plugin_api::Tensor, ours: &Tensor) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let elements = tensor.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    assert_eq!(elements.len(), ours.numel(), "`expect_like` compared the shapes");
    // SAFETY: the view has as many fp32 numbers as the slice, is only read, and is gone when this function returns.
    let view = unsafe {
        Tensor::f_from_blob(elements.as_ptr().cast(), &[elements.len() as i64], &[1], Kind::Float, tch::Device::Cpu)
    };
    view.and_then(|view| ours.shallow_clone().f_copy_(&view.f_reshape(ours.size())?))
        .map_err(|e| Error::tensor(name, "could not be copied").because(&e))
}

/// A fresh tensor like `ours`, with the values of the one of this name.
pub(crate) fn fresh_like(params: &Params, name: &str, ours: &Tensor) -> Result<Tensor> {
    let tensor = params.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
    expect_like(name, tensor, ours)?;
    let fresh = ours.detach().f_empty_like().map_err(torch)?;
    copy_into(name, tensor, &fresh)?;
    Ok(fresh)
}

/// A matrix of so many rows.
pub(crate) fn matrix(numbers: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(numbers).reshape([rows as i64, -1])
}

/// The numbers of a contiguous fp32 tensor on the CPU. They must not be written through another handle meanwhile.
pub(crate) fn slice(tensor: &Tensor) -> &[f32] {
    let len = plain(tensor);
    // SAFETY: the memory is that of `len` fp32 numbers, as `plain` asserts, and lives as long as the tensor. Whoever
    // writes to parameters, `slice_mut` and libtorch alike, does so between two passes that read them.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// The same, to be written to. Nobody else may read or write them meanwhile.
pub(crate) fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    let len = plain(tensor);
    // SAFETY: as in `slice`; each caller either made the tensor itself or holds the only slice of a parameter.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
}

fn plain(tensor: &Tensor) -> usize {
    let device_and_kind = (tensor.device(), tensor.kind());
    assert!(device_and_kind == (tch::Device::Cpu, Kind::Float) && tensor.is_contiguous(), "{tensor:?} is not plain");
    tensor.numel()
}

/// The shape, in the contract's integers.
pub(crate) fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&n| n as usize).collect()
}
