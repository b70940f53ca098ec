//! The calls of the contract: a round, an epoch, and the loop over tasks and batches.

use std::path::Path;

use plugin_api::{
    Context, Epoch, Error, Evaluation, Message, Model, Params, Received, Result, Seed, State, Table, Task, Trained,
    metrics,
};

use super::Amplify;
use super::embed::EMBED;
use super::reports::Reports;
use crate::adapter;
use crate::batch::Batch;
use crate::checkpoint::Checkpoint;
use crate::export::ExportFolder;
use crate::heads::{KnownHeads, head_number};
use crate::memory;
use crate::network::Resources;
use crate::parameters::is_of_trunk;
use crate::random::{DropoutRng, shuffled};
use crate::targets::Targets;
use crate::trainer::{PendingStats, SchedulePoint, TrainBatch, Trainer, decay_steps};

/// Prefixes the personal model's tensors in a state.
const PERSONAL: &str = "personal.";
/// The value with the seed of a trunk that is no part of the state.
const TRUNK_SEED: &str = "trunk-seed";

/// The value of an update with the factor of its adapters, for the aggregator `lora`.
const LORA_SCALE: &str = "lora.scale";

/// A batch with what it is compared with, and its dropout.
type Part = (Batch, Targets, DropoutRng);

impl Amplify {
    /// The batches of a step on these rows, with their targets, or with masked tokens and what they were; none where there is
    /// nothing to restore.
    fn parts(
        &self,
        rows: &[Vec<u32>],
        picked: &[usize],
        targets: Option<&Targets>,
        [masks, dropout]: [Seed; 2],
        ctx: &Context<'_>,
    ) -> Result<Vec<Part>> {
        let mut parts = Vec::with_capacity(picked.len().div_ceil(self.config.batch_size));
        for picked in picked.chunks(self.config.batch_size) {
            ctx.check()?;
            let part = match targets {
                Some(targets) => {
                    let rows: Vec<&[u32]> = picked.iter().map(|&row| rows[row].as_slice()).collect();
                    let batch = memory::retry(&self.context, "batch-size", || self.batch(&rows))?;
                    Some((batch, targets.select(picked)))
                }
                None => self.masked_batch(rows, picked, masks)?,
            };
            let seed = if parts.is_empty() { dropout } else { dropout.at(parts.len() as u64) };
            parts.extend(part.map(|(batch, targets)| (batch, targets, DropoutRng::new(seed))));
        }
        Ok(parts)
    }

    /// An epoch of all tasks.
    fn train_tasks(
        &mut self,
        tasks: &[Task],
        epoch: Epoch,
        reports: &mut Reports,
        ctx: &Context<'_>,
    ) -> Result<Trained> {
        let size = self.config.batch_size.saturating_mul(self.config.accumulate);
        let total = tasks.iter().map(|task| task.train.rows().div_ceil(size) as u64).sum();
        let point = SchedulePoint { round: epoch.round, decay_steps: decay_steps(total, &self.setup) };
        let seed = ctx.seed().at(epoch.round).at(epoch.epoch);
        let mut trained = Trained::default();
        let mut resources = Resources::with_workspace(&self.workspaces, ctx.threads())?;
        for task in tasks.iter().filter(|task| task.train.rows() > 0) {
            let name = task.spec.name.as_str();
            self.must_hold(name)?;
            let number = self.setup.number(name)?;
            let rows = self.rows(&task.spec, &task.train, ctx)?;
            self.check_memory(&rows, ctx);
            let targets = match self.masking {
                Some(_) => None,
                None => Some(Targets::of(&task.spec, &task.train, self.config.class_weights.as_ref())?),
            };
            for picked in shuffled(rows.len(), seed.of("shuffle").of(name)).chunks(size) {
                let seeds = [seed.of("mask").of(name), seed.of("dropout").at(trained.steps)];
                let mut parts = self.parts(&rows, picked, targets.as_ref(), seeds, ctx)?;
                if parts.is_empty() {
                    continue;
                }
                // Steps are numbered from zero over all rounds.
                let step = self.trainer.steps();
                let mut stats = begin_step(&mut self.trainer, name, &mut parts, point, &mut resources, ctx)?;
                // The personal model gives the results, if there is one. It has a trunk of its own.
                if let Some(personal) = &mut self.personal {
                    stats = begin_step(personal, name, &mut parts, point, &mut resources, ctx)?;
                }
                self.heads.mark_trained(number);
                reports.push(step, name, stats);
                if reports.is_due(&self.context) {
                    self.report(reports, epoch, ctx)?;
                }
                trained.steps += 1;
                trained.examples += picked.len() as u64;
                ctx.progress(trained.steps, total);
            }
        }
        Ok(trained)
    }
}

