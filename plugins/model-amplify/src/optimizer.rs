//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it. libtorch's own optimisers cannot hand out their state.

use plugin_api::{Params, Result, State};
use serde_json::{Map, json};
use tch::Tensor;

use crate::bridge;
use crate::parameters::Parameter;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// The learning rates of the two groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of the trunk.
    pub trunk: f64,
    /// Of the heads.
    pub regressor: f64,
}

impl Rates {
    /// Both times a factor.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { trunk: self.trunk * factor, regressor: self.regressor * factor }
    }
}

/// The optimiser of the parameters that learn.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    weight_decay: f64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    in_trunk: bool,
    /// Made at the first step, so that an instance that never trains holds no moments.
    moments: Option<Moments>,
}

#[derive(Debug)]
struct Moments {
    first: Tensor,
    second: Tensor,
    steps: i32,
}

impl AdamW {
    /// For these parameters, which from now on record gradients.
    pub fn new<'a>(parameters: impl Iterator<Item = &'a Parameter>, weight_decay: f64) -> Self {
        let slot = |p: &Parameter| Slot {
            name: p.name.clone(),
            parameter: p.tensor.set_requires_grad(true),
            in_trunk: p.name.starts_with("trunk."),
            moments: None,
        };
        Self { slots: parameters.map(slot).collect(), weight_decay }
    }

    /// The gradients of `loss`, one for each parameter; an undefined tensor where the loss does not depend on it.
    ///
    /// # Errors
    /// If libtorch fails, for want of memory for instance.
    pub fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        let parameters: Vec<&Tensor> = self.slots.iter().map(|slot| &slot.parameter).collect();
        Tensor::f_run_backward(&[loss], &parameters, false, false).map_err(bridge::torch)
    }

    /// `p ← p - lr · λ · p`, then `p ← p - lr · m̂ / (√v̂ + ε)`. A parameter without gradient is left as it is, decay
    /// and step count included.
    pub fn step(&mut self, gradients: &[Tensor], rates: Rates) {
        let _guard = tch::no_grad_guard();
        for (slot, gradient) in self.slots.iter_mut().zip(gradients).filter(|(_, gradient)| gradient.defined()) {
            let rate = if slot.in_trunk { rates.trunk } else { rates.regressor };
            let moments = slot.moments.get_or_insert_with(|| Moments {
                first: gradient.zeros_like(),
                second: gradient.zeros_like(),
                steps: 0,
            });
            moments.steps += 1;
            let _ = moments.first.lerp_(gradient, 1.0 - BETA1);
            let _ = moments.second.lerp_(&gradient.square(), 1.0 - BETA2);
            if rate == 0.0 {
                continue;
            }
            let _ = slot.parameter.g_mul_scalar_(1.0 - rate * self.weight_decay);
            // lr · (m / c₁) / (√(v / c₂) + ε) = m / ((√v + ε √c₂) · c₁ / (lr √c₂)): fewer passes over memory.
            let (c1, c2) = (1.0 - BETA1.powi(moments.steps), 1.0 - BETA2.powi(moments.steps));
            let mut divisor = moments.second.sqrt();
            let _ = divisor.g_add_scalar_(EPS * c2.sqrt());
            let _ = divisor.g_mul_scalar_(-c1 / (rate * c2.sqrt()));
            let _ = slot.parameter.addcdiv_(&moments.first, &divisor);
        }
    }

    /// Adds the moments and step counts to a state.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn save(&self, state: &mut State) -> Result<()> {
        let mut steps = Map::new();
        for slot in &self.slots {
            if let Some(moments) = &slot.moments {
                let [first, second] = names(&slot.name);
                state.tensors.insert(first, bridge::to_plugin(&moments.first)?);
                state.tensors.insert(second, bridge::to_plugin(&moments.second)?);
                steps.insert(slot.name.clone(), json!(moments.steps));
            }
        }
        state.values.insert("optimizer-steps".to_owned(), steps.into());
        Ok(())
    }

    /// Reads the moments of a state, and gives them back as a change that cannot fail.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn read(&self, state: &State) -> Result<Restored> {
        let steps: Map<String, serde_json::Value> = state.value("optimizer-steps")?;
        let read = |slot: &Slot, tensors: &Params| {
            let Some(steps) = steps.get(&slot.name).and_then(serde_json::Value::as_i64) else { return Ok(None) };
            let [first, second] = names(&slot.name);
            Ok(Some(Moments {
                first: bridge::fresh_like(tensors, &first, &slot.parameter)?,
                second: bridge::fresh_like(tensors, &second, &slot.parameter)?,
                steps: steps as i32,
            }))
        };
        self.slots.iter().map(|slot| read(slot, &state.tensors)).collect::<Result<_>>().map(Restored)
    }

    /// Goes on from there.
    pub fn restore(&mut self, restored: Restored) {
        for (slot, moments) in self.slots.iter_mut().zip(restored.0) {
            slot.moments = moments;
        }
    }
}

/// Moments that were read and fit.
#[derive(Debug)]
pub struct Restored(Vec<Option<Moments>>);

fn names(parameter: &str) -> [String; 2] {
    ["first", "second"].map(|moment| format!("optimizer.{moment}.{parameter}"))
}
