//! Methods that use distances between whole updates: Krum and the geometric median. A distance covers all
//! floating-point tensors together, summed tensor by tensor and block by block in a fixed order.

use plugin_api::{Context, Error, Result, Tensor};

use crate::blocks::{Rows, combine, visit};
use crate::coordinates::medians;

/// The tensors of one parameter, one per client.
pub(crate) type Column<'t> = Vec<&'t Tensor>;

/// Returns the `keep` clients with the smallest sums of squared distances to their `neighbours` nearest updates. The
/// earlier client wins a tie.
///
/// # Errors
/// If a tensor is not of a floating-point type, or the call is cancelled.
pub(crate) fn krum(
    columns: &[Column<'_>],
    clients: usize,
    neighbours: usize,
    keep: usize,
    ctx: &Context<'_>,
) -> Result<Vec<usize>> {
    let mut squares = vec![vec![0.0; clients]; clients];
    for column in columns {
        ctx.check()?;
        visit(column, |rows| {
            for (i, squares) in squares.iter_mut().enumerate() {
                for (j, square) in squares.iter_mut().enumerate().take(i) {
                    *square += squared_distance(rows.row(i), rows.row(j));
                }
            }
        })?;
    }
    let score = |i: usize| {
        let mut others: Vec<f64> = (0..clients).filter(|&j| j != i).map(|j| squares[i.max(j)][i.min(j)]).collect();
        others.sort_unstable_by(f64::total_cmp);
        others[..neighbours].iter().sum::<f64>()
    };
    let mut ranked: Vec<(f64, usize)> = (0..clients).map(|i| (score(i), i)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut kept: Vec<usize> = ranked.into_iter().take(keep).map(|(_, i)| i).collect();
    kept.sort_unstable();
    Ok(kept)
}

/// Returns the weight of each client in the geometric median, which is the mean of the updates with these weights; they
/// sum to 1. Every iterate is such a mean, so the point itself need not be stored.
///
/// # Errors
/// If a tensor is not of a floating-point type, all distances overflow, or the call is cancelled.
pub(crate) fn weiszfeld(
    columns: &[Column<'_>],
    clients: usize,
    iterations: usize,
    smoothing: f64,
    ctx: &Context<'_>,
) -> Result<Vec<f64>> {
    let mut weights: Option<Vec<f64>> = None;
    for iteration in 0..iterations {
        ctx.progress(iteration as u64, iterations as u64);
        let mut squares = vec![0.0; clients];
        let mut point = Vec::new();
        for column in columns {
            ctx.check()?;
            visit(column, |rows| {
                point.resize(rows.len(), 0.0);
                match &weights {
                    None => medians(rows, &mut point),
                    Some(weights) => weighted(rows, weights, &mut point),
                }
                for (square, row) in squares.iter_mut().zip(rows.iter()) {
                    *square += squared_distance(row, &point);
                }
            })?;
        }
        let inverse: Vec<f64> = squares.iter().map(|square| 1.0 / square.sqrt().max(smoothing)).collect();
        let sum: f64 = inverse.iter().sum();
        if !(sum.is_finite() && sum > 0.0) {
            return Err(Error::other("the distances between the updates exceed the range of f64"));
        }
        weights = Some(inverse.into_iter().map(|inverse| inverse / sum).collect());
    }
    Ok(weights.unwrap_or_default())
}

/// The mean of the tensors with the given weights, which sum to 1.
///
/// # Errors
/// If they are not of a floating-point type.
pub(crate) fn weighted_mean(column: &Column<'_>, weights: &[f64]) -> Result<Tensor> {
    combine(column, |rows, out| weighted(rows, weights, out))
}

fn weighted(rows: &Rows, weights: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    for (row, weight) in rows.iter().zip(weights) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out += weight * x);
    }
}

/// Sums in eight fixed lanes, so that the compiler can vectorise the loop and the order stays the same.
fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (a, b) = (a.chunks(lanes.len()), b.chunks(lanes.len()));
    for (a, b) in a.zip(b) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (x - y) * (x - y);
        }
    }
    lanes.iter().sum()
}
