//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it. libtorch's own optimisers cannot hand out their state.

use std::collections::BTreeMap;

use plugin_api::{Arena, Result, State, TensorBuf};
use serde_json::{Map, json};
use tch::Tensor;

use crate::bridge;
use crate::cpu::Team;
use crate::cpu::kernels::{Step, adamw};
use crate::device::Place;
use crate::native;
use crate::numbers::Numbers;
use crate::parameters::Parameters;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
/// How many numbers are moved and then written, while they are in the first cache.
const PIECE: usize = 4096;

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
    /// Which slot is a parameter's, by its place; none of one that does not learn.
    places: Vec<Option<usize>>,
    weight_decay: f64,
    /// Where parameters move that this step writes to for the first time, and where moments do, which live longer.
    arenas: Option<[Arena; 2]>,
    /// Slots on another device with their gradients, which take the step together at its end.
    together: Vec<(usize, Tensor)>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    place: usize,
    shape: Vec<usize>,
    in_trunk: bool,
    /// Made at the first step, so that an instance that never trains holds no moments.
    moments: Option<Moments>,
}

#[derive(Debug)]
struct Moments {
    /// The first and the second.
    both: Both,
    steps: i32,
}

#[derive(Debug)]
enum Both {
    Here([Numbers; 2]),
    OnDevice([Tensor; 2]),
}

impl Slot {
    /// How many bytes its moments take of a arena when they are written to.
    fn moved_bytes(&self) -> [usize; 2] {
        match &self.moments {
            None => [Arena::bytes::<f32>(self.shape.iter().product()); 2],
            Some(Moments { both: Both::Here(both), .. }) => both.each_ref().map(Numbers::moved_bytes),
            Some(Moments { both: Both::OnDevice(_), .. }) => [0; 2],
        }
    }
}

impl AdamW {
    /// For the parameters that learn, which from now on record gradients.
    pub fn new(parameters: &Parameters, learns: impl Fn(&str) -> bool, weight_decay: f64) -> Self {
        let (mut slots, mut places) = (Vec::new(), Vec::new());
        for (place, parameter) in parameters.iter().enumerate() {
            let learns = learns(&parameter.name);
            places.push(learns.then_some(slots.len()));
            if learns {
                let _ = parameter.tensor.set_requires_grad(true);
                let (name, shape) = (parameter.name.clone(), parameter.shape());
                slots.push(Slot { in_trunk: name.starts_with("trunk."), name, place, shape, moments: None });
            }
        }
        Self { slots, places, weight_decay, arenas: None, together: Vec::new() }
    }

    /// The number of the slot of the parameter at a place, if it learns.
    pub(crate) fn slot(&self, place: usize) -> Option<usize> {
        self.places[place]
    }

    /// The places of the parameters that learn, in the slots' order.
    pub(crate) fn learning(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().map(|slot| slot.place)
    }

