//! The plugin: a client's rounds, epochs, tasks and batches.

use std::path::Path;
use std::sync::Arc;

use plugin_api::{
    Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result, Seed, State, Table, Task,
    TaskSpec, Trained,
};
use tch::Device;

use crate::batch::{Batch, by_length};
use crate::checkpoint::{Checkpoint, load_regressors, regressors_fit};
use crate::config::{Config, Precision};
use crate::cpu::Spaces;
use crate::device::{self, Place};
use crate::export::Folder;
use crate::heads::{Heads, number};
use crate::native::OnStream;
use crate::network::{Network, Work};
use crate::noise::{Noise, shuffled};
use crate::tokenize::Tokens;
use crate::trainer::{Lesson, Stepped, Trainer, decay_steps};
use crate::{metrics, native};

/// Under which the personal model stands in a state.
const PERSONAL: &str = "personal.";

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
    fn begin(&mut self, ctx: &Context<'_>) -> Result<Option<OnStream>> {
        let on = self.enter(ctx)?;
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

    /// Lets this thread compute as the instance does: with its threads, which libtorch keeps for each calling thread, and on
    /// its stream. An instance may be called from another thread each time.
    fn enter(&self, ctx: &Context<'_>) -> Result<Option<OnStream>> {
        let threads = self.trainer.network.layers().libtorch_threads(ctx.threads());
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
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
            let predicted = self.network().layers().predict(task, &batch, &mut work)?;
            let mut values = vec![0.0; picked.len()];
            predicted.f_copy_data(&mut values, picked.len()).map_err(crate::bridge::torch)?;
            for (i, value) in picked.into_iter().zip(values) {
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

impl Model for Amplify {
    fn parameters(&mut self, ctx: &Context<'_>) -> Result<Params> {
        let _on = self.begin(ctx)?;
        self.snapshot()
    }

    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        let _on = self.enter(ctx)?;
        let received = self.trainer.receive(global)?;
        if let Some(personal) = &mut self.personal {
            personal.anchor(global)?;
        }
        self.is_own = false;
        self.heads.received(&self.trainer.network.parameters, &received.missing);
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let _on = self.begin(ctx)?;
        let size = self.config.batch_size;
        let total = tasks.iter().map(|task| task.train.rows().div_ceil(size) as u64).sum();
        let decay = decay_steps(total, &self.setup);
        let seed = ctx.seed().at(epoch.round).at(epoch.epoch);
        let mut trained = Trained::default();
        let mut work = Work::within(&self.spaces, ctx.threads())?;
        for task in tasks.iter().filter(|task| task.train.rows() > 0) {
            let name = task.spec.name.as_str();
            self.must_hold(name)?;
            let number = self.setup.number(name)?;
            let rows = self.rows(&task.spec, &task.train, ctx)?;
            let targets = task.train.f32(&task.spec.target)?;
            for picked in shuffled(rows.len(), seed.of("shuffle").of(name)).chunks(size) {
                ctx.check()?;
                let batch = self.batch(&picked.iter().map(|&i| rows[i].as_slice()).collect::<Vec<_>>())?;
                let targets: Vec<f32> = picked.iter().map(|&i| targets[i]).collect();
                let noise = || Noise::new(seed.of("dropout").at(trained.steps));
                // Steps are numbered from zero over all rounds.
                let step = self.trainer.steps();
                let lesson = Lesson { task: name, batch: &batch, targets: &targets };
                let place = (epoch.round, decay);
                let mut stepped = self.trainer.step(lesson, place, &mut noise(), &mut work)?;
                // Of two models the personal one is the client's own.
                if let Some(personal) = &mut self.personal {
                    stepped = personal.step(lesson, place, &mut noise(), &mut work)?;
                }
                self.heads.trained(number);
                self.record(name, step, &stepped, epoch, ctx);
                trained.steps += 1;
                trained.examples += picked.len() as u64;
                ctx.progress(trained.steps, total);
            }
        }
        self.is_own = true;
        self.trainer.rest()?;
        self.personal.as_mut().map_or(Ok(()), Trainer::rest)?;
        self.account(ctx)?;
        Ok(trained)
    }

    /// The shared model, and what SCAFFOLD has to say.
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let _on = self.begin(ctx)?;
        let params = self.trainer.network.parameters.snapshot()?;
        Ok(Message { params, extra: self.trainer.extra()?, ..Message::default() })
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let _on = self.begin(ctx)?;
        let mut evaluations = Vec::with_capacity(tasks.len());
        for task in tasks {
            self.must_hold(&task.spec.name)?;
            let rows = self.rows(&task.spec, &task.test, ctx)?;
            let predictions = self.predictions(&task.spec.name, &rows, ctx)?;
            evaluations.push(metrics::evaluation(&task.spec.name, &predictions, task.test.f32(&task.spec.target)?));
        }
        Ok(evaluations)
    }

    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Vec<f32>> {
        let _on = self.begin(ctx)?;
        self.must_hold(task)?;
        let spec = self.setup.tasks[self.setup.number(task)?].clone();
        let rows = self.rows(&spec, rows, ctx)?;
        self.predictions(task, &rows, ctx)
    }

    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        let _on = self.begin(ctx)?;
        let mut trunk = self.snapshot()?;
        let mut regressors = trunk.clone();
        trunk.retain(|name, _| name.starts_with("trunk."));
        regressors.retain(|name, _| number(name).is_some_and(|head| self.heads.known(head)));
        let Checkpoint { architecture, tokenizer, companions, .. } = &self.checkpoint;
        let mut folder = Folder::new(folder);
        folder.trunk(&trunk, architecture, tokenizer, companions)?;
        folder.regressors(&regressors, &self.heads, &self.config, &self.setup)?;
        Ok(folder.finish())
    }

    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        let _on = self.begin(ctx)?;
        let mut state = self.trainer.state()?;
        if let Some(personal) = &mut self.personal {
            let State { tensors, values } = personal.state()?;
            for (name, tensor) in tensors.iter() {
                state.tensors.insert(format!("{PERSONAL}{name}"), tensor.clone());
            }
            state.values.insert(PERSONAL.to_owned(), values.into());
        }
        state.values.insert("is-own".to_owned(), self.is_own.into());
        self.heads.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let _on = self.enter(ctx)?;
        let (heads, is_own) = (Heads::read(state)?, state.value("is-own")?);
        let personal = match &self.personal {
            Some(_) => {
                let tensors = state.tensors.iter();
                let tensors = tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(PERSONAL)?, tensor.clone())));
                Some(State { tensors: tensors.collect(), values: state.value(PERSONAL)? })
            }
            None => None,
        };
        let before = personal.is_some().then(|| self.trainer.state()).transpose()?;
        self.trainer.restore(state)?;
        if let (Some(own), Some(state), Some(before)) = (&mut self.personal, personal, before)
            && let Err(error) = own.restore(&state)
        {
            self.trainer.restore(&before)?;
            return Err(error);
        }
        (self.heads, self.is_own, self.whole) = (heads, is_own, true);
        Ok(())
    }
}