/// Begins a step of one task on all of these batches.
fn begin_step(
    trainer: &mut Trainer,
    task: &str,
    batches: &mut [Part],
    point: SchedulePoint,
    resources: &mut Resources,
    ctx: &Context<'_>,
) -> Result<PendingStats> {
    let mut inputs = Vec::with_capacity(batches.len());
    for (batch, targets, dropout) in batches {
        trainer.network.pool_frozen(batch, "batch-size", resources, ctx)?;
        inputs.push(TrainBatch { task, batch, targets, dropout });
    }
    trainer.begin_step(&inputs, point, resources)
}

impl Model for Amplify {
    fn parameters(&mut self, _: &Context<'_>) -> Result<Params> {
        let _on = self.prepare()?;
        self.reported().snapshot()
    }

    fn receive(&mut self, global: &Message, ctx: &Context<'_>) -> Result<Received> {
        let _on = self.enter_device()?;
        let received = self.trainer.receive(global, ctx.property("update.taken")?)?;
        if let Some(personal) = &mut self.personal {
            personal.receive_anchor(global)?;
        }
        self.reports_personal = false;
        self.heads.set_received(&self.trainer.network.parameters, &received.missing);
        Ok(received)
    }

    fn train(&mut self, tasks: &[Task], epoch: Epoch, ctx: &Context<'_>) -> Result<Trained> {
        let _on = self.prepare_to_compute()?;
        let mut reports = Reports::default();
        let trained = self.train_tasks(tasks, epoch, &mut reports, ctx);
        // Steps before an error are reported too.
        let reported = self.report(&mut reports, epoch, ctx);
        let trained = trained?;
        reported?;
        self.reports_personal = true;
        self.trainer.end_epoch()?;
        self.personal.as_mut().map_or(Ok(()), Trainer::end_epoch)?;
        self.record_memory(ctx)?;
        Ok(trained)
    }

    /// The shared model, and what SCAFFOLD has to say.
    fn send(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let _on = self.prepare()?;
        let parameters = &mut self.trainer.network.parameters;
        let (params, values) = match &self.config.lora {
            Some(lora) if lora.moving_base => {
                let scale = [(LORA_SCALE.to_owned(), lora.scale().into())];
                (parameters.snapshot_of(|name| self.config.trains(name))?, scale.into_iter().collect())
            }
            _ => (parameters.snapshot()?, serde_json::Map::new()),
        };
        let extra = self.trainer.extra(ctx.round())?;
        self.trainer.end_round();
        self.personal.iter_mut().for_each(Trainer::end_round);
        Ok(Message { params, extra, values })
    }

    fn evaluate(&mut self, tasks: &[Task], ctx: &Context<'_>) -> Result<Vec<Evaluation>> {
        let _on = self.prepare_to_compute()?;
        let mut evaluations = Vec::with_capacity(tasks.len());
        for task in tasks {
            self.must_hold(&task.spec.name)?;
            let rows = self.rows(&task.spec, &task.test, ctx)?;
            if let Some(masking) = &self.masking {
                evaluations.push(self.evaluate_masked(masking, task, &rows, ctx)?);
                continue;
            }
            let predictions = self.predictions(&task.spec.name, &rows, ctx)?;
            evaluations.push(metrics::evaluate(task, &task.spec.predictions(&predictions)?)?);
        }
        Ok(evaluations)
    }

