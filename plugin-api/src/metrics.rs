//! Metrics of predictions, shared by all models, exact over the samples and computed in f64.
//!
//! A model's `evaluate` needs one of them only: [`evaluate`], which chooses by the task's targets.
//!
//! # Numbers
//! With predictions `p`, targets `t` and `n` rows:
//!
//! | name | | formula | not defined (NaN) |
//! |---|---|---|---|
//! | | [`mse`], the loss | `Σ (p − t)² / n` | without rows |
//! | `RMSE` | [`rmse`] | `√mse` | without rows |
//! | `Spearman` | [`spearman`] | Pearson's correlation of the ranks | as Pearson's |
//! | `Pearson` | [`pearson`] | `Σ (p − mean p)(t − mean t) / (n · SD p · SD t)` | with fewer than two rows, and where all `p` or all `t` are equal |
//! | `R2` | [`r_squared`] | `1 − Σ (p − t)² / Σ (t − mean t)²` | with fewer than two rows, and where all `t` are equal |
//! | `MAE` | [`mae`] | `Σ abs(p − t) / n` | without rows |
//! | `NRMSE` | | `rmse / SD` of the *training* targets | where no SD is above 0 |
//! | `NMAE` | | `mae / SD` of the *training* targets | where no SD is above 0 |
//! | | [`score`] | `−NRMSE` | as `NRMSE` |
//!
//! [`standard_deviation`], SD, is `√(Σ (t − mean t)² / n)`, of the population. The training targets are those of the
//! client. If they have no spread, SD is that of the test targets.
//!
//! Sums take two passes; the first computes the means. Predictions count as equal if they differ by no more than a
//! model's rounding in f32, that is, if their SD is at most `2⁻²³` of the magnitude of their mean. A correlation of
//! such predictions would be noise.
//!
//! # Classes
//! With the probability of each class for each row:
//!
//! | name | | two classes | several classes | not defined (NaN) |
//! |---|---|---|---|---|
//! | `AUROC` | [`auroc`](Probabilities::auroc) | the share of pairs in which the row of the second class has the higher probability of it | the mean over the classes, each against all others | where no class has rows inside and outside |
//! | `AP` | [`average_precision`](Probabilities::average_precision) | the mean precision at the rows of the second class | the mean over the classes, each against all others | as `AUROC` |
//! | `Balanced_accuracy` | [`balanced_accuracy`](Probabilities::balanced_accuracy) | the mean of both classes' recall | the mean of all classes' recall | without rows |
//! | `Log_loss` | [`log_loss`](Probabilities::log_loss), the loss | mean `−ln p` of the rows' classes | the same | without rows |
//! | `MCC` | [`mcc`](Probabilities::mcc) | Matthews' correlation | Gorodkin's generalisation of it | where all rows are of one class |
//! | | [`class_score`] | `−log loss / H`, the entropy of the *training* classes | the same | where no `H` is above 0 |
//!
//! Means over classes leave out the classes without rows, and for `AUROC` and `AP` a class that all rows have. The class
//! predicted is the most probable one; of several, the first. scikit-learn gives the same numbers wherever both are
//! defined (`roc_auc_score` and `average_precision_score` with `average="macro"`, one against the rest;
//! `balanced_accuracy_score`, `log_loss`, `matthews_corrcoef`). Where a class is absent or constant it gives 0, 1, an
//! error or NaN, by metric and version.
//!
//! If predictions or targets contain a NaN, every metric that reads it is NaN.
//!
//! ```
//! use plugin_api::metrics;
//!
//! let (predicted, measured) = ([1.0, 2.0, 4.0], [1.0, 3.0, 2.0]);
//! assert_eq!(metrics::mse(&predicted, &measured), 5.0 / 3.0);
//! assert!(metrics::pearson(&[0.5, 0.5, 0.5], &measured).is_nan());
//! // Targets in other units give the same score.
//! let score = metrics::score(&predicted, &measured, &[0.0, 4.0]);
//! assert_eq!(score, -(5.0_f64 / 3.0).sqrt() / 2.0);
//! assert_eq!(score, metrics::score(&predicted.map(|p| 8.0 * p), &measured.map(|t| 8.0 * t), &[0.0, 32.0]));
//! ```

mod classes;
mod evaluate;
mod rank;

pub use classes::{Probabilities, average_precision, class_score, entropy};
pub use evaluate::{classification, evaluate, regression};
pub use rank::{auroc, spearman};

