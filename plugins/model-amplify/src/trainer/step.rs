//! The loss and its gradients, and what becomes of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fedplug_amplify_cpu::{Encoder, PackedBatch, PassResources, Reading, ThreadPool};
use plugin_api::Result;
use tch::{Kind, Tensor};

use super::TrainBatch;
use crate::bridge::{self, torch_error};
use crate::drift::GradientCorrection;
use crate::network::Layers;
use crate::optimizer::{AdamW, LearningRates};
use crate::parameters::{Parameters, depth};
use crate::random::DropoutRng;
use crate::targets::PlacedTargets;
use crate::trunk::Checkpoints;
use crate::{flat, memory, native};

/// What a step does with a gradient.
pub(super) struct Update<'a> {
    pub(super) optimizer: &'a mut AdamW,
    pub(super) correction: &'a mut GradientCorrection,
    pub(super) rates: LearningRates,
    pub(super) pool: &'a ThreadPool,
    /// The sum of the squared gradients, on their device, if it is wanted.
    pub(super) squared_norm: Option<Tensor>,
    /// The sums of the batches' gradients by slot, where the whole step's are needed before the first update.
    pub(super) collected: Option<BTreeMap<usize, Tensor>>,
}

impl Update<'_> {
    /// Corrects a gradient, and updates its parameter; or adds it to those that are collected.
    fn apply(&mut self, parameters: &mut Parameters, slot: usize, mut gradient: Tensor) -> Result<()> {
        let Some(collected) = &mut self.collected else {
            self.correction.correct(slot, &mut gradient)?;
            return self.optimizer.update(parameters, slot, &gradient, self.rates, self.pool);
        };
        let _guard = tch::no_grad_guard();
        match collected.entry(slot) {
            Entry::Occupied(mut sum) => {
                let _ = sum.get_mut().f_add_(&gradient).map_err(torch_error)?;
            }
            Entry::Vacant(none) if self.optimizer.gathers() => drop(none.insert(gradient)),
            // The memory of a gradient is used again.
            Entry::Vacant(none) => {
                let copy = || gradient.f_detach_copy().map_err(torch_error);
                none.insert(memory::retry(parameters.context(), "batch-size", copy)?);
            }
        }
        Ok(())
    }

    /// Adds the squares of gradients to their sum, if that is wanted.
    fn add_to_norm(&mut self, on_host: bool, gradients: &[&Tensor]) -> Result<()> {
        if let Some(sum) = &self.squared_norm {
            self.squared_norm = Some(add_squares(sum, on_host, gradients)?);
        }
        Ok(())
    }

    /// Corrects what was collected, scales it down to `clip_norm` if it is larger, and updates the parameters.
    pub(super) fn apply_collected(&mut self, parameters: &mut Parameters, clip_norm: Option<f64>) -> Result<()> {
        let Some(mut collected) = self.collected.take() else { return Ok(()) };
        let (_guard, on_host) = (tch::no_grad_guard(), parameters.context().on_host);
        self.add_to_norm(on_host, &collected.values().collect::<Vec<_>>())?;
        collected.iter_mut().try_for_each(|(&slot, gradient)| self.correction.correct(slot, gradient))?;
        if let Some(most) = clip_norm {
            clip(on_host, &collected.values().collect::<Vec<_>>(), most)?;
        }
        // Each gradient is freed after its update.
        while let Some((slot, gradient)) = collected.pop_first() {
            self.optimizer.update(parameters, slot, &gradient, self.rates, self.pool)?;
        }
        Ok(())
    }

    /// The same for each slot whose gradient is defined.
    fn apply_all(
        &mut self,
        parameters: &mut Parameters,
        gradients: impl IntoIterator<Item = (usize, Tensor)>,
    ) -> Result<()> {
        let mut defined: Vec<_> = gradients.into_iter().filter(|(_, gradient)| gradient.defined()).collect();
        // Those of later batches are added to them.
        if self.collected.as_ref().is_none_or(BTreeMap::is_empty) {
            defined = self.optimizer.gather(parameters, defined)?;
        }
        if self.collected.is_none() {
            let gradients: Vec<&Tensor> = defined.iter().map(|(_, gradient)| gradient).collect();
            self.add_to_norm(parameters.context().on_host, &gradients)?;
        }
        defined.into_iter().try_for_each(|(slot, gradient)| self.apply(parameters, slot, gradient))
    }
}

