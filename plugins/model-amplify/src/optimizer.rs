//! AdamW (Loshchilov and Hutter 2019), computed as PyTorch does. libtorch's own optimisers cannot save their state.

mod state;

use std::collections::BTreeMap;

use fedplug_amplify_cpu::{AdamWStep, ThreadPool, adamw};
use plugin_api::{Arena, Error, Result};
use tch::{TchError, Tensor};

use crate::bridge;
use crate::cow_buffer::CowBuffer;
use crate::parameters::{Parameters, blocks_above, is_of_decoder, is_of_trunk};
use crate::{flat, memory, native};

pub use state::SavedMoments;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;
/// Elements that are moved and then updated while they are in the first-level cache.
const CACHED: usize = 4096;

/// Learning rates of the two groups of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRates {
    /// That of the trunk's last block.
    pub trunk: f64,
    /// The heads'.
    pub regressor: f64,
}

impl LearningRates {
    /// Both times `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { trunk: self.trunk * factor, regressor: self.regressor * factor }
    }

    fn of(self, slot: &Slot) -> f64 {
        if slot.in_trunk { self.trunk * slot.factor } else { self.regressor }
    }
}

/// The optimiser of the trainable parameters. Each has a slot.
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    /// The slot of each parameter; none for one that is not trained.
    slot_of: Vec<Option<usize>>,
    weight_decay: f64,
    /// What this step's first writes to shared memory are relocated to.
    arenas: Option<Arenas>,
    /// Slots on a GPU with their gradients, which [`Self::finish_step`] updates together.
    pending: Vec<(usize, Tensor)>,
    /// How often moments were replaced.
    moves: u64,
    /// With flat buffers, the gradient of each slot in one of them; empty before the first step.
    gradients: Option<Vec<Tensor>>,
}

/// The parameters that a step on a GPU updated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updated {
    slots: Vec<usize>,
    /// A slot of each call that updated some of them: all of its slots have the same rate and number of steps.
    calls: Vec<usize>,
}

impl Updated {
    /// The number of calls.
    pub(crate) fn calls(&self) -> usize {
        self.calls.len()
    }
}

/// A call that updates parameters.
struct Call<'a> {
    /// The first one's slot.
    slot: usize,
    /// Each with its gradient and its moments.
    tensors: Vec<[&'a Tensor; 4]>,
}

/// Two allocations, since moments live longer than parameters.
#[derive(Debug)]
struct Arenas {
    parameters: Arena,
    moments: Arena,
}

#[derive(Debug)]
struct Slot {
    name: String,
    /// The parameter's index.
    index: usize,
    shape: Vec<usize>,
    in_trunk: bool,
    /// The factor of the trunk's rate.
    factor: f64,
    /// None before the first step, so that a model that is never trained needs no memory for them.
    moments: Option<Moments>,
}

#[derive(Debug)]
struct Moments {
    values: MomentValues,
    /// Steps taken.
    steps: i32,
}

/// The first and the second moment.
#[derive(Debug)]
enum MomentValues {
    Host([CowBuffer; 2]),
    Device([Tensor; 2]),
}

impl Slot {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes that its moments take of an arena when they are written.
    fn relocation_bytes(&self) -> [usize; 2] {
        match self.moments.as_ref().map(|moments| &moments.values) {
            None => [Arena::bytes::<f32>(self.len()); 2],
            Some(MomentValues::Host(both)) => both.each_ref().map(CowBuffer::relocation_bytes),
            Some(MomentValues::Device(_)) => [0; 2],
        }
    }
}

/// Parameters with their gradients and moments, neighbours in all four buffers as one.
fn join_all(tensors: &[[&Tensor; 4]]) -> Result<Vec<[Tensor; 4]>, TchError> {
    let is_next = |number: usize| {
        tensors[number - 1].iter().zip(tensors[number]).all(|(before, next)| flat::follows(before, next))
    };
    let joined = |run: std::ops::Range<usize>| -> Result<[Tensor; 4], TchError> {
        let of = |which: usize| flat::joined(&tensors[run.clone()].iter().map(|all| all[which]).collect::<Vec<_>>());
        Ok([of(0)?, of(1)?, of(2)?, of(3)?])
    };
    flat::runs(tensors.len(), is_next).into_iter().map(joined).collect()
}