/// The name of [`regression`]'s score, for [`Component::scored_by`](crate::Component::scored_by).
pub const SCORE: &str = "-RMSE/SD";

/// The name of [`classification`]'s score, for
/// [`Component::classes_scored_by`](crate::Component::classes_scored_by).
pub const CLASS_SCORE: &str = "-log loss/entropy";

/// The names of metrics in the target's unit. They have no mean over several tasks.
pub const WITH_UNIT: [&str; 2] = ["RMSE", "MAE"];

/// The mean squared error. NaN if the lengths differ.
pub fn mse(predictions: &[f32], targets: &[f32]) -> f64 {
    if predictions.len() != targets.len() {
        return f64::NAN;
    }
    let squares = predictions.iter().zip(targets).map(|(&p, &t)| (f64::from(p) - f64::from(t)).powi(2));
    squares.sum::<f64>() / targets.len() as f64
}

/// The root mean squared error, in the target's unit. NaN if the lengths differ.
pub fn rmse(predictions: &[f32], targets: &[f32]) -> f64 {
    mse(predictions, targets).sqrt()
}

/// The mean absolute error, in the target's unit. NaN if the lengths differ.
pub fn mae(predictions: &[f32], targets: &[f32]) -> f64 {
    if predictions.len() != targets.len() {
        return f64::NAN;
    }
    let errors = predictions.iter().zip(targets).map(|(&p, &t)| (f64::from(p) - f64::from(t)).abs());
    errors.sum::<f64>() / targets.len() as f64
}

/// The coefficient of determination: 1 is perfect, 0 is as good as predicting the targets' mean. NaN if the lengths
/// differ.
pub fn r_squared(predictions: &[f32], targets: &[f32]) -> f64 {
    let t = Moments::of(targets);
    if t.is_constant(0.0) { f64::NAN } else { 1.0 - mse(predictions, targets) / t.deviation.powi(2) }
}

/// Pearson's correlation, from -1 to 1. NaN if the lengths differ.
pub fn pearson(predictions: &[f32], targets: &[f32]) -> f64 {
    let (p, t) = (Moments::of(predictions), Moments::of(targets));
    if predictions.len() != targets.len() || p.is_constant(f32::EPSILON) || t.is_constant(0.0) {
        return f64::NAN;
    }
    let products = predictions.iter().zip(targets).map(|(&x, &y)| (f64::from(x) - p.mean) * (f64::from(y) - t.mean));
    (products.sum::<f64>() / (targets.len() as f64 * p.deviation * t.deviation)).clamp(-1.0, 1.0)
}

/// Pearson's correlation of exact numbers, such as ranks.
fn pearson_of(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let sum = |of: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| of(x - mean_x, y - mean_y)).sum::<f64>();
    let (products, squares_x, squares_y) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    if squares_x == 0.0 || squares_y == 0.0 || x.is_empty() {
        return f64::NAN;
    }
    (products / (squares_x * squares_y).sqrt()).clamp(-1.0, 1.0)
}

/// The population standard deviation, in the values' unit.
pub fn standard_deviation(values: &[f32]) -> f64 {
    Moments::of(values).deviation
}

/// `−RMSE / σ`: the error relative to the spread of the targets. It has no unit, so it can be averaged over tasks. A
/// model that predicts the mean of data like the training data gets -1, a perfect model 0.
///
/// `σ` is the standard deviation of the client's training targets for the task. These are the same in every round, so
/// scores of different rounds are comparable. With fewer than two training targets, or if all are equal, `σ` is that of
/// the test targets. If that does not work either, the score is NaN, which means undefined.
pub fn score(predictions: &[f32], targets: &[f32], training: &[f32]) -> f64 {
    -rmse(predictions, targets) / scale(targets, training)
}

/// The standard deviation of the training targets, or of the test targets if there is none; NaN if there is none either.
fn scale(targets: &[f32], training: &[f32]) -> f64 {
    let scale = [training, targets].map(Moments::of).into_iter().find(|moments| !moments.is_constant(0.0));
    scale.map_or(f64::NAN, |scale| scale.deviation)
}

/// Mean and standard deviation.
struct Moments {
    count: usize,
    mean: f64,
    deviation: f64,
}

