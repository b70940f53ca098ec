//! Between libtorch's tensors and the contract's.

use plugin_api::{Error, Params, Result};
use tch::{Kind, TchError, Tensor};

use crate::device::Place;
use crate::native;

/// A libtorch error as the contract's.
pub(crate) fn torch(error: TchError) -> Error {
    Error::other("libtorch failed").because(&error)
}

/// Copies of fp32 tensors, which all begin before the first is waited for. Those of a GPU go to pinned memory, which is
/// handed out as it is.
pub(crate) fn fetch<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    place: &Place,
) -> Result<std::vec::IntoIter<plugin_api::Tensor>> {
    let _guard = tch::no_grad_guard();
    let begun = |tensor: &Tensor| tensor.f_contiguous()?.f_to_device_(tch::Device::Cpu, Kind::Float, true, true);
    let copies: Vec<Tensor> = tensors.map(begun).collect::<Result<_, _>>().map_err(torch)?;
    place.wait()?;
    // SAFETY: each copy is new, so this is the only handle of its memory.
    Ok(copies.into_iter().map(|copy| unsafe { hand_out(copy) }).collect::<Vec<_>>().into_iter())
}

/// A contiguous fp32 tensor's memory on the CPU as the contract's.
///
/// # Safety
/// There must be no other handle of the tensor's memory: what is handed out is written to by nobody any more.
unsafe fn hand_out(tensor: Tensor) -> plugin_api::Tensor {
    let shape = shape_of(&tensor);
    // SAFETY: nobody else has the memory, and nobody writes to it here.
    let numbers = unsafe { slice(&tensor) };
    let (data, bytes) = (numbers.as_ptr().cast::<u8>(), size_of_val(numbers));
    // A lock that nobody takes: it lets the tensor be held by several threads, which only drop it.
    // SAFETY: the memory is the tensor's, which goes into the buffer, and there is no other handle of it.
    let buffer = unsafe { plugin_api::Buffer::from_owner(data, bytes, std::sync::Mutex::new(tensor)) };
    plugin_api::Tensor::new(plugin_api::DType::F32, &shape, buffer).expect("its shape is that of its numbers")
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
    let elements = tensor.elements::<f32>().map_err(|e| Error::tensor(name, e.message()))?;
    write_to(ours, elements).map_err(|e| Error::tensor(name, "could not be copied").because(&e))
}

/// Writes as many numbers as a tensor has into it, on whatever device it is. Those for a GPU are put into pinned memory,
/// from where they go on by themselves while the next ones are put there.
pub(crate) fn write_to(ours: &Tensor, numbers: &[f32]) -> Result<()> {
    // SAFETY: the view is only read, and is gone when this function returns: a copy on the CPU is done then, and one to a GPU
    // begins from other memory, which libtorch keeps as long as it needs.
    let view = unsafe { view_of(numbers, &ours.size()) }.map_err(torch)?;
    match ours.device() {
        device @ tch::Device::Cuda(_) => native::begin_copy(ours, &view.f_pin_memory(device).map_err(torch)?),
        _ => native::begin_copy(ours, &view),
    }
}

/// Lets a tensor, and every handle of it, point to these numbers. They are not copied.
///
/// # Safety
/// As long as the tensor points there, the numbers must stay where they are, nobody may write to them while somebody reads
/// the tensor, and nobody may write to the tensor unless the numbers are his to write.
pub(crate) unsafe fn point(tensor: &Tensor, numbers: &[f32]) -> Result<()> {
    let _guard = tch::no_grad_guard();
    // SAFETY: as asked of the caller.
    let view = unsafe { view_of(numbers, &tensor.size()) };
    view.and_then(|view| tensor.shallow_clone().f_set_data(&view)).map_err(torch)
}

/// Numbers as a tensor of this shape.
///
/// # Safety
/// As in [`view`], for as many numbers as the slice has.
unsafe fn view_of(numbers: &[f32], shape: &[i64]) -> Result<Tensor, TchError> {
    assert_eq!(numbers.len() as i64, shape.iter().product::<i64>(), "as many numbers as the shape {shape:?} has");
    let strides = shape.iter().rev().scan(1, |all, &n| Some(std::mem::replace(all, *all * n)));
    let strides: Vec<i64> = strides.collect::<Vec<_>>().into_iter().rev().collect();
    // SAFETY: the shape has as many numbers as the slice; the rest is asked of the caller.
    unsafe { view(numbers.as_ptr(), shape, &strides) }
}

/// Memory of another owner as a tensor.
///
/// # Safety
/// As long as there is a handle of the tensor, every number that shape and strides reach from `data` must be there. Nobody
/// may write to them while somebody reads them, through the tensor or otherwise, and nobody may write through the tensor
/// to what was borrowed for reading alone.
pub(crate) unsafe fn view(data: *const f32, shape: &[i64], strides: &[i64]) -> Result<Tensor, TchError> {
    // SAFETY: as asked of the caller.
    unsafe { Tensor::f_from_blob(data.cast(), shape, strides, Kind::Float, tch::Device::Cpu) }
}

/// The tensor of this name, which is like `ours`.
pub(crate) fn like<'a>(params: &'a Params, name: &str, ours: &Tensor) -> Result<&'a plugin_api::Tensor> {
    let tensor = params.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
    expect_like(name, tensor, ours).map(|()| tensor)
}

/// A fresh tensor like `ours`, with the values of the one of this name.
pub(crate) fn fresh_like(params: &Params, name: &str, ours: &Tensor) -> Result<Tensor> {
    let tensor = like(params, name, ours)?;
    let fresh = ours.detach().f_empty_like().map_err(torch)?;
    copy_into(name, tensor, &fresh)?;
    Ok(fresh)
}

/// A matrix of so many rows.
pub(crate) fn matrix(numbers: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(numbers).reshape([rows as i64, -1])
}

/// The numbers of a contiguous fp32 tensor on the CPU.
///
/// # Safety
/// As long as the slice is used, nobody may write to the tensor's memory, through whatever handle.
pub(crate) unsafe fn slice(tensor: &Tensor) -> &[f32] {
    let len = plain(tensor);
    // SAFETY: the memory is that of `len` fp32 numbers, as `plain` asserts, and lives as long as the tensor; the rest is
    // asked of the caller.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// The same, to be written to.
///
/// # Safety
/// As long as the slice is used, nobody else may read or write the tensor's memory, through whatever handle.
pub(crate) unsafe fn slice_mut(tensor: &mut Tensor) -> &mut [f32] {
    let len = plain(tensor);
    // SAFETY: as in `slice`.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) }
}

/// A copy of the numbers of an fp32 tensor.
pub(crate) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.f_contiguous().and_then(|tensor| tensor.f_copy_data(&mut numbers, tensor.numel())).map_err(torch)?;
    Ok(numbers)
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
