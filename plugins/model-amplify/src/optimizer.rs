//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it. libtorch's own optimisers cannot hand out their state.

use std::collections::BTreeMap;

use plugin_api::{Params, Result, State};
use serde_json::{Map, json};
use tch::{Device, Tensor};

use crate::bridge::{self, slice, slice_mut};
use crate::cpu::Team;
use crate::cpu::kernels::{Step, adamw};
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
    /// Which slot is a parameter's, by where its memory lies.
    places: BTreeMap<usize, usize>,
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
        let slots: Vec<Slot> = parameters.map(slot).collect();
        let places = slots.iter().enumerate().map(|(i, slot)| (slot.parameter.data_ptr().addr(), i)).collect();
        Self { slots, places, weight_decay }
    }

    /// The number of the slot of a parameter, if it learns.
    pub(crate) fn slot(&self, parameter: &Tensor) -> Option<usize> {
        self.places.get(&parameter.data_ptr().addr()).copied()
    }

    /// The parameters that learn, in the slots' order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.iter().map(|slot| &slot.parameter)
    }

    /// The same without the trunk's, with the slots' numbers.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, slot)| !slot.in_trunk).map(|(number, slot)| (number, &slot.parameter))
    }

    /// `p ← p - lr · λ · p`, then `p ← p - lr · m̂ / (√v̂ + ε)`, of one slot. A parameter without gradient gets no step, and
    /// then decay and step count stay as they are.
    pub(crate) fn step(&mut self, number: usize, gradient: &Tensor, rates: Rates, team: &Team) {
        let _guard = tch::no_grad_guard();
        let slot = &mut self.slots[number];
        let rate = if slot.in_trunk { rates.trunk } else { rates.regressor };
        let moments = slot.moments.get_or_insert_with(|| Moments {
            first: gradient.zeros_like(),
            second: gradient.zeros_like(),
            steps: 0,
        });
        moments.steps += 1;
        // lr · (m / c₁) / (√(v / c₂) + ε) = m / ((√v + ε √c₂) · c₁ / (lr √c₂)): fewer operations.
        let (c1, c2) = (1.0 - BETA1.powi(moments.steps), 1.0 - BETA2.powi(moments.steps));
        let divisor = (rate != 0.0).then(|| -c1 / (rate * c2.sqrt()));
        if slot.parameter.device() == Device::Cpu {
            let step = Step {
                new: [1.0 - BETA1, 1.0 - BETA2].map(|new| new as f32),
                decay: (1.0 - rate * self.weight_decay) as f32,
                eps: (EPS * c2.sqrt()) as f32,
                divisor: divisor.map(|divisor| divisor as f32),
            };
            let Moments { first, second, .. } = moments;
            let [p, m, v] = [&mut slot.parameter, first, second].map(slice_mut);
            let gradient = gradient.contiguous();
            let g = slice(&gradient);
            team.numbers(((p, 1), ((m, 1), (v, 1))), |start, ((p, _), ((m, _), (v, _)))| {
                adamw(p, m, v, &g[start..start + m.len()], step);
            });
            return;
        }
        let _ = moments.first.lerp_(gradient, 1.0 - BETA1);
        let _ = moments.second.lerp_(&gradient.square(), 1.0 - BETA2);
        let Some(divisor) = divisor else { return };
        let _ = slot.parameter.g_mul_scalar_(1.0 - rate * self.weight_decay);
        let mut root = moments.second.sqrt();
        let _ = root.g_add_scalar_(EPS * c2.sqrt());
        let _ = root.g_mul_scalar_(divisor);
        let _ = slot.parameter.addcdiv_(&moments.first, &root);
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
