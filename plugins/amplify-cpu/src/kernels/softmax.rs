//! The softmax of attention scores. Its derivative needs only the logarithm of each row's sum of exponentials (Dao et al.
//! 2022, *FlashAttention*, appendix B).

use super::{LANES, exp, total, vectorised};

/// `p ← exp(s − L)` in place, with `L = log Σ exp(s)` of each row.
///
/// `scores` is (rows, width). Writes `L` to `log_sums`, (rows).
pub(crate) fn softmax(scores: &mut [f32], width: usize, log_sums: &mut [f32]) {
    vectorised!(for (row, log_sum) in log_sums.iter_mut().enumerate() {
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
        *log_sum = top + sum.ln();
        let share = 1.0 / sum;
        for x in row {
            *x *= share;
        }
    });
}

/// `s ← p = exp(s − L)` and `dp ← ds = p (dp − D)`, in place.
///
/// `scores` and `d_scores` are (rows, width). `log_sums` are the `L` of [`softmax`], and `d_sums` are `D = Σ p dp`, (rows).
pub(crate) fn softmax_backward(
    scores: &mut [f32],
    d_scores: &mut [f32],
    width: usize,
    log_sums: &[f32],
    d_sums: &[f32],
) {
    vectorised!(for (row, (&log_sum, &d_sum)) in log_sums.iter().zip(d_sums).enumerate() {
        let range = row * width..(row + 1) * width;
        let (scores, d_scores) = (&mut scores[range.clone()], &mut d_scores[range]);
        for i in 0..width {
            scores[i] = exp(scores[i] - log_sum);
            d_scores[i] = scores[i] * (d_scores[i] - d_sum);
        }
    });
}
