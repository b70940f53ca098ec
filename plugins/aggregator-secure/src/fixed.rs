//! Converts updates to fixed-point numbers, and tensors to f64.

use plugin_api::half::{bf16, f16};
use plugin_api::{DType, Error, Result, Tensor};

/// A grid of fixed-point numbers: the multiples of a step from `-clip` to `clip`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// The largest absolute value.
    pub(crate) clip: f64,
    /// Bits per number, including the sign, from 2 to 30.
    pub(crate) bits: u32,
}

impl Grid {
    /// The number that represents `clip`, `2^(bits - 1)`. Its negative is on the grid too.
    pub(crate) fn limit(self) -> u32 {
        1 << (self.bits - 1)
    }

    /// The distance between two neighbours on the grid.
    pub(crate) fn step(self) -> f64 {
        self.clip / f64::from(self.limit())
    }

    /// The largest absolute value of a sum over `clients` clients, if it fits in 32 bits.
    pub(crate) fn largest_sum(self, clients: usize) -> Option<u32> {
        let sum = u32::try_from(clients).ok()?.checked_mul(self.limit())?;
        i32::try_from(sum).is_ok().then_some(sum)
    }

    /// The nearest number on the grid, ties to even, and whether `x` is beyond the grid.
    #[expect(clippy::cast_possible_truncation, reason = "clamped to 30 bits")]
    pub(crate) fn encode(self, x: f64) -> (i32, bool) {
        let (exact, limit) = (x / self.step(), f64::from(self.limit()));
        (exact.round_ties_even().clamp(-limit, limit) as i32, x.abs() > self.clip)
    }

    /// The mean of `clients` numbers with this sum.
    pub(crate) fn mean(self, sum: i32, clients: usize) -> f64 {
        f64::from(sum) * self.step() / clients as f64
    }
}

/// The elements of a floating-point tensor as f64; `None` for other types.
pub(crate) fn wide(tensor: &Tensor) -> Result<Option<Vec<f64>>> {
    Ok(Some(match tensor.dtype() {
        DType::F32 => tensor.elements::<f32>()?.iter().map(|&x| x.into()).collect(),
        DType::F64 => tensor.elements::<f64>()?.to_vec(),
        DType::F16 => tensor.elements::<f16>()?.iter().map(|x| x.to_f64()).collect(),
        DType::BF16 => tensor.elements::<bf16>()?.iter().map(|x| x.to_f64()).collect(),
        _ => return Ok(None),
    }))
}

/// Builds a tensor of a floating-point type from these elements, each rounded once.
pub(crate) fn narrow(dtype: DType, shape: &[usize], elements: &[f64]) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::from_slice(shape, &elements.iter().map(|&x| x as f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::from_slice(shape, elements),
        DType::F16 => Tensor::from_slice(shape, &elements.iter().map(|&x| f16::from_f64(x)).collect::<Vec<_>>()),
        DType::BF16 => Tensor::from_slice(shape, &elements.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>()),
        other => Err(Error::other(format!("{other} is not a floating-point type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_number_stands_for_a_value_and_what_lies_beyond_is_clamped() {
        let grid = Grid { clip: 2.0, bits: 4 };
        assert_eq!((grid.limit(), grid.step()), (8, 0.25));
        for (x, number) in [
            (0.0, (0, false)),
            (0.25, (1, false)),
            (0.375, (2, false)),
            (-0.375, (-2, false)),
            (0.125, (0, false)),
            (2.0, (8, false)),
            (-2.0, (-8, false)),
            (2.01, (8, true)),
            (-1e300, (-8, true)),
        ] {
            assert_eq!(grid.encode(x), number, "{x}");
        }
        assert_eq!(grid.mean(-9, 3), -0.75);
    }

    #[test]
    fn a_sum_must_fit() {
        let sum = |bits, clients| Grid { clip: 1.0, bits }.largest_sum(clients);
        assert_eq!((sum(24, 255), sum(24, 256)), (Some(255 << 23), None));
        assert_eq!((sum(30, 3), sum(30, 4)), (Some(3 << 29), None));
        assert_eq!(sum(30, usize::MAX), None);
    }
}
