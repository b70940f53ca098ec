//! The formulas between the products, each in one pass over its rows, and their derivatives.
//!
//! Every function is compiled once for each kind of vector registers and chosen at run time.

/// Runs a loop in the form that suits the machine's vector registers.
macro_rules! vectorised {
    ($work:expr) => {{
        let once = Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            move || {
                once.spend();
                $work
            },
        )
    }};
}

/// Makes a closure one that can be called only once: of others the compiler calls a copy that is not inlined, and so not
/// compiled for the registers.
struct Once;

impl Once {
    #[inline(always)]
    fn spend(self) {}
}

/// `eˣ` to a relative error of 2e-7, for `x` between -87 and 88; beyond, the nearest value there. NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    // x = n ln 2 + r with a whole n, which stands in the low bits of a number so large that it has no fraction.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    // Taylor's series of eʳ: |r| is at most ln 2 / 2.
    let p = (1.0_f32 / 5040.0).mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// How many partial sums a row is added up in: what vector registers hold.
const LANES: usize = 16;

/// `Σ f(aᵢ, bᵢ)`, in an order that is the same for every kind of register.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a.zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// RMSNorm of rows: `y = x / √(mean(x²) + ε) · w`. Keeps `1 / √…` of each row.
pub(super) fn norm(y: &mut [f32], scales: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    vectorised!(
        for ((y, x), scale) in y.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())).zip(scales) {
            *scale = 1.0 / (dot(x, x) / weight.len() as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * *scale * w;
            }
        }
    );
}

/// The same from scales that are known.
pub(super) fn norm_again(y: &mut [f32], scales: &[f32], x: &[f32], weight: &[f32]) {
    vectorised!(
        for ((y, x), scale) in y.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())).zip(scales) {
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * w;
            }
        }
    );
}

/// Adds to `dx` what `dy` says of the input of [`norm`].
pub(super) fn norm_backward(dx: &mut [f32], dy: &[f32], x: &[f32], scales: &[f32], weight: &[f32]) {
    let n = weight.len();
    vectorised!({
        let rows = dx.chunks_exact_mut(n).zip(dy.chunks_exact(n)).zip(x.chunks_exact(n)).zip(scales);
        for (((dx, dy), x), &scale) in rows {
            let mut lanes = [0.0; LANES];
            for ((dy, x), w) in dy.chunks(LANES).zip(x.chunks(LANES)).zip(weight.chunks(LANES)) {
                for (((lane, dy), x), w) in lanes.iter_mut().zip(dy).zip(x).zip(w) {
                    *lane += dy * x * w;
                }
            }
            let along = lanes.iter().sum::<f32>() * scale * scale / n as f32;
            for (((dx, dy), x), w) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
                *dx += scale * (dy * w - x * along);
            }
        }
    });
}

/// Adds to `dw` what one row says of the weight of [`norm`].
pub(super) fn norm_weight(dw: &mut [f32], dy: &[f32], x: &[f32], scale: f32) {
    vectorised!(for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
        *dw += dy * x * scale;
    });
}

/// Turns the pairs of each head of a row: `(a, b) ← (a cos − b sin, a sin + b cos)`; the other way round for derivatives.
/// `turns` holds cosine and sine of each pair of one head.
pub(super) fn rotate(row: &mut [f32], turns: &[f32], back: bool) {
    let sign = if back { -1.0 } else { 1.0 };
    vectorised!(for head in row.chunks_exact_mut(turns.len()) {
        for (pair, turn) in head.chunks_exact_mut(2).zip(turns.chunks_exact(2)) {
            let (a, b, cos, sin) = (pair[0], pair[1], turn[0], turn[1] * sign);
            (pair[0], pair[1]) = (a * cos - b * sin, a * sin + b * cos);
        }
    });
}

