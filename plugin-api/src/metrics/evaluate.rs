//! The evaluation of a task from predictions.

use super::{Probabilities, class_score, mae, mse, pearson, r_squared, rmse, scale, score, spearman};
use crate::{Error, Evaluation, Goal, Metric, PREDICTED, Result, Table, TargetKind, Task};

/// Evaluates a task from what [`Model::predict`](crate::Model::predict) returns for its test table: as [`regression`] if
/// the targets are numbers, as [`classification`] if they are classes.
///
/// # Errors
/// If the predictions or the tables lack a column, have another number of rows, or have a row of an unknown class; or
/// if a row's target is several numbers, or there is none.
pub fn evaluate(task: &Task, predictions: &Table) -> Result<Evaluation> {
    match &task.spec.target_kind {
        TargetKind::Number => regression(task, predictions.f32(PREDICTED)?),
        TargetKind::Class(_) => classification(task, predictions),
        TargetKind::Numbers(_) => {
            let what = format!("task `{}`: there are no metrics of several numbers per row", task.spec.name);
            Err(Error::unsupported(what).help("make each of them a task"))
        }
        TargetKind::None => {
            Err(Error::unsupported(format!("task `{}` has no target to compare predictions with", task.spec.name)))
        }
    }
}

/// Evaluates a task of numbers from the predictions for its test table, in row order: MSE as the loss,
/// [`score`](super::score), and the metrics of [this page](super).
///
/// # Errors
/// If the number of predictions is not the number of test rows, or a table lacks the target.
pub fn regression(task: &Task, predictions: &[f32]) -> Result<Evaluation> {
    let spec = &task.spec;
    let (training, targets) = (task.train.f32(&spec.target)?, task.test.f32(&spec.target)?);
    check_rows(task, predictions.len(), targets.len())?;
    let (rmse, mae, scale) = (rmse(predictions, targets), mae(predictions, targets), scale(targets, training));
    Ok(Evaluation {
        task: spec.name.clone(),
        examples: targets.len() as u64,
        loss: mse(predictions, targets),
        score: score(predictions, targets, training),
        metrics: vec![
            metric("RMSE", rmse, Goal::Lower),
            metric("Spearman", spearman(predictions, targets), Goal::Higher),
            metric("Pearson", pearson(predictions, targets), Goal::Higher),
            metric("R2", r_squared(predictions, targets), Goal::Higher),
            metric("MAE", mae, Goal::Lower),
            metric("NRMSE", rmse / scale, Goal::Lower),
            metric("NMAE", mae / scale, Goal::Lower),
        ],
    })
}

/// Evaluates a task of classes from the probabilities for its test table, in row order, with one column for each class:
/// the log loss as the loss, [`class_score`](super::class_score), and the metrics of [this page](super).
///
/// # Errors
/// If a class has no column, the number of predictions is not the number of test rows, or a row has an unknown class.
pub fn classification(task: &Task, predictions: &Table) -> Result<Evaluation> {
    let spec = &task.spec;
    let (training, targets) = (spec.class_indices(&task.train)?, spec.class_indices(&task.test)?);
    let classes = spec.target_kind.classes().unwrap_or_default().iter().map(|class| predictions.f32(class));
    let probabilities = Probabilities { classes: classes.collect::<Result<_>>()?, targets: &targets };
    check_rows(task, predictions.rows(), targets.len())?;
    Ok(Evaluation {
        task: spec.name.clone(),
        examples: targets.len() as u64,
        loss: probabilities.log_loss(),
        score: class_score(&probabilities, &training),
        metrics: vec![
            metric("AUROC", probabilities.auroc(), Goal::Higher),
            metric("AP", probabilities.average_precision(), Goal::Higher),
            metric("Balanced_accuracy", probabilities.balanced_accuracy(), Goal::Higher),
            metric("Log_loss", probabilities.log_loss(), Goal::Lower),
            metric("MCC", probabilities.mcc(), Goal::Higher),
        ],
    })
}

fn metric(name: &str, value: f64, goal: Goal) -> Metric {
    Metric { name: name.to_owned(), value, goal }
}

