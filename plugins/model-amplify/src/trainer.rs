//! One optimiser step, and the learning rate that it takes.

use plugin_api::{Error, Message, ModelSetup, Params, Received, Result, State};
use tch::{Kind, Reduction, Tensor};

use crate::batch::Batch;
use crate::bridge;
use crate::config::{Config, Schedule};
use crate::drift::Drift;
use crate::network::{Network, Work};
use crate::noise::Noise;
use crate::optimizer::{AdamW, Rates};
use crate::parameters::Parameters;

/// The network with its optimiser, which lives as long as the client.
#[derive(Debug)]
pub struct Trainer {
    /// What is trained.
    pub network: Network,
    optimizer: AdamW,
    drift: Drift,
    base: Rates,
    schedule: Schedule,
    steps: u64,
    /// Steps since the second round began, over which the rates decay.
    decayed: u64,
}

/// What is learned from: a batch of one task, and its targets.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// The task.
    pub task: &'a str,
    /// The sequences.
    pub batch: &'a Batch,
    /// A number for each.
    pub targets: &'a [f32],
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// The mean squared error before it.
    pub loss: f64,
    /// The learning rates that it took.
    pub rates: Rates,
    /// The length of all gradients taken as one vector; 0 unless [`Work::norms`] asks for it.
    pub norm: f64,
}

impl Trainer {
    /// At the first step of the model that is shared.
    pub fn new(network: Network, config: &Config) -> Self {
        Self::with_drift(network, config, config.proximal_mu, config.scaffold)
    }

    /// At the first step of a personal model, held to the global one by `lambda`.
    pub fn personal(network: Network, config: &Config, lambda: f64) -> Self {
        Self::with_drift(network, config, lambda, false)
    }

    fn with_drift(network: Network, config: &Config, proximal: f64, scaffold: bool) -> Self {
        let learns = |name: &str| !(config.frozen_trunk && name.starts_with("trunk."));
        let optimizer = AdamW::new(&network.parameters, learns, config.weight_decay);
        let learning = network.parameters.iter().filter(|p| learns(&p.name));
        let drift = Drift::new(learning.map(|p| (p.name.as_str(), &p.tensor)), proximal, scaffold);
        let base = Rates { trunk: config.trunk_lr, regressor: config.regressor_lr };
        Self { network, optimizer, drift, base, schedule: config.schedule, steps: 0, decayed: 0 }
    }

    /// Takes over the parameters of a message, and what it says of the other clients.
    ///
    /// # Errors
    /// If a tensor does not fit. Then nothing has changed.
    pub fn receive(&mut self, message: &Message) -> Result<Received> {
        self.anchor(message)?;
        self.network.parameters.receive(&message.params)
    }

    /// Takes over what a message says of the other clients, and keeps its own parameters.
    ///
    /// # Errors
    /// If a tensor does not fit.
    pub fn anchor(&mut self, message: &Message) -> Result<()> {
        self.drift.receive(message)
    }

