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

    /// Takes over the parameters of a message, and what it says of the other clients. `taken` is the property
    /// `update.taken` of the call.
    ///
    /// # Errors
    /// If a tensor does not fit. Then nothing has changed.
    pub fn receive(&mut self, message: &Message, taken: Option<Option<u64>>) -> Result<Received> {
        self.drift.receive(message, taken)?;
        self.network.parameters.receive(&message.params)
    }

    /// Takes over what a message says of the other clients, and keeps its own parameters.
    ///
    /// # Errors
    /// If a tensor does not fit.
    pub fn anchor(&mut self, message: &Message) -> Result<()> {
        self.drift.receive(message, None)
    }

    /// What goes to the server besides the parameters in a round.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn extra(&mut self, round: Option<u64>) -> Result<Params> {
        self.drift.send(self.network.parameters.place(), round)
    }

    /// Ends a round.
    pub(crate) fn close(&mut self) {
        self.drift.close();
    }

    /// Ends an epoch.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn rest(&mut self) -> Result<()> {
        self.network.parameters.follow()
    }

    /// Bytes of parameters and moments.
    pub(crate) fn bytes(&self) -> usize {
        let parameters = self.network.parameters.iter().map(|p| p.tensor.numel() * size_of::<f32>());
        parameters.sum::<usize>() + self.optimizer.bytes()
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
                let pooled = bridge::matrix(&weights.forward(parameters, &pack, team, space, true)?, batch.rows());
                let pooled = pooled.set_requires_grad(true);
                let loss = compare(&layers.of_pooled(task, &pooled, noise)?, targets);
                let (slots, places): (Vec<usize>, Vec<usize>) = optimizer.heads().unzip();
                let heads = places.iter().map(|&place| &parameters.at(place).tensor);
                let mut by = gradients(&loss, &std::iter::once(&pooled).chain(heads).collect::<Vec<_>>())?;
                let by_pooled = bridge::numbers(&by.remove(0))?;
                for (slot, gradient) in slots.into_iter().zip(by).filter(|(_, gradient)| gradient.defined()) {
                    take(optimizer, parameters, slot, gradient)?;
                }
                weights.backward(parameters, &pack, team, space, &by_pooled, |parameters, place, gradient| {
                    optimizer.slot(place).map_or(Ok(()), |slot| take(optimizer, parameters, slot, gradient))
                })?;
                loss
            }
            None => {
                let loss = compare(&layers.forward(parameters, task, batch, noise, (team, space))?, targets);
                let learning = optimizer.learning().map(|place| &parameters.at(place).tensor);
                let by = gradients(&loss, &learning.collect::<Vec<_>>())?;
                for (slot, gradient) in by.into_iter().enumerate().filter(|(_, gradient)| gradient.defined()) {
                    take(optimizer, parameters, slot, gradient)?;
                }
                loss
            }
        };
        optimizer.stepped(parameters, rates)?;
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
        let place = *self.network.parameters.place();
        self.optimizer.save(&place, &mut state)?;
        self.drift.save(&place, &mut state)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::device::Place;
    use plugin_api::{Seed, TaskSpec};
    use serde_json::json;
    use tch::Device;

    fn trainer(place: Place) -> Trainer {
        let config = json!({
            "pretrained": { "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 },
            "layer-sizes": [32], "trunk-lr": 1e-3, "dropout": 0.0,
        });
        let config: Config = serde_json::from_value(config).unwrap();
        let architecture = Architecture {
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 24,
            ..Architecture::published()
        };
        let task = TaskSpec {
            name: "tm".into(),
            inputs: vec!["combined".into()],
            target: "fitness".into(),
            ..TaskSpec::default()
        };
        let setup = ModelSetup::new(vec![task], 2, 1);
        let mut network = Network::new(&architecture, &config, &setup, place).unwrap();
        network.parameters.initialise("", Seed::new(1)).unwrap();
        Trainer::new(network, &config)
    }

    fn step(trainer: &mut Trainer, salt: u32) -> f64 {
        let rows: Vec<Vec<u32>> = (2..6).map(|n| (0..4 * n).map(|i| 5 + (i * i + salt + n) % 20).collect()).collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let batch = Batch::new(&rows, 0, 2048, Device::Cpu).unwrap();
        let lesson = Lesson { task: "tm", batch: &batch, targets: &[1.0, -1.0, 0.5, 2.0] };
        trainer.step(lesson, (0, 0), &mut Noise::none(), &mut Work::new(1).unwrap()).unwrap().loss
    }

    fn apart(a: &Params, b: &Params) -> f32 {
        assert!(a.names().eq(b.names()));
        let pairs = a.iter().zip(b.iter()).flat_map(|((_, a), (_, b))| {
            a.elements::<f32>().unwrap().iter().zip(b.elements::<f32>().unwrap()).map(|(a, b)| (a - b).abs())
        });
        pairs.fold(0.0, f32::max)
    }

    /// A message's memory is one piece, so one tensor of it that is kept would keep all.
    #[test]
    fn after_an_epoch_nothing_of_a_message_is_held() {
        let mut trainer = trainer(Place::cpu());
        let mut arena = plugin_api::Arena::of([1 << 20]);
        let message: Params = trainer
            .network
            .parameters
            .iter()
            .map(|p| {
                let shape = p.shape();
                (p.name.clone(), arena.alloc::<f32>(shape.iter().product()).freeze(&shape).unwrap())
            })
            .collect();
        trainer.receive(&message.into(), None).unwrap();
        let empty = [plugin_api::Arena::bytes::<f32>(1)];
        assert!(!arena.reset(empty));
        step(&mut trainer, 1);
        trainer.rest().unwrap();
        assert!(arena.reset(empty), "the trainer still holds a tensor");
    }

    /// What is done on a GPU, done on the CPU: libtorch's derivative, its fused AdamW, copies there and back.
    #[test]
    fn what_is_done_elsewhere_is_what_is_done_here() {
        let (mut here, mut there) = (trainer(Place::cpu()), trainer(Place::as_if_elsewhere()));
        for salt in 0..5 {
            let (a, b) = (step(&mut here, salt), step(&mut there, salt));
            assert!((a - b).abs() < 1e-4 * a.abs(), "step {salt}: the losses are {a} and {b}");
        }
        let [before, after] = [&mut here, &mut there].map(|trainer| trainer.state().unwrap());
        let difference = apart(&before.tensors, &after.tensors);
        assert!(difference < 1e-4, "parameters and moments differ by {difference}");
        // A state goes from one to the other, and what was handed out stays as it was.
        let mut other = trainer(Place::as_if_elsewhere());
        other.restore(&after).unwrap();
        assert_eq!(apart(&other.state().unwrap().tensors, &after.tensors), 0.0);
        let sent = there.network.parameters.snapshot().unwrap();
        assert_eq!((step(&mut there, 9), there.bytes()), (step(&mut other, 9), here.bytes()));
        assert_eq!(apart(&there.state().unwrap().tensors, &other.state().unwrap().tensors), 0.0);
        assert!(apart(&sent, &there.network.parameters.snapshot().unwrap()) > 0.0);
        there.receive(&sent.clone().into(), None).unwrap();
        assert_eq!(apart(&sent, &there.network.parameters.snapshot().unwrap()), 0.0);
    }
}
