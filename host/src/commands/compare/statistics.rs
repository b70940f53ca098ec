//! Means over repeats, and how certain they and their differences are.
//!
//! Values of different seeds are taken as independent. Those of folds are not: any two of `k` folds share most of their
//! training rows, so the variance of their mean is larger than `s² / n`. It is corrected to `s² (1/n + test/train)`, the
//! corrected resampled t-test of Nadeau and Bengio (2003, Inference for the generalization error, Machine Learning 52), where
//! `test/train` is `1/(k - 1)`. With several seeds for the folds, `n` counts all runs (Bouckaert and Frank 2004).

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The confidence of an interval.
const CONFIDENCE: f64 = 0.95;

/// Values of several repeats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    values: Vec<f64>,
    /// The ratio of test rows to training rows, if the repeats are folds.
    overlap: f64,
}

/// A mean and the 95 % interval around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// A t-test of a mean against 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Test {
    /// The statistic.
    pub(super) t: f64,
    /// The probability, if the mean were 0, of a statistic at least as far from 0.
    pub(super) p: f64,
}

impl Sample {
    /// The values of repeats that are folds of so many, or none.
    pub(super) fn new(values: Vec<f64>, folds: Option<usize>) -> Self {
        let overlap = folds.map_or(0.0, |folds| 1.0 / (folds.max(2) - 1) as f64);
        Self { values, overlap }
    }

    /// The number of values.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// The mean; `None` without values.
    pub(super) fn mean(&self) -> Option<f64> {
        (!self.values.is_empty()).then(|| self.values.iter().sum::<f64>() / self.values.len() as f64)
    }

    /// The standard deviation of the values, with Bessel's correction; `None` for fewer than two.
    pub(super) fn deviation(&self) -> Option<f64> {
        let (mean, count) = (self.mean()?, self.values.len());
        let squares = self.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (count > 1).then(|| (squares / (count - 1) as f64).sqrt())
    }

    /// The standard error of the mean, and Student's distribution for it.
    fn error(&self) -> Option<(f64, StudentsT)> {
        let count = self.values.len() as f64;
        let error = self.deviation()? * (1.0 / count + self.overlap).sqrt();
        Some((error, StudentsT::new(0.0, 1.0, count - 1.0).ok()?))
    }

    /// The 95 % interval of the mean; `None` for fewer than two values.
    pub(super) fn interval(&self) -> Option<Interval> {
        let (mean, (error, student)) = (self.mean()?, self.error()?);
        let half = error * student.inverse_cdf(0.5 + CONFIDENCE / 2.0);
        Some(Interval { mean, low: mean - half, high: mean + half })
    }

    /// The test of whether the mean is 0, as of the differences of pairs; `None` for fewer than two values, or if all are
    /// equal.
    pub(super) fn test(&self) -> Option<Test> {
        let (mean, (error, student)) = (self.mean()?, self.error()?);
        let t = mean / error;
        t.is_finite().then(|| Test { t, p: 2.0 * student.sf(t.abs()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: [f64; 6] = [0.412, 0.455, 0.391, 0.502, 0.478, 0.443];
    const SECOND: [f64; 6] = [0.438, 0.449, 0.430, 0.521, 0.511, 0.452];

    fn differences() -> Vec<f64> {
        SECOND.iter().zip(FIRST).map(|(second, first)| second - first).collect()
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-9 * wanted.abs().max(1e-3), "{found}, not {wanted}");
    }

    // The numbers below are those of SciPy 1.17.1: `t.interval`, `ttest_rel`, and `t.sf` for the corrected variance.

    #[test]
    fn means_deviations_and_intervals_are_those_of_scipy() {
        let sample = Sample::new(FIRST.to_vec(), None);
        near(sample.mean().unwrap(), 0.446_833_333_333_333_36);
        near(sample.deviation().unwrap(), 0.041_053_217_494_694_205);
        let Interval { low, high, .. } = sample.interval().unwrap();
        near(low, 0.403_750_623_761_999_94);
        near(high, 0.489_916_042_904_666_8);
    }

    #[test]
    fn paired_tests_are_those_of_scipy() {
        let Test { t, p } = Sample::new(differences(), None).test().unwrap();
        near(t, 2.966_083_943_340_829_7);
        near(p, 0.031_298_219_148_601_626);
        // Two values, one degree of freedom.
        let Test { t, p } = Sample::new(differences()[..2].to_vec(), None).test().unwrap();
        near(t, 0.625);
        near(p, 0.644_384_631_021_294_6);
    }

    #[test]
    fn folds_have_a_larger_variance() {
        let sample = Sample::new(differences(), Some(3));
        let Test { t, p } = sample.test().unwrap();
        near(t, 1.483_041_971_670_414_8);
        near(p, 0.198_171_517_411_645_8);
        let Interval { low, high, .. } = sample.interval().unwrap();
        near(low, -0.014_666_339_655_120_573);
        near(high, 0.054_666_339_655_120_59);
    }

    #[test]
    fn of_too_few_or_equal_values_nothing_is_said() {
        let of = |values: &[f64]| Sample::new(values.to_vec(), None);
        assert!(of(&[]).mean().is_none() && of(&[1.0]).deviation().is_none() && of(&[1.0]).interval().is_none());
        assert_eq!(of(&[1.0, 1.0]).interval(), Some(Interval { mean: 1.0, low: 1.0, high: 1.0 }));
        assert!(of(&[0.0, 0.0]).test().is_none() && of(&[1.0, 1.0]).test().is_none());
    }
}
