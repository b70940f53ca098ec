//! Encodes and restores single tensors.
//!
//! An encoded tensor contains bytes: the scales as f32 and then the codes or, for top-k, the indices as u32 and then the values
//! as f32.

use plugin_api::half::{bf16, f16};
use plugin_api::{DType, Error, ErrorKind, Params, Result, Tensor};

use crate::float::Float;
use crate::header::Entry;
use crate::quantizer::{Quantizer, largest};
use crate::top_k;

#[cfg(target_endian = "big")]
compile_error!("scales and values are sent as in memory, which must be little-endian");

/// Calls a function that is generic over the element type.
macro_rules! by_dtype {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            other => Err(wrong(format!("has elements of {other}, which is not a floating-point type"))),
        }
    };
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Tensor, message)
}

/// The tensor from which an update is the difference; `None` if the global model lacks it.
///
/// # Errors
/// If it has another shape or type.
pub(crate) fn base_of<'b>(base: &'b Params, name: &str, dtype: DType, shape: &[usize]) -> Result<Option<&'b Tensor>> {
    match base.get(name) {
        Some(base) if (base.dtype(), base.shape()) != (dtype, shape) => {
            let message = format!("is {dtype}{shape:?}, but {base:?} in the global model at this end");
            Err(Error::tensor(name, message))
        }
        base => Ok(base),
    }
}

/// Checks that all elements are finite.
///
/// # Errors
/// If one is not.
pub(crate) fn check_finite(tensor: &Tensor) -> Result<()> {
    require_finite(tensor.is_finite())
}

fn require_finite(all: bool) -> Result<()> {
    let help = "training may have diverged; try a lower learning rate";
    if all { Ok(()) } else { Err(wrong("has a value that is not finite").help(help)) }
}

/// The error for an element to be encoded that is not finite as f32.
fn not_finite(tensor: &Tensor) -> Error {
    check_finite(tensor).err().unwrap_or_else(|| wrong("has a value or an update that is too large for f32"))
}

/// Writes elements, or their differences from the base, as f32.
fn widen<T: Float>(x: &[T], base: Option<&[T]>, out: &mut [f32]) {
    match base {
        None => out.iter_mut().zip(x).for_each(|(out, x)| *out = x.wide()),
        Some(base) => out.iter_mut().zip(x.iter().zip(base)).for_each(|(out, (x, base))| *out = x.minus(*base)),
    }
}

/// Encodes a tensor, or its difference from the base.
///
/// # Errors
/// If an element is not finite, or too large for the method.
pub(crate) fn quantize(quantizer: Quantizer, tensor: &Tensor, base: Option<&Tensor>) -> Result<Tensor> {
    by_dtype!(tensor.dtype(), quantize_as(quantizer, tensor, base))
}

fn quantize_as<T: Float>(quantizer: Quantizer, tensor: &Tensor, base: Option<&Tensor>) -> Result<Tensor> {
    let (x, base) = (tensor.elements::<T>()?, base.map(Tensor::elements::<T>).transpose()?);
    let (scale_bytes, step) = (4 * quantizer.scale_count(x.len()), quantizer.chunk_len());
    let mut block = vec![0.0; step.min(x.len())];
    let mut outcome = Ok(());
    let payload = Tensor::build(&[scale_bytes + quantizer.code_bytes(x.len())], |bytes: &mut [u8]| {
        let (scales, codes) = bytes.split_at_mut(scale_bytes);
        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
        outcome = x.chunks(step).zip(codes.chunks_mut(quantizer.code_bytes(step))).enumerate().try_for_each(
            |(i, (x, codes))| {
                let block = &mut block[..x.len()];
                widen(x, base.map(|base| &base[i * step..][..x.len()]), block);
                let largest = largest(block);
                if !largest.is_finite() {
                    return Err(not_finite(tensor));
                }
                let scale = quantizer.encode(block, largest, codes)?;
                if let Some(slot) = scales.get_mut(i) {
                    *slot = scale;
                }
                Ok(())
            },
        );
    });
    outcome.map(|()| payload)
}

/// Restores a tensor that [`quantize`] encoded with the same base.
///
/// # Errors
/// If the number of bytes is wrong, or a restored element is not finite.
pub(crate) fn dequantize(
    quantizer: Quantizer,
    payload: &Tensor,
    entry: &Entry,
    base: Option<&Tensor>,
) -> Result<Tensor> {
    by_dtype!(entry.dtype()?, dequantize_as(quantizer, payload, entry, base))
}

