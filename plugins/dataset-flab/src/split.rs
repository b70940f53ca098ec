//! Which rows are for testing, and which client gets which of the others: pure functions of numbers.

use plugin_api::{Context, Error, Result, Seed};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};

use crate::config::{Config, Sites, Split};
use crate::reference;

/// The part of the rows to test on where the file says none, here and in the published preparation.
const TEST_FRACTION: f64 = 0.2;

/// Where the rows of a task go, by their numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deal {
    /// The rows to train on, in random order.
    pub(crate) train: Vec<usize>,
    /// The rows to test on, in random order.
    pub(crate) test: Vec<usize>,
    /// How many of the rows to train on each site gets, one site after the other; none if all are one client's.
    pub(crate) sites: Vec<usize>,
}

impl Deal {
    /// The deal that the configuration asks for. It warns of rows that belong to nobody.
    pub(crate) fn of(rows: usize, task: &str, config: &Config, ctx: &Context<'_>) -> Result<Self> {
        let test_fraction = config.test_fraction.unwrap_or(TEST_FRACTION);
        let deal = match config.split() {
            Split::Random => {
                let seed = config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new);
                Self::random(rows, test_fraction, config.sites(), seed.of(task))
            }
            Split::Reference => {
                let seed = config.seed.map_or(Ok(reference::SEED), u32::try_from).map_err(|_| seed_too_large())?;
                Self::reference(rows, test_fraction, config.sites(), seed)
                    .map_err(|error| error.because_of(format!("task `{task}`")))?
            }
        };
        let (lost, train) = (deal.lost(), deal.train.len());
        if lost > 0 {
            ctx.warn(format_args!(
                "task `{task}`: {lost} of {train} rows to train on belong to no client, as in the published preparation"
            ));
        }
        Ok(deal)
    }

    /// A deal at random, in which every row has exactly one place.
    pub(crate) fn random(rows: usize, test_fraction: f64, sites: Option<Sites>, seed: Seed) -> Self {
        let rng = |name| ChaCha8Rng::seed_from_u64(seed.of(name).value());
        let (train, test) = holdout(rows, test_fraction, &mut rng("test"));
        let sites = sites.map_or_else(Vec::new, |Sites { count, alpha }| {
            lengths(train.len(), &proportions(count.get(), alpha, &mut rng("clients")))
        });
        Self { train, test, sites }
    }

    /// The rows to train on of each site.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[usize]> {
        let mut rest = &self.train[..];
        self.sites.iter().map(move |&length| {
            let (part, after) = rest.split_at(length);
            rest = after;
            part
        })
    }

    /// How many rows to train on no site gets.
    pub(crate) fn lost(&self) -> usize {
        if self.sites.is_empty() { 0 } else { self.train.len() - self.sites.iter().sum::<usize>() }
    }
}

/// NumPy refuses such a seed.
fn seed_too_large() -> Error {
    let error = Error::config(format!("must be at most {} for `split = \"reference\"`", u32::MAX)).at_key("seed");
    error.help("leave it out for the published preparation's")
}

/// Rows to train and to test on, each in random order. Of two rows or more at least one is on either side.
fn holdout(rows: usize, test_fraction: f64, rng: &mut impl Rng) -> (Vec<usize>, Vec<usize>) {
    let mut train: Vec<usize> = (0..rows).collect();
    train.shuffle(rng);
    let wanted = (test_fraction * rows as f64).round() as usize;
    let test = if rows < 2 { 0 } else { wanted.clamp(1, rows - 1) };
    let test = train.split_off(rows - test);
    (train, test)
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
    fn every_row_is_on_one_side_and_both_sides_have_some() {
        for (rows, fraction, test) in
            [(0, 0.2, 0), (1, 0.9, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 3), (137, 0.2, 27)]
        {
            let (train, held) = holdout(rows, fraction, &mut rng(1));
            assert_eq!(held.len(), test, "of {rows}");
            let mut all = [train, held].concat();
            all.sort_unstable();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
        assert_eq!(holdout(50, 0.2, &mut rng(1)), holdout(50, 0.2, &mut rng(1)));
        assert_ne!(holdout(50, 0.2, &mut rng(1)), holdout(50, 0.2, &mut rng(2)));
    }

    #[test]
    fn no_row_is_lost_or_doubled_whatever_the_numbers() {
        for alpha in [1e-6, 0.001, 0.1, 1.0, 100.0, 1e6] {
            for (seed, rows, count) in [(1, 0, 1), (2, 1, 6), (3, 5, 100), (4, 1000, 6), (5, 1000, 999), (6, 137, 7)] {
                for test_fraction in [0.001, 0.2, 0.999] {
                    let sites = Sites { count: count.try_into().unwrap(), alpha };
                    let deal = Deal::random(rows, test_fraction, Some(sites), Seed::new(seed));
                    assert_eq!((deal.sites.len(), deal.lost(), deal.parts().count()), (count, 0, count));
                    let parts = deal.parts().collect::<Vec<_>>().concat();
                    assert_eq!(parts, deal.train);
                    let mut all = [parts, deal.test].concat();
                    all.sort_unstable();
                    assert_eq!(all, (0..rows).collect::<Vec<_>>());
                }
            }
        }
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
