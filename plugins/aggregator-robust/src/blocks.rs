//! Reads tensors of several clients block by block, as f64, so that a method needs memory for one block and not for a
//! whole model.

use plugin_api::half::{bf16, f16};
use plugin_api::{DType, Error, ErrorKind, Float, Result, Tensor};

/// Coordinates per block: 32 KiB of f64 for each client.
const BLOCK: usize = 4096;

/// A block: one row per tensor, all of equal length.
pub(crate) struct Rows {
    values: Vec<f64>,
    len: usize,
}

impl Rows {
    /// The number of coordinates in the block.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The rows, in the order of the tensors.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(BLOCK).map(|row| &row[..self.len])
    }

    /// The row of one tensor.
    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * BLOCK..][..self.len]
    }
}

/// Calls `see` for each block of tensors of the same shape and floating-point type.
///
/// # Errors
/// If they are not of a floating-point type.
pub(crate) fn visit(tensors: &[&Tensor], mut see: impl FnMut(&Rows)) -> Result<()> {
    let Some(first) = tensors.first() else { return Ok(()) };
    each(tensors, first.len(), |_, rows| see(rows))
}

/// Builds a tensor of the same shape and type, block by block: `fold` computes the elements of a block from those of
/// the tensors, and writes them to its second argument. Each element is rounded once, to the tensors' type.
///
/// # Errors
/// If they are not of a floating-point type.
pub(crate) fn combine(tensors: &[&Tensor], fold: impl FnMut(&Rows, &mut [f64])) -> Result<Tensor> {
    match tensors.first().map(|first| first.dtype()) {
        Some(DType::F32) => combined::<f32>(tensors, fold),
        Some(DType::F64) => combined::<f64>(tensors, fold),
        Some(DType::F16) => combined::<f16>(tensors, fold),
        Some(DType::BF16) => combined::<bf16>(tensors, fold),
        Some(other) => Err(no_float(other)),
        None => Err(Error::other("nothing to combine")),
    }
}

fn combined<T: Float>(tensors: &[&Tensor], mut fold: impl FnMut(&Rows, &mut [f64])) -> Result<Tensor> {
    let shape = tensors[0].shape();
    let mut outcome = Ok(());
    let tensor = Tensor::build(shape, |out: &mut [T]| {
        let mut wide = [0.0; BLOCK];
        outcome = each(tensors, out.len(), |start, rows| {
            let wide = &mut wide[..rows.len()];
            fold(rows, wide);
            out[start..].iter_mut().zip(wide).for_each(|(out, &mut value)| *out = T::narrow(value));
        });
    });
    outcome.map(|()| tensor)
}

fn each(tensors: &[&Tensor], count: usize, mut see: impl FnMut(usize, &Rows)) -> Result<()> {
    let mut rows = Rows { values: vec![0.0; tensors.len() * BLOCK], len: 0 };
    for start in (0..count).step_by(BLOCK) {
        rows.len = BLOCK.min(count - start);
        for (tensor, row) in tensors.iter().zip(rows.values.chunks_exact_mut(BLOCK)) {
            let row = &mut row[..rows.len];
            match tensor.dtype() {
                DType::F32 => widen::<f32>(tensor, start, row)?,
                DType::F64 => widen::<f64>(tensor, start, row)?,
                DType::F16 => widen::<f16>(tensor, start, row)?,
                DType::BF16 => widen::<bf16>(tensor, start, row)?,
                other => return Err(no_float(other)),
            }
        }
        see(start, &rows);
    }
    Ok(())
}

fn widen<T: Float>(tensor: &Tensor, start: usize, row: &mut [f64]) -> Result<()> {
    row.iter_mut().zip(&tensor.elements::<T>()?[start..]).for_each(|(wide, &value)| *wide = value.wide());
    Ok(())
}

fn no_float(dtype: DType) -> Error {
    Error::new(ErrorKind::Tensor, format!("holds {dtype}, not a floating-point type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_coordinate_once_and_in_order() {
        for count in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
            let (a, b) =
                (Tensor::from_slice(&[count], &values).unwrap(), Tensor::build(&[count], |b: &mut [f32]| b.fill(0.5)));
            let sum = combine(&[&a, &b], |rows, out| {
                out.iter_mut().enumerate().for_each(|(i, out)| *out = rows.iter().map(|row| row[i]).sum());
            });
            let wanted: Vec<f32> = values.iter().map(|x| x + 0.5).collect();
            assert_eq!(sum.unwrap().elements::<f32>().unwrap(), wanted);
            let mut seen = Vec::new();
            visit(&[&b, &a], |rows| seen.extend_from_slice(rows.row(1))).unwrap();
            assert_eq!(seen, values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        }
    }
}
