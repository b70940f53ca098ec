//! The functions between the matrix products, forward and backward, each in one pass over its rows.
//!
//! Matrices are row-major slices. A name that begins with `d` is the derivative of the loss with respect to what follows.
//! Each kernel is compiled for every vector instruction set that `pulp` knows, and the best one is selected at run time.
//! Loops are indexed, since the compiler vectorises iterators only where it inlines them.

#![allow(clippy::needless_range_loop, reason = "see above")]

mod adamw;
mod norm;
mod rope;
mod softmax;
mod swiglu;

pub use adamw::{AdamWStep, adamw};
pub(super) use norm::{
    add_normalized, normalize_backward, rms_norm, rms_norm_backward, rms_norm_recompute, rms_norm_weight_backward,
};
pub(super) use rope::{Direction, rope};
pub(super) use softmax::{softmax, softmax_backward};
pub(super) use swiglu::{swiglu, swiglu_backward};

/// Runs a loop with the best vector instructions of this machine.
macro_rules! vectorised {
    ($work:expr) => {{
        let once = $crate::kernels::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            move || {
                once.consume();
                $work
            },
        )
    }};
}
use vectorised;

/// Makes the closure that captures it `FnOnce`. The compiler does not inline an `Fn` closure here, and only inlined code
/// uses the vector instructions.
struct Once;

impl Once {
    #[inline(always)]
    fn consume(self) {}
}

/// Partial sums of a row: the width of the widest vector register. The same on every machine, so that the order of
/// summation is too.
const LANES: usize = 16;

/// `eˣ` with a relative error of at most 2e-7 for `x` in [-87, 88]; outside, the value at the nearer end. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // x = n ln 2 + r. Adding 1.5 · 2²³ rounds to the whole number n and leaves n in the low bits.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    // The Taylor series of eʳ, with |r| ≤ ln 2 / 2.
    let p = (1.0_f32 / 5040.0).mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `Σ f(aᵢ, bᵢ)`.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let n = a.len();
    let b = &b[..n];
    let mut lanes = [0.0; LANES];
    let whole = n - n % LANES;
    let mut start = 0;
    while start < whole {
        let (a, b) = (&a[start..start + LANES], &b[start..start + LANES]);
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
        start += LANES;
    }
    for i in whole..n {
        lanes[i - whole] += f(a[i], b[i]);
    }
    total(&lanes)
}

#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f32 {
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane;
    }
    sum
}

#[inline(always)]
fn inline_dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// `Σ aᵢ bᵢ`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorised!(inline_dot(a, b))
}

/// `sum ← sum + row`.
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    let n = sum.len();
    let row = &row[..n];
    vectorised!(for i in 0..n {
        sum[i] += row[i];
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_and_keeps_nan() {
        // Miri runs the same checks at fewer points.
        let step = if cfg!(miri) { 500 } else { 1 };
        for i in (-8700..=8800).step_by(step) {
            let x = i as f32 / 100.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2e-7, "{x}: {found} is not {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn softmax_passes_nan_on() {
        let mut scores = [1.0, f32::NAN];
        softmax(&mut scores, 2, &mut [0.0]);
        assert!(scores.iter().all(|x| x.is_nan()));
    }
}
