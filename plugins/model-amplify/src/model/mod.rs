//! The plugin: a client's rounds, epochs, tasks and batches.

mod calls;

use std::sync::Arc;

use plugin_api::{Context, Epoch, Error, ModelSetup, Params, Result, Seed, Table, TaskSpec};
use tch::Device;

use crate::batch::{Batch, by_length};
use crate::bridge;
use crate::checkpoint::{Checkpoint, load_regressors, regressors_fit};
use crate::config::{Config, Precision};
use crate::cpu::Spaces;
use crate::device::{self, Place};
use crate::heads::Heads;
use crate::native::{self, OnStream};
use crate::network::{Network, Work};
use crate::tokenize::Tokens;
use crate::trainer::{Stepped, Trainer};

/// An AMPLIFY trunk with the heads of the tasks that this instance holds.
#[derive(Debug)]
pub struct Amplify {
    config: Config,
    setup: ModelSetup,
    checkpoint: Checkpoint,
    seed: Seed,
    trainer: Trainer,
    /// Ditto's personal model.
    personal: Option<Trainer>,
    /// Whether what was trained or received last is the client's own model, and not the global one.
    is_own: bool,
    /// Whether all parameters have values.
    whole: bool,
    heads: Heads,
    place: Place,
    spaces: Arc<Spaces>,
}

