//! The plugin's model.

mod calls;
mod embed;
mod masked_lm;
mod reports;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use fedplug_amplify_cpu::WorkspacePool;
use plugin_api::{Context, Error, ModelSetup, Result, Seed, Table, TaskSpec};
use tch::Device;

use crate::batch::{Batch, by_length};
use crate::bridge;
use crate::checkpoint::{Checkpoint, check_regressors, load_regressors};
use crate::config::{Config, Objective, Precision, is_of_adapter};
use crate::device::{self, DeviceContext};
use crate::heads::KnownHeads;
use crate::masking::Masking;
use crate::memory;
use crate::native;
use crate::network::{Network, Resources};
use crate::parameters::{Parameters, is_of_base};
use crate::segments::ChainBounds;
use crate::streams::StreamGuard;
use crate::tokenize::Tokens;
use crate::trainer::Trainer;

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
    /// Whether results are those of the personal model: after training, until the next global model.
    reports_personal: bool,
    /// Whether all parameters have values.
    initialised: bool,
    heads: KnownHeads,
    /// For masked language modelling.
    masking: Option<Masking>,
    /// For the pooling of chains.
    chains: Option<ChainBounds>,
    context: DeviceContext,
    workspaces: Arc<WorkspacePool>,
    /// The most that a step needed when the device's free memory was looked at.
    checked_bytes: u64,
}

impl Amplify {
    /// Opens the checkpoint, if there is one. Its weights are read when they are first needed.
    ///
    /// # Errors
    /// If the checkpoint does not fit, or the device does not exist or lacks the precision.
    pub fn new(config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        let device = device::find(ctx.device())?;
        if matches!(device, Device::Cuda(_)) {
            // Before anything is computed.
            native::set_deterministic(config.deterministic)?;
        }
        Self::on(DeviceContext::new(device), config, setup, ctx)
    }

    fn on(context: DeviceContext, config: Config, setup: &ModelSetup, ctx: &Context<'_>) -> Result<Self> {
        config.check_tasks(&setup.tasks)?;
        config.check()?;
        let _guard = context.enter()?;
        tch::set_num_threads(1);
        let context = match config.fused_kernels {
            true => context.with_kernels(|why| ctx.warn(format_args!("`fused-kernels` has no effect: {why}"))),
            false => context,
        };
        prepare_precision(config.precision, context.device, ctx)?;
        let checkpoint = Checkpoint::open(&config.pretrained, ctx)?;
        config.check_layers(checkpoint.architecture.num_hidden_layers)?;
        let masking = match config.objective {
            Objective::Supervised => None,
            Objective::MaskedLm => Some(checkpoint.tokenizer.masking(checkpoint.architecture.pad_token_id)?),
        };
        let chains = checkpoint.tokenizer.check_pooling(config.pooling)?;
        let network = || Network::new(&checkpoint.architecture, &config, setup, context);
        let network = || memory::retry(&context, "batch-size", network);
        let shared = network()?;
        checkpoint.check_weights(&shared.parameters)?;
        let mut heads = KnownHeads::default();
        if let Some(path) = &config.regressors {
            check_regressors(path, &shared.parameters, setup.tasks.len())?;
            heads.set_received(&shared.parameters, &[]);
        }
        let personal = config.ditto_lambda.map(|lambda| network().map(|own| Trainer::personal(own, &config, lambda)));
        let personal = personal.transpose()?;
        let trainer = Trainer::new(shared, &config);
        let mut model = Self {
            config,
            setup: setup.clone(),
            checkpoint,
            seed: ctx.experiment_seed(),
            trainer,
            personal,
            reports_personal: false,
            initialised: false,
            heads,
            masking,
            chains,
            context,
            workspaces: WorkspacePool::shared(),
            checked_bytes: 0,
        };
        if model.personal.is_some() {
            // It starts with the shared model's initial values, not with those of the first message.
            model.initialise()?;
        }
        Ok(model)
    }

