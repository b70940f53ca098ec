//! A training step: the loss and its gradients, their correction, and the optimiser.

mod graphs;
mod stats;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use plugin_api::{Error, Message, ModelSetup, Params, Received, Result, State};
use tch::{Kind, Tensor};

use crate::batch::Batch;
use crate::bridge::torch_error;
use crate::config::{Config, Schedule};
use crate::drift::GradientCorrection;
use crate::memory;
use crate::network::{Network, Resources};
use crate::optimizer::{AdamW, LearningRates, Updated};
use crate::random::DropoutRng;
use crate::targets::{PlacedTargets, Targets};
use graphs::StepGraphs;
pub use stats::{PendingStats, StepStats};
use step::{Step, Update};

/// A network with its optimiser. It lives as long as the client.
#[derive(Debug)]
pub struct Trainer {
    /// What is trained.
    pub network: Network,
    optimizer: AdamW,
    correction: GradientCorrection,
    base_rates: LearningRates,
    schedule: Schedule,
    /// The steps over which the rates rise.
    warm_up: u64,
    /// The norm of a step's gradients to which larger ones are scaled down.
    clip_norm: Option<f64>,
    /// The factors of losses; 1 for other tasks.
    task_weights: BTreeMap<String, f64>,
    steps: u64,
    /// Steps of all rounds but the first, in which the rates decay.
    decayed_steps: u64,
    /// Whether steps are recorded, and those that are.
    records: bool,
    graphs: Option<StepGraphs>,
}

/// What a recorded step reads besides its batch.
#[derive(Clone, Copy, Debug)]
struct Fixed<'a> {
    targets: &'a PlacedTargets,
    /// The number of the step and the rate of each of the optimiser's calls.
    scalars: &'a [[Tensor; 2]],
}

/// A batch of one task with its targets and the numbers of its dropout.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// The task's name.
    pub task: &'a str,
    /// The sequences.
    pub batch: &'a Batch,
    /// A target for each sequence, or the tokens to restore.
    pub targets: &'a Targets,
    /// Its dropout.
    pub dropout: &'a DropoutRng,
}

/// What the learning rate of a step depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedulePoint {
    /// The round, from 0.
    pub round: u64,
    /// The steps over which the linear schedule falls to 0 ([`decay_steps`]); 0 for a constant rate.
    pub decay_steps: u64,
}

impl Trainer {
    /// For the model that clients share.
    pub fn new(network: Network, config: &Config) -> Self {
        Self::with_correction(network, config, config.proximal_mu, config.scaffold)
    }

    /// For Ditto's personal model, with its `lambda`.
    pub fn personal(network: Network, config: &Config, lambda: f64) -> Self {
        Self::with_correction(network, config, lambda, false)
    }

    fn with_correction(network: Network, config: &Config, proximal: f64, scaffold: bool) -> Self {
        let is_trainable = |name: &str| config.trains(name);
        let on_host = network.parameters.context().on_host;
        let optimizer = AdamW::new(&network.parameters, is_trainable, config.weight_decay);
        let optimizer = optimizer.with_layer_decay(config.layer_decay, network.layers().trunk().blocks());
        let optimizer = optimizer.with_flat_gradients(config.flat_buffers && !on_host);
        let trainable = network.parameters.iter().filter(|p| is_trainable(&p.name));
        let correction = GradientCorrection::new(trainable.map(|p| (p.name.as_str(), &p.tensor)), proximal, scaffold);
        let base_rates = LearningRates { trunk: config.trunk_lr, regressor: config.regressor_lr };
        Self {
            network,
            optimizer,
            correction,
            base_rates,
            schedule: config.schedule,
            warm_up: config.warm_up,
            clip_norm: config.clip_norm,
            task_weights: config.task_weights.clone(),
            steps: 0,
            decayed_steps: 0,
            records: config.cuda_graphs && !on_host,
            graphs: None,
        }
    }

    /// Takes over a message's parameters, and what the corrections need of it. `taken` is the property `update.taken` of
    /// the call.
    ///
    /// # Errors
    /// If a tensor does not fit. Then nothing has changed.
    pub fn receive(&mut self, message: &Message, taken: Option<Option<u64>>) -> Result<Received> {
        let context = *self.network.parameters.context();
        let _on = context.enter()?;
        memory::retry(&context, "batch-size", || self.correction.receive(message, taken, &context))?;
        memory::retry(&context, "batch-size", || self.network.parameters.receive(&message.params))
    }