impl Amplify {
    /// Opens the checkpoint, if there is one. Its weights are read when they are needed.
    ///
    /// # Errors
    /// If the checkpoint does not fit, or the device does not exist.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        let device = device::find(ctx.device())?;
        let place = Place::of(device)?;
        let _on = place.enter()?;
        tch::set_num_threads(1);
        match (config.precision, device) {
            (Precision::Tf32, Device::Cuda(_)) => native::allow_tf32()?,
            (Precision::Tf32, _) => {
                let error = Error::config(format!("device `{}` has no TensorFloat-32", ctx.device()));
                return Err(error.at_key("precision").help("GPUs by NVIDIA have it; elsewhere take `fp32` or `bf16`"));
            }
            (Precision::Fp32 | Precision::Bf16, _) => {}
        }
        let checkpoint = Checkpoint::open(&config.pretrained, ctx)?;
        let network = Network::new(&checkpoint.architecture, &config, setup, place)?;
        checkpoint.fits(&network.parameters)?;
        let mut heads = Heads::default();
        if let Some(path) = &config.regressors {
            regressors_fit(path, &network.parameters, setup.tasks.len())?;
            heads.received(&network.parameters, &[]);
        }
        let personal = config.ditto_lambda.map(|lambda| -> Result<Trainer> {
            let own = Network::new(&checkpoint.architecture, &config, setup, place)?;
            Ok(Trainer::personal(own, &config, lambda))
        });
        let personal = personal.transpose()?;
        let trainer = Trainer::new(network, &config);
        let seed = ctx.experiment_seed();
        let setup = setup.clone();
        let spaces = Spaces::shared();
        let mut model = Self {
            config,
            setup,
            checkpoint,
            seed,
            trainer,
            personal,
            is_own: false,
            whole: false,
            heads,
            place,
            spaces,
        };
        if model.personal.is_some() {
            // It begins as the shared one does, and not as that is after a message.
            model.complete()?;
        }
        Ok(model)
    }

    /// Gives values to the parameters that have none: those of the checkpoint, or random ones, which are the same at the
    /// server and at every client. What comes from the server or from a state before it is asked for saves the work.
    fn complete(&mut self) -> Result<()> {
        if self.whole {
            return Ok(());
        }
        let parameters = &mut self.trainer.network.parameters;
        self.checkpoint.load_trunk(parameters)?;
        parameters.initialise("trunk.", self.seed)?;
        if let Some(path) = &self.config.regressors {
            load_regressors(path, parameters, self.setup.tasks.len())?;
        }
        parameters.initialise("regressors.", self.seed)?;
        if let Some(own) = &mut self.personal {
            let own = &mut own.network.parameters;
            own.receive(&parameters.snapshot()?)?;
        }
        self.whole = true;
        Ok(())
    }

    /// What every call begins with that computes with the parameters or hands them out.
    fn begin(&mut self) -> Result<Option<OnStream>> {
        let on = self.enter()?;
        self.complete().map(|()| on)
    }

    /// The model that results speak of: the personal one, if there is one and the global one was not just received.
    fn network(&self) -> &Network {
        let own = self.personal.as_ref().filter(|_| self.is_own);
        &own.unwrap_or(&self.trainer).network
    }

    fn snapshot(&mut self) -> Result<Params> {
        let own = self.personal.as_mut().filter(|_| self.is_own);
        own.unwrap_or(&mut self.trainer).network.parameters.snapshot()
    }

    /// Lets this thread compute as the instance does: on its stream, and libtorch in this thread alone, since its sums would
    /// depend on the number of threads, which it keeps for each calling thread. An instance may be called from another
    /// thread each time.
    fn enter(&self) -> Result<Option<OnStream>> {
        tch::set_num_threads(1);
        self.place.enter()
    }

    /// Network and optimiser, for tests that take single steps.
    #[doc(hidden)]
    pub fn trainer(&mut self) -> Result<&mut Trainer> {
        self.complete().map(|()| &mut self.trainer)
    }

    /// Token ids, for tests.
    #[doc(hidden)]
    pub fn tokens(&self, sequence: &str) -> Result<Vec<u32>> {
        self.checkpoint.tokenizer.encode(sequence)
    }

    /// A batch of these rows, padded as in training.
    #[doc(hidden)]
    pub fn batch(&self, rows: &[&[u32]]) -> Result<Batch> {
        let architecture = &self.checkpoint.architecture;
        Batch::new(rows, architecture.pad_token_id, architecture.max_length as usize, self.place.device)
    }

    fn rows(&mut self, task: &TaskSpec, table: &Table, ctx: &Context<'_>) -> Result<Tokens> {
        self.checkpoint.tokenizer.rows(task, table, ctx)
    }

    /// One number a row, in the rows' order, from batches of like lengths.
    fn predictions(&self, task: &str, rows: &[Vec<u32>], ctx: &Context<'_>) -> Result<Vec<f32>> {
        let _guard = tch::no_grad_guard();
        let mut work = Work::within(&self.spaces, ctx.threads())?;
        let mut all = vec![0.0; rows.len()];
        for picked in by_length(rows, self.config.evaluation_batch_size()) {
            ctx.check()?;
            let batch = self.batch(&picked.iter().map(|&i| rows[i].as_slice()).collect::<Vec<_>>())?;
            let predicted = self.network().predict(task, &batch, &mut work)?;
            for (i, value) in picked.into_iter().zip(bridge::numbers(&predicted)?) {
                all[i] = value;
            }
        }
        Ok(all)
    }

    fn must_hold(&self, task: &str) -> Result<()> {
        if self.trainer.network.layers().holds(task) {
            Ok(())
        } else {
            Err(Error::data(format!("this model has no head for task `{task}`")))
        }
    }

    /// Records what a GPU's memory holds: of this client, and of all clients of this process and device at most.
    fn account(&self, ctx: &Context<'_>) -> Result<()> {
        let Some(peak) = self.place.peak_bytes()? else { return Ok(()) };
        let own = self.trainer.bytes() + self.personal.as_ref().map_or(0, Trainer::bytes);
        ctx.scalar("Memory/client", self.trainer.steps(), own as f64);
        ctx.scalar("Memory/device_peak", self.trainer.steps(), peak as f64);
        Ok(())
    }

    /// Records what a step did.
    fn record(&self, task: &str, step: u64, stepped: &Stepped, epoch: Epoch, ctx: &Context<'_>) {
        let Stepped { loss, rates, .. } = *stepped;
        match self.setup.held.len() {
            1 => ctx.scalar("Loss/train", step, loss),
            _ => ctx.scalar(&format!("Loss/train_{task}"), step, loss),
        }
        if !self.config.frozen_trunk {
            ctx.scalar("LR/trunk", step, rates.trunk);
        }
        ctx.scalar("LR/regressor", step, rates.regressor);
        ctx.scalar("Epoch", step, epoch.epoch as f64);
        ctx.scalar("Round", step, epoch.round as f64);
    }
}