    /// Gives values to the parameters without values: the checkpoint's, or random ones, which are the same for the server and
    /// all clients. Nothing is left to do where a message or a state came first.
    fn initialise(&mut self) -> Result<()> {
        if self.initialised {
            return Ok(());
        }
        let parameters = &mut self.trainer.network.parameters;
        self.checkpoint.load_trunk(parameters)?;
        // Clients share the memory of the trunk, and not that of adapters.
        parameters.initialise_where(is_of_base, self.seed)?;
        parameters.initialise_where(is_of_adapter, self.seed)?;
        if let Some(path) = &self.config.regressors {
            load_regressors(path, parameters, self.setup.tasks.len())?;
        }
        parameters.initialise("regressors.", self.seed)?;
        if let Some(personal) = &mut self.personal {
            personal.network.parameters.take_missing(&parameters.snapshot_of(|_| true)?)?;
        }
        self.initialised = true;
        Ok(())
    }

    /// Enters the device and initialises the parameters: the start of every call that uses them.
    fn prepare(&mut self) -> Result<Option<StreamGuard>> {
        let guard = self.enter_device()?;
        self.initialise()?;
        if self.config.has_fixed_weights() {
            self.share_frozen_trunks()?;
        }
        Ok(guard)
    }

    /// The same for a call that computes.
    fn prepare_to_compute(&mut self) -> Result<Option<StreamGuard>> {
        let guard = self.prepare()?;
        self.share_frozen_trunks().map(|()| guard)
    }

    fn share_frozen_trunks(&mut self) -> Result<()> {
        self.trainer.network.share_frozen_trunk()?;
        self.personal.as_mut().map_or(Ok(()), |personal| personal.network.share_frozen_trunk())
    }

    /// Makes this thread compute like every other that calls the instance: on the instance's stream, and with one thread of
    /// libtorch, whose sums depend on the number of threads. libtorch keeps that number per thread.
    fn enter_device(&self) -> Result<Option<StreamGuard>> {
        tch::set_num_threads(1);
        self.context.enter()
    }

    /// The network that results come from.
    fn network(&self) -> &Network {
        let personal = self.personal.as_ref().filter(|_| self.reports_personal);
        &personal.unwrap_or(&self.trainer).network
    }

    /// The parameters that results come from.
    fn reported(&mut self) -> &mut Parameters {
        let personal = self.personal.as_mut().filter(|_| self.reports_personal);
        &mut personal.unwrap_or(&mut self.trainer).network.parameters
    }

    /// Network and optimiser, for tests that take single steps.
    #[doc(hidden)]
    pub fn trainer(&mut self) -> Result<&mut Trainer> {
        self.initialise().map(|()| &mut self.trainer)
    }

    /// The most bytes of the GPU that this process's tensors used at a time; none on the CPU.
    #[doc(hidden)]
    pub fn device_peak_bytes(&self) -> Result<Option<i64>> {
        self.context.peak_bytes()
    }

    /// Token ids, for tests.
    #[doc(hidden)]
    pub fn tokens(&self, sequence: &str) -> Result<Vec<u32>> {
        self.checkpoint.tokenizer.encode(sequence)
    }

    /// A batch of token ids, padded as in training.
    #[doc(hidden)]
    pub fn batch(&self, rows: &[&[u32]]) -> Result<Batch> {
        // On the stream of the call, or on one for which this function waits.
        let _on = self.enter_device()?;
        let architecture = &self.checkpoint.architecture;
        let longest = architecture.max_length as usize;
        let mut batch = Batch::new(rows, architecture.pad_token_id, longest, self.context.device)?;
        if self.config.packing && !self.trainer.network.layers().uses_cpu_encoder() {
            batch = batch.with_packing()?;
        }
        Ok(match &self.chains {
            Some(bounds) => batch.with_chains(bounds),
            None => batch,
        })
    }

    fn rows(&mut self, task: &TaskSpec, table: &Table, ctx: &Context<'_>) -> Result<Tokens> {
        let rows = self.checkpoint.tokenizer.rows(task, table, ctx)?;
        // Masked language modelling reads tokens, whatever their chain.
        if self.masking.is_none() {
            self.check_chains(task, &rows)?;
        }
        Ok(rows)
    }