    /// Takes over what the corrections need of a message, and keeps the parameters.
    ///
    /// # Errors
    /// If a tensor does not fit. Then nothing has changed.
    pub fn receive_anchor(&mut self, message: &Message) -> Result<()> {
        let context = *self.network.parameters.context();
        let _on = context.enter()?;
        memory::retry(&context, "batch-size", || self.correction.receive(message, None, &context))
    }

    /// The tensors to send besides the parameters in a round.
    ///
    /// # Errors
    /// If they cannot be copied to the host.
    pub fn extra(&mut self, round: Option<u64>) -> Result<Params> {
        let _on = self.network.parameters.context().enter()?;
        self.correction.send(self.network.parameters.context(), round)
    }

    /// Ends a round.
    pub(crate) fn end_round(&mut self) {
        self.correction.close();
    }

    /// Ends an epoch.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn end_epoch(&mut self) -> Result<()> {
        self.network.parameters.relocate_shared()
    }

    /// Bytes of parameters and moments.
    pub(crate) fn bytes(&self) -> usize {
        let parameters = self.network.parameters.iter().map(|p| p.tensor.numel() * size_of::<f32>());
        parameters.sum::<usize>() + self.optimizer.bytes()
    }

    /// About the bytes that a step takes besides activations: gradients, and moments that there are not yet.
    pub(crate) fn step_bytes(&self) -> usize {
        3 * self.optimizer.trained_bytes() - self.optimizer.bytes()
    }

    /// The shapes whose steps are recorded.
    #[cfg(test)]
    fn recorded_steps(&self) -> usize {
        self.graphs.as_ref().map_or(0, StepGraphs::recorded)
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// [`Self::begin_step`], whose report it waits for.
    ///
    /// # Errors
    /// As that.
    pub fn step(
        &mut self,
        batches: &[TrainBatch<'_>],
        point: SchedulePoint,
        resources: &mut Resources,
    ) -> Result<StepStats> {
        let context = *self.network.parameters.context();
        let _on = context.enter()?;
        let stats = PendingStats::read(&[self.begin_step(batches, point, resources)?])?;
        Ok(stats[0])
    }

    /// Takes a step on the rows of all `batches`, which are of one task: computes the loss and its gradients, corrects these,
    /// and updates each parameter that has one. On a GPU the work may still run when this returns.
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails. The trainer stays usable; on the CPU some parameters may have been
    /// updated.
    pub(crate) fn begin_step(
        &mut self,
        batches: &[TrainBatch<'_>],
        point: SchedulePoint,
        resources: &mut Resources,
    ) -> Result<PendingStats> {
        let rates = self.learning_rates(point);
        let stats = self.try_step(batches, rates, resources);
        if stats.is_err() {
            self.optimizer.discard_step();
        } else {
            self.steps += 1;
            self.decayed_steps += u64::from(point.round > 0);
        }
        stats
    }

    fn learning_rates(&self, SchedulePoint { round, decay_steps }: SchedulePoint) -> LearningRates {
        let decays = self.schedule == Schedule::Linear && round > 0 && decay_steps > 0;
        let left = if decays { 1.0 - self.decayed_steps.min(decay_steps) as f64 / decay_steps as f64 } else { 1.0 };
        let risen = if self.steps < self.warm_up { self.steps as f64 / self.warm_up as f64 } else { 1.0 };
        self.base_rates.scaled(left * risen)
    }

    fn try_step(
        &mut self,
        batches: &[TrainBatch<'_>],
        rates: LearningRates,
        resources: &mut Resources,
    ) -> Result<PendingStats> {
        if let (true, &[batch]) = (self.records, batches) {
            let graphs = self.graphs.take().map_or_else(|| StepGraphs::new(self.network.parameters.context()), Ok);
            let mut graphs = graphs?;
            let stats = graphs.step(self, batch, rates, resources);
            self.graphs = Some(graphs);
            return stats;
        }
        let (stats, updated) = self.compute(batches, rates, None, resources)?;
        self.optimizer.count(&updated);
        Ok(stats)
    }

    /// Computes a step, up to the optimiser's count. A recorded one reads what is `fixed`.
    fn compute(
        &mut self,
        batches: &[TrainBatch<'_>],
        rates: LearningRates,
        fixed: Option<Fixed<'_>>,
        resources: &mut Resources,
    ) -> Result<(PendingStats, Updated)> {
        let (layers, parameters) = self.network.split_mut();
        let track_norm = resources.track_gradient_norm;
        let zero = Tensor::f_zeros([], (Kind::Double, parameters.context().device)).map_err(torch_error)?;
        let mut resources = resources.for_pass();
        let mut update = Update {
            optimizer: &mut self.optimizer,
            correction: &mut self.correction,
            rates,
            pool: resources.pool,
            squared_norm: track_norm.then(|| zero.shallow_clone()),
            collected: (batches.len() > 1 || self.clip_norm.is_some()).then(BTreeMap::new),
        };
        // Parameters change after the last batch.
        let _kept = layers.trunk().keep_weights();
        let examples: f64 = batches.iter().map(|batch| batch.targets.weight()).sum();
        let mut loss = zero.shallow_clone();
        for &batch in batches {
            // Its part of the mean over all examples of the step.
            let share = (batches.len() > 1).then(|| batch.targets.weight() / examples);
            let weight = match (self.task_weights.get(batch.task), share) {
                (Some(weight), Some(share)) => Some(weight * share),
                (weight, share) => weight.copied().or(share),
            };
            let step = Step { batch, layers, weight, targets: fixed.map(|fixed| fixed.targets) };
            let of_batch = match layers.trainable_cpu_encoder(batch.batch) {
                Some((encoder, packed)) => step.on_cpu(encoder, &packed, parameters, &mut resources, &mut update)?,
                None => step.in_libtorch(parameters, &mut resources, &mut update)?,
            };
            let of_batch = of_batch.f_detach().and_then(|loss| loss.f_to_kind(Kind::Double));
            let part = of_batch.and_then(|of_batch| of_batch.f_mul_scalar(share.unwrap_or(1.0)));
            loss = part.and_then(|part| loss.f_add(&part)).map_err(torch_error)?;
        }
        update.apply_collected(parameters, self.clip_norm)?;
        let squared_norm = update.squared_norm.unwrap_or(zero);
        let updated = self.optimizer.finish_step(parameters, rates, fixed.map(|fixed| fixed.scalars))?;
        Ok((PendingStats { numbers: [loss, squared_norm], rates }, updated))
    }

    /// Parameters, moments, corrections and counters.
    ///
    /// # Errors
    /// If they cannot be copied to the host.
    pub fn state(&mut self) -> Result<State> {
        let mut state = State { tensors: self.network.parameters.snapshot()?, ..State::default() };
        let context = *self.network.parameters.context();
        self.optimizer.save(&context, &mut state)?;
        self.correction.save(&context, &mut state)?;
        state.values.insert("steps".to_owned(), self.steps.into());
        state.values.insert("decayed-steps".to_owned(), self.decayed_steps.into());
        Ok(state)
    }

    /// Restores a state.
    ///
    /// # Errors
    /// If a tensor or value is missing, or has another shape or type. Then nothing has changed.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        let parameters = &mut self.network.parameters;
        let context = *parameters.context();
        let _on = context.enter()?;
        if let Some(missing) = parameters.sent().find(|p| state.tensors.get(&p.name).is_none()) {
            return Err(Error::tensor(&missing.name, "is missing from the checkpoint"));
        }
        let (steps, decayed_steps) = (state.value("steps")?, state.value("decayed-steps")?);
        let moments = memory::retry(&context, "batch-size", || self.optimizer.read(parameters, state))?;
        let corrections = memory::retry(&context, "batch-size", || self.correction.read(state, &context))?;
        parameters.receive(&state.tensors)?;
        self.optimizer.restore(moments);
        self.correction.restore(corrections);
        (self.steps, self.decayed_steps) = (steps, decayed_steps);
        Ok(())
    }
}

/// The steps over which the linear schedule falls to 0: those of all rounds but the first.
pub fn decay_steps(steps_per_epoch: u64, setup: &ModelSetup) -> u64 {
    steps_per_epoch * setup.local_epochs * setup.rounds.saturating_sub(1)
}
