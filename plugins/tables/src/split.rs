//! Which rows are for testing, and which site gets which of the others: pure functions of numbers.

use std::num::NonZeroUsize;

use plugin_api::{JsonSchema, Seed};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};
use serde::Deserialize;

use crate::holdout::holdout;

/// Clients `site-1`, `site-2`, …, each with a part of the training rows of every task and all of its test rows.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// How many clients.
    pub count: NonZeroUsize,
    /// The concentration of the Dirichlet distribution that the parts' sizes are drawn from, for each task anew: the
    /// smaller, the more unequal.
    #[schemars(range(min = MIN_ALPHA, max = MAX_ALPHA))]
    pub alpha: f64,
}

const MIN_ALPHA: f64 = 1e-6;
const MAX_ALPHA: f64 = 1e6;

/// Where the rows of a task go, by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The rows to train on, in random order unless the split is given.
    pub train: Vec<usize>,
    /// The rows to test on, in random order unless the split is given.
    pub test: Vec<usize>,
    /// How many of the rows to train on each site gets, one site after the other; none if all are one client's.
    pub site_sizes: Vec<usize>,
}

impl Split {
    /// A split at random, in which every row has exactly one place, and rows of one group are on one side; all are one
    /// client's until they are [`across_sites`](Self::across_sites).
    ///
    /// `groups` has the group of each row, numbered from 0. `strata` has the part of the data that each belongs to, such
    /// as its file, numbered alike: the fraction is met in each as closely as whole groups allow, taken at random. Where
    /// a stratum has two groups or more, some of its rows are on either side, unless its groups reach into others that
    /// would lose all rows to train on; a stratum of one group is trained on. Where each row is a group and all are one
    /// stratum, `test_fraction` of the rows, rounded, are for testing.
    pub fn random(groups: &[usize], strata: &[usize], test_fraction: f64, seed: Seed) -> Self {
        let (train, test) = holdout(groups, strata, test_fraction, &mut rng(seed, "test"));
        Self { train, test, site_sizes: Vec::new() }
    }

    /// The split of rows of which it is known whether they are for testing, in their order; all are one client's.
    pub fn given(for_testing: impl IntoIterator<Item = bool>) -> Self {
        let (test, train): (Vec<_>, Vec<_>) = for_testing.into_iter().enumerate().partition(|(_, test)| *test);
        let numbers = |rows: Vec<(usize, bool)>| rows.into_iter().map(|(row, _)| row).collect();
        Self { train: numbers(train), test: numbers(test), site_sizes: Vec::new() }
    }

    /// The same split to these sites. The rows to train on should be in random order.
    #[must_use]
    pub fn across_sites(mut self, sites: Option<Sites>, seed: Seed) -> Self {
        self.site_sizes = sites.map_or_else(Vec::new, |Sites { count, alpha }| {
            lengths(self.train.len(), &proportions(count.get(), alpha, &mut rng(seed, "clients")))
        });
        self
    }

    /// The same split of some of the rows.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept = |rows: &[usize]| rows.iter().copied().filter(|&row| keep(row)).collect::<Vec<_>>();
        let site_sizes = self.site_rows().map(|part| kept(part).len()).collect();
        Self { train: kept(&self.train), test: kept(&self.test), site_sizes }
    }

    /// The rows to train on of each site.
    pub fn site_rows(&self) -> impl Iterator<Item = &[usize]> {
        let mut rest = &self.train[..];
        self.site_sizes.iter().map(move |&length| {
            let (part, after) = rest.split_at(length);
            rest = after;
            part
        })
    }

    /// How many rows to train on no site gets.
    pub fn unassigned(&self) -> usize {
        if self.site_sizes.is_empty() { 0 } else { self.train.len() - self.site_sizes.iter().sum::<usize>() }
    }
}

/// Brings rows into a random order that depends on the seed and their number alone.
pub fn shuffle(rows: &mut [usize], seed: Seed) {
    rows.shuffle(&mut rng(seed, "order"));
}

fn rng(seed: Seed, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.of(name).value())
}

/// One draw of the symmetric Dirichlet distribution: independent Gamma(alpha) variables over their sum.
///
/// A small alpha makes them underflow, so the work is done on logarithms: with `g` of Gamma(alpha + 1) and `e`
/// exponential, `ln g − e / alpha` is the logarithm of a Gamma(alpha) variable (Marsaglia and Tsang 2000, section 6).
fn proportions(count: usize, alpha: f64, rng: &mut impl Rng) -> Vec<f64> {
    let gamma = Gamma::new(alpha + 1.0, 1.0).expect("alpha is positive and finite by its key's check");
    let logs: Vec<f64> = (0..count).map(|_| gamma.sample(rng).ln() - rng.sample::<f64, _>(Exp1) / alpha).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}

