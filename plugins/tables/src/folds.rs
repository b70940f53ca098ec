//! Folds of whole groups for cross-validation, of about the same size in each stratum.

use plugin_api::{Error, Result};
use rand::Rng;
use rand::seq::SliceRandom;

/// One fold of several: its rows are for testing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The number of folds.
    pub count: usize,
    /// The fold, from 0.
    pub index: usize,
}

impl Fold {
    /// The fold that the keys `folds` and `fold` name, if they are given.
    ///
    /// # Errors
    /// If only one of them is given, `test-fraction` is given as well, or there is no such fold.
    pub fn of_keys(folds: Option<usize>, fold: Option<usize>, test_fraction: Option<f64>) -> Result<Option<Self>> {
        let error = |key: &str, message: &str, help: &str| Err(Error::config(message).at_key(key).help(help));
        match (folds, fold) {
            (None, None) => Ok(None),
            (Some(_), None) => {
                error("folds", "needs `fold`", "`fold = 0` tests on the first fold; `fedplug run --folds` runs all")
            }
            (None, Some(_)) => error("fold", "needs `folds`", "set `folds` to the number of folds, such as 5"),
            (Some(_), Some(_)) if test_fraction.is_some() => {
                error("test-fraction", "`folds` already says how many rows are for testing", "remove one of them")
            }
            (Some(count), Some(index)) if index >= count => {
                let message = format!("there are {count} folds, numbered from 0, so there is no fold {index}");
                error("fold", &message, &format!("at most {}", count - 1))
            }
            (Some(count), Some(index)) => Ok(Some(Self { count, index })),
        }
    }
}

/// Training rows and test rows, each in random order. `groups` and `strata` number the group and the stratum of each row.
pub(crate) fn fold(groups: &[usize], strata: &[usize], fold: Fold, rng: &mut impl Rng) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.shuffle(rng);
    let folds = Assignment::new(groups, strata, fold.count).assign(order.iter().map(|&row| groups[row]), rng);
    order.into_iter().partition(|&row| folds[groups[row]] != Some(fold.index))
}

/// The assignment of groups to folds.
struct Assignment {
    folds: usize,
    /// For each group its strata, each with the number of the group's rows there.
    groups: Vec<Vec<(usize, usize)>>,
    /// The number of rows of each stratum.
    rows: Vec<usize>,
    /// For each stratum the number of its rows in each fold so far.
    taken: Vec<Vec<usize>>,
}

impl Assignment {
    fn new(groups: &[usize], strata: &[usize], folds: usize) -> Self {
        let count = |numbers: &[usize]| numbers.iter().max().map_or(0, |largest| largest + 1);
        let mut of_groups: Vec<Vec<(usize, usize)>> = vec![Vec::new(); count(groups)];
        let mut rows = vec![0; count(strata)];
        for (&group, &stratum) in groups.iter().zip(strata) {
            rows[stratum] += 1;
            match of_groups[group].iter_mut().find(|(other, _)| *other == stratum) {
                Some((_, rows)) => *rows += 1,
                None => of_groups[group].push((stratum, 1)),
            }
        }
        Self { folds, groups: of_groups, taken: vec![vec![0; folds]; rows.len()], rows }
    }

    /// The fold of each group, assigned in this order (repeats are ignored) but large groups first, since small ones fill
    /// the gaps. Groups of about the same size stay in the order given, so that each seed has folds of its own. A group that
    /// has no fold is for training in all of them.
    fn assign(mut self, order: impl Iterator<Item = usize>, rng: &mut impl Rng) -> Vec<Option<usize>> {
        let mut seen = vec![false; self.groups.len()];
        let mut order: Vec<usize> = order.filter(|&group| !std::mem::replace(&mut seen[group], true)).collect();
        let size = |group: usize| self.groups[group].iter().map(|(_, rows)| rows).sum::<usize>();
        order.sort_by_key(|&group| std::cmp::Reverse(size(group).ilog2()));
        let mut labels: Vec<usize> = (0..self.folds).collect();
        labels.shuffle(rng);
        let mut found = vec![None; self.groups.len()];
        for group in order {
            let fold = labels.iter().copied().filter(|&fold| self.leaves_training_rows(group, fold));
            let best = fold.min_by_key(|&fold| self.load(group, fold));
            found[group] = best;
            if let Some(fold) = best {
                self.groups[group].iter().for_each(|&(stratum, rows)| self.taken[stratum][fold] += rows);
            }
        }
        found
    }

    /// Whether a fold with this group would leave training rows in each of the group's strata.
    fn leaves_training_rows(&self, group: usize, fold: usize) -> bool {
        self.groups[group].iter().all(|&(stratum, rows)| self.taken[stratum][fold] + rows < self.rows[stratum])
    }

