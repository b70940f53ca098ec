//! The method: how the features give a prediction, and how numbers are learnt.

use plugin_api::{Seed, metrics};

use crate::Config;
use crate::features::{FeatureMap, Features};

/// What predicts a task. A number is `mean + sd (w · W x + b)`; mean and standard deviation are those of the client's own
/// training targets, so that targets of any scale train alike. Classes have logits, `w · W x + b` with a row of `w` for each.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    /// `W`, row-major.
    pub(crate) trunk: Vec<f32>,
    /// `w`.
    pub(crate) weight: Vec<f32>,
    /// `b`.
    pub(crate) bias: Vec<f32>,
    /// The mean and the standard deviation of numbers; empty for classes.
    pub(crate) scale: Vec<f32>,
}

impl Weights {
    /// Creates weights that predict 0, or the same probability for each of `outputs` classes: `W` is uniform in ±1/√features,
    /// `w` and `b` are 0.
    pub(crate) fn new(config: &Config, outputs: usize, seed: Seed) -> Self {
        let (hidden, features) = (config.hidden_size.get(), FeatureMap::new(config).number());
        let uniform = |i| (seed.at(i as u64).value() as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32;
        let trunk = (0..hidden * features).map(|i| uniform(i) / (features as f32).sqrt()).collect();
        Self { trunk, weight: vec![0.0; outputs * hidden], bias: vec![0.0; outputs], scale: vec![0.0, 1.0] }
    }

    /// Sets the scale to the targets' mean and standard deviation. If all targets are equal, the deviation is set to 1.
    pub(crate) fn scale_to(&mut self, targets: &[f32]) {
        let mean = targets.iter().map(|&y| f64::from(y)).sum::<f64>() / targets.len() as f64;
        let sd = metrics::standard_deviation(targets) as f32;
        self.scale = vec![mean as f32, if sd > 0.0 { sd } else { 1.0 }];
    }

    /// Takes one step on a batch of features and targets. Returns the batch's mean squared error before the step, and
    /// the mean of the rates applied to the gradients.
    ///
    /// Each row's gradient is divided by the squared norm of the prediction's gradient, so that a step removes `rate`
    /// of the error, however large the features are (NLMS: Nagumo and Noda, 1967, *A learning method for system
    /// identification*).
    pub(crate) fn step<'a>(
        &mut self,
        batch: impl ExactSizeIterator<Item = (&'a Features, f32)>,
        rate: f32,
    ) -> (f64, f32) {
        let (old, rows, mut loss, mut mean_rate) = (self.clone(), batch.len(), 0.0, 0.0);
        for (x, y) in batch {
            let hidden = old.project(x);
            let error = old.output(&hidden) - (y - old.scale[0]) / old.scale[1];
            let norm = 1.0 + dot(&hidden, &hidden) + dot(&old.weight, &old.weight) * x.square();
            let step = rate * error / norm / rows as f32;
            mean_rate += rate / norm / rows as f32;
            self.bias[0] -= step;
            subtract(&mut self.weight, step, &hidden);
            for (row, w) in self.trunk.chunks_mut(old.features()).zip(&old.weight) {
                x.subtract_from(row, step * w);
            }
            loss += f64::from(error * old.scale[1]).powi(2) / rows as f64;
        }
        (loss, mean_rate)
    }

    pub(crate) fn predict(&self, x: &Features) -> f32 {
        self.scale[0] + self.scale[1] * self.output(&self.project(x))
    }

    pub(crate) fn hidden(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    pub(crate) fn features(&self) -> usize {
        self.trunk.len() / self.hidden()
    }

    pub(crate) fn project(&self, x: &Features) -> Vec<f32> {
        self.trunk.chunks(self.features()).map(|row| x.dot(row)).collect()
    }

    fn output(&self, hidden: &[f32]) -> f32 {
        dot(&self.weight, hidden) + self.bias[0]
    }
}

/// The proximal step of FedProx (Li et al. 2020, *Federated Optimization in Heterogeneous Networks*): moves `values` to
/// the minimum of `‖v − values‖² / 2 + by ‖v − global‖² / 2`, which is stable however large `by` is. If `by` is `μ`
/// times the rate applied to the gradients, the fixed point is where the gradient is `μ (global − v)`, at the minimum
/// of FedProx's objective.
pub(crate) fn pull(values: &mut [f32], global: &[f32], by: f32) {
    let share = by / (1.0 + by);
    values.iter_mut().zip(global).for_each(|(v, g)| *v += share * (g - *v));
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a -= s b`.
pub(crate) fn subtract(a: &mut [f32], s: f32, b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a -= s * b);
}
