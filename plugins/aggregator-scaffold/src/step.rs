//! The server's step, in f64.

use plugin_api::half::{bf16, f16};
use plugin_api::{DType, Float, Params, Result, Tensor};

/// Converts parameters to f64, exactly. Integer tensors are unchanged.
pub(crate) fn widened(params: &Params) -> Result<Params> {
    params.iter().map(|(name, tensor)| Ok((name.to_owned(), wide(tensor)?))).collect()
}

/// `x + rate (mean − x)`, rounded once to `dtype`. Without an `x`, and for integer tensors, the result is the mean.
pub(crate) fn moved(before: Option<&Tensor>, mean: &Tensor, rate: f64, dtype: DType) -> Result<Tensor> {
    if !mean.is_float() {
        return Ok(mean.clone());
    }
    let mean = wide(mean)?;
    let new = mean.elements::<f64>()?;
    match before {
        Some(before) => {
            let before = wide(before)?;
            let old = before.elements::<f64>()?;
            narrow(dtype, mean.shape(), old.iter().zip(new).map(|(x, y)| x + rate * (y - x)))
        }
        None => narrow(dtype, mean.shape(), new.iter().copied()),
    }
}

fn wide(tensor: &Tensor) -> Result<Tensor> {
    fn of<T: Float>(tensor: &Tensor) -> Result<Tensor> {
        let elements = tensor.elements::<T>()?;
        Ok(Tensor::build::<f64>(tensor.shape(), |out| {
            out.iter_mut().zip(elements).for_each(|(out, x)| *out = x.wide());
        }))
    }
    match tensor.dtype() {
        DType::F32 => of::<f32>(tensor),
        DType::F16 => of::<f16>(tensor),
        DType::BF16 => of::<bf16>(tensor),
        _ => Ok(tensor.clone()),
    }
}

fn narrow(dtype: DType, shape: &[usize], values: impl Iterator<Item = f64>) -> Result<Tensor> {
    fn to<T: Float>(shape: &[usize], values: impl Iterator<Item = f64>) -> Tensor {
        Tensor::build::<T>(shape, |out| out.iter_mut().zip(values).for_each(|(out, x)| *out = T::narrow(x)))
    }
    match dtype {
        DType::F32 => Ok(to::<f32>(shape, values)),
        DType::F16 => Ok(to::<f16>(shape, values)),
        DType::BF16 => Ok(to::<bf16>(shape, values)),
        DType::F64 => Ok(to::<f64>(shape, values)),
        other => Err(plugin_api::Error::other(format!("{other} cannot be averaged"))),
    }
}