/// SwiGLU of rows `(a, b)`: `SiLU(a) · b`.
pub(super) fn gate(out: &mut [f32], rows: &[f32], half: usize) {
    vectorised!(for (out, row) in out.chunks_exact_mut(half).zip(rows.chunks_exact(2 * half)) {
        let (a, b) = row.split_at(half);
        for ((out, &a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a / (1.0 + exp(-a)) * b;
        }
    });
}

/// Puts the derivatives by `(a, b)` in the place of rows `(a, b)`, and the value of [`gate`] in that of its derivative.
pub(super) fn gate_backward(rows: &mut [f32], gated: &mut [f32], half: usize) {
    vectorised!(for (gated, row) in gated.chunks_exact_mut(half).zip(rows.chunks_exact_mut(2 * half)) {
        let (a, b) = row.split_at_mut(half);
        for ((gated, a), b) in gated.iter_mut().zip(a).zip(b) {
            let sigmoid = 1.0 / (1.0 + exp(-*a));
            let (silu, derivative, up) = (*a * sigmoid, *gated, *b);
            *gated = silu * up;
            *a = derivative * up * (sigmoid + silu * (1.0 - sigmoid));
            *b = derivative * silu;
        }
    });
}

/// Makes rows of scores to probabilities, and keeps the logarithm of each row's sum: `p = exp(s − log Σ exp(s))`.
pub(super) fn softmax(scores: &mut [f32], width: usize, logs: &mut [f32]) {
    vectorised!(for (row, log) in scores.chunks_exact_mut(width).zip(logs) {
        let mut tops = [f32::NEG_INFINITY; LANES];
        for chunk in row.chunks(LANES) {
            for (top, &x) in tops.iter_mut().zip(chunk) {
                *top = if x > *top { x } else { *top };
            }
        }
        let top = tops.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let mut lanes = [0.0; LANES];
        for chunk in row.chunks_mut(LANES) {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *x = exp(*x - top);
                *lane += *x;
            }
        }
        let total: f32 = lanes.iter().sum();
        *log = top + total.ln();
        let share = 1.0 / total;
        row.iter_mut().for_each(|x| *x *= share);
    });
}

/// Makes scores to probabilities by their logarithms, and the derivatives by the probabilities to those by the scores:
/// `ds = p (dp − Σ p dp)`, with the sums given.
pub(super) fn softmax_backward(scores: &mut [f32], by: &mut [f32], width: usize, logs: &[f32], sums: &[f32]) {
    vectorised!({
        let rows = scores.chunks_exact_mut(width).zip(by.chunks_exact_mut(width)).zip(logs).zip(sums);
        for (((scores, by), &log), &sum) in rows {
            for (p, by) in scores.iter_mut().zip(by) {
                *p = exp(*p - log);
                *by = *p * (*by - sum);
            }
        }
    });
}

/// `Σ aᵢ bᵢ` of two pieces of rows.
pub(super) fn product_sum(a: &[f32], b: &[f32]) -> f32 {
    vectorised!(dot(a, b))
}

/// Adds a row over its length, or over `least` if that is longer.
pub(super) fn add_direction(sum: &mut [f32], row: &[f32], least: f32) {
    vectorised!({
        let length = dot(row, row).sqrt();
        let scale = 1.0 / if length < least { least } else { length };
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum += x * scale;
        }
    });
}

/// The derivative by the row of [`add_direction`], with that by the sum.
pub(super) fn direction_backward(out: &mut [f32], by: &[f32], row: &[f32], least: f32) {
    vectorised!({
        let length = dot(row, row).sqrt();
        let (scale, along) =
            if length < least { (1.0 / least, 0.0) } else { (1.0 / length, dot(row, by) / (length * length)) };
        for ((out, by), x) in out.iter_mut().zip(by).zip(row) {
            *out = (by - x * along) * scale;
        }
    });
}

/// Adds rows.
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    vectorised!(sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
}

/// The numbers of a step of AdamW.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// `1 − β₁` and `1 − β₂`.
    pub(crate) new: [f32; 2],
    /// `1 − lr λ`.
    pub(crate) decay: f32,
    /// `ε √c₂`, with `c₂ = 1 − β₂ᵗ`.
    pub(crate) eps: f32,
    /// `−c₁ / (lr √c₂)`, with `c₁ = 1 − β₁ᵗ`; nothing if the rate is 0.
    pub(crate) divisor: Option<f32>,
}

/// `m ← m + (1 − β₁)(g − m)`, `v ← v + (1 − β₂)(g² − v)`, `p ← p (1 − lr λ) − lr (m / c₁) / (√(v / c₂) + ε)`.
pub(crate) fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: Step) {
    let Step { new: [new1, new2], decay, eps, divisor } = step;
    vectorised!(match divisor {
        Some(divisor) => {
            for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
                *m += new1 * (g - *m);
                *v += new2 * (g * g - *v);
                *p = *p * decay + *m / ((v.sqrt() + eps) * divisor);
            }
        }
        None => {
            for ((m, v), &g) in m.iter_mut().zip(v).zip(g) {
                *m += new1 * (g - *m);
                *v += new2 * (g * g - *v);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_and_keeps_nan() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 2e-7, "{x}: {found} is not {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY) > 1e38);
        let mut scores = [1.0, f32::NAN];
        softmax(&mut scores, 2, &mut [0.0]);
        assert!(scores.iter().all(|x| x.is_nan()));
    }
}
