//! Preparing curves for drawing: smoothing, thinning, and splitting at gaps.

use std::collections::VecDeque;

/// A point in data coordinates.
pub(super) type Place = (f64, f64);

/// For each value, the mean of it and the values before it, at most `window` in all. A value that is not finite is a
/// gap: it stays a gap, and later means ignore it.
pub(super) fn moving_average(values: &[f64], window: usize) -> Vec<f64> {
    let (mut recent, mut sum, mut taken) = (VecDeque::new(), 0.0, 0_usize);
    let mean = |&value: &f64| {
        if !value.is_finite() {
            return f64::NAN;
        }
        recent.push_back(value);
        sum += value;
        taken += 1;
        if recent.len() > window {
            sum -= recent.pop_front().unwrap_or_default();
        }
        // A running sum drifts, so it is recomputed once per window.
        if taken.is_multiple_of(window) {
            sum = recent.iter().sum();
        }
        sum / recent.len() as f64
    };
    values.iter().map(mean).collect()
}

/// The pieces between gaps.
pub(super) fn pieces(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    places.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|piece| !piece.is_empty())
}

/// Reduces the number of points without changing the look: keeps the lowest and the highest of each of `columns` equal
/// parts of the piece's width, in order, and the first and the last of all. A piece that is short enough is returned
/// unchanged.
pub(super) fn thin(piece: &[Place], columns: usize) -> Vec<Place> {
    let (Some(&first), Some(&last)) = (piece.first(), piece.last()) else { return Vec::new() };
    if piece.len() <= 2 * columns + 2 {
        return piece.to_vec();
    }
    let width = (last.0 - first.0).max(f64::MIN_POSITIVE);
    let column = |place: &Place| (((place.0 - first.0) / width * columns as f64) as usize).min(columns - 1);
    let mut thinned = vec![first];
    for part in piece[1..piece.len() - 1].chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |a: &usize, b: &usize| part[*a].1.total_cmp(&part[*b].1);
        let (low, high) = ((0..part.len()).min_by(by_height), (0..part.len()).max_by(by_height));
        if let (Some(low), Some(high)) = (low, high) {
            thinned.push(part[low.min(high)]);
            if low != high {
                thinned.push(part[low.max(high)]);
            }
        }
    }
    thinned.push(last);
    thinned
}

/// The lowest and the highest finite value, if there is one.
pub(super) fn range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.into_iter().filter(|value| value.is_finite());
    finite.fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// Like [`range`], but without the most extreme values at either end (one in 200, if there are many), provided that all
/// the others take less than half of the range.
pub(super) fn common_range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let without = |count: usize| Some((*values.get(count)?, *values.get(values.len() - 1 - count)?));
    let (all, common) = (without(0)?, without(values.len() / 200)?);
    Some(if all.1 - all.0 > 2.0 * (common.1 - common.0) { common } else { all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_at_most_the_window() {
        assert_eq!(moving_average(&[1.0, 2.0, 3.0, 4.0, 5.0], 3), [1.0, 1.5, 2.0, 3.0, 4.0]);
        assert_eq!(moving_average(&[3.0, 1.0], 1), [3.0, 1.0]);
        assert_eq!(moving_average(&[], 30), [0.0; 0]);
    }

    #[test]
    fn a_gap_stays_a_gap_and_counts_for_nothing() {
        let means = moving_average(&[1.0, f64::NAN, 3.0, f64::INFINITY, 8.0], 2);
        assert!(means[1].is_nan() && means[3].is_nan());
        assert_eq!((means[0], means[2], means[4]), (1.0, 2.0, 5.5));
        let places: Vec<Place> = means.iter().map(|&mean| (0.0, mean)).collect();
        assert_eq!(pieces(&places).map(<[_]>::len).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn a_large_value_leaves_nothing_behind() {
        let mut values = vec![1e30];
        values.extend([1.0; 100]);
        assert_eq!(moving_average(&values, 10).last(), Some(&1.0));
    }

    #[test]
    fn thinning_keeps_the_ends_and_every_extreme() {
        let mut places: Vec<Place> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        places[54_321].1 = 99.0;
        places[12_345].1 = -99.0;
        let thinned = thin(&places, 300);
        assert!(thinned.len() <= 602, "{}", thinned.len());
        assert_eq!((thinned.first(), thinned.last()), (places.first(), places.last()));
        assert!(thinned.contains(&places[54_321]) && thinned.contains(&places[12_345]));
        assert!(thinned.is_sorted_by_key(|place| place.0));
        assert_eq!(thin(&places[..500], 300), places[..500]);
    }

    #[test]
    fn one_outlier_among_many_does_not_set_the_range() {
        let values = || (0..1000).map(f64::from);
        assert_eq!(range(values().chain([1e9])), Some((0.0, 1e9)));
        assert_eq!(common_range(values().chain([1e9])), Some((5.0, 995.0)));
        assert_eq!(common_range(values()), Some((0.0, 999.0)));
        assert_eq!(common_range([1.0, 1e9, f64::NAN]), Some((1.0, 1e9)));
        assert_eq!(range([f64::NAN]), None);
    }
}