    /// Checks that each row has the chains that are pooled.
    fn check_chains(&self, task: &TaskSpec, rows: &[Vec<u32>]) -> Result<()> {
        let Some(bounds) = &self.chains else { return Ok(()) };
        let wanted = self.config.vectors();
        for (row, ids) in rows.iter().enumerate() {
            let found = bounds.chains(ids).iter().filter(|chain| !chain.is_empty()).count();
            if found != wanted || bounds.chains(ids).len() != wanted {
                let chains = if found == 1 { "chain" } else { "chains" };
                let row = row + 1;
                let error = format!("task `{}`: row {row} has {found} {chains} with letters, not {wanted}", task.name);
                return Err(Error::data(error).help(format!(
                    "`chains` is the number of chains, which `|` separates; sequences are cut after {} tokens",
                    self.checkpoint.architecture.max_length
                )));
            }
        }
        Ok(())
    }

    /// The outputs of the task's head for each row, row by row in their order.
    fn predictions(&self, task: &str, rows: &[Vec<u32>], ctx: &Context<'_>) -> Result<Vec<f32>> {
        let outputs = self.setup.tasks[self.setup.number(task)?].outputs()?;
        self.in_batches(rows, outputs, ctx, |network, _, batch, resources| {
            bridge::to_vec(&network.predict(task, batch, resources)?)
        })
    }

    /// What `compute` gives for each row, `width` numbers, row by row in their order. Batches have rows of similar length;
    /// `compute` gets the numbers of its rows too.
    fn in_batches(
        &self,
        rows: &[Vec<u32>],
        width: usize,
        ctx: &Context<'_>,
        compute: impl Fn(&Network, &[usize], &Batch, &mut Resources) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let _guard = tch::no_grad_guard();
        let (network, key) = (self.network(), "evaluation-batch-size");
        let mut resources = Resources::with_workspace(&self.workspaces, ctx.threads())?;
        let _kept = network.layers().trunk().keep_weights();
        let mut all = vec![0.0; rows.len() * width];
        for indices in by_length(rows, self.config.evaluation_batch_size()) {
            ctx.check()?;
            let picked: Vec<&[u32]> = indices.iter().map(|&i| rows[i].as_slice()).collect();
            let mut batch = memory::retry(&self.context, key, || self.batch(&picked))?;
            network.pool_frozen(&mut batch, key, &mut resources, ctx)?;
            let computed = memory::retry(&self.context, key, || compute(network, &indices, &batch, &mut resources))?;
            for (i, values) in indices.into_iter().zip(computed.chunks_exact(width)) {
                all[i * width..][..width].copy_from_slice(values);
            }
        }
        Ok(all)
    }

    fn must_hold(&self, task: &str) -> Result<()> {
        if self.masking.is_some() {
            self.setup.number(task).map(drop)
        } else if self.trainer.network.layers().holds(task) {
            Ok(())
        } else {
            Err(Error::data(format!("this model has no head for task `{task}`")))
        }
    }
}

/// Switches TensorFloat-32 on if it is asked for. The device has been found, so libtorch knows its GPUs.
fn prepare_precision(precision: Precision, device: Device, ctx: &Context<'_>) -> Result<()> {
    match (precision, device) {
        (Precision::Tf32, Device::Cuda(_)) => native::allow_tf32(),
        (Precision::Tf32, _) => {
            let error = Error::config(format!("device `{}` has no TensorFloat-32", ctx.device()));
            Err(error.at_key("precision").help("NVIDIA GPUs have it; elsewhere use `fp32`"))
        }
        (Precision::Bf16 | Precision::Bf16Residual, Device::Cpu) => {
            ctx.warn(format_args!(
                "`precision`: on a CPU bfloat16 is computed by one thread, and takes many times as long as `fp32` unless the \
                 processor has instructions for it"
            ));
            Ok(())
        }
        (Precision::Fp32 | Precision::Bf16 | Precision::Bf16Residual, _) => Ok(()),
    }
}