    fn predict(&mut self, task: &str, rows: &Table, ctx: &Context<'_>) -> Result<Table> {
        if self.masking.is_some() {
            return Err(Error::unsupported("`objective = \"masked-lm\"` learns no target to predict"));
        }
        let _on = self.prepare_to_compute()?;
        self.must_hold(task)?;
        let spec = self.setup.tasks[self.setup.number(task)?].clone();
        let rows = self.rows(&spec, rows, ctx)?;
        spec.predictions(&self.predictions(task, &rows, ctx)?)
    }

    fn export(&mut self, folder: &Path, _: &Context<'_>) -> Result<Vec<String>> {
        let _on = self.prepare()?;
        let mut trunk = self.reported().snapshot_of(is_of_trunk)?;
        let mut regressors = self.reported().snapshot_of(|name| !is_of_trunk(name))?;
        let adapters = self.config.lora.as_ref().map(|lora| adapter::merge(&mut trunk, lora)).transpose()?;
        regressors.retain(|name, _| head_number(name).is_some_and(|head| self.heads.contains(head)));
        let Checkpoint { architecture, tokenizer, companions, .. } = &self.checkpoint;
        let mut folder = ExportFolder::new(folder);
        folder.trunk(&trunk, architecture, tokenizer, companions)?;
        folder.regressors(&regressors, &self.heads, &self.config, &self.setup)?;
        // On a base that has moved, they would not be adapters of `pretrained`.
        if let (Some(lora), Some(adapters), false) = (&self.config.lora, adapters, self.config.has_moving_base()) {
            folder.adapter(&adapters, lora, &self.config.pretrained, architecture)?;
        }
        folder.readme(architecture)?;
        Ok(folder.finish())
    }

    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        match name {
            EMBED => self.embed(input, ctx),
            _ => Err(Error::unsupported(format!("this model does not know the extension `{name}`"))),
        }
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let _on = self.prepare()?;
        let mut state = self.trainer.state()?;
        if let Some(personal) = &mut self.personal {
            let State { tensors, values } = personal.state()?;
            for (name, tensor) in tensors.iter() {
                state.tensors.insert(format!("{PERSONAL}{name}"), tensor.clone());
            }
            state.values.insert(PERSONAL.to_owned(), values.into());
        }
        state.values.insert("is-own".to_owned(), self.reports_personal.into());
        if self.config.has_fixed_weights() {
            // Random weights of the trunk, which are no part of the state, follow from it.
            state.values.insert(TRUNK_SEED.to_owned(), self.seed.value().into());
        }
        self.heads.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        let _on = self.enter_device()?;
        let (heads, reports_personal) = (KnownHeads::read(state)?, state.value("is-own")?);
        let personal = match &self.personal {
            Some(_) => {
                let tensors = state.tensors.iter();
                let tensors = tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(PERSONAL)?, tensor.clone())));
                Some(State { tensors: tensors.collect(), values: state.value(PERSONAL)? })
            }
            None => None,
        };
        let seed = if self.config.has_fixed_weights() { Seed::new(state.value(TRUNK_SEED)?) } else { self.seed };
        if self.initialised && seed != self.seed {
            return Err(Error::config("the state is of a run with another seed, and so with another trunk"));
        }
        let before = personal.is_some().then(|| self.trainer.state()).transpose()?;
        self.trainer.restore(state)?;
        if let (Some(own), Some(state), Some(before)) = (&mut self.personal, personal, before)
            && let Err(error) = own.restore(&state)
        {
            self.trainer.restore(&before)?;
            return Err(error);
        }
        self.seed = seed;
        // A state has no parameters that every client has.
        let initialised = !self.config.has_fixed_weights();
        (self.heads, self.reports_personal, self.initialised) = (heads, reports_personal, initialised);
        Ok(())
    }
}