/// The factors of a step on the host.
fn factors(step: i32, rate: f64, weight_decay: f64) -> AdamWStep {
    // lr (m / c₁) / (√(v / c₂) + ε) = m / ((√v + ε √c₂) · c₁ / (lr √c₂)), with fewer operations for each element.
    let (c1, c2) = (1.0 - BETA1.powi(step), 1.0 - BETA2.powi(step));
    let divisor = (rate != 0.0).then(|| -c1 / (rate * c2.sqrt()));
    AdamWStep {
        new: [1.0 - BETA1, 1.0 - BETA2].map(|new| new as f32),
        decay: (1.0 - rate * weight_decay) as f32,
        eps: (EPS * c2.sqrt()) as f32,
        divisor: divisor.map(|divisor| divisor as f32),
    }
}

impl AdamW {
    /// For the parameters that `is_trainable` names, which record gradients from now on.
    pub fn new(parameters: &Parameters, is_trainable: impl Fn(&str) -> bool, weight_decay: f64) -> Self {
        let (mut slots, mut slot_of) = (Vec::new(), Vec::new());
        for (index, parameter) in parameters.iter().enumerate() {
            let trainable = is_trainable(&parameter.name);
            slot_of.push(trainable.then_some(slots.len()));
            if trainable {
                let _ = parameter.tensor.set_requires_grad(true);
                let (name, shape) = (parameter.name.clone(), parameter.shape());
                slots.push(Slot { in_trunk: is_of_trunk(&name), factor: 1.0, name, index, shape, moments: None });
            }
        }
        Self { slots, slot_of, weight_decay, arenas: None, pending: Vec::new(), moves: 0, gradients: None }
    }

    /// Gathers the gradients of a device in one buffer, if `flat`.
    #[must_use]
    pub(crate) fn with_flat_gradients(self, flat: bool) -> Self {
        Self { gradients: flat.then(Vec::new), ..self }
    }

    /// Lets each of the trunk's `blocks` learn at `decay` times the rate of the block above it.
    #[must_use]
    pub(crate) fn with_layer_decay(mut self, decay: f64, blocks: usize) -> Self {
        for slot in &mut self.slots {
            slot.factor = decay.powf(blocks_above(&slot.name, blocks) as f64);
        }
        self
    }

    /// The slot of a parameter, if it is trained.
    pub(crate) fn slot(&self, index: usize) -> Option<usize> {
        self.slot_of[index]
    }

    /// The indices of the trainable parameters, in the order of their slots.
    pub(crate) fn trainable(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().map(|slot| slot.index)
    }

    /// The slots of the parameters of heads and decoder, which read the trunk's output, with the parameters' indices.
    pub(crate) fn readers(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.slots.iter().enumerate();
        let read = slots.filter(|(_, slot)| !slot.in_trunk || is_of_decoder(&slot.name));
        read.map(|(number, slot)| (number, slot.index))
    }

    /// Whether [`Self::gather`] moves gradients.
    pub(crate) fn gathers(&self) -> bool {
        self.gradients.is_some()
    }