    /// How full a fold is where the group has rows, and in all.
    fn load(&self, group: usize, fold: usize) -> (usize, usize) {
        let there = self.groups[group].iter().map(|&(stratum, rows)| rows * self.taken[stratum][fold]).sum();
        (there, self.taken.iter().map(|folds| folds[fold]).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plugin_api::Seed;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use test_support::cases;

    use super::*;
    use crate::Split;

    fn tests(groups: &[usize], strata: &[usize], count: usize, seed: u64) -> Vec<Vec<usize>> {
        let test = |index| Split::fold(groups, strata, Fold { count, index }, Seed::new(seed)).test;
        (0..count).map(test).collect()
    }

    #[test]
    fn rows_without_groups_are_shared_out_evenly_and_each_seed_has_its_own_folds() {
        let (rows, strata) = ((0..103).collect::<Vec<_>>(), [vec![0; 61], vec![1; 42]].concat());
        let folds = tests(&rows, &strata, 5, 1);
        let of = |fold: &Vec<usize>, stratum| fold.iter().filter(|&&row| strata[row] == stratum).count();
        let mut sizes: Vec<_> = folds.iter().map(|fold| (of(fold, 0), of(fold, 1))).collect();
        sizes.sort_unstable();
        assert_eq!(sizes.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [12, 12, 12, 12, 13]);
        assert!(sizes.iter().all(|(_, second)| [8, 9].contains(second)), "{sizes:?}");
        assert_eq!(folds, tests(&rows, &strata, 5, 1));
        assert_ne!(folds, tests(&rows, &strata, 5, 2));
    }

    #[test]
    fn one_large_group_does_not_spoil_the_others() {
        // A fifth of the rows is one group, and the rest are singles.
        for seed in 0..20 {
            let groups: Vec<usize> = (0..100).map(|row: usize| row.saturating_sub(19)).collect();
            let sizes: Vec<usize> = tests(&groups, &[0; 100], 5, seed).iter().map(Vec::len).collect();
            assert_eq!(sizes, [20; 5]);
        }
    }

    #[test]
    fn groups_of_different_sizes_are_in_different_folds_with_another_seed() {
        let groups: Vec<usize> = (4..8).flat_map(|size| vec![size - 4; size]).collect();
        let partition = |seed| {
            tests(&groups, &vec![0; groups.len()], 2, seed)
                .into_iter()
                .map(|mut fold| {
                    fold.sort_unstable();
                    fold
                })
                .collect::<BTreeSet<_>>()
        };
        assert!((0..20).map(partition).collect::<BTreeSet<_>>().len() > 1);
    }

    #[test]
    fn a_stratum_never_loses_all_its_training_rows() {
        // The second stratum is one group, and the third has two that a large first stratum would put together.
        let groups = [vec![0; 100], vec![1; 50], vec![2; 10], vec![3], vec![1, 2]].concat();
        let strata = [vec![0; 160], vec![1], vec![2, 2]].concat();
        for seed in 0..20 {
            let folds = tests(&groups, &strata, 2, seed);
            assert!(folds.iter().all(|fold| !fold.contains(&160)), "a single group is for training");
            let of_third = |fold: &Vec<usize>| fold.iter().filter(|&&row| row > 160).count();
            assert_eq!(folds.iter().map(of_third).collect::<Vec<_>>(), [1, 1]);
        }
        assert!(tests(&[0; 9], &[0; 9], 3, 1).concat().is_empty());
    }

    #[test]
    fn the_keys_are_given_together_and_name_a_fold() {
        let error = |folds, fold, fraction| {
            let error = Fold::of_keys(folds, fold, fraction).unwrap_err();
            format!("{}", error)
        };
        assert_eq!(Fold::of_keys(None, None, Some(0.1)).unwrap(), None);
        assert_eq!(Fold::of_keys(Some(5), Some(4), None).unwrap(), Some(Fold { count: 5, index: 4 }));
        assert!(error(Some(5), None, None).contains("needs `fold`"));
        assert!(error(None, Some(0), None).contains("needs `folds`"));
        assert!(error(Some(5), Some(0), Some(0.2)).contains("`folds` already says how many rows are for testing"));
        assert!(error(Some(5), Some(5), None).contains("so there is no fold 5"));
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn folds_are_disjoint_cover_all_rows_and_divide_no_group(
            groups in vec(0_usize..30, 2..150), count in 2_usize..8, seed: u64,
        ) {
            let strata = vec![0; groups.len()];
            let folds = tests(&groups, &strata, count, seed);
            let mut all = folds.concat();
            all.sort_unstable();
            let distinct = groups.iter().collect::<BTreeSet<_>>().len();
            if distinct < 2 {
                prop_assert!(all.is_empty());
                return Ok(());
            }
            // Each row is tested once, so the folds are disjoint and cover all rows.
            prop_assert_eq!(all, (0..groups.len()).collect::<Vec<_>>());
            let size = |group: usize| groups.iter().filter(|other| **other == group).count();
            let largest = groups.iter().map(|&group| size(group)).max().unwrap();
            let sizes: Vec<usize> = folds.iter().map(Vec::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= largest, "{:?}", sizes);
            prop_assert_eq!(sizes.iter().filter(|size| **size == 0).count(), count.saturating_sub(distinct));
            for (index, test) in folds.iter().enumerate() {
                let split = Split::fold(&groups, &strata, Fold { count, index }, Seed::new(seed));
                let on = |rows: &[usize]| rows.iter().map(|&row| groups[row]).collect::<BTreeSet<_>>();
                prop_assert!(on(&split.train).is_disjoint(&on(test)));
                prop_assert_eq!(split.train.len() + test.len(), groups.len());
            }
        }

        #[test]
        fn strata_keep_training_rows_in_every_fold(
            rows in vec((0_usize..20, 0_usize..4), 1..120), count in 2_usize..6, seed: u64,
        ) {
            let (groups, strata): (Vec<usize>, Vec<usize>) = rows.into_iter().unzip();
            let mut tested = vec![0; groups.len()];
            for index in 0..count {
                // Strata are numbered without gaps only by chance here; those without rows do not matter.
                let split = Split::fold(&groups, &strata, Fold { count, index }, Seed::new(seed));
                split.test.iter().for_each(|&row| tested[row] += 1);
                let on = |rows: &[usize], numbers: &[usize]| rows.iter().map(|&r| numbers[r]).collect::<BTreeSet<_>>();
                prop_assert_eq!(on(&split.train, &strata), strata.iter().copied().collect::<BTreeSet<_>>());
                prop_assert!(on(&split.train, &groups).is_disjoint(&on(&split.test, &groups)));
            }
            prop_assert!(tested.iter().all(|times| *times <= 1));
        }
    }
}
