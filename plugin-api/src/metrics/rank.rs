//! Rank metrics, which depend on the order of values and not on their differences.

use super::{Moments, pearson_of};

/// Spearman's correlation, from -1 to 1: Pearson's correlation of the ranks. Equal values share the mean of their
/// ranks. NaN if the lengths differ, if there are fewer than two rows, if all predictions (except for rounding) or all
/// targets are equal, or if any value is NaN.
pub fn spearman(predictions: &[f32], targets: &[f32]) -> f64 {
    let undefined = |x: &f32| x.is_nan();
    if predictions.len() != targets.len()
        || predictions.iter().chain(targets).any(undefined)
        || Moments::of(predictions).is_constant(f32::EPSILON)
    {
        return f64::NAN;
    }
    pearson_of(&ranks(predictions), &ranks(targets))
}

/// The area under the ROC curve, from 0 to 1: the share of pairs of a positive and a negative row in which the positive
/// row has the higher score. Equal scores count half. `positive` says whether each row is positive. NaN if the lengths
/// differ, if either class has no rows, or if any score is NaN.
pub fn auroc(scores: &[f32], positive: &[bool]) -> f64 {
    let positives = positive.iter().filter(|&&is| is).count();
    let negatives = positive.len() - positives;
    if scores.len() != positive.len() || positives == 0 || negatives == 0 || scores.iter().any(|x| x.is_nan()) {
        return f64::NAN;
    }
    // Mann and Whitney's U: the sum of the positives' ranks, minus the part from the positives among themselves.
    let sum: f64 = ranks(scores).iter().zip(positive).filter(|(_, is)| **is).map(|(rank, _)| rank).sum();
    let (positives, negatives) = (positives as f64, negatives as f64);
    (sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

/// The rank of each value, from 1. Equal values share the mean of their ranks. No value may be NaN.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    // Group by `==`, so that the two zeros are equal.
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&place| ranks[place] = rank);
        start += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[3.0, -0.0, 0.0, 9.0, 3.0, 3.0]), [4.0, 1.5, 1.5, 6.0, 4.0, 4.0]);
        assert_eq!(spearman(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]), 1.0);
        assert_eq!(spearman(&[1.0, 2.0, 9.0], &[3.0, 2.0, 1.0]), -1.0);
        // By hand: ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / √(4.5 · 5).
        assert!((spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]) - 4.5 / 22.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn the_area_counts_pairs_and_halves_those_that_are_equal() {
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), 0.75);
        assert_eq!(auroc(&[0.5, 0.5], &[true, false]), 0.5);
        assert_eq!(auroc(&[1.0, 2.0, 3.0], &[false, true, true]), 1.0);
        assert_eq!(auroc(&[1.0, 2.0, 3.0], &[true, false, false]), 0.0);
    }

    #[test]
    fn what_is_not_defined_is_nan() {
        assert!(auroc(&[0.1, 0.2], &[true, true]).is_nan() && auroc(&[], &[]).is_nan());
        assert!(auroc(&[0.1], &[true, false]).is_nan() && auroc(&[f32::NAN, 1.0], &[true, false]).is_nan());
        assert!(spearman(&[1.0], &[1.0]).is_nan() && spearman(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        // Equal except for rounding.
        assert!(spearman(&[0.3, 0.3 + f32::EPSILON / 4.0, 0.3], &[1.0, 2.0, 3.0]).is_nan());
        assert!(spearman(&[f32::NAN, 1.0], &[1.0, 2.0]).is_nan() && spearman(&[1.0, 2.0], &[1.0]).is_nan());
    }
}
