//! Metrics of predicted classes, from the probability of each class.

use super::auroc;

/// What a model predicts for rows of known classes.
#[derive(Debug)]
pub struct Probabilities<'a> {
    /// The probabilities of each class, in row order.
    pub classes: Vec<&'a [f32]>,
    /// The class of each row, as an index in `classes`.
    pub targets: &'a [usize],
}

impl Probabilities<'_> {
    /// Whether every class has one probability for each row, every row has one of the classes, and no probability is
    /// NaN. Everything else is undefined.
    fn are_defined(&self) -> bool {
        let rows = self.targets.len();
        let whole = |class: &&[f32]| class.len() == rows && class.iter().all(|p| !p.is_nan());
        rows > 0 && self.classes.iter().all(whole) && self.targets.iter().all(|&class| class < self.classes.len())
    }

    /// The most probable class of each row; of several, the first.
    fn chosen(&self) -> impl Iterator<Item = usize> {
        (0..self.targets.len()).map(|row| {
            let better = |best: usize, class: usize| match self.classes[class][row] > self.classes[best][row] {
                true => class,
                false => best,
            };
            (0..self.classes.len()).fold(0, better)
        })
    }

    /// For each pair of a row's class and its most probable class, in this order, the number of rows.
    fn confusion(&self) -> Vec<Vec<f64>> {
        let classes = self.classes.len();
        let mut counts = vec![vec![0.0; classes]; classes];
        self.targets.iter().zip(self.chosen()).for_each(|(&target, chosen)| counts[target][chosen] += 1.0);
        counts
    }

    /// The mean of a metric of each class against all others, where it is defined; of two classes, the metric of the
    /// second.
    fn one_against_others(&self, metric: fn(&[f32], &[bool]) -> f64) -> f64 {
        if !self.are_defined() {
            return f64::NAN;
        }
        let of = |class: usize| {
            let positive: Vec<bool> = self.targets.iter().map(|&target| target == class).collect();
            metric(self.classes[class], &positive)
        };
        let first = usize::from(self.classes.len() == 2);
        mean((first..self.classes.len()).map(of).filter(|value| !value.is_nan()))
    }

    /// The mean of [`auroc`] over the classes, each against all others. Classes without rows do not count. Of two
    /// classes, it is that of the second.
    pub fn auroc(&self) -> f64 {
        self.one_against_others(auroc)
    }

    /// The mean of [`average_precision`] over the classes, each against all others. Classes without rows do not count.
    /// Of two classes, it is that of the second.
    pub fn average_precision(&self) -> f64 {
        self.one_against_others(average_precision)
    }

    /// The mean over the classes of the share of the class's rows for which it is the most probable. Classes without
    /// rows do not count.
    pub fn balanced_accuracy(&self) -> f64 {
        if !self.are_defined() {
            return f64::NAN;
        }
        let recall = |(class, row): (usize, &Vec<f64>)| row[class] / row.iter().sum::<f64>();
        mean(self.confusion().iter().enumerate().map(recall).filter(|recall| !recall.is_nan()))
    }

    /// The mean of `−ln p`, where `p` is the probability of the row's class, but at least 2⁻²³.
    pub fn log_loss(&self) -> f64 {
        if !self.are_defined() {
            return f64::NAN;
        }
        let loss = |(row, &class): (usize, &usize)| -f64::from(self.classes[class][row].max(f32::EPSILON)).ln();
        mean(self.targets.iter().enumerate().map(loss))
    }

    /// Matthews' correlation of the classes and the most probable classes, from -1 to 1; for several classes as by
    /// Gorodkin (2004, *Comparing two K-category assignments by a K-category correlation coefficient*). If one class is
    /// the most probable of all rows, it is 0.
    pub fn mcc(&self) -> f64 {
        if !self.are_defined() {
            return f64::NAN;
        }
        let counts = self.confusion();
        let classes = 0..counts.len();
        let targets: Vec<f64> = counts.iter().map(|row| row.iter().sum()).collect();
        let chosen: Vec<f64> = classes.clone().map(|class| counts.iter().map(|row| row[class]).sum()).collect();
        let (rows, correct): (f64, f64) = (targets.iter().sum(), classes.map(|class| counts[class][class]).sum());
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let spread = |all: &[f64]| rows * rows - product(all, all);
        match (spread(&targets), spread(&chosen)) {
            (0.0, _) => f64::NAN,
            (_, 0.0) => 0.0,
            (of_targets, of_chosen) => {
                (correct * rows - product(&chosen, &targets)) / (of_targets.sqrt() * of_chosen.sqrt())
            }
        }
    }
}

