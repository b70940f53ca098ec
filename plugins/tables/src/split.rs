//! Splits of rows: for training or testing, and among clients.

use std::collections::HashSet;
use std::num::NonZeroUsize;

use plugin_api::{JsonSchema, Seed};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};
use serde::Deserialize;

use crate::folds::{Fold, fold};
use crate::holdout::holdout;

/// Clients `site-1`, `site-2`, …, each with its own share of every task's training rows, and all of its test rows.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sites {
    /// The number of clients.
    #[schemars(range(min = 1, max = MAX_CLIENTS))]
    pub count: NonZeroUsize,
    /// The concentration of the Dirichlet distribution from which the shares are drawn, for each task anew. Smaller
    /// values make shares more unequal.
    #[schemars(range(min = MIN_ALPHA, max = MAX_ALPHA))]
    pub alpha: f64,
}

/// The most clients: more are a typo, and take memory before anything else is checked.
const MAX_CLIENTS: usize = 1_000_000;

const MIN_ALPHA: f64 = 1e-6;
const MAX_ALPHA: f64 = 1e6;

/// A split of a task's rows, given by their indices.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The training rows, in random order unless the split is given.
    pub train: Vec<usize>,
    /// The test rows, in random order unless the split is given.
    pub test: Vec<usize>,
    /// Those of the training rows that are for validation, in any order.
    pub validation: Vec<usize>,
    /// How many of the training rows each site has: the first site the first ones, and so on. Empty if one client has all.
    pub site_sizes: Vec<usize>,
}

impl Split {
    /// A random split for one client. It never divides a group. [`across_sites`](Self::across_sites) assigns the training
    /// rows to several clients.
    ///
    /// `groups` has the group of each row, numbered from 0, and `strata` its stratum, such as its file, numbered alike.
    /// The test fraction is met in each stratum as closely as whole groups, drawn at random, allow. A stratum of two groups
    /// or more has rows on both sides, unless its groups reach into other strata that would lose all their training rows; a
    /// stratum of one group is for training. Where each row is a group and all are in one stratum, `test_fraction` of the
    /// rows, rounded, are for testing.
    pub fn random(groups: &[usize], strata: &[usize], test_fraction: f64, seed: Seed) -> Self {
        let (train, test) = holdout(groups, strata, test_fraction, &mut rng(seed, "test"));
        Self::of(train, test)
    }

    /// A random split for one client whose test rows are those of a fold. As [`random`](Self::random), but each group is for
    /// testing in one of the folds, which have about the same number of rows in each stratum. Only a group that would leave
    /// a stratum without training rows is in no fold. The same seed gives the same folds.
    pub fn fold(groups: &[usize], strata: &[usize], of: Fold, seed: Seed) -> Self {
        let (train, test) = fold(groups, strata, of, &mut rng(seed, "folds"));
        Self::of(train, test)
    }

    fn of(train: Vec<usize>, test: Vec<usize>) -> Self {
        Self { train, test, validation: Vec::new(), site_sizes: Vec::new() }
    }

    /// The same split with this fraction of the training rows for validation, held out as [`random`](Self::random) holds out
    /// test rows: no group has training and validation rows. Groups with test rows as well, which a given split may have,
    /// do not matter here.
    #[must_use]
    pub fn with_validation(self, groups: &[usize], strata: &[usize], fraction: f64, seed: Seed) -> Self {
        let of = |numbers: &[usize]| self.train.iter().map(|&row| numbers[row]).collect::<Vec<_>>();
        let (_, held) = holdout(&of(groups), &of(strata), fraction, &mut rng(seed, "validation"));
        Self { validation: held.into_iter().map(|index| self.train[index]).collect(), ..self }
    }

    /// Whether each of these rows is for validation.
    pub fn validation_marks(&self, rows: &[usize]) -> Vec<bool> {
        let validation: HashSet<usize> = self.validation.iter().copied().collect();
        rows.iter().map(|row| validation.contains(row)).collect()
    }

    /// The split of rows of which it is known whether they are for testing, in their order, for one client.
    pub fn given(for_testing: impl IntoIterator<Item = bool>) -> Self {
        let (test, train): (Vec<_>, Vec<_>) = for_testing.into_iter().enumerate().partition(|(_, test)| *test);
        let indices = |rows: Vec<(usize, bool)>| rows.into_iter().map(|(row, _)| row).collect();
        Self::of(indices(train), indices(test))
    }

    /// The same split with the training rows assigned to these sites, if there are any. They should be in random order,
    /// since sites get consecutive ranges of them.
    #[must_use]
    pub fn across_sites(mut self, sites: Option<Sites>, seed: Seed) -> Self {
        self.site_sizes = sites.map_or_else(Vec::new, |Sites { count, alpha }| {
            lengths(self.train.len(), &proportions(count.get(), alpha, &mut rng(seed, "clients")))
        });
        self
    }

    /// The same split of the rows that `keep` accepts: each stays on its side and at its site.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> Self {
        let kept = |rows: &[usize]| rows.iter().copied().filter(|&row| keep(row)).collect::<Vec<_>>();
        let site_sizes = self.site_rows().map(|part| kept(part).len()).collect();
        Self { train: kept(&self.train), test: kept(&self.test), validation: kept(&self.validation), site_sizes }
    }

    /// The same split of rows with other numbers.
    #[must_use]
    pub fn renumbered(mut self, number: impl Fn(usize) -> usize) -> Self {
        let rows = self.train.iter_mut().chain(&mut self.test).chain(&mut self.validation);
        rows.for_each(|row| *row = number(*row));
        self
    }

    /// The training rows of each site.
    pub fn site_rows(&self) -> impl Iterator<Item = &[usize]> {
        let mut rest = &self.train[..];
        self.site_sizes.iter().map(move |&length| {
            let (part, after) = rest.split_at(length);
            rest = after;
            part
        })
    }

    /// How many training rows belong to no site.
    pub fn unassigned(&self) -> usize {
        if self.site_sizes.is_empty() { 0 } else { self.train.len() - self.site_sizes.iter().sum::<usize>() }
    }
}

/// Shuffles rows; the order depends on the seed and on the number of rows only.
pub fn shuffle(rows: &mut [usize], seed: Seed) {
    rows.shuffle(&mut rng(seed, "order"));
}

fn rng(seed: Seed, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed.of(name).value())
}

/// One draw of the symmetric Dirichlet distribution: independent Gamma(alpha) variables divided by their sum.
///
/// They underflow for a small alpha, so their logarithms are drawn: with `g` from Gamma(alpha + 1) and `e` exponential,
/// `ln g − e / alpha` is the logarithm of a Gamma(alpha) variable (Marsaglia and Tsang 2000, section 6).
fn proportions(count: usize, alpha: f64, rng: &mut impl Rng) -> Vec<f64> {
    let gamma = Gamma::new(alpha + 1.0, 1.0).expect("the schema bounds alpha");
    let logs: Vec<f64> = (0..count).map(|_| gamma.sample(rng).ln() - rng.sample::<f64, _>(Exp1) / alpha).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let sum: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / sum).collect()
}

/// Whole numbers in these proportions whose sum is `total`, by the largest remainder method.
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
mod tests;
