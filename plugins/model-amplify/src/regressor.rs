//! The pooling and the regression heads.

use plugin_api::Result;
use tch::{Kind, TchError, Tensor};

use crate::batch::Batch;
use crate::bridge;
use crate::config::Pooling;
use crate::parameters::{Handle, Init, Scope};
use crate::random::DropoutRng;
use crate::trunk::Linear;

const GROUPS: i64 = 8;
/// PyTorch's default of `GroupNorm`.
const NORM_EPS: f64 = 1e-5;
/// PyTorch's default of `functional.normalize`.
const NORMALIZE_EPS: f64 = 1e-12;

/// The mean of `hₗ / ‖hₗ‖` over a sequence's positions `l`. `hidden` is (batch, length, size), the result (batch, size).
///
/// # Errors
/// If libtorch fails.
pub fn pool(hidden: &Tensor, batch: &Batch, pooling: Pooling) -> Result<Tensor> {
    let pool = || {
        let directions = directions(hidden)?;
        match (pooling, &batch.keys) {
            (Pooling::Tokens, Some(keys)) => {
                // (batch, 1, 1, length) to (batch, length, 1).
                let real = keys.f_flatten(1, -1)?.f_unsqueeze(-1)?.f_to_kind(Kind::Float)?;
                let sum = directions.f_mul(&real)?.f_sum_dim_intlist(1, false, None)?;
                sum.f_div(&real.f_sum_dim_intlist(1, false, None)?)
            }
            (Pooling::Bos | Pooling::Chains | Pooling::Attention, _) => unreachable!("`Segments` computes it"),
            // Without padding, every position is a token.
            (Pooling::Tokens, None) | (Pooling::AllPositions, _) => directions.f_mean_dim(1, false, None),
        }
    };
    pool().map_err(bridge::torch_error)
}

/// `h / ‖h‖` for each hidden state, in the last dimension.
pub(crate) fn directions(hidden: &Tensor) -> Result<Tensor, TchError> {
    let norm = hidden.f_norm_scalaropt_dim(2, [-1], true)?.f_clamp_min(NORMALIZE_EPS)?;
    hidden.f_div(&norm)
}

/// A perceptron: Linear, GroupNorm, GELU, Dropout for each hidden size; then Linear to the outputs: one number, or a logit for each class.
#[derive(Debug)]
pub struct Regressor {
    hidden: Vec<Hidden>,
    last: Linear,
    dropout: f64,
    outputs: i64,
    /// The vector of [`Pooling::Attention`].
    pub(crate) attention: Option<Handle>,
}

#[derive(Debug)]
struct Hidden {
    linear: Linear,
    weight: Handle,
    bias: Handle,
}

impl Regressor {
    /// Layers are numbered as in the reference's `Sequential`, where GELU and Dropout have a number and no tensor.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn new(mut at: Scope<'_>, inputs: i64, sizes: &[i64], outputs: i64, dropout: f64) -> Result<Self> {
        // PyTorch's default: weight and bias uniform within 1/√inputs.
        let linear = |at: Scope<'_>, inputs: i64, outputs| {
            let init = Init::Uniform(1.0 / (inputs as f64).sqrt());
            Linear::new(at, inputs, outputs, init, Some(init))
        };
        let mut width = inputs;
        let mut hidden = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            hidden.push(Hidden {
                linear: linear(at.at(4 * i), width, size)?,
                weight: at.at(4 * i + 1).tensor("weight", &[size], Init::Ones)?,
                bias: at.at(4 * i + 1).tensor("bias", &[size], Init::Zeros)?,
            });
            width = size;
        }
        Ok(Self { hidden, last: linear(at.at(4 * sizes.len()), width, outputs)?, dropout, outputs, attention: None })
    }

    /// With a vector that weighs the positions of a sequence by their hidden states, of `size` features.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn with_attention(self, mut at: Scope<'_>, size: i64) -> Result<Self> {
        let attention = at.at("attention").tensor("weight", &[size], Init::Zeros)?;
        Ok(Self { attention: Some(attention), ..self })
    }

    /// A prediction for each row of `pooled`, (batch, size). Gives (batch), or (batch, outputs) if there are several.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn forward(&self, pooled: &Tensor, dropout: &mut DropoutRng) -> Result<Tensor, TchError> {
        let mut x = pooled.shallow_clone();
        for Hidden { linear, weight, bias } in &self.hidden {
            x = linear.forward(&x)?;
            x = x.f_group_norm(GROUPS, Some(&**weight), Some(&**bias), NORM_EPS, true)?.f_gelu("none")?;
            x = dropout.dropout(x, self.dropout)?;
        }
        let x = self.last.forward(&x)?;
        if self.outputs == 1 { x.f_squeeze_dim(-1) } else { Ok(x) }
    }
}