    /// What goes to the server besides the parameters.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn extra(&mut self) -> Result<Params> {
        self.drift.send()
    }

    /// Optimiser steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Takes a step, at a rate that falls to 0 over `decay` steps from the second round on.
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails, for want of memory for instance.
    pub fn step(
        &mut self,
        lesson: Lesson<'_>,
        (round, decay): (u64, u64),
        noise: &mut Noise,
        work: &mut Work,
    ) -> Result<Stepped> {
        let decays = self.schedule == Schedule::Linear && round > 0 && decay > 0;
        let left = if decays { 1.0 - self.decayed.min(decay) as f64 / decay as f64 } else { 1.0 };
        let rates = self.base.times(left);
        let Lesson { task, batch, targets } = lesson;
        let Self { network, optimizer, drift, .. } = self;
        let (layers, parameters) = network.parts();
        let (mut squares, norms) = (0.0, work.norms);
        let Work { team, space, .. } = &mut *work;
        let mut take = |optimizer: &mut AdamW, parameters: &mut Parameters, slot: usize, mut gradient: Tensor| {
            if norms {
                squares += gradient.square().sum(Kind::Double).double_value(&[]);
            }
            drift.correct(slot, &mut gradient);
            optimizer.step(parameters, slot, &gradient, rates, team)
        };
        let loss = match layers.learns_by_hand(batch) {
            Some((weights, pack)) => {
                let pooled = bridge::matrix(&weights.forward(&pack, team, space, true), batch.rows());
                let pooled = pooled.set_requires_grad(true);
                let loss = compare(&layers.of_pooled(task, &pooled, noise)?, targets);
                let (slots, places): (Vec<usize>, Vec<usize>) = optimizer.heads().unzip();
                let heads = places.iter().map(|&place| &parameters.at(place).tensor);
                let mut by = gradients(&loss, &std::iter::once(&pooled).chain(heads).collect::<Vec<_>>())?;
                let by_pooled = by.remove(0).contiguous();
                for (slot, gradient) in slots.into_iter().zip(by).filter(|(_, gradient)| gradient.defined()) {
                    take(optimizer, parameters, slot, gradient)?;
                }
                weights.backward(&pack, team, space, bridge::slice(&by_pooled), |place, gradient| {
                    optimizer.slot(place).map_or(Ok(()), |slot| take(optimizer, parameters, slot, gradient))
                })?;
                loss
            }
            None => {
                let loss = compare(&layers.forward(task, batch, noise, (team, space))?, targets);
                let learning = optimizer.learning().map(|place| &parameters.at(place).tensor);
                let by = gradients(&loss, &learning.collect::<Vec<_>>())?;
                for (slot, gradient) in by.into_iter().enumerate().filter(|(_, gradient)| gradient.defined()) {
                    take(optimizer, parameters, slot, gradient)?;
                }
                loss
            }
        };
        optimizer.stepped();
        self.steps += 1;
        self.decayed += u64::from(round > 0);
        Ok(Stepped { loss: loss.double_value(&[]), rates, norm: squares.sqrt() })
    }

    /// Parameters, optimiser and counters.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn state(&mut self) -> Result<State> {
        let mut state = State { tensors: self.network.parameters.snapshot()?, ..State::default() };
        self.optimizer.save(&mut state)?;
        self.drift.save(&mut state)?;
        state.values.insert("steps".to_owned(), self.steps.into());
        state.values.insert("decayed-steps".to_owned(), self.decayed.into());
        Ok(state)
    }

    /// Goes back to a state; changes nothing if it does not fit.
    ///
    /// # Errors
    /// If a tensor or value is missing, or is of another shape or type.
    pub fn restore(&mut self, state: &State) -> Result<()> {
        let parameters = &mut self.network.parameters;
        if let Some(missing) = parameters.iter().find(|p| state.tensors.get(&p.name).is_none()) {
            return Err(Error::tensor(&missing.name, "is missing from the checkpoint"));
        }
        let (steps, decayed) = (state.value("steps")?, state.value("decayed-steps")?);
        let (moments, controls) = (self.optimizer.read(parameters, state)?, self.drift.read(state)?);
        parameters.receive(&state.tensors)?;
        self.optimizer.restore(moments);
        self.drift.restore(controls);
        (self.steps, self.decayed) = (steps, decayed);
        Ok(())
    }
}

/// The mean squared error.
fn compare(predicted: &Tensor, targets: &[f32]) -> Tensor {
    predicted.mse_loss(&Tensor::from_slice(targets).to_device(predicted.device()), Reduction::Mean)
}

/// The gradients of a loss, one for each parameter; an undefined tensor where it does not depend on it.
fn gradients(loss: &Tensor, parameters: &[&Tensor]) -> Result<Vec<Tensor>> {
    Tensor::f_run_backward(&[loss], parameters, false, false).map_err(bridge::torch)
}

/// Over how many steps the rates decay: all steps of all rounds but the first.
pub fn decay_steps(steps_per_epoch: u64, setup: &ModelSetup) -> u64 {
    steps_per_epoch * setup.local_epochs * setup.rounds.saturating_sub(1)
}