fn dequantize_as<T: Float>(
    quantizer: Quantizer,
    payload: &Tensor,
    entry: &Entry,
    base: Option<&Tensor>,
) -> Result<Tensor> {
    let (bytes, base) = (payload.elements::<u8>()?, base.map(Tensor::elements::<T>).transpose()?);
    let count = entry.count()?;
    let (scale_bytes, step) = (4 * quantizer.scale_count(count), quantizer.chunk_len());
    let wanted = scale_bytes + quantizer.code_bytes(count);
    if bytes.len() != wanted {
        return Err(wrong(format!("has {} bytes, but {:?} takes {wanted}", bytes.len(), entry.shape)));
    }
    let (scales, codes) = bytes.split_at(scale_bytes);
    let scales: &[f32] = bytemuck::cast_slice(scales);
    let (mut block, mut finite) = (vec![0.0; step.min(count)], true);
    let restored = Tensor::build(&entry.shape, |out: &mut [T]| {
        let blocks = out.chunks_mut(step).zip(codes.chunks(quantizer.code_bytes(step)));
        for (i, (out, codes)) in blocks.enumerate() {
            let block = &mut block[..out.len()];
            quantizer.decode(codes, scales.get(i).copied().unwrap_or_default(), block);
            match base {
                None => out.iter_mut().zip(&*block).for_each(|(out, x)| *out = T::narrow(*x)),
                Some(base) => {
                    let base = &base[i * step..][..out.len()];
                    out.iter_mut().zip(base.iter().zip(&*block)).for_each(|(out, (base, x))| *out = base.plus(*x));
                }
            }
            finite &= out.iter().fold(true, |finite, x| finite & x.is_finite());
        }
    });
    require_finite(finite).map(|()| restored)
}

/// Encodes the largest elements of the difference from the base plus the residual of earlier rounds. Returns the encoded
/// tensor and the new residual, as f32.
///
/// # Errors
/// If an element is not finite, or indices do not fit into u32.
pub(crate) fn sparsify(
    keep: f64,
    tensor: &Tensor,
    base: &Tensor,
    residual: Option<&[f32]>,
) -> Result<(Tensor, Tensor)> {
    by_dtype!(tensor.dtype(), sparsify_as(keep, tensor, base, residual))
}

fn sparsify_as<T: Float>(
    keep: f64,
    tensor: &Tensor,
    base: &Tensor,
    residual: Option<&[f32]>,
) -> Result<(Tensor, Tensor)> {
    let (x, base) = (tensor.elements::<T>()?, base.elements::<T>()?);
    if u32::try_from(x.len()).is_err() {
        return Err(wrong(format!("has {} elements, but `top-k` is limited to {}", x.len(), u32::MAX)));
    }
    let mut taken = None;
    let owed = Tensor::build(tensor.shape(), |owed: &mut [f32]| {
        widen(x, Some(base), owed);
        if let Some(residual) = residual {
            owed.iter_mut().zip(residual).for_each(|(owed, residual)| *owed += residual);
        }
        taken = largest(owed).is_finite().then(|| top_k::take_largest(owed, top_k::kept_count(x.len(), keep)));
    });
    let (indices, values) = taken.ok_or_else(|| not_finite(tensor))?;
    let payload = Tensor::build(&[8 * indices.len()], |bytes: &mut [u8]| {
        let (first, second) = bytes.split_at_mut(4 * indices.len());
        first.copy_from_slice(bytemuck::cast_slice(&indices));
        second.copy_from_slice(bytemuck::cast_slice(&values));
    });
    Ok((payload, owed))
}

/// Adds the elements that [`sparsify`] encoded to the base.
///
/// # Errors
/// If the bytes are not indices and values for this tensor, or a restored element is not finite.
pub(crate) fn densify(payload: &Tensor, base: &Tensor) -> Result<Tensor> {
    by_dtype!(base.dtype(), densify_as(payload, base))
}

fn densify_as<T: Float>(payload: &Tensor, base: &Tensor) -> Result<Tensor> {
    let (bytes, base_elements) = (payload.elements::<u8>()?, base.elements::<T>()?);
    if bytes.len() % 8 != 0 {
        return Err(wrong(format!("has {} bytes, which are not indices and values", bytes.len())));
    }
    let (indices, values) = bytes.split_at(bytes.len() / 2);
    let (indices, values): (&[u32], &[f32]) = (bytemuck::cast_slice(indices), bytemuck::cast_slice(values));
    let ascend = indices.is_sorted_by(|a, b| a < b);
    if !ascend || indices.last().is_some_and(|&last| last as usize >= base_elements.len()) {
        return Err(wrong(format!("has indices that are not ascending or not less than {}", base_elements.len())));
    }
    let mut finite = true;
    let restored = Tensor::build(base.shape(), |out: &mut [T]| {
        out.copy_from_slice(base_elements);
        for (&index, &value) in indices.iter().zip(values) {
            let out = &mut out[index as usize];
            *out = out.plus(value);
            finite &= out.is_finite();
        }
    });
    require_finite(finite).map(|()| restored)
}