    /// The numbers of the slots that are not the trunk's, and their places.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.slots.iter().enumerate();
        slots.filter(|(_, slot)| !slot.in_trunk).map(|(number, slot)| (number, slot.place))
    }

    /// `p ← p - lr · λ · p`, then `p ← p - lr · m̂ / (√v̂ + ε)`, of one slot: at once on the CPU, and with all others by
    /// [`stepped`](Self::stepped) elsewhere. A parameter without gradient gets no step, and then decay and step count stay
    /// as they are.
    ///
    /// # Errors
    /// If libtorch has no memory.
    pub(crate) fn step(
        &mut self,
        parameters: &mut Parameters,
        number: usize,
        gradient: &Tensor,
        rates: Rates,
        team: &Team,
    ) -> Result<()> {
        if !parameters.place().here {
            self.together.push((number, gradient.contiguous()));
            return Ok(());
        }
        if self.arenas.is_none() {
            // One piece for all that is still to be moved: a slot that gets no gradient leaves its part of it untouched.
            let moments = Arena::of(self.slots.iter().flat_map(Slot::moved_bytes));
            self.arenas = Some([Arena::of(parameters.moved_bytes(self.learning())), moments]);
        }
        let Self { slots, weight_decay, arenas, .. } = self;
        let mut arenas = arenas.as_mut();
        let mut draft = |which: usize, len| match &mut arenas {
            Some(arenas) => arenas[which].alloc(len),
            None => TensorBuf::zeroed(len),
        };
        let slot = &mut slots[number];
        let rate = if slot.in_trunk { rates.trunk } else { rates.regressor };
        let moments = slot.moments.get_or_insert_with(|| {
            let len = slot.shape.iter().product();
            Moments { both: Both::Here([(); 2].map(|()| Numbers::Own(draft(1, len)))), steps: 0 }
        });
        let Both::Here([first, second]) = &mut moments.both else { unreachable!("this is the CPU") };
        moments.steps += 1;
        // lr · (m / c₁) / (√(v / c₂) + ε) = m / ((√v + ε √c₂) · c₁ / (lr √c₂)): fewer operations.
        let (c1, c2) = (1.0 - BETA1.powi(moments.steps), 1.0 - BETA2.powi(moments.steps));
        let divisor = (rate != 0.0).then(|| -c1 / (rate * c2.sqrt()));
        let step = Step {
            new: [1.0 - BETA1, 1.0 - BETA2].map(|new| new as f32),
            decay: (1.0 - rate * *weight_decay) as f32,
            eps: (EPS * c2.sqrt()) as f32,
            divisor: divisor.map(|divisor| divisor as f32),
        };
        let (m, m_old) = first.write(|len| draft(1, len));
        let (v, v_old) = second.write(|len| draft(1, len));
        let [m_old, v_old] = [&m_old, &v_old].map(|old| old.as_ref().map(plugin_api::Tensor::elements));
        let (m_old, v_old) = (m_old.transpose()?, v_old.transpose()?);
        let gradient = gradient.contiguous();
        // SAFETY: a gradient is written to before it comes here and after the step, and by no other thread. What the step
        // writes is memory of this process's own, and no tensor's.
        let g = unsafe { bridge::slice(&gradient) };
        parameters.write(
            slot.place,
            |len| draft(0, len),
            |p, p_old| {
                team.numbers(((p, 1), ((m, 1), (v, 1))), |start, ((p, _), ((m, _), (v, _)))| {
                    let pieces = p.chunks_mut(PIECE).zip(m.chunks_mut(PIECE)).zip(v.chunks_mut(PIECE));
                    for (piece, ((p, m), v)) in pieces.enumerate() {
                        let at = start + piece * PIECE..start + piece * PIECE + p.len();
                        for (new, old) in [(&mut *p, p_old), (&mut *m, m_old), (&mut *v, v_old)] {
                            if let Some(old) = old {
                                new.copy_from_slice(&old[at.clone()]);
                            }
                        }
                        adamw(p, m, v, &g[at], step);
                    }
                });
            },
        )
    }

    /// Ends a step, of all slots that got a gradient.
    ///
    /// # Errors
    /// If libtorch fails, for want of memory for instance.
    pub(crate) fn stepped(&mut self, parameters: &Parameters, rates: Rates) -> Result<()> {
        self.arenas = None;
        let _guard = tch::no_grad_guard();
        let together = std::mem::take(&mut self.together);
        // Slots that are at the same step of the same group are one call.
        let mut calls: BTreeMap<(bool, i32), Vec<native::Learning<'_>>> = BTreeMap::new();
        for (number, gradient) in &together {
            let zeros = || Ok(Both::OnDevice([gradient.f_zeros_like()?, gradient.f_zeros_like()?]));
            let slot = &mut self.slots[*number];
            if slot.moments.is_none() {
                slot.moments = Some(Moments { both: zeros().map_err(bridge::torch)?, steps: 0 });
            }
            slot.moments.iter_mut().for_each(|moments| moments.steps += 1);
        }
        for (number, gradient) in &together {
            let slot = &self.slots[*number];
            let Some(Moments { both: Both::OnDevice([first, second]), steps }) = &slot.moments else { continue };
            let learning = [&parameters.at(slot.place).tensor, gradient, first, second];
            calls.entry((slot.in_trunk, *steps)).or_default().push(learning);
        }
        for ((in_trunk, steps), all) in calls {
            let rate = if in_trunk { rates.trunk } else { rates.regressor };
            let step = native::Step { steps, rate, betas: [BETA1, BETA2], decay: self.weight_decay, eps: EPS };
            native::adamw(&all, step)?;
        }
        Ok(())
    }

    /// Adds the moments and step counts to a state.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn save(&mut self, place: &Place, state: &mut State) -> Result<()> {
        let moments = |slot: &'_ Slot| match &slot.moments {
            Some(Moments { both: Both::OnDevice(both), .. }) => both.iter().map(Tensor::shallow_clone).collect(),
            _ => Vec::new(),
        };
        let elsewhere: Vec<Tensor> = self.slots.iter().flat_map(moments).collect();
        let mut fetched = bridge::fetch(elsewhere.iter(), place)?;
        let mut steps = Map::new();
        for slot in &mut self.slots {
            let Some(moments) = &mut slot.moments else { continue };
            let both = match &mut moments.both {
                Both::Here(both) => both.each_mut().map(|moment| Some(moment.share(&slot.shape))),
                Both::OnDevice(_) => [fetched.next(), fetched.next()],
            };
            for (name, moment) in names(&slot.name).into_iter().zip(both) {
                state.tensors.insert(name, moment.expect("as many were fetched"));
            }
            steps.insert(slot.name.clone(), json!(moments.steps));
        }
        state.values.insert("optimizer-steps".to_owned(), steps.into());
        Ok(())
    }

    /// Bytes of the moments that there are.
    pub(crate) fn bytes(&self) -> usize {
        let there = self.slots.iter().filter(|slot| slot.moments.is_some());
        there.map(|slot| 2 * size_of::<f32>() * slot.shape.iter().product::<usize>()).sum()
    }

    /// Reads the moments of a state, and gives them back as a change that cannot fail.
    ///
    /// # Errors
    /// If something is missing or does not fit.
    pub fn read(&self, parameters: &Parameters, state: &State) -> Result<Restored> {
        let steps: Map<String, serde_json::Value> = state.value("optimizer-steps")?;
        let read = |slot: &Slot| {
            let Some(steps) = steps.get(&slot.name).and_then(serde_json::Value::as_i64) else { return Ok(None) };
            let ours = &parameters.at(slot.place).tensor;
            let [first, second] = names(&slot.name);
            let both = if parameters.place().here {
                let shared = |name| bridge::like(&state.tensors, name, ours).map(Numbers::of);
                Both::Here([shared(&first)?, shared(&second)?])
            } else {
                let fresh = |name| bridge::fresh_like(&state.tensors, name, ours);
                Both::OnDevice([fresh(&first)?, fresh(&second)?])
            };
            Ok(Some(Moments { both, steps: steps as i32 }))
        };
        self.slots.iter().map(read).collect::<Result<_>>().map(Restored)
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