/// The area under the curve of precision over recall, as the mean of the precisions at each positive row: `Σ (Rₙ − Rₙ₋₁)
/// Pₙ` over the distinct scores in decreasing order. `positive` says whether each row is positive. NaN if the lengths
/// differ, if either class has no rows, or if any score is NaN.
pub fn average_precision(scores: &[f32], positive: &[bool]) -> f64 {
    let positives = positive.iter().filter(|&&is| is).count();
    let one_kind = positives == 0 || positives == positive.len();
    if scores.len() != positive.len() || one_kind || scores.iter().any(|score| score.is_nan()) {
        return f64::NAN;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut found, mut area) = (0, 0, 0.0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let new = equal.iter().filter(|&&row| positive[row]).count();
        (seen, found) = (seen + equal.len(), found + new);
        area += new as f64 / positives as f64 * (found as f64 / seen as f64);
    }
    area
}

/// The entropy of the classes' shares, in nats: the log loss of a model that predicts these shares for every row. NaN
/// without rows.
pub fn entropy(targets: &[usize]) -> f64 {
    let mut sorted = targets.to_vec();
    sorted.sort_unstable();
    let share = |run: &[usize]| run.len() as f64 / targets.len() as f64;
    let entropy: f64 = sorted.chunk_by(|a, b| a == b).map(share).map(|share| -share * share.ln()).sum();
    if targets.is_empty() { f64::NAN } else { entropy.max(0.0) }
}

/// `−log loss / H`: the loss relative to that of a model that knows only how frequent the classes are. A model that
/// predicts the frequencies of data like the training data gets -1, a perfect model 0.
///
/// `H` is the [entropy] of the client's training classes for the task. If they are all equal, or there are none, it is
/// that of the test classes. If that does not work either, the score is NaN.
pub fn class_score(probabilities: &Probabilities<'_>, training: &[usize]) -> f64 {
    let scale = [training, probabilities.targets].map(entropy).into_iter().find(|entropy| *entropy > 0.0);
    scale.map_or(f64::NAN, |scale| -probabilities.log_loss() / scale)
}

/// The mean; NaN without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_is_exact() {
        // By hand: precisions 1 and 2/3 at the two positive rows.
        let found = average_precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]);
        assert!((found - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        assert_eq!(average_precision(&[0.5, 0.5, -0.0, 0.0], &[true, false, false, false]), 0.5);
        assert!(average_precision(&[0.5], &[true]).is_nan() && average_precision(&[0.5], &[false]).is_nan());
        assert!(average_precision(&[0.5], &[true, false]).is_nan() && average_precision(&[], &[]).is_nan());
        assert!(average_precision(&[f32::NAN, 0.5], &[true, false]).is_nan());
    }

    #[test]
    fn what_is_not_defined_is_nan() {
        let all = |p: &Probabilities<'_>| {
            [p.auroc(), p.average_precision(), p.balanced_accuracy(), p.log_loss(), p.mcc()].map(f64::is_nan)
        };
        let none = Probabilities { classes: vec![&[], &[]], targets: &[] };
        let nan = Probabilities { classes: vec![&[0.5, f32::NAN], &[0.5, 0.5]], targets: &[0, 1] };
        let short = Probabilities { classes: vec![&[0.5, 0.5], &[0.5]], targets: &[0, 1] };
        let unknown = Probabilities { classes: vec![&[0.5, 0.5], &[0.5, 0.5]], targets: &[0, 2] };
        for undefined in [none, nan, short, unknown] {
            assert_eq!(all(&undefined), [true; 5], "{undefined:?}");
            assert!(class_score(&undefined, &[0, 1]).is_nan());
        }
        // Rows of one class cannot be ranked, but be right.
        let one = Probabilities { classes: vec![&[0.2, 0.9], &[0.8, 0.1]], targets: &[1, 1] };
        assert_eq!(all(&one), [true, true, false, false, true]);
        assert_eq!(one.balanced_accuracy(), 0.5);
        assert!(class_score(&one, &[1, 1, 1]).is_nan() && class_score(&one, &[1, 0]) < 0.0);
        // One class for all rows.
        let same = Probabilities { classes: vec![&[0.9, 0.9], &[0.1, 0.1]], targets: &[0, 1] };
        assert_eq!((same.mcc(), same.auroc(), same.balanced_accuracy()), (0.0, 0.5, 0.5));
        // A probability of 0 costs much, and not everything.
        let wrong = Probabilities { classes: vec![&[1.0], &[0.0]], targets: &[1] };
        assert_eq!(wrong.log_loss(), 23.0 * 2.0_f64.ln());
    }

    #[test]
    fn predicting_the_training_frequencies_scores_minus_one() {
        let targets = [0, 1, 1, 1, 2, 2, 2, 2];
        let column = |p: f32| vec![p; targets.len()];
        let (a, b, c) = (column(0.125), column(0.375), column(0.5));
        let probabilities = Probabilities { classes: vec![&a, &b, &c], targets: &targets };
        assert!((class_score(&probabilities, &targets) + 1.0).abs() < 1e-12);
        assert_eq!((entropy(&[3, 3]), entropy(&[0, 1, 1, 0])), (0.0, 2.0_f64.ln()));
        assert!(entropy(&[]).is_nan());
    }
}
