//! Compares the kernels with the plain path, forward and backward. A GPU's kernels are used only if they agree there.

use tch::{Device, Kind, TchError, Tensor};

use super::Kernels;
use crate::trunk::layers::{rms_norm, rotate, swiglu};

/// Rounding errors of fp32: tens of its last digit, in sums.
const EXACT: f64 = 2e-6;

/// Those of bfloat16, of which both paths make two or three.
const ROUNDED: f64 = 1.0 / 128.0;

/// A function of tensors.
type Function<'a> = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>, TchError> + 'a>;

/// What both paths compute.
pub(super) struct Case<'a> {
    pub(super) name: String,
    inputs: Vec<Tensor>,
    plain: Function<'a>,
    fused: Function<'a>,
    /// The largest difference of a result, relative to its largest element.
    tolerance: f64,
}

/// Compares on a device, with shapes that take all of a kernel's ways. `slack` is a factor of the tolerances: on a GPU
/// libtorch sums in another order than on the CPU.
///
/// # Errors
/// If libtorch or a kernel fails, or the results differ by more than rounding errors.
pub(super) fn compare(kernels: Kernels, device: Device, slack: f64) -> Result<(), String> {
    tch::with_grad(|| {
        for kind in [Kind::Float, Kind::BFloat16] {
            for size in [6, 7, 24, 1288] {
                for case in cases(kernels, device, kind, size).map_err(|error| error.to_string())? {
                    case.check(slack)?;
                }
            }
        }
        Ok(())
    })
}

/// All functions, of elements of this kind in rows of `size` columns; rotary embedding if that is even.
pub(super) fn cases(kernels: Kernels, device: Device, kind: Kind, size: i64) -> Result<Vec<Case<'static>>, TchError> {
    let tolerance = if kind == Kind::BFloat16 { ROUNDED } else { EXACT };
    let values = |salt: f64, shape: &[i64], kind| values(salt, shape, kind, device);
    let mut cases = vec![Case {
        name: format!("SwiGLU in {kind:?} of {size} columns"),
        inputs: vec![values(0.37, &[3, 5, 2 * size], kind)?],
        plain: Box::new(|x| Ok(vec![swiglu(&x[0])?])),
        fused: Box::new(move |x| Ok(vec![kernels.swiglu(&x[0])?])),
        tolerance,
    }];
    for shape in [&[2, 5, 3, size][..], &[7, 3, size]].into_iter().filter(|_| size % 2 == 0) {
        let length = shape[shape.len() - 3];
        let angles = values(0.53, &[length, 1, size / 2], Kind::Float)?;
        let angles = Tensor::f_polar(&angles.f_ones_like()?, &angles)?;
        let of_packed = {
            let angles = angles.shallow_clone();
            move |x: &[Tensor]| kernels.rotate_packed(&x[0], 3, &angles).map(Vec::from)
        };
        let packed = [&shape[..shape.len() - 2], &[9 * size]].concat();
        let plain_angles = angles.shallow_clone();
        let plain_shape = shape.to_vec();
        cases.push(Case {
            name: format!("rotary embedding of packed rows in {kind:?}, {shape:?}"),
            inputs: vec![values(0.29, &packed, kind)?],
            plain: Box::new(move |x| {
                let parts = x[0].f_chunk(3, -1)?;
                let [q, k, v] = [0, 1, 2].map(|i| parts[i].f_reshape(&plain_shape));
                Ok(vec![rotate(&q?, &plain_angles)?, rotate(&k?, &plain_angles)?, v?])
            }),
            fused: Box::new(of_packed),
            tolerance,
        });
        let plain_angles = angles.shallow_clone();
        cases.push(Case {
            name: format!("rotary embedding in {kind:?}, {shape:?}"),
            inputs: vec![values(0.31, shape, kind)?, values(0.41, shape, kind)?],
            plain: Box::new(move |x| Ok(vec![rotate(&x[0], &plain_angles)?, rotate(&x[1], &plain_angles)?])),
            fused: Box::new(move |x| kernels.rotate(&x[0], &x[1], &angles).map(Vec::from)),
            tolerance,
        });
    }
    cases.extend(norms(kernels, device, kind, [15, size])?);
    // More rows than the derivative has blocks.
    if (6..100).contains(&size) {
        cases.extend(norms(kernels, device, kind, [1500, size])?);
    }
    Ok(cases)
}

