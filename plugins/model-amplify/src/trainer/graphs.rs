//! Steps as CUDA graphs: recorded once for each shape of batch, and launched as one piece of work from then on.
//!
//! A recorded step reads from fixed memory: a batch and targets, the masks of dropout, and the optimiser's numbers, all of which are
//! copied there before each launch. The first step of a shape is computed as usual and shows what is needed; the second is
//! recorded.

use std::collections::HashMap;

use plugin_api::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::{Fixed, PendingStats, TrainBatch, Trainer};
use crate::batch::Batch;
use crate::bridge::{self, torch_error};
use crate::device::DeviceContext;
use crate::graph::{Graph, Pool};
use crate::network::Resources;
use crate::optimizer::{LearningRates, Updated};
use crate::random::{DropoutRng, MaskShape};
use crate::targets::PlacedTargets;

/// The most shapes that are recorded. Others are computed as usual.
const MOST: usize = 128;

/// What one recorded step differs from another in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    task: String,
    ids: Vec<i64>,
    padded: bool,
    norm: bool,
}

/// The recorded steps of a trainer.
#[derive(Debug)]
pub(super) struct StepGraphs {
    /// None where a GPU is simulated: then a launch computes the step from the same memory.
    pool: Option<Pool>,
    steps: HashMap<Shape, Known>,
    /// How often parameters and moments had moved when the steps were recorded.
    moves: u64,
}

#[derive(Debug)]
enum Known {
    /// Computed once.
    Seen {
        masks: Vec<MaskShape>,
        updated: Updated,
    },
    Recorded(Box<RecordedStep>),
}

#[derive(Debug)]
struct RecordedStep {
    memory: Memory,
    masks: Vec<MaskShape>,
    updated: Updated,
    /// With what it reports.
    graph: Option<(Graph, PendingStats)>,
}

/// What a recorded step reads.
#[derive(Debug)]
struct Memory {
    batch: Batch,
    targets: PlacedTargets,
    masks: Vec<Tensor>,
    /// The number of the step and the rate of each of the optimiser's calls.
    scalars: Vec<[Tensor; 2]>,
}

impl Memory {
    fn new(batch: TrainBatch<'_>, masks: &[MaskShape], calls: usize, device: Device) -> Result<Self> {
        let zero = || Tensor::f_zeros([], (Kind::Float, device));
        let scalars = (0..calls).map(|_| Ok([zero()?, zero()?])).collect::<Result<_, _>>().map_err(torch_error)?;
        // Where they are read: a copy from the host would be recorded with the address of memory that is used again.
        let mask = |(shape, _): &MaskShape| Tensor::f_zeros(&shape[..], (Kind::Float, device));
        let masks = masks.iter().map(mask).collect::<Result<_, _>>().map_err(torch_error)?;
        let (targets, batch) = (batch.targets.placed(device)?, batch.batch.copied().map_err(torch_error)?);
        Ok(Self { batch, targets, masks, scalars })
    }

    /// Copies what a step reads.
    fn fill(&mut self, batch: TrainBatch<'_>, masks: &[Tensor], scalars: &[(i32, f64)]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let targets = batch.targets.placed(self.targets.rows.device())?;
        let to = self.batch.inputs().into_iter().chain([&self.targets.rows]).chain(&self.masks);
        let from = batch.batch.inputs().into_iter().chain([&targets.rows]).chain(masks);
        let copied = to.zip(from).try_for_each(|(to, from)| to.shallow_clone().f_copy_(from).map(drop));
        copied.map_err(torch_error)?;
        let both = self.scalars.iter_mut().zip(scalars);
        let filled = both.flat_map(|([step, rate], &(number, value))| {
            [step.f_fill_(f64::from(number)).map(drop), rate.f_fill_(value).map(drop)]
        });
        filled.collect::<Result<(), _>>().map_err(torch_error)
    }
}

impl StepGraphs {
    /// # Errors
    /// If libtorch has no CUDA graphs.
    pub(super) fn new(context: &DeviceContext) -> Result<Self> {
        let pool = context.gpu().map(|_| Pool::new()).transpose()?;
        Ok(Self { pool, steps: HashMap::new(), moves: 0 })
    }