    /// Moves the gradients of slots to the buffer for them, if there is one.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn gather(
        &mut self,
        parameters: &Parameters,
        gradients: Vec<(usize, Tensor)>,
    ) -> Result<Vec<(usize, Tensor)>> {
        let Some(all) = &mut self.gradients else { return Ok(gradients) };
        if all.is_empty() {
            let shapes: Vec<_> = self.slots.iter().map(|slot| parameters.at(slot.index).tensor.size()).collect();
            let zeros = || flat::zeros(&shapes, parameters.context().device).map_err(bridge::torch_error);
            *all = memory::retry(parameters.context(), "batch-size", zeros)?;
        }
        let (to, from): (Vec<&Tensor>, Vec<&Tensor>) =
            gradients.iter().map(|(slot, gradient)| (&all[*slot], gradient)).unzip();
        native::copy_all(&to, &from)?;
        Ok(gradients.iter().map(|(slot, _)| (*slot, all[*slot].shallow_clone())).collect())
    }

    /// Updates a parameter: now on the host, otherwise in [`finish_step`](Self::finish_step). A parameter for which this is
    /// not called keeps its values and its step count.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn update(
        &mut self,
        parameters: &mut Parameters,
        slot: usize,
        gradient: &Tensor,
        rates: LearningRates,
        pool: &ThreadPool,
    ) -> Result<()> {
        let gradient = gradient.f_contiguous().map_err(bridge::torch_error)?;
        if !parameters.context().on_host {
            self.pending.push((slot, gradient));
            return Ok(());
        }
        // SAFETY: nothing writes to the gradient before this function returns; the update writes to other memory.
        let gradient = unsafe { bridge::slice(&gradient) };
        self.update_host(parameters, slot, gradient, rates, pool)
    }

    fn update_host(
        &mut self,
        parameters: &mut Parameters,
        slot: usize,
        gradient: &[f32],
        rates: LearningRates,
        pool: &ThreadPool,
    ) -> Result<()> {
        let arenas = self.arenas.get_or_insert_with(|| Arenas {
            parameters: Arena::of(parameters.relocation_bytes(self.slots.iter().map(|slot| slot.index))),
            moments: Arena::of(self.slots.iter().flat_map(Slot::relocation_bytes)),
        });
        let slot = &mut self.slots[slot];
        let rate = rates.of(slot);
        let len = slot.len();
        let moments = slot.moments.get_or_insert_with(|| {
            let values = MomentValues::Host([(); 2].map(|()| CowBuffer::Owned(arenas.moments.alloc(len))));
            Moments { values, steps: 0 }
        });
        let MomentValues::Host([first, second]) = &mut moments.values else {
            unreachable!("the parameters are on the host")
        };
        moments.steps += 1;
        let step = factors(moments.steps, rate, self.weight_decay);
        let (m, m_before) = first.write(|len| arenas.moments.alloc(len));
        let (v, v_before) = second.write(|len| arenas.moments.alloc(len));
        let [m_before, v_before] = [&m_before, &v_before].map(|old| old.as_ref().map(plugin_api::Tensor::elements));
        let (m_before, v_before) = (m_before.transpose()?, v_before.transpose()?);
        parameters.write(
            slot.index,
            |len| arenas.parameters.alloc(len),
            |p, p_before| {
                pool.for_elements(((p, 1), ((m, 1), (v, 1))), |start, ((p, _), ((m, _), (v, _)))| {
                    let pieces = p.chunks_mut(CACHED).zip(m.chunks_mut(CACHED)).zip(v.chunks_mut(CACHED));
                    for (piece, ((p, m), v)) in pieces.enumerate() {
                        let range = start + piece * CACHED..start + piece * CACHED + p.len();
                        for (new, before) in [(&mut *p, p_before), (&mut *m, m_before), (&mut *v, v_before)] {
                            if let Some(before) = before {
                                new.copy_from_slice(&before[range.clone()]);
                            }
                        }
                        adamw(p, m, v, &gradient[range], step);
                    }
                });
            },
        )
    }

    /// Ends a step: updates all parameters on a GPU that got a gradient, by numbers on the device, if they are given, for each of
    /// the [calls](Updated::scalars). [`Self::count`] follows.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn finish_step(
        &mut self,
        parameters: &Parameters,
        rates: LearningRates,
        on_device: Option<&[[Tensor; 2]]>,
    ) -> Result<Updated> {
        self.arenas = None;
        let _guard = tch::no_grad_guard();
        let pending = std::mem::take(&mut self.pending);
        // All memory is allocated before the first parameter changes.
        let fresh = memory::retry(parameters.context(), "batch-size", || {
            let without = pending.iter().filter(|(slot, _)| self.slots[*slot].moments.is_none());
            let (slots, shapes): (Vec<usize>, Vec<_>) =
                without.map(|(slot, gradient)| (*slot, gradient.size())).unzip();
            let zeros = || flat::zeros(&shapes, parameters.context().device).map_err(bridge::torch_error);
            Ok(slots.into_iter().zip(zeros()?).zip(zeros()?).collect::<Vec<_>>())
        })?;
        for ((slot, first), second) in fresh {
            self.slots[slot].moments = Some(Moments { values: MomentValues::Device([first, second]), steps: 0 });
        }
        // One call updates all parameters of one group that have taken the same number of steps.
        let mut calls: BTreeMap<(bool, u64, i32), Call<'_>> = BTreeMap::new();
        for (number, gradient) in &pending {
            let slot = &self.slots[*number];
            let Some(Moments { values: MomentValues::Device([first, second]), steps }) = &slot.moments else {
                continue;
            };
            let tensors = [&parameters.at(slot.index).tensor, gradient, first, second];
            let call = calls.entry((slot.in_trunk, slot.factor.to_bits(), *steps));
            call.or_insert_with(|| Call { slot: *number, tensors: Vec::new() }).tensors.push(tensors);
        }
        let updated = Updated {
            slots: pending.iter().map(|(slot, _)| *slot).collect(),
            calls: calls.values().map(|call| call.slot).collect(),
        };
        let numbers = self.scalars(&updated, rates);
        for (number, Call { tensors, .. }) in calls.into_values().enumerate() {
            let at = match on_device.map(|all| all.get(number)) {
                None => native::StepPoint::Numbers { step: numbers[number].0, rate: numbers[number].1 },
                Some(Some([step, rate])) => native::StepPoint::OnDevice { step, rate },
                Some(None) => return Err(Error::other("a recorded step updates other parameters than before")),
            };
            let step = native::FusedStep { at, betas: [BETA1, BETA2], decay: self.weight_decay, eps: EPS };
            native::adamw(&join_all(&tensors).map_err(bridge::torch_error)?, step)?;
        }
        Ok(updated)
    }

    /// The number of this step, from 1, and the rate, of each call that updates parameters on a GPU.
    pub(crate) fn scalars(&self, updated: &Updated, rates: LearningRates) -> Vec<(i32, f64)> {
        let of = |&slot: &usize| {
            let slot = &self.slots[slot];
            (slot.moments.as_ref().map_or(0, |moments| moments.steps) + 1, rates.of(slot))
        };
        updated.calls.iter().map(of).collect()
    }

    /// Counts a step of parameters on a GPU.
    pub(crate) fn count(&mut self, updated: &Updated) {
        for &slot in &updated.slots {
            self.slots[slot].moments.iter_mut().for_each(|moments| moments.steps += 1);
        }
    }

    /// How often moments got other memory.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// Forgets the gradients of a step that failed.
    pub(crate) fn discard_step(&mut self) {
        self.arenas = None;
        self.pending.clear();
    }

    /// The gradients and both moments of all slots that have them, in a device's memory.
    #[cfg(test)]
    pub(crate) fn buffers(&self) -> [Vec<&Tensor>; 3] {
        let moments = self.slots.iter().filter_map(|slot| match &slot.moments.as_ref()?.values {
            MomentValues::Device([first, second]) => Some((first, second)),
            MomentValues::Host(_) => None,
        });
        let (first, second) = moments.unzip();
        [self.gradients.iter().flatten().collect(), first, second]
    }

    /// Bytes of the trained parameters.
    pub(crate) fn trained_bytes(&self) -> usize {
        self.slots.iter().map(|slot| size_of::<f32>() * slot.len()).sum()
    }

    /// Bytes of the moments.
    pub(crate) fn bytes(&self) -> usize {
        let allocated = self.slots.iter().filter(|slot| slot.moments.is_some());
        allocated.map(|slot| 2 * size_of::<f32>() * slot.len()).sum()
    }
}
