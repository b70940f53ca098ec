//! Coordinate-wise methods: median and trimmed mean.

use plugin_api::{Result, Tensor};

use crate::blocks::{Rows, combine};

/// The median of each coordinate; for an even number, the midpoint of the middle two.
///
/// # Errors
/// If the tensors are not of a floating-point type.
pub(crate) fn median(tensors: &[&Tensor]) -> Result<Tensor> {
    combine(tensors, medians)
}

/// The mean of each coordinate without the `trimmed` smallest and the `trimmed` largest values.
///
/// # Errors
/// If the tensors are not of a floating-point type.
pub(crate) fn trimmed_mean(tensors: &[&Tensor], trimmed: usize) -> Result<Tensor> {
    combine(tensors, |rows, out| {
        sorted_columns(rows, out, |column| mean(&column[trimmed..column.len() - trimmed]));
    })
}

/// The median of each coordinate of a block.
pub(crate) fn medians(rows: &Rows, out: &mut [f64]) {
    sorted_columns(rows, out, |column| {
        let half = column.len() / 2;
        if column.len() % 2 == 1 { column[half] } else { column[half - 1].midpoint(column[half]) }
    });
}

/// Applies `fold` to the sorted values of each coordinate.
fn sorted_columns(rows: &Rows, out: &mut [f64], fold: impl Fn(&[f64]) -> f64) {
    let mut column = Vec::new();
    for (i, out) in out.iter_mut().enumerate() {
        column.clear();
        column.extend(rows.iter().map(|row| row[i]));
        column.sort_unstable_by(f64::total_cmp);
        *out = fold(&column);
    }
}

/// The mean of at least one value, computed relative to the first, so that the mean of equal values is exactly that
/// value.
fn mean(values: &[f64]) -> f64 {
    values[0] + values.iter().map(|x| x - values[0]).sum::<f64>() / values.len() as f64
}