impl Moments {
    fn of(values: &[f32]) -> Self {
        let count = values.len();
        let mean_of = |of: &dyn Fn(f64) -> f64| values.iter().map(|&x| of(x.into())).sum::<f64>() / count as f64;
        let mean = mean_of(&|x| x);
        Self { count, mean, deviation: mean_of(&|x| (x - mean).powi(2)).sqrt() }
    }

    /// Whether the values are equal except for a relative `rounding`. Values with a NaN are not constant, so that the
    /// NaN shows in the result.
    fn is_constant(&self, rounding: f32) -> bool {
        self.count < 2 || self.deviation <= f64::from(rounding) * self.mean.abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_errors_are_exact() {
        let (predicted, measured) = ([1.0, 2.0, 4.0], [1.0, 3.0, 2.0]);
        assert_eq!(mae(&predicted, &measured), 1.0);
        // Squares 0, 1, 4 of errors; 1, 1, 0 of the targets from their mean.
        assert!((r_squared(&predicted, &measured) - (1.0 - 5.0 / 2.0)).abs() < 1e-15);
        assert_eq!(r_squared(&measured, &measured), 1.0);
        assert!(mae(&[], &[]).is_nan() && mae(&predicted, &[1.0]).is_nan());
        assert!(r_squared(&[1.0; 2], &[2.0; 2]).is_nan() && r_squared(&predicted, &[1.0, 2.0]).is_nan());
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        // The one-pass formula, Σ x² − (Σ x)² / n, would lose most digits of these.
        let far = [16_000_001.0, 16_000_003.0, 16_000_002.0, 16_000_006.0];
        let near = [1.0, 3.0, 2.0, 6.0];
        assert_eq!(standard_deviation(&far), standard_deviation(&near));
        assert_eq!(standard_deviation(&near), 3.5_f64.sqrt());
        assert!((pearson(&[3.0, 9.0, 6.0, 18.0], &far) - 1.0).abs() < 1e-15);
        assert!((pearson(&[-3.0, -9.0, -6.0, -18.0], &far) + 1.0).abs() < 1e-15);
    }

    #[test]
    fn what_is_not_defined_is_nan() {
        let (one, constant, some) = ([2.0], [0.3; 3], [1.0, 2.0, 3.0]);
        assert!(pearson(&constant, &some).is_nan() && pearson(&some, &constant).is_nan());
        // Equal except for rounding; the rest is noise.
        let noise = [0.3, 0.3 + f32::EPSILON / 4.0, 0.3];
        assert!(noise[0] != noise[1] && pearson(&noise, &some).is_nan());
        assert!(pearson(&one, &one).is_nan() && pearson(&[], &[]).is_nan());
        assert!(mse(&[], &[]).is_nan() && rmse(&[], &[]).is_nan() && standard_deviation(&[]).is_nan());
        assert_eq!((rmse(&one, &[5.0]), standard_deviation(&one)), (3.0, 0.0));
        // Different lengths.
        assert!(mse(&one, &some).is_nan() && pearson(&some, &one).is_nan() && score(&one, &some, &some).is_nan());
        let nan = [f32::NAN, 1.0, 2.0];
        assert!(mse(&nan, &some).is_nan() && pearson(&some, &nan).is_nan() && score(&nan, &some, &some).is_nan());
        assert!(score(&some, &some, &nan).is_nan());
    }

    #[test]
    fn the_score_has_no_unit_and_its_scale_is_that_of_training() {
        let (predicted, measured, training) = ([1.0, 2.0, 4.0], [1.0, 3.0, 2.0], [0.0, 10.0, 5.0, 9.0]);
        let milli = |values: &[f32]| values.iter().map(|x| x * 1024.0).collect::<Vec<_>>();
        let found = score(&predicted, &measured, &training);
        assert_eq!(found, score(&milli(&predicted), &milli(&measured), &milli(&training)));
        assert_eq!(found, -rmse(&predicted, &measured) / standard_deviation(&training));
        // Predicting the mean scores -1, whatever the unit.
        assert!((score(&[6.0; 4], &training, &training) + 1.0).abs() < 1e-15);
        // The training targets give no scale: none, one, or all equal.
        for training in [&[][..], &[7.0], &[7.0, 7.0, 7.0]] {
            let found = score(&predicted, &measured, training);
            assert_eq!(found, -rmse(&predicted, &measured) / standard_deviation(&measured));
            assert!(score(&predicted, &[2.0; 3], training).is_nan() && score(&[1.0], &[2.0], training).is_nan());
        }
    }
}