    #[cfg(test)]
    pub(super) fn recorded(&self) -> usize {
        self.steps.values().filter(|step| matches!(step, Known::Recorded(_))).count()
    }

    /// As [`Trainer::compute`] does, a step on one batch.
    pub(super) fn step(
        &mut self,
        trainer: &mut Trainer,
        batch: TrainBatch<'_>,
        rates: LearningRates,
        resources: &mut Resources,
    ) -> Result<PendingStats> {
        let moves = trainer.network.parameters.moves() + trainer.optimizer.moves();
        if std::mem::replace(&mut self.moves, moves) != moves {
            // The addresses that were recorded are no longer right.
            self.steps.clear();
        }
        let shape = Shape {
            task: batch.task.to_owned(),
            ids: batch.batch.ids.size(),
            padded: batch.batch.keys.is_some(),
            norm: resources.track_gradient_norm,
        };
        let recorded = match self.steps.remove(&shape) {
            None => return self.first(shape, trainer, batch, rates, resources),
            Some(Known::Recorded(recorded)) => *recorded,
            Some(Known::Seen { masks, updated }) => {
                let memory = Memory::new(batch, &masks, updated.calls(), trainer.network.parameters.context().device)?;
                RecordedStep { memory, masks, updated, graph: None }
            }
        };
        let (recorded, stats) = self.launch(recorded, trainer, batch, rates, resources)?;
        self.steps.insert(shape, Known::Recorded(Box::new(recorded)));
        Ok(stats)
    }

    fn first(
        &mut self,
        shape: Shape,
        trainer: &mut Trainer,
        batch: TrainBatch<'_>,
        rates: LearningRates,
        resources: &mut Resources,
    ) -> Result<PendingStats> {
        let (dropout, noted) = batch.dropout.noting();
        let (stats, updated) = trainer.compute(&[TrainBatch { dropout: &dropout, ..batch }], rates, None, resources)?;
        trainer.optimizer.count(&updated);
        if self.steps.len() < MOST {
            let masks = noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            self.steps.insert(shape, Known::Seen { masks, updated });
        }
        Ok(stats)
    }

    fn launch(
        &self,
        mut recorded: RecordedStep,
        trainer: &mut Trainer,
        batch: TrainBatch<'_>,
        rates: LearningRates,
        resources: &mut Resources,
    ) -> Result<(RecordedStep, PendingStats)> {
        let RecordedStep { memory, masks, updated, graph } = &mut recorded;
        let device = trainer.network.parameters.context().device;
        let drawn = batch.dropout.draw(masks).map_err(torch_error)?;
        let drawn = drawn.iter().map(|mask| bridge::to_device(mask, device)).collect::<Result<Vec<_>, _>>();
        memory.fill(batch, &drawn.map_err(torch_error)?, &trainer.optimizer.scalars(updated, rates))?;
        let dropout = if masks.is_empty() { DropoutRng::disabled() } else { DropoutRng::given(&memory.masks) };
        let fixed = Fixed { targets: &memory.targets, scalars: &memory.scalars };
        let mut compute = || {
            let batch = TrainBatch { batch: &memory.batch, dropout: &dropout, ..batch };
            trainer.compute(&[batch], rates, Some(fixed), resources).map(|(stats, _)| stats)
        };
        let stats = match (graph, self.pool) {
            (_, None) => compute()?,
            (graph, Some(pool)) => {
                if graph.is_none() {
                    *graph = Some(Graph::record(pool, compute).map_err(explain)?);
                }
                let Some((graph, stats)) = graph else { unreachable!("it was recorded") };
                graph.launch()?;
                stats.copied(rates)?
            }
        };
        trainer.optimizer.count(updated);
        Ok((recorded, stats))
    }
}

fn explain(error: Error) -> Error {
    let explained = Error::other("a training step could not be recorded as a CUDA graph");
    let causes = std::iter::once(error.message().to_owned()).chain(error.causes().iter().cloned());
    causes.fold(explained, |explained, cause| explained.because_of(cause)).help("remove `cuda-graphs` in `[model]`")
}
