//! The formulas between the products, each in one pass over its rows, and their derivatives.
//!
//! Every function is compiled once for each kind of vector registers and chosen at run time. Loops go by number and not
//! by iterator, since the compiler vectorises only what it has inlined.

#![expect(clippy::needless_range_loop, reason = "see above")]

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
fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// RMSNorm of rows: `y = x / √(mean(x²) + ε) · w`. Keeps `1 / √…` of each row.
pub(super) fn norm(y: &mut [f32], scales: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let n = weight.len();
    vectorised!(for (row, scale) in scales.iter_mut().enumerate() {
        let (y, x) = (&mut y[row * n..(row + 1) * n], &x[row * n..(row + 1) * n]);
        let r = 1.0 / (dot(x, x) / n as f32 + eps).sqrt();
        *scale = r;
        for i in 0..n {
            y[i] = x[i] * r * weight[i];
        }
    });
}

/// The same from scales that are known.
pub(super) fn norm_again(y: &mut [f32], scales: &[f32], x: &[f32], weight: &[f32]) {
    let n = weight.len();
    vectorised!(for row in 0..y.len() / n {
        let (y, x) = (&mut y[row * n..(row + 1) * n], &x[row * n..(row + 1) * n]);
        let r = scales[row];
        for i in 0..n {
            y[i] = x[i] * r * weight[i];
        }
    });
}

/// Adds to `dx` what `dy` says of the input of [`norm`].
pub(super) fn norm_backward(dx: &mut [f32], dy: &[f32], x: &[f32], scales: &[f32], weight: &[f32]) {
    let n = weight.len();
    vectorised!(for row in 0..dx.len() / n {
        let at = row * n..(row + 1) * n;
        let (dx, dy, x) = (&mut dx[at.clone()], &dy[at.clone()], &x[at]);
        let mut lanes = [0.0; LANES];
        let whole = n - n % LANES;
        let mut start = 0;
        while start < whole {
            let at = start..start + LANES;
            let (dy, x, w) = (&dy[at.clone()], &x[at.clone()], &weight[at]);
            for i in 0..LANES {
                lanes[i] += dy[i] * x[i] * w[i];
            }
            start += LANES;
        }
        for i in whole..n {
            lanes[i - whole] += dy[i] * x[i] * weight[i];
        }
        let r = scales[row];
        let along = total(&lanes) * r * r / n as f32;
        for i in 0..n {
            dx[i] += r * (dy[i] * weight[i] - x[i] * along);
        }
    });
}

/// Adds to `dw` what one row says of the weight of [`norm`].
pub(super) fn norm_weight(dw: &mut [f32], dy: &[f32], x: &[f32], scale: f32) {
    let n = dw.len();
    let (dy, x) = (&dy[..n], &x[..n]);
    vectorised!(for i in 0..n {
        dw[i] += dy[i] * x[i] * scale;
    });
}

/// Turns the pairs of each head of a row: `(a, b) ← (a cos − b sin, a sin + b cos)`; the other way round for derivatives.
/// `turns` holds cosine and sine of each pair of one head.
pub(super) fn rotate(row: &mut [f32], turns: &[f32], back: bool) {
    let sign = if back { -1.0 } else { 1.0 };
    let n = turns.len();
    vectorised!(for head in 0..row.len() / n {
        let row = &mut row[head * n..(head + 1) * n];
        for pair in 0..n / 2 {
            let (a, b, cos, sin) = (row[2 * pair], row[2 * pair + 1], turns[2 * pair], turns[2 * pair + 1] * sign);
            row[2 * pair] = a * cos - b * sin;
            row[2 * pair + 1] = a * sin + b * cos;
        }
    });
}

/// SwiGLU of rows `(a, b)`: `SiLU(a) · b`.
pub(super) fn gate(out: &mut [f32], rows: &[f32], half: usize) {
    vectorised!(for row in 0..out.len() / half {
        let (a, b) = rows[2 * row * half..2 * (row + 1) * half].split_at(half);
        let out = &mut out[row * half..(row + 1) * half];
        for i in 0..half {
            out[i] = a[i] / (1.0 + exp(-a[i])) * b[i];
        }
    });
}

