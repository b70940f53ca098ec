//! A random holdout of whole groups that meets the test fraction in each stratum.

use rand::Rng;
use rand::seq::SliceRandom;

/// Training rows and test rows, each in random order. `groups` and `strata` number the group and the stratum of each row.
pub(crate) fn holdout(
    groups: &[usize],
    strata: &[usize],
    test_fraction: f64,
    rng: &mut impl Rng,
) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.shuffle(rng);
    let testing = HoldoutSampler::new(groups, strata, test_fraction).select(order.iter().rev().map(|&row| groups[row]));
    order.into_iter().partition(|&row| !testing[groups[row]])
}

struct HoldoutSampler {
    /// For each group its strata, each with the number of the group's rows there.
    groups: Vec<Vec<(usize, usize)>>,
    /// Whether each group is held out.
    testing: Vec<bool>,
    strata: Vec<Stratum>,
}

#[derive(Clone, Default)]
struct Stratum {
    rows: usize,
    groups: usize,
    /// How many rows should be held out.
    wanted: usize,
    /// How many are held out so far.
    taken: usize,
}

impl HoldoutSampler {
    fn new(groups: &[usize], strata: &[usize], test_fraction: f64) -> Self {
        let count = |numbers: &[usize]| numbers.iter().max().map_or(0, |largest| largest + 1);
        let mut sampler = Self {
            groups: vec![Vec::new(); count(groups)],
            testing: vec![false; count(groups)],
            strata: vec![Stratum::default(); count(strata)],
        };
        for (&group, &stratum) in groups.iter().zip(strata) {
            sampler.strata[stratum].rows += 1;
            match sampler.groups[group].iter_mut().find(|(other, _)| *other == stratum) {
                Some((_, rows)) => *rows += 1,
                None => {
                    sampler.groups[group].push((stratum, 1));
                    sampler.strata[stratum].groups += 1;
                }
            }
        }
        for stratum in sampler.strata.iter_mut().filter(|stratum| stratum.groups > 1) {
            stratum.wanted = ((test_fraction * stratum.rows as f64).round() as usize).clamp(1, stratum.rows - 1);
        }
        sampler
    }

    /// Holds out groups in this order (repeats are ignored): first all that fit, then those that overshoot but still bring
    /// the strata nearer to the wanted counts, then one group for each stratum that has none yet.
    fn select(mut self, order: impl Iterator<Item = usize>) -> Vec<bool> {
        let mut remaining = Vec::new();
        let mut seen = vec![false; self.groups.len()];
        for group in order.filter(|&group| !std::mem::replace(&mut seen[group], true)) {
            let fits = |&(stratum, rows): &(usize, usize)| {
                let Stratum { wanted, taken, .. } = self.strata[stratum];
                taken + rows <= wanted
            };
            if self.groups[group].iter().all(fits) { self.take(group) } else { remaining.push(group) }
        }
        while let Some((_, group)) = self.nearest(&remaining, |_| true).filter(|(nearer, _)| *nearer > 0) {
            self.take(group);
        }
        for stratum in 0..self.strata.len() {
            if self.strata[stratum].wanted > 0 && self.strata[stratum].taken == 0 {
                let has_rows_there = |group: usize| self.groups[group].iter().any(|(other, _)| *other == stratum);
                if let Some((_, group)) = self.nearest(&remaining, has_rows_there) {
                    self.take(group);
                }
            }
        }
        self.testing
    }

    fn take(&mut self, group: usize) {
        self.testing[group] = true;
        self.groups[group].iter().for_each(|&(stratum, rows)| self.strata[stratum].taken += rows);
    }

    /// The first of the candidates that brings the strata nearest to the wanted counts, and by how many rows in all. No
    /// group is chosen that would leave a stratum without training rows.
    fn nearest(&self, remaining: &[usize], is_candidate: impl Fn(usize) -> bool) -> Option<(i64, usize)> {
        let nearer = |&(stratum, rows): &(usize, usize)| {
            let Stratum { rows: all, wanted, taken, .. } = self.strata[stratum];
            let away = |taken: usize| taken.abs_diff(wanted) as i64;
            (taken + rows < all).then(|| away(taken) - away(taken + rows))
        };
        let candidates = remaining.iter().filter(|&&group| !self.testing[group] && is_candidate(group));
        let rated =
            candidates.filter_map(|&group| Some((self.groups[group].iter().map(nearer).sum::<Option<i64>>()?, group)));
        rated.reduce(|best, next| if next.0 > best.0 { next } else { best })
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    /// The holdout of rows that are a group each.
    fn ungrouped(rows: usize, fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        holdout(&(0..rows).collect::<Vec<_>>(), &vec![0; rows], fraction, &mut rng(seed))
    }

    #[test]
    fn every_row_is_on_one_side_and_both_sides_have_some() {
        for (rows, fraction, test) in
            [(0, 0.2, 0), (1, 0.9, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 3), (137, 0.2, 27)]
        {
            let (train, held) = ungrouped(rows, fraction, 1);
            assert_eq!(held.len(), test, "of {rows}");
            let mut all = [train, held].concat();
            all.sort_unstable();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
        assert_eq!(ungrouped(50, 0.2, 1), ungrouped(50, 0.2, 1));
        assert_ne!(ungrouped(50, 0.2, 1), ungrouped(50, 0.2, 2));
    }

    #[test]
    fn ungrouped_rows_are_shuffled_and_cut() {
        let mut order: Vec<usize> = (0..137).collect();
        order.shuffle(&mut rng(3));
        let test = order.split_off(137 - 27);
        assert_eq!(ungrouped(137, 0.2, 3), (order, test));
    }

    #[test]
    fn groups_stay_whole_and_the_fraction_is_met_as_closely_as_they_allow() {
        for seed in 0..200 {
            let random = &mut rng(seed);
            let groups: Vec<usize> = (0..100).map(|_| random.random_range(0..40)).collect();
            let (train, test) = holdout(&groups, &[0; 100], 0.2, random);
            assert!(train.iter().all(|&row| test.iter().all(|&other| groups[row] != groups[other])));
            assert!(test.len().abs_diff(20) <= 1, "{} rows", test.len());
        }
        let test = |groups: &[usize], fraction| holdout(groups, &vec![0; groups.len()], fraction, &mut rng(1)).1.len();
        // Where every group is larger than the wanted count, the smallest is held out.
        assert_eq!(test(&[0, 0, 0, 0, 1, 1, 1], 0.2), 3);
        // A group that overshoots is held out if that is nearer.
        assert_eq!(test(&[0, 0, 0, 0, 0, 0, 1, 1, 1, 1], 0.3), 4);
        assert_eq!(test(&[0; 9], 0.5), 0, "a single group is for training");
    }
}