/// Whole numbers in these proportions with the sum `total`, by the method of largest remainders.
fn lengths(total: usize, proportions: &[f64]) -> Vec<usize> {
    let exact: Vec<f64> = proportions.iter().map(|p| p * total as f64).collect();
    let mut lengths: Vec<usize> = exact.iter().map(|x| x.floor() as usize).collect();
    let missing = total - lengths.iter().sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..exact.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    for &i in by_remainder.iter().take(missing) {
        lengths[i] += 1;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    #[test]
    fn a_given_split_keeps_the_order_of_rows() {
        let split = Split::given([false, true, false, false, true]);
        assert_eq!((&split.train[..], &split.test[..], split.site_rows().count()), (&[0, 2, 3][..], &[1, 4][..], 0));
        let sites = Sites { count: 2.try_into().unwrap(), alpha: 1.0 };
        let shared = split.clone().across_sites(Some(sites), Seed::new(1));
        assert_eq!((shared.site_rows().collect::<Vec<_>>().concat(), shared.unassigned()), (split.train, 0));
    }

    #[test]
    fn an_order_depends_on_seed_and_number_alone() {
        let order = |seed| {
            let mut rows: Vec<usize> = (0..50).collect();
            shuffle(&mut rows, Seed::new(seed));
            rows
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_fraction_is_met_in_each_stratum_and_groups_reach_across() {
        // The same fifty sequences in two files, thirty of them and ten others in a third, and one row in a fourth.
        let sequences = (0..50).chain(0..50).chain(20..60).chain([0]).collect::<Vec<usize>>();
        let strata = [vec![0; 50], vec![1; 50], vec![2; 40], vec![3]].concat();
        let split = Split::random(&sequences, &strata, 0.2, Seed::new(5));
        let tested = |stratum| split.filter(|row| strata[row] == stratum).test.len();
        assert_eq!([tested(0), tested(1), tested(3)], [10, 10, 0]);
        assert!(tested(2).abs_diff(8) <= 1, "{}", tested(2));
        let on = |rows: &[usize]| rows.iter().map(|&row| sequences[row]).collect::<std::collections::BTreeSet<_>>();
        assert!(on(&split.train).is_disjoint(&on(&split.test)));
    }

    #[test]
    fn no_row_is_lost_or_doubled_whatever_the_numbers() {
        for alpha in [1e-6, 0.001, 0.1, 1.0, 100.0, 1e6] {
            for (seed, rows, count) in [(1, 0, 1), (2, 1, 6), (3, 5, 100), (4, 1000, 6), (5, 1000, 999), (6, 137, 7)] {
                for test_fraction in [0.001, 0.2, 0.999] {
                    let sites = Sites { count: count.try_into().unwrap(), alpha };
                    let groups: Vec<usize> = (0..rows).map(|row| row / 3).collect();
                    let split = Split::random(&groups, &vec![0; rows], test_fraction, Seed::new(seed));
                    let split = split.across_sites(Some(sites), Seed::new(seed));
                    assert_eq!(
                        (split.site_sizes.len(), split.unassigned(), split.site_rows().count()),
                        (count, 0, count)
                    );
                    let parts = split.site_rows().collect::<Vec<_>>().concat();
                    assert_eq!(parts, split.train);
                    let mut all = [parts, split.test].concat();
                    all.sort_unstable();
                    assert_eq!(all, (0..rows).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn some_of_the_rows_stay_where_they_were() {
        let sites = Sites { count: 3.try_into().unwrap(), alpha: 1.0 };
        let all: Vec<usize> = (0..60).collect();
        let split = Split::random(&all, &[0; 60], 0.2, Seed::new(1)).across_sites(Some(sites), Seed::new(1));
        let even = split.filter(|row| row % 2 == 0);
        for (part, whole) in even.site_rows().zip(split.site_rows()) {
            assert_eq!(part, whole.iter().copied().filter(|row| row % 2 == 0).collect::<Vec<_>>());
        }
        assert_eq!(even.train.len() + even.test.len(), 30);
    }

    #[test]
    fn alpha_says_how_equal_the_parts_are() {
        let largest = |alpha| {
            let mean =
                (0..200).map(|seed| proportions(4, alpha, &mut rng(seed)).into_iter().fold(0.0, f64::max)).sum::<f64>();
            mean / 200.0
        };
        // The largest of four: all of it, the harmonic mean sum (1 + 1/2 + 1/3 + 1/4) / 4 for a uniform cut, a quarter.
        assert!(largest(0.001) > 0.98);
        assert!((largest(1.0) - 25.0 / 48.0).abs() < 0.03, "{}", largest(1.0));
        assert!((largest(1e6) - 0.25).abs() < 0.001);
    }

    #[test]
    fn remainders_go_to_the_largest() {
        assert_eq!(lengths(10, &[0.25, 0.25, 0.5]), [3, 2, 5]);
        assert_eq!(lengths(7, &[0.5, 0.3, 0.2]), [4, 2, 1]);
        assert_eq!(lengths(3, &[1.0, 0.0]), [3, 0]);
    }
}
