//! Splits rows as the published preparation does, according to its files.
//!
//! scikit-learn's `train_test_split(rows, test_size=0.2, random_state=42)` takes the first rows of a permutation, rounded
//! up, for testing and the others, in the permutation's order, for training. For the sites NumPy is seeded with 42 again:
//! each site gets `dirichlet([alpha] * count)` times the number of training rows, rounded down. Each site in
//! `choice(count, missing)`, where `missing` is the number of remaining rows, gets one more; a site that is drawn twice gets
//! only one, so some rows belong to no site.

use fedplug_tables::{Sites, Split};
use plugin_api::{Error, Result};

use crate::numpy_random::RandomState;

/// The published preparation's seed.
pub(crate) const SEED: u32 = 42;

/// The split of the published preparation with this seed.
///
/// # Errors
/// If it has no training rows, or every proportion is zero.
pub(crate) fn split(rows: usize, test_fraction: f64, sites: Option<Sites>, seed: u32) -> Result<Split> {
    let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    let testing = (test_fraction * rows as f64).ceil() as usize;
    if testing >= rows || rows > most {
        let error = Error::data(format!("the published preparation cannot split {rows} rows"));
        return Err(error.help("`split = \"random\"` can"));
    }
    let mut test = RandomState::new(seed).permutation(rows);
    let train = test.split_off(testing);
    let site_sizes = match sites {
        Some(sites) => lengths(train.len(), sites, seed)?,
        None => Vec::new(),
    };
    Ok(Split { train, test, validation: Vec::new(), site_sizes })
}

fn lengths(rows: usize, Sites { count, alpha }: Sites, seed: u32) -> Result<Vec<usize>> {
    let mut random = RandomState::new(seed);
    let refused = |why: &str| Error::config(why).at_key("clients").help("`split = \"random\"` has no such limit");
    let proportions = random
        .dirichlet(alpha, count.get())
        .ok_or_else(|| refused(&format!("with alpha {alpha} NumPy's generator gives every client nothing")))?;
    let count = u32::try_from(count.get()).map_err(|_| refused("too many clients for NumPy's generator"))?;
    let mut lengths: Vec<usize> = proportions.iter().map(|p| (p * rows as f64) as usize).collect();
    // Not negative: rounding errors of the proportions add up to much less than one row.
    let missing = rows - lengths.iter().sum::<usize>();
    let mut drawn = random.choice(count, missing);
    drawn.sort_unstable();
    drawn.dedup();
    drawn.into_iter().for_each(|site| lengths[site] += 1);
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_among(rows: usize, count: usize, alpha: f64) -> Split {
        split(rows, 0.2, Some(Sites { count: count.try_into().unwrap(), alpha }), SEED).unwrap()
    }

    /// `train_test_split(list(range(10)), test_size=0.2, random_state=42)` of scikit-learn 1.9.
    #[test]
    fn rows_are_split_as_scikit_learn_splits_them() {
        let Split { train, test, site_sizes, .. } = split(10, 0.2, None, SEED).unwrap();
        assert_eq!((train, test, site_sizes), (vec![5, 0, 7, 2, 9, 4, 3, 6], vec![8, 1], vec![]));
    }

    #[test]
    fn sites_drawn_twice_get_one_row() {
        // The six and four clients of the published files for 137 rows.
        let six = split_among(137, 6, 1.0);
        assert_eq!((six.unassigned(), six.site_sizes), (1, vec![8, 54, 24, 16, 3, 3]));
        let four = split_among(137, 4, 0.1);
        assert_eq!((four.unassigned(), four.site_sizes), (0, vec![0, 108, 0, 1]));
    }

    #[test]
    fn sizes_and_alphas_that_numpy_cannot_split_are_errors() {
        assert_eq!(split(2, 0.2, None, SEED).unwrap().train.len(), 1);
        let error = split(1, 0.2, None, SEED).unwrap_err();
        assert_eq!(error.message(), "the published preparation cannot split 1 rows");
        let sites = Sites { count: 3.try_into().unwrap(), alpha: 1e-6 };
        let error = split(10, 0.2, Some(sites), SEED).unwrap_err();
        assert!(error.message().starts_with("with alpha 0.000001 NumPy's generator"), "{error}");
    }
}