/// Norms of all types of addends, to all types.
fn norms(kernels: Kernels, device: Device, kind: Kind, shape: [i64; 2]) -> Result<Vec<Case<'static>>, TchError> {
    let size = shape[1];
    let addends = match kind {
        Kind::BFloat16 => vec![None, Some(Kind::BFloat16)],
        _ => vec![None, Some(Kind::Float), Some(Kind::BFloat16)],
    };
    let all = addends.into_iter().flat_map(|addend| [(addend, Kind::Float), (addend, Kind::BFloat16)]);
    let case = |(addend, to): (Option<Kind>, Kind)| -> Result<Case<'static>, TchError> {
        let weight = values(0.61, &[size], Kind::Float, device)?.f_add_scalar(1.5)?;
        let mut inputs = vec![values(0.43, &shape, kind, device)?, weight];
        inputs.extend(addend.map(|kind| values(0.47, &shape, kind, device)).transpose()?);
        let is_rounded = [Some(kind), addend, Some(to)].contains(&Some(Kind::BFloat16));
        Ok(Case {
            name: format!("norm in {kind:?}, {shape:?}, with an addend {addend:?}, to {to:?}"),
            inputs,
            plain: Box::new(move |x| {
                let sum = x.get(2).map_or_else(|| Ok(x[0].shallow_clone()), |r| x[0].f_add(r))?;
                // As the kernels do; libtorch adds up the weight's derivative in the type of the sum.
                let y = rms_norm(&sum.f_to_kind(Kind::Float)?, &x[1], size, 1e-5)?.f_to_kind(to)?;
                Ok(vec![sum, y])
            }),
            fused: Box::new(move |x| kernels.add_norm(&x[0], x.get(2), &x[1], 1e-5, to).map(Vec::from)),
            // The derivative of the weight is a sum over the rows.
            tolerance: if is_rounded { ROUNDED } else { EXACT * (shape[0] as f64 / 15.0).sqrt() },
        })
    };
    all.map(case).collect()
}

/// Numbers of both signs, in no pattern that a kernel could repeat.
fn values(salt: f64, shape: &[i64], kind: Kind, device: Device) -> Result<Tensor, TchError> {
    let count: i64 = shape.iter().product();
    let numbers = Tensor::f_arange(count, (Kind::Double, device))?;
    let slow = numbers.f_mul_scalar(salt)?.f_sin()?.f_mul_scalar(3.0)?;
    slow.f_add(&numbers.f_mul_scalar(salt * 1.7)?.f_cos()?)?.f_reshape(shape)?.f_to_kind(kind)
}

impl Case<'_> {
    /// # Errors
    /// If libtorch or a kernel fails, or a result or gradient differs by more than the tolerance.
    pub(super) fn check(&self, slack: f64) -> Result<(), String> {
        let of = |function| self.results(function).map_err(|error| format!("{}: {error}", self.name));
        let (plain, fused) = (of(&self.plain)?, of(&self.fused)?);
        for (number, (plain, fused)) in plain.iter().zip(&fused).enumerate() {
            if (plain.size(), plain.kind()) != (fused.size(), fused.kind()) {
                return Err(format!("{}: result {number} is {fused:?}, not {plain:?}", self.name));
            }
            let difference = relative_difference(fused, plain).map_err(|error| error.to_string())?;
            // Also of a number that is not one.
            if difference.is_nan() || difference > slack * self.tolerance {
                return Err(format!("{}: result {number} differs by {difference:e} from the plain path", self.name));
            }
        }
        Ok(())
    }

    /// The function's results, and the gradients of all inputs.
    fn results(&self, function: &Function<'_>) -> Result<Vec<Tensor>, TchError> {
        let inputs = self.inputs.iter().map(|x| x.f_detach()?.f_set_requires_grad(true));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let mut results = function(&inputs)?;
        let mut loss = Tensor::f_zeros([1], (Kind::Float, self.inputs[0].device()))?;
        for (number, result) in results.iter().enumerate() {
            let weights = values(0.71 + number as f64 / 9.0, &result.size(), Kind::Float, result.device())?;
            loss = loss.f_add(&result.f_to_kind(Kind::Float)?.f_mul(&weights)?.f_sum(Kind::Float)?)?;
        }
        let gradients = Tensor::f_run_backward(&[loss], &inputs, false, false)?;
        results.extend(gradients);
        Ok(results)
    }
}

/// The largest difference, relative to the largest element of `b`.
fn relative_difference(a: &Tensor, b: &Tensor) -> Result<f64, TchError> {
    let [a, b] = [a.f_to_kind(Kind::Double)?, b.f_to_kind(Kind::Double)?];
    let largest = |x: Tensor| x.f_abs()?.f_max()?.f_double_value(&[]);
    Ok(largest(a.f_sub(&b)?)? / largest(b)?)
}