/// Puts the derivatives by `(a, b)` in the place of rows `(a, b)`, and the value of [`gate`] in that of its derivative.
pub(super) fn gate_backward(rows: &mut [f32], gated: &mut [f32], half: usize) {
    vectorised!(for row in 0..gated.len() / half {
        let (a, b) = rows[2 * row * half..2 * (row + 1) * half].split_at_mut(half);
        let gated = &mut gated[row * half..(row + 1) * half];
        for i in 0..half {
            let sigmoid = 1.0 / (1.0 + exp(-a[i]));
            let (silu, derivative, up) = (a[i] * sigmoid, gated[i], b[i]);
            gated[i] = silu * up;
            a[i] = derivative * up * (sigmoid + silu * (1.0 - sigmoid));
            b[i] = derivative * silu;
        }
    });
}

/// Makes rows of scores to probabilities, and keeps the logarithm of each row's sum: `p = exp(s − log Σ exp(s))`.
pub(super) fn softmax(scores: &mut [f32], width: usize, logs: &mut [f32]) {
    vectorised!(for (row, log) in logs.iter_mut().enumerate() {
        let row = &mut scores[row * width..(row + 1) * width];
        let whole = width - width % LANES;
        let mut tops = [f32::NEG_INFINITY; LANES];
        let mut start = 0;
        while start < whole {
            let chunk = &row[start..start + LANES];
            for i in 0..LANES {
                tops[i] = if chunk[i] > tops[i] { chunk[i] } else { tops[i] };
            }
            start += LANES;
        }
        let mut top = f32::NEG_INFINITY;
        for &x in tops.iter().chain(&row[whole..]) {
            top = if x > top { x } else { top };
        }
        let mut lanes = [0.0; LANES];
        let mut start = 0;
        while start < whole {
            let chunk = &mut row[start..start + LANES];
            for i in 0..LANES {
                chunk[i] = exp(chunk[i] - top);
                lanes[i] += chunk[i];
            }
            start += LANES;
        }
        for i in whole..width {
            row[i] = exp(row[i] - top);
            lanes[i - whole] += row[i];
        }
        let sum = total(&lanes);
        *log = top + sum.ln();
        let share = 1.0 / sum;
        for x in row {
            *x *= share;
        }
    });
}

/// Makes scores to probabilities by their logarithms, and the derivatives by the probabilities to those by the scores:
/// `ds = p (dp − Σ p dp)`, with the sums given.
pub(super) fn softmax_backward(scores: &mut [f32], by: &mut [f32], width: usize, logs: &[f32], sums: &[f32]) {
    vectorised!(for (row, (&log, &sum)) in logs.iter().zip(sums).enumerate() {
        let at = row * width..(row + 1) * width;
        let (scores, by) = (&mut scores[at.clone()], &mut by[at]);
        for i in 0..width {
            scores[i] = exp(scores[i] - log);
            by[i] = scores[i] * (by[i] - sum);
        }
    });
}

/// `Σ aᵢ bᵢ` of two pieces of rows.
pub(super) fn product_sum(a: &[f32], b: &[f32]) -> f32 {
    vectorised!(dot(a, b))
}

/// Adds a row over its length, or over `least` if that is longer.
pub(super) fn add_direction(sum: &mut [f32], row: &[f32], least: f32) {
    let n = sum.len();
    let row = &row[..n];
    vectorised!({
        let length = dot(row, row).sqrt();
        let scale = 1.0 / if length < least { least } else { length };
        for i in 0..n {
            sum[i] += row[i] * scale;
        }
    });
}

/// The derivative by the row of [`add_direction`], with that by the sum.
pub(super) fn direction_backward(out: &mut [f32], by: &[f32], row: &[f32], least: f32) {
    let n = out.len();
    let (by, row) = (&by[..n], &row[..n]);
    vectorised!({
        let length = dot(row, row).sqrt();
        let (scale, along) =
            if length < least { (1.0 / least, 0.0) } else { (1.0 / length, dot(row, by) / (length * length)) };
        for i in 0..n {
            out[i] = (by[i] - row[i] * along) * scale;
        }
    });
}

/// Adds rows.
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    let n = sum.len();
    let row = &row[..n];
    vectorised!(for i in 0..n {
        sum[i] += row[i];
    });
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
    let n = p.len();
    let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
    vectorised!({
        for i in 0..n {
            m[i] += new1 * (g[i] - m[i]);
            v[i] += new2 * (g[i] * g[i] - v[i]);
            if let Some(divisor) = divisor {
                p[i] = p[i] * decay + m[i] / ((v[i].sqrt() + eps) * divisor);
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
