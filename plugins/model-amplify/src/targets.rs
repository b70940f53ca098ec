//! What a training step compares predictions with.

use plugin_api::{ClassWeights, Result, Table, TaskSpec};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use crate::bridge;

/// The targets of some rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// A number for each row. The loss is the mean squared error.
    Numbers(Vec<f32>),
    /// A class for each row. The loss is the cross entropy `Σ wᵢ (−ln softmax(zᵢ)ᵢ) / Σ wᵢ`.
    Classes {
        /// The number of each row's class.
        rows: Vec<i64>,
        /// The weight of each class; empty if all are 1.
        weights: Vec<f32>,
    },
    /// Masked tokens. The loss is their mean cross entropy.
    Tokens {
        /// Where they are: a row of the batch, and a position of its sequence.
        positions: Vec<(usize, usize)>,
        /// What they were before.
        tokens: Vec<i64>,
    },
}

impl Targets {
    /// The targets of a training table.
    ///
    /// # Errors
    /// If the table lacks the target, or a row has an unknown class.
    pub(crate) fn of(spec: &TaskSpec, train: &Table, weights: Option<&ClassWeights>) -> Result<Self> {
        if spec.target_kind.classes().is_none() {
            return Ok(Self::Numbers(train.f32(&spec.target)?.to_vec()));
        }
        let rows = spec.class_indices(train)?;
        let weights = weights.map(|weights| weights.of(spec, &rows)).unwrap_or_default();
        Ok(Self::Classes { rows: rows.into_iter().map(|class| class as i64).collect(), weights })
    }

    /// What the loss divides by, so that losses of several batches have a mean over all their rows or tokens.
    pub(crate) fn weight(&self) -> f64 {
        match self {
            Self::Classes { rows, weights } if !weights.is_empty() => {
                rows.iter().map(|&class| f64::from(weights[class as usize])).sum()
            }
            Self::Numbers(rows) => rows.len() as f64,
            Self::Classes { rows: classes, .. } | Self::Tokens { tokens: classes, .. } => classes.len() as f64,
        }
    }

    /// Where the trunk's output is read, if it is not pooled.
    pub(crate) fn positions(&self) -> Option<&[(usize, usize)]> {
        match self {
            Self::Tokens { positions, .. } => Some(positions),
            Self::Numbers(_) | Self::Classes { .. } => None,
        }
    }

    /// Those of a batch. Masked tokens belong to one already.
    pub(crate) fn select(&self, picked: &[usize]) -> Self {
        match self {
            Self::Numbers(all) => Self::Numbers(picked.iter().map(|&row| all[row]).collect()),
            Self::Classes { rows, weights } => {
                Self::Classes { rows: picked.iter().map(|&row| rows[row]).collect(), weights: weights.clone() }
            }
            Self::Tokens { .. } => self.clone(),
        }
    }

    /// The loss of predictions: (batch) numbers, (batch, classes) logits, or (positions, vocabulary) logits.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn loss(&self, predicted: &Tensor) -> Result<Tensor> {
        self.placed(predicted.device()).and_then(|placed| placed.loss(predicted))
    }

    /// The numbers on a device.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn placed(&self, device: Device) -> Result<PlacedTargets> {
        let placed = || {
            let (rows, weights) = match self {
                Self::Numbers(numbers) => (Tensor::f_from_slice(numbers)?, None),
                Self::Tokens { tokens: rows, .. } => (Tensor::f_from_slice(rows)?, None),
                Self::Classes { rows, weights } => {
                    let weights = (!weights.is_empty()).then(|| Tensor::f_from_slice(weights)).transpose()?;
                    (Tensor::f_from_slice(rows)?, weights)
                }
            };
            let weights = weights.map(|weights| bridge::to_device(&weights, device)).transpose()?;
            Ok(PlacedTargets { rows: bridge::to_device(&rows, device)?, weights })
        };
        placed().map_err(|error: TchError| bridge::torch_error(error))
    }
}

/// Targets on a device.
#[derive(Debug)]
pub(crate) struct PlacedTargets {
    /// fp32 numbers or `int64` classes, (rows).
    pub(crate) rows: Tensor,
    /// The weight of each class.
    weights: Option<Tensor>,
}

impl PlacedTargets {
    /// As [`Targets::loss`].
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn loss(&self, predicted: &Tensor) -> Result<Tensor> {
        let loss = match self.rows.kind() {
            Kind::Float => predicted.f_mse_loss(&self.rows, Reduction::Mean),
            // PyTorch's defaults: no index is ignored, labels are not smoothed.
            _ => predicted.f_cross_entropy_loss(&self.rows, self.weights.as_ref(), Reduction::Mean, -100, 0.0),
        };
        loss.map_err(bridge::torch_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with NumPy, by the formulas: `p = exp(z) / exp(z).sum(1, keepdims=True)`, `c = w[y]`,
    /// `(c * -log(p[range(4), y])).sum() / c.sum()` and `c[:, None] * (p - eye(3)[y]) / c.sum()`.
    #[test]
    fn cross_entropy_and_its_gradient_are_those_of_numpy() {
        const LOGITS: [f32; 12] = [0.5, -1.0, 2.0, 0.0, 0.0, 0.0, 3.0, 1.0, -2.0, -0.25, 0.75, 0.125];
        let rows = vec![2, 0, 1, 1];
        for (weights, loss, gradient) in REFERENCE {
            let targets = Targets::Classes { rows: rows.clone(), weights: weights.to_vec() };
            let logits = Tensor::from_slice(&LOGITS).reshape([4, 3]).set_requires_grad(true);
            let found = targets.loss(&logits).unwrap();
            found.backward();
            assert!((found.double_value(&[]) - loss).abs() < 1e-6, "{found:?}, not {loss}");
            let d: Vec<f32> = Vec::try_from(logits.grad().reshape([-1])).unwrap();
            assert!(d.iter().zip(gradient).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{d:?}");
        }
    }

    #[test]
    fn a_batch_has_the_targets_of_its_rows() {
        let numbers = Targets::Numbers(vec![1.0, 2.0, 3.0]);
        assert_eq!(numbers.select(&[2, 0]), Targets::Numbers(vec![3.0, 1.0]));
        let classes = Targets::Classes { rows: vec![0, 1, 2], weights: vec![1.0, 2.0, 3.0] };
        let wanted = Targets::Classes { rows: vec![2, 1], weights: vec![1.0, 2.0, 3.0] };
        assert_eq!(classes.select(&[2, 1]), wanted);
    }

    type Case = (&'static [f32], f64, [f64; 12]);

    const REFERENCE: [Case; 2] = [
        (
            &[],
            1.029068607,
            [
                0.043822598,
                0.009778143,
                -0.053600741,
                -0.166666667,
                0.083333333,
                0.083333333,
                0.218900149,
                -0.220375086,
                0.001474938,
                0.048325304,
                -0.118638205,
                0.070312902,
            ],
        ),
        (
            &[0.5, 2.0, 1.25],
            1.113677731,
            [
                0.038106607,
                0.008502733,
                -0.046609340,
                -0.057971014,
                0.028985507,
                0.028985507,
                0.304556729,
                -0.306608816,
                0.002052087,
                0.067235205,
                -0.165061851,
                0.097826646,
            ],
        ),
    ];
}