/// A sum of squares with those of further gradients: on the host one after the other, on a device in one pass that waits for
/// nothing.
fn add_squares(sum: &Tensor, on_host: bool, gradients: &[&Tensor]) -> Result<Tensor> {
    if gradients.is_empty() {
        return Ok(sum.shallow_clone());
    }
    if !on_host {
        let joined = flat::join_all(gradients).map_err(torch_error)?;
        let squares = native::squared_norm(&joined.iter().collect::<Vec<_>>())?;
        return sum.f_add(&squares).map_err(torch_error);
    }
    let add = |sum: Tensor, gradient: &&Tensor| sum.f_add(&gradient.f_square()?.f_sum(Kind::Double)?);
    gradients.iter().try_fold(sum.shallow_clone(), add).map_err(torch_error)
}

/// Scales gradients down to the norm `most` if theirs is larger.
fn clip(on_host: bool, gradients: &[&Tensor], most: f64) -> Result<()> {
    let Some(first) = gradients.first() else { return Ok(()) };
    let zero = Tensor::f_zeros([], (Kind::Double, first.device())).map_err(torch_error)?;
    let norm = add_squares(&zero, on_host, gradients)?.f_sqrt().map_err(torch_error)?;
    if !on_host {
        // A factor of 1 changes no bit.
        let factor = norm.f_reciprocal().and_then(|inverse| inverse.f_mul_scalar(most)?.f_clamp_max(1.0));
        let factor = factor.and_then(|factor| factor.f_to_kind(Kind::Float)).map_err(torch_error)?;
        let joined = flat::join_all(gradients).map_err(torch_error)?;
        return native::scale(&joined.iter().collect::<Vec<_>>(), &factor);
    }
    let norm = norm.f_double_value(&[]).map_err(torch_error)?;
    if norm > most {
        let scaled = |gradient: &&Tensor| gradient.shallow_clone().f_mul_scalar_(most / norm).map(drop);
        gradients.iter().try_for_each(scaled).map_err(torch_error)?;
    }
    Ok(())
}

/// What a batch is computed with besides the parameters.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) batch: TrainBatch<'a>,
    pub(super) layers: &'a Layers,
    /// The factor of the loss whose gradients are taken.
    pub(super) weight: Option<f64>,
    /// The targets where the batch is computed, if they are there already.
    pub(super) targets: Option<&'a PlacedTargets>,
}

