//! One optimiser step, and the learning rate that it takes.

use plugin_api::{Error, Message, ModelSetup, Params, Received, Result, State};
use tch::{Kind, Reduction, Tensor};

use crate::batch::Batch;
use crate::config::{Config, Schedule};
use crate::drift::Drift;
use crate::network::Network;
use crate::noise::Noise;
use crate::optimizer::{AdamW, Rates};

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

/// The loss of a batch and its gradients.
#[derive(Debug)]
pub struct Backward {
    /// Mean squared error.
    pub loss: f64,
    gradients: Vec<Tensor>,
}

impl Backward {
    /// The length of all gradients taken as one vector.
    pub fn norm(&self) -> f64 {
        let squares =
            self.gradients.iter().filter(|g| g.defined()).map(|g| g.square().sum(Kind::Double).double_value(&[]));
        squares.sum::<f64>().sqrt()
    }
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
        let learning = || network.parameters.iter().filter(|p| learns(&p.name));
        let optimizer = AdamW::new(learning(), config.weight_decay);
        let drift = Drift::new(learning().map(|p| (p.name.as_str(), &p.tensor)), proximal, scaffold);
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

    /// Predicts a batch of one task and compares with its targets.
    ///
    /// # Errors
    /// If there is no head for the task, or libtorch fails.
    pub fn backward(&self, task: &str, batch: &Batch, targets: &[f32], noise: &mut Noise) -> Result<Backward> {
        let predicted = self.network.forward(task, batch, noise)?;
        let targets = Tensor::from_slice(targets).to_device(predicted.device());
        let loss = predicted.mse_loss(&targets, Reduction::Mean);
        let gradients = self.optimizer.gradients(&loss)?;
        Ok(Backward { loss: loss.double_value(&[]), gradients })
    }

    /// Takes the step, at a rate that falls to 0 over `decay` steps from the second round on; returns the rates.
    pub fn update(&mut self, mut backward: Backward, round: u64, decay: u64) -> Rates {
        let decays = self.schedule == Schedule::Linear && round > 0 && decay > 0;
        let left = if decays { 1.0 - self.decayed.min(decay) as f64 / decay as f64 } else { 1.0 };
        let rates = self.base.times(left);
        self.drift.correct(&mut backward.gradients);
        self.optimizer.step(&backward.gradients, rates);
        self.steps += 1;
        self.decayed += u64::from(round > 0);
        rates
    }

    /// Parameters, optimiser and counters.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn state(&self) -> Result<State> {
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
        let parameters = &self.network.parameters;
        if let Some(missing) = parameters.iter().find(|p| state.tensors.get(&p.name).is_none()) {
            return Err(Error::tensor(&missing.name, "is missing from the checkpoint"));
        }
        let (steps, decayed) = (state.value("steps")?, state.value("decayed-steps")?);
        let (moments, controls) = (self.optimizer.read(state)?, self.drift.read(state)?);
        parameters.receive(&state.tensors)?;
        self.optimizer.restore(moments);
        self.drift.restore(controls);
        (self.steps, self.decayed) = (steps, decayed);
        Ok(())
    }
}

/// Over how many steps the rates decay: all steps of all rounds but the first.
pub fn decay_steps(steps_per_epoch: u64, setup: &ModelSetup) -> u64 {
    steps_per_epoch * setup.local_epochs * setup.rounds.saturating_sub(1)
}
