//! RMSNorm (Zhang and Sennrich 2019, equation 4), and the L2 normalisation of the pooling.

use super::{LANES, inline_dot, total, vectorised};

/// `y = x · s · w` for each row, with `s = 1 / √(mean(x²) + ε)`.
///
/// `y` and `x` are (rows, n), `weight` is (n). Writes `s` to `scales`, (rows).
pub(crate) fn rms_norm(y: &mut [f32], scales: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let n = weight.len();
    vectorised!(for (row, scale) in scales.iter_mut().enumerate() {
        let (y, x) = (&mut y[row * n..(row + 1) * n], &x[row * n..(row + 1) * n]);
        let s = 1.0 / (inline_dot(x, x) / n as f32 + eps).sqrt();
        *scale = s;
        for i in 0..n {
            y[i] = x[i] * s * weight[i];
        }
    });
}

/// [`rms_norm`] again, from the scales that it wrote.
pub(crate) fn rms_norm_recompute(y: &mut [f32], scales: &[f32], x: &[f32], weight: &[f32]) {
    let n = weight.len();
    vectorised!(for row in 0..y.len() / n {
        let (y, x) = (&mut y[row * n..(row + 1) * n], &x[row * n..(row + 1) * n]);
        let s = scales[row];
        for i in 0..n {
            y[i] = x[i] * s * weight[i];
        }
    });
}

/// `dx ← dx + s (dy · w − x s² mean(dy · w · x))`, the derivative of [`rms_norm`] with respect to its input.
///
/// `dx`, `dy` and `x` are (rows, n), `scales` is (rows), `weight` is (n).
pub(crate) fn rms_norm_backward(dx: &mut [f32], dy: &[f32], x: &[f32], scales: &[f32], weight: &[f32]) {
    let n = weight.len();
    vectorised!(for row in 0..dx.len() / n {
        let range = row * n..(row + 1) * n;
        let (dx, dy, x) = (&mut dx[range.clone()], &dy[range.clone()], &x[range]);
        let mut lanes = [0.0; LANES];
        let whole = n - n % LANES;
        let mut start = 0;
        while start < whole {
            let range = start..start + LANES;
            let (dy, x, w) = (&dy[range.clone()], &x[range.clone()], &weight[range]);
            for i in 0..LANES {
                lanes[i] += dy[i] * x[i] * w[i];
            }
            start += LANES;
        }
        for i in whole..n {
            lanes[i - whole] += dy[i] * x[i] * weight[i];
        }
        let s = scales[row];
        let along = total(&lanes) * s * s / n as f32;
        for i in 0..n {
            dx[i] += s * (dy[i] * weight[i] - x[i] * along);
        }
    });
}

/// `dw ← dw + dy · x · s`: what one row adds to the derivative of [`rms_norm`] with respect to its weight. All are (n).
pub(crate) fn rms_norm_weight_backward(dw: &mut [f32], dy: &[f32], x: &[f32], scale: f32) {
    let n = dw.len();
    let (dy, x) = (&dy[..n], &x[..n]);
    vectorised!(for i in 0..n {
        dw[i] += dy[i] * x[i] * scale;
    });
}

/// `sum ← sum + row / max(‖row‖, eps)`.
pub(crate) fn add_normalized(sum: &mut [f32], row: &[f32], eps: f32) {
    let n = sum.len();
    let row = &row[..n];
    vectorised!({
        let length = inline_dot(row, row).sqrt();
        let scale = 1.0 / if length < eps { eps } else { length };
        for i in 0..n {
            sum[i] += row[i] * scale;
        }
    });
}

/// `d_row ← (d_sum − u (u · d_sum)) / ‖row‖` with `u = row / ‖row‖`, the derivative of [`add_normalized`] with respect to
/// its row; `d_sum / eps` for a row shorter than `eps`.
pub(crate) fn normalize_backward(d_row: &mut [f32], d_sum: &[f32], row: &[f32], eps: f32) {
    let n = d_row.len();
    let (d_sum, row) = (&d_sum[..n], &row[..n]);
    vectorised!({
        let length = inline_dot(row, row).sqrt();
        let (scale, along) =
            if length < eps { (1.0 / eps, 0.0) } else { (1.0 / length, inline_dot(row, d_sum) / (length * length)) };
        for i in 0..n {
            d_row[i] = (d_sum[i] - row[i] * along) * scale;
        }
    });
}