impl Step<'_> {
    /// Trunk by [`fedplug_amplify_cpu`], head or decoder by libtorch. Returns the loss.
    pub(super) fn on_cpu(
        &self,
        encoder: &Encoder,
        packed: &PackedBatch,
        parameters: &mut Parameters,
        resources: &mut PassResources<'_>,
        update: &mut Update<'_>,
    ) -> Result<Tensor> {
        let TrainBatch { task, batch, targets, dropout } = self.batch;
        let segments = self.layers.segments(batch);
        let of_segments = segments.as_ref().map(|segments| segments.positions.as_slice());
        let (reading, rows) = match targets.positions().or(of_segments) {
            Some(positions) => (packed.reading(positions), positions.len()),
            None => (Reading::Pooled, batch.rows()),
        };
        let read = encoder.forward(parameters, packed, &reading, resources, true)?;
        let read = bridge::matrix(&read, rows)?.f_set_requires_grad(true).map_err(torch_error)?;
        let pooled = match &segments {
            Some(segments) => segments.pool(&read, self.layers.attention(task))?,
            None => read.shallow_clone(),
        };
        let loss = targets.loss(&self.layers.outputs(task, &pooled, &mut dropout.clone())?)?;
        let (slots, indices): (Vec<usize>, Vec<usize>) = update.optimizer.readers().unzip();
        let readers = indices.iter().map(|&index| &parameters.at(index).tensor);
        let mut gradients = self.gradients(&loss, &std::iter::once(&read).chain(readers).collect::<Vec<_>>())?;
        let d_read = bridge::to_vec(&gradients.remove(0))?;
        update.apply_all(parameters, slots.into_iter().zip(gradients))?;
        encoder.backward(parameters, packed, &reading, resources, &d_read, |parameters, index, gradient| {
            let Some(slot) = update.optimizer.slot(index) else { return Ok(()) };
            let shape = parameters.at(index).tensor.size();
            // SAFETY: nobody else uses the gradient before this closure returns, which drops all handles of the view.
            let gradient = unsafe { bridge::view_of_mut(gradient, &shape) }.map_err(torch_error)?;
            if update.collected.is_none() {
                update.add_to_norm(true, &[&gradient])?;
            }
            update.apply(parameters, slot, gradient)
        })?;
        Ok(loss)
    }

    /// Trunk and head or decoder by libtorch. Returns the loss.
    pub(super) fn in_libtorch(
        &self,
        parameters: &mut Parameters,
        resources: &mut PassResources<'_>,
        update: &mut Update<'_>,
    ) -> Result<Tensor> {
        let TrainBatch { task, batch, targets, dropout } = self.batch;
        let (loss, gradients) = memory::retry(parameters.context(), "batch-size", || {
            let mut dropout = dropout.restarted();
            if let Some((hidden, checkpoints)) = self.layers.checkpointed(batch, &mut dropout)? {
                return self.in_libtorch_checkpointed(&hidden, checkpoints, parameters, &mut dropout, update.optimizer);
            }
            let positions = targets.positions();
            let outputs = self.layers.forward(parameters, task, batch, positions, &mut dropout, resources)?;
            let loss = self.targets.map_or_else(|| targets.loss(&outputs), |placed| placed.loss(&outputs))?;
            let trainable = update.optimizer.trainable().map(|index| &parameters.at(index).tensor);
            let gradients = self.gradients(&loss, &trainable.collect::<Vec<_>>())?;
            Ok((loss, gradients))
        })?;
        update.apply_all(parameters, gradients.into_iter().enumerate())?;
        Ok(loss)
    }

    /// The loss, and the gradients by slot.
    fn in_libtorch_checkpointed(
        &self,
        hidden: &Tensor,
        checkpoints: Checkpoints<'_>,
        parameters: &Parameters,
        dropout: &mut DropoutRng,
        optimizer: &AdamW,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let TrainBatch { task, batch, targets, .. } = self.batch;
        let loss = targets.loss(&self.layers.outputs_of(hidden, task, batch, targets.positions(), dropout)?)?;
        let trainable: Vec<_> = optimizer.trainable().map(|index| parameters.at(index)).collect();
        let slots = |at: Option<usize>| {
            let numbers = (0..trainable.len()).filter(|&slot| depth(&trainable[slot].name) == at);
            numbers.collect::<Vec<usize>>()
        };
        let tensors = |slots: &[usize]| slots.iter().map(|&slot| &trainable[slot].tensor).collect::<Vec<_>>();
        let mut gradients: Vec<Tensor> = trainable.iter().map(|_| Tensor::new()).collect();
        let mut keep = |slots: Vec<usize>, found: Vec<Tensor>| {
            slots.into_iter().zip(found).for_each(|(slot, gradient)| gradients[slot] = gradient);
        };
        let readers = slots(None);
        let mut found = self.gradients(&loss, &[vec![hidden], tensors(&readers)].concat())?;
        let d_hidden = found.remove(0);
        keep(readers, found);
        checkpoints.backward(
            d_hidden,
            |depth| tensors(&slots(Some(depth))),
            |depth, found| {
                keep(slots(Some(depth)), found);
            },
        )?;
        Ok((loss, gradients))
    }

    /// The gradient of the weighted loss with respect to each parameter; an undefined tensor where the loss does not depend
    /// on it.
    fn gradients(&self, loss: &Tensor, parameters: &[&Tensor]) -> Result<Vec<Tensor>> {
        let weighted = self.weight.map(|weight| loss.f_mul_scalar(weight)).transpose().map_err(torch_error)?;
        Tensor::f_run_backward(&[weighted.as_ref().unwrap_or(loss)], parameters, false, false).map_err(torch_error)
    }
}