fn check_rows(task: &Task, predictions: usize, rows: usize) -> Result<()> {
    if predictions == rows {
        return Ok(());
    }
    Err(Error::other(format!("{predictions} predictions of task `{}` for {rows} rows", task.spec.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, TaskSpec};

    fn task(training: &[f32], targets: &[f32]) -> Task {
        let table = |targets| Table::new().with("y", Column::f32(targets)).unwrap();
        Task { spec: TaskSpec::new("t", ["x"], "y"), train: table(training), test: table(targets) }
    }

    fn classes(training: &[i64], targets: &[i64]) -> Task {
        let table = |targets| Table::new().with("y", Column::i64(targets)).unwrap();
        let target_kind = TargetKind::Class(vec!["no".to_owned(), "yes".to_owned()]);
        let spec = TaskSpec { target_kind, ..TaskSpec::new("t", ["x"], "y") };
        Task { spec, train: table(training), test: table(targets) }
    }

    fn probabilities(yes: &[f32]) -> Table {
        let no: Vec<f32> = yes.iter().map(|p| 1.0 - p).collect();
        Table::new().with("no", Column::f32(&no)).unwrap().with("yes", Column::f32(yes)).unwrap()
    }

    fn named(found: &Evaluation) -> Vec<(&str, Goal)> {
        found.metrics.iter().map(|metric| (metric.name.as_str(), metric.goal)).collect()
    }

    #[test]
    fn plain_numbers_are_exact() {
        let predictions = Table::predicted(&[1.0, 2.0, 4.0]);
        let found = evaluate(&task(&[0.0, 4.0], &[1.0, 3.0, 2.0]), &predictions).unwrap();
        let rmse = (5.0_f64 / 3.0).sqrt();
        assert_eq!((found.task.as_str(), found.examples, found.loss, found.score), ("t", 3, 5.0 / 3.0, -rmse / 2.0));
        let (lower, higher) = (Goal::Lower, Goal::Higher);
        let names = [("RMSE", lower), ("Spearman", higher), ("Pearson", higher), ("R2", higher), ("MAE", lower)];
        assert_eq!(named(&found), [&names[..], &[("NRMSE", lower), ("NMAE", lower)]].concat());
        let values: Vec<f64> = found.metrics.iter().map(|metric| metric.value).collect();
        // By hand: deviations (-4, -1, 5)/3 and (-1, 1, 0): covariance 1, variances 14/3 and 2. Ranks as the targets.
        let wanted = [rmse, 0.5, 1.0 / (28.0_f64 / 3.0).sqrt(), -1.5, 1.0, rmse / 2.0, 0.5];
        assert!(values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{values:?}");
    }

    #[test]
    fn plain_classes_are_exact() {
        let found = evaluate(&classes(&[0, 1], &[0, 0, 1, 1]), &probabilities(&[0.25, 0.5, 0.375, 0.75])).unwrap();
        // By hand: three of four pairs are in order; the second row is a tie, which goes to the first class.
        let loss = -(0.75_f64 * 0.5 * 0.375 * 0.75).ln() / 4.0;
        assert!((found.loss - loss).abs() < 1e-12 && (found.score + loss / 2.0_f64.ln()).abs() < 1e-12, "{found:?}");
        let (lower, higher) = (Goal::Lower, Goal::Higher);
        let names = [("AUROC", higher), ("AP", higher), ("Balanced_accuracy", higher), ("Log_loss", lower)];
        assert_eq!(named(&found), [&names[..], &[("MCC", higher)]].concat());
        let values: Vec<f64> = found.metrics.iter().map(|metric| metric.value).collect();
        let wanted = [0.75, 5.0 / 6.0, 0.75, loss, 2.0 / 12.0_f64.sqrt()];
        assert!(values.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{values:?}");
    }

    #[test]
    fn without_rows_nothing_is_defined() {
        let (numbers, classes) = (task(&[1.0, 2.0], &[]), classes(&[0, 1], &[]));
        for found in [evaluate(&numbers, &Table::predicted(&[])), evaluate(&classes, &probabilities(&[]))] {
            let found = found.unwrap();
            assert!(found.examples == 0 && found.loss.is_nan() && found.score.is_nan());
            assert!(found.metrics.iter().all(|metric| metric.value.is_nan()), "{found:?}");
        }
    }

    #[test]
    fn predictions_that_do_not_fit_are_refused() {
        let error = |task: &Task, predictions: &Table| evaluate(task, predictions).unwrap_err().to_string();
        let numbers = task(&[1.0], &[1.0, 2.0]);
        assert_eq!(error(&numbers, &Table::predicted(&[1.0])), "1 predictions of task `t` for 2 rows");
        assert!(regression(&Task { test: Table::new(), ..numbers.clone() }, &[]).is_err());
        let binary = classes(&[0], &[0, 1]);
        assert_eq!(error(&binary, &probabilities(&[0.5])), "1 predictions of task `t` for 2 rows");
        assert!(error(&binary, &Table::predicted(&[0.5, 0.5])).contains("no column `no`"));
        let spec = TaskSpec { target_kind: TargetKind::Numbers(2), ..numbers.spec.clone() };
        let several = error(&Task { spec, ..numbers }, &Table::new());
        assert!(several.contains("there are no metrics of several numbers per row"), "{several}");
    }
}
