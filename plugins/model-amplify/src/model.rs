//! The plugin: a client's rounds, epochs, tasks and batches.

use std::path::Path;

use plugin_api::{
    Context, Epoch, Error, Evaluation, Message, Model, ModelSetup, Params, Received, Result, State, Table, Task,
    TaskSpec, Trained,
};
use tch::Device;

use crate::batch::{Batch, by_length};
use crate::checkpoint::{Checkpoint, load_regressors};
use crate::config::{Config, Precision};
use crate::export::Folder;
use crate::heads::{Heads, number};
use crate::network::{Network, Work};
use crate::noise::{Noise, shuffled};
use crate::tokenize::Tokens;
use crate::trainer::{Lesson, Stepped, Trainer, decay_steps};
use crate::{device, metrics};

/// Under which the personal model stands in a state.
const PERSONAL: &str = "personal.";

/// An AMPLIFY trunk with the heads of the tasks that this instance holds.
#[derive(Debug)]
pub struct Amplify {
    config: Config,
    setup: ModelSetup,
    checkpoint: Checkpoint,
    trainer: Trainer,
    /// Ditto's personal model.
    personal: Option<Trainer>,
    /// Whether what was trained or received last is the client's own model, and not the global one.
    is_own: bool,
    heads: Heads,
    device: Device,
}

impl Amplify {
    /// Reads the checkpoint, or draws random weights: the same at the server and at every client.
    ///
    /// # Errors
    /// If the checkpoint cannot be used, or the device does not exist.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        let device = device::find(ctx.device())?;
        tch::set_num_threads(1);
        match (config.precision, device) {
            (Precision::Tf32, Device::Cuda(_)) => device::allow_tf32()?,
            (Precision::Tf32, _) => {
                let error = Error::config(format!("device `{}` has no TensorFloat-32", ctx.device()));
                return Err(error.at_key("precision").help("GPUs by NVIDIA have it; elsewhere take `fp32` or `bf16`"));
            }
            (Precision::Fp32 | Precision::Bf16, _) => {}
        }
        let checkpoint = Checkpoint::open(&config.pretrained, ctx)?;
        let network = Network::new(&checkpoint.architecture, &config, setup, device)?;
        let seed = ctx.experiment_seed();
        if !checkpoint.load_trunk(&network.parameters)? {
            network.parameters.initialise("trunk.", seed)?;
        }
        let mut heads = Heads::default();
        match &config.regressors {
            Some(path) => {
                load_regressors(path, &network.parameters, setup.tasks.len())?;
                heads.received(&network.parameters, &[]);
            }
            None => network.parameters.initialise("regressors.", seed)?,
        }
        let personal = config.ditto_lambda.map(|lambda| -> Result<Trainer> {
            let own = Network::new(&checkpoint.architecture, &config, setup, device)?;
            own.parameters.receive(&network.parameters.snapshot()?)?;
            Ok(Trainer::personal(own, &config, lambda))
        });
        let personal = personal.transpose()?;
        let trainer = Trainer::new(network, &config);
        Ok(Self { config, setup: setup.clone(), checkpoint, trainer, personal, is_own: false, heads, device })
    }

    /// The model that results speak of: the personal one, if there is one and the global one was not just received.
    fn network(&self) -> &Network {
        let own = self.personal.as_ref().filter(|_| self.is_own);
        &own.unwrap_or(&self.trainer).network
    }

    /// libtorch keeps the number of threads for each calling thread, and an instance may be called from another each time.
    fn use_threads(&self, ctx: &Context<'_>) {
        let threads = self.trainer.network.libtorch_threads(ctx.threads());
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }

    /// Network and optimiser, for tests that take single steps.
    #[doc(hidden)]
    pub fn trainer(&mut self) -> &mut Trainer {
        &mut self.trainer
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
        Batch::new(rows, architecture.pad_token_id, architecture.max_length as usize, self.device)
    }

    fn rows(&mut self, task: &TaskSpec, table: &Table, ctx: &Context<'_>) -> Result<Tokens> {
        self.checkpoint.tokenizer.rows(task, table, ctx)
    }

    /// One number a row, in the rows' order, from batches of like lengths.
    fn predictions(&self, task: &str, rows: &[Vec<u32>], ctx: &Context<'_>) -> Result<Vec<f32>> {
        let _guard = tch::no_grad_guard();
        let mut work = Work::new(ctx.threads())?;
        let mut all = vec![0.0; rows.len()];
        for picked in by_length(rows, self.config.evaluation_batch_size()) {
            ctx.check()?;
            let batch = self.batch(&picked.iter().map(|&i| rows[i].as_slice()).collect::<Vec<_>>())?;
            let predicted = self.network().predict(task, &batch, &mut work)?;
            let mut values = vec![0.0; picked.len()];
            predicted.f_copy_data(&mut values, picked.len()).map_err(crate::bridge::torch)?;
            for (i, value) in picked.into_iter().zip(values) {
                all[i] = value;
            }
        }
        Ok(all)
    }

    fn must_hold(&self, task: &str) -> Result<()> {
        if self.trainer.network.holds(task) {
            Ok(())
        } else {
            Err(Error::data(format!("this model has no head for task `{task}`")))
        }
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
        self.use_threads(ctx);
        self.network().parameters.snapshot()
    }

    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        self.use_threads(ctx);
        let received = self.trainer.receive(global)?;
        if let Some(personal) = &mut self.personal {
            personal.anchor(global)?;
        }
        self.is_own = false;
        self.heads.received(&self.trainer.network.parameters, &received.missing);
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        self.use_threads(ctx);
        let size = self.config.batch_size;
        let total = tasks.iter().map(|task| task.train.rows().div_ceil(size) as u64).sum();
        let decay = decay_steps(total, &self.setup);
        let seed = ctx.seed().at(epoch.round).at(epoch.epoch);
        let mut trained = Trained::default();
        let mut work = Work::new(ctx.threads())?;
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
        Ok(trained)
    }

    /// The shared model, and what SCAFFOLD has to say.
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        self.use_threads(ctx);
        let params = self.trainer.network.parameters.snapshot()?;
        Ok(Message { params, extra: self.trainer.extra()?, ..Message::default() })
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        self.use_threads(ctx);
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
        self.use_threads(ctx);
        self.must_hold(task)?;
        let spec = self.setup.tasks[self.setup.number(task)?].clone();
        let rows = self.rows(&spec, rows, ctx)?;
        self.predictions(task, &rows, ctx)
    }

    fn export(&mut self, folder: &Path, ctx: &Context<'_>) -> Result<Vec<String>> {
        self.use_threads(ctx);
        let mut trunk = self.network().parameters.snapshot()?;
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
        self.use_threads(ctx);
        let mut state = self.trainer.state()?;
        if let Some(personal) = &self.personal {
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
        self.use_threads(ctx);
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
        (self.heads, self.is_own) = (heads, is_own);
        Ok(())
    }
}
