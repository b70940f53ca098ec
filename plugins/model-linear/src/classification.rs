//! How classes are learnt: softmax regression.

use crate::features::Features;
use crate::regression::{Weights, dot, subtract};

/// A row of a known class.
pub(crate) struct Row<'a> {
    pub(crate) features: &'a Features,
    /// The number of its class.
    pub(crate) class: usize,
    /// How much it counts.
    pub(crate) weight: f32,
}

impl Weights {
    /// Takes one step on a batch. The classes' probabilities are `softmax(w · W x + b)`, with a row of `w` for each class, and
    /// the loss is the cross entropy `Σ cᵢ (−ln pᵢ) / Σ cᵢ`, with the rows' weights `c`. Returns the loss before the step, and
    /// the rate applied to its gradient.
    ///
    /// The gradient is divided by the largest squared norm of a logit's gradient in the batch, so that a step cannot overshoot,
    /// however large the features are. All rows of a batch share the divisor: so the model comes to rest where the gradient of
    /// the batch's loss is 0, as any logistic regression.
    pub(crate) fn class_step(&mut self, batch: &[Row<'_>], rate: f32) -> (f64, f32) {
        let (old, total) = (self.clone(), batch.iter().map(|row| row.weight).sum::<f32>());
        let hidden: Vec<Vec<f32>> = batch.iter().map(|row| old.project(row.features)).collect();
        let largest = old.weight.chunks(old.hidden()).map(|w| dot(w, w)).fold(0.0, f32::max);
        let norms = batch.iter().zip(&hidden).map(|(row, h)| 1.0 + dot(h, h) + largest * row.features.square());
        let rate = rate / norms.fold(0.0, f32::max);
        let mut loss = 0.0;
        for (row, h) in batch.iter().zip(&hidden) {
            let (share, p) = (row.weight / total, old.probabilities(h));
            loss -= f64::from(share) * p[row.class].ln();
            let mut d_hidden = vec![0.0; h.len()];
            for (class, p) in p.iter().enumerate() {
                let error = share * (*p as f32 - if class == row.class { 1.0 } else { 0.0 });
                let at = class * h.len()..(class + 1) * h.len();
                self.bias[class] -= rate * error;
                subtract(&mut self.weight[at.clone()], rate * error, h);
                subtract(&mut d_hidden, -error, &old.weight[at]);
            }
            for (row_of_trunk, d) in self.trunk.chunks_mut(old.features()).zip(d_hidden) {
                row.features.subtract_from(row_of_trunk, rate * d);
            }
        }
        (loss, rate)
    }

    /// The logit of each class.
    pub(crate) fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        self.weight.chunks(self.hidden()).zip(&self.bias).map(|(w, b)| dot(w, hidden) + b).collect()
    }

    fn probabilities(&self, hidden: &[f32]) -> Vec<f64> {
        let logits = self.logits(hidden);
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let odds: Vec<f64> = logits.iter().map(|z| f64::from(z - largest).exp()).collect();
        let sum: f64 = odds.iter().sum();
        odds.iter().map(|odds| odds / sum).collect()
    }
}
