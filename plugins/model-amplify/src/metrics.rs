//! How good predictions are, exactly over the samples, in f64.

use plugin_api::{Evaluation, Goal, Metric};

/// MSE as the loss, RMSE and Pearson as the metrics, and -RMSE as the score.
///
/// Pearson's correlation is 0 where all predictions or all targets are equal, since no linear relation was shown, and
/// not defined (NaN) for fewer than two rows. With no row at all nothing is defined.
pub(crate) fn evaluation(task: &str, predictions: &[f32], targets: &[f32]) -> Evaluation {
    let count = targets.len() as f64;
    let pairs = || predictions.iter().zip(targets).map(|(&p, &t)| (f64::from(p), f64::from(t)));
    let loss = pairs().map(|(p, t)| (p - t).powi(2)).sum::<f64>() / count;
    let rmse = loss.sqrt();
    Evaluation {
        task: task.to_owned(),
        examples: targets.len() as u64,
        loss,
        score: -rmse,
        metrics: vec![
            Metric { name: "RMSE".to_owned(), value: rmse, goal: Goal::Lower },
            Metric { name: "Pearson".to_owned(), value: pearson(pairs, count), goal: Goal::Higher },
        ],
    }
}

fn pearson<I: Iterator<Item = (f64, f64)>>(pairs: impl Fn() -> I, count: f64) -> f64 {
    if count < 2.0 {
        return f64::NAN;
    }
    let (p, t) = pairs().fold((0.0, 0.0), |(p, t), (x, y)| (p + x, t + y));
    let (p, t) = (p / count, t / count);
    let (pp, tt, pt) = pairs()
        .map(|(x, y)| (x - p, y - t))
        .fold((0.0, 0.0, 0.0), |(pp, tt, pt), (x, y)| (pp + x * x, tt + y * y, pt + x * y));
    if pp == 0.0 || tt == 0.0 { 0.0 } else { (pt / (pp.sqrt() * tt.sqrt())).clamp(-1.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(predictions: &[f32], targets: &[f32]) -> (f64, f64, f64, f64) {
        let e = evaluation("t", predictions, targets);
        (e.loss, e.score, e.metrics[0].value, e.metrics[1].value)
    }

    #[test]
    fn plain_numbers_are_exact() {
        let (loss, score, rmse, pearson) = values(&[1.0, 2.0, 4.0], &[1.0, 3.0, 2.0]);
        assert_eq!((loss, score, rmse), (5.0 / 3.0, -(5.0_f64 / 3.0).sqrt(), (5.0_f64 / 3.0).sqrt()));
        // By hand: deviations (-4, -1, 5)/3 and (-1, 1, 0): covariance 1, variances 14/3 and 2.
        assert!((pearson - 1.0 / (28.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn edge_cases_are_defined() {
        assert_eq!(values(&[0.3, 0.3, 0.3], &[1.0, 2.0, 3.0]).3, 0.0);
        assert_eq!(values(&[1.0, 2.0, 3.0], &[0.3, 0.3, 0.3]).3, 0.0);
        let (loss, score, rmse, pearson) = values(&[2.0], &[5.0]);
        assert_eq!((loss, score, rmse, pearson.is_nan()), (9.0, -3.0, 3.0, true));
        let (loss, score, rmse, pearson) = values(&[], &[]);
        assert!(loss.is_nan() && score.is_nan() && rmse.is_nan() && pearson.is_nan());
        assert!(values(&[f32::NAN, 1.0], &[1.0, 2.0]).3.is_nan());
    }
}
