//! What an epoch reports. On a GPU the losses of several steps are read together: to read them, the host waits for the GPU.

use plugin_api::{Context, Epoch, Result};

use super::Amplify;
use crate::device::DeviceContext;
use crate::memory;
use crate::trainer::{PendingStats, StepStats, Trainer};

/// The steps on a GPU whose reports are read together.
const TOGETHER: usize = 16;

/// The reports of the last steps.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Each step's number and task.
    of: Vec<(u64, String)>,
    stats: Vec<PendingStats>,
}

impl Reports {
    pub(super) fn push(&mut self, step: u64, task: &str, stats: PendingStats) {
        self.of.push((step, task.to_owned()));
        self.stats.push(stats);
    }

    /// Whether it is time to read them.
    pub(super) fn is_due(&self, context: &DeviceContext) -> bool {
        context.on_host || self.of.len() >= TOGETHER
    }
}

impl Amplify {
    /// Records the scalars of all steps since the last call.
    pub(super) fn report(&self, reports: &mut Reports, epoch: Epoch, ctx: &Context<'_>) -> Result<()> {
        let Reports { of, stats } = std::mem::take(reports);
        for ((step, task), stats) in of.iter().zip(PendingStats::read(&stats)?) {
            self.record(task, *step, &stats, epoch, ctx);
        }
        Ok(())
    }

    /// Warns if the device seems to have too little memory for training on these rows.
    pub(super) fn check_memory(&mut self, rows: &[Vec<u32>], ctx: &Context<'_>) {
        let a = &self.checkpoint.architecture;
        let longest = rows.iter().map(Vec::len).max().unwrap_or_default();
        let length = longest.next_multiple_of(8).min(a.max_length.max(0) as usize);
        let count = rows.len().min(self.config.batch_size);
        let trainers = std::iter::once(&self.trainer).chain(&self.personal);
        let own: usize = trainers.map(Trainer::step_bytes).sum();
        let needed = memory::activation_bytes(a, &self.config, count, length) + own as u64;
        if needed <= self.checked_bytes {
            return;
        }
        self.checked_bytes = needed;
        // Without the number of free bytes there is nothing to compare with, and training itself says what it lacks.
        let Ok(Some(free)) = self.context.free_bytes() else { return };
        if let Some(sentence) = memory::shortage(&self.context.name(), count, length, needed, free) {
            ctx.warn(format_args!("{sentence}"));
        }
    }

    /// Records the GPU memory of this instance, and the peak of this process.
    pub(super) fn record_memory(&self, ctx: &Context<'_>) -> Result<()> {
        let Some(peak) = self.context.peak_bytes()? else { return Ok(()) };
        let own = self.trainer.bytes() + self.personal.as_ref().map_or(0, Trainer::bytes);
        ctx.scalar("Memory/client", self.trainer.steps(), own as f64);
        ctx.scalar("Memory/device_peak", self.trainer.steps(), peak as f64);
        Ok(())
    }

    fn record(&self, task: &str, step: u64, stats: &StepStats, epoch: Epoch, ctx: &Context<'_>) {
        let StepStats { loss, rates, .. } = *stats;
        match self.setup.held.len() {
            1 => ctx.scalar("Loss/train", step, loss),
            _ => ctx.scalar(&format!("Loss/train_{task}"), step, loss),
        }
        if !self.config.frozen_trunk {
            ctx.scalar("LR/trunk", step, rates.trunk);
        }
        if self.masking.is_none() {
            ctx.scalar("LR/regressor", step, rates.regressor);
        }
        ctx.scalar("Epoch", step, epoch.epoch as f64);
        ctx.scalar("Round", step, epoch.round as f64);
    }
}
