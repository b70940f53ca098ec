//! The regression heads.

use plugin_api::Result;
use tch::{Kind, Tensor};

use crate::batch::Batch;
use crate::config::Pooling;
use crate::noise::Noise;
use crate::parameters::{Handle, Init, Scope};
use crate::trunk::Linear;

const GROUPS: i64 = 8;
/// PyTorch's defaults of `GroupNorm` and of `functional.normalize`.
const NORM_EPS: f64 = 1e-5;
const LENGTH_EPS: f64 = 1e-12;

/// A sequence's vector: the mean over its positions `l` of `hₗ / ‖hₗ‖`. Gives (batch, hidden size).
pub fn pool(hidden: &Tensor, batch: &Batch, pooling: Pooling) -> Tensor {
    let length = hidden.norm_scalaropt_dim(2, [-1], true).clamp_min(LENGTH_EPS);
    let directions = hidden / length;
    match (pooling, &batch.keys) {
        (Pooling::Tokens, Some(keys)) => {
            // Keys are (batch, 1, 1, length): as a column beside each position's features.
            let real = keys.flatten(1, -1).unsqueeze(-1).to_kind(Kind::Float);
            (directions * &real).sum_dim_intlist(1, false, None) / real.sum_dim_intlist(1, false, None)
        }
        // Without padding, all positions hold tokens.
        (Pooling::Tokens, None) | (Pooling::AllPositions, _) => directions.mean_dim(1, false, None),
    }
}

/// For each hidden size Linear, GroupNorm, GELU, Dropout; then Linear to one number.
#[derive(Debug)]
pub struct Regressor {
    hidden: Vec<Hidden>,
    last: Linear,
    dropout: f64,
}

#[derive(Debug)]
struct Hidden {
    linear: Linear,
    weight: Handle,
    bias: Handle,
}

impl Regressor {
    /// Names count as in the reference's sequence, where GELU and Dropout have a number each but no tensor.
    pub fn new(mut at: Scope<'_>, inputs: i64, sizes: &[i64], dropout: f64) -> Result<Self> {
        // As PyTorch starts a linear layer: weight and bias uniform within 1/√inputs.
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
        Ok(Self { hidden, last: linear(at.at(4 * sizes.len()), width, 1)?, dropout })
    }

    /// One number for each row of (batch, hidden size).
    pub fn forward(&self, pooled: &Tensor, noise: &mut Noise) -> Tensor {
        let mut x = pooled.shallow_clone();
        for layer in &self.hidden {
            x = layer.linear.forward(&x);
            x = x.group_norm(GROUPS, Some(&*layer.weight), Some(&*layer.bias), NORM_EPS, true).gelu("none");
            x = noise.dropout(x, self.dropout);
        }
        self.last.forward(&x).squeeze_dim(-1)
    }
}
