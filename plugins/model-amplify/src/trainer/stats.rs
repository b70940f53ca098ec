//! What a step reports.

use plugin_api::Result;
use tch::Tensor;

use crate::bridge::torch_error;
use crate::optimizer::LearningRates;

/// What a step reports, where it was computed: reading it waits for the device.
#[derive(Debug)]
pub struct PendingStats {
    /// The loss and the squared norm of the gradients, doubles.
    pub(super) numbers: [Tensor; 2],
    pub(super) rates: LearningRates,
}

impl PendingStats {
    /// The same numbers in memory of their own, for a step at these rates.
    ///
    /// # Errors
    /// If libtorch fails.
    pub(super) fn copied(&self, rates: LearningRates) -> Result<Self> {
        let [loss, squared_norm] = self.numbers.each_ref().map(Tensor::f_detach_copy);
        Ok(Self { numbers: [loss.map_err(torch_error)?, squared_norm.map_err(torch_error)?], rates })
    }

    /// Those of several steps, with one transfer.
    ///
    /// # Errors
    /// If libtorch, or work that was started before, fails.
    pub(crate) fn read(steps: &[Self]) -> Result<Vec<StepStats>> {
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<&Tensor> = steps.iter().flat_map(|step| &step.numbers).collect();
        let numbers = Tensor::f_stack(&all, 0).and_then(Vec::<f64>::try_from).map_err(torch_error)?;
        let stats = steps.iter().zip(numbers.chunks_exact(2)).map(|(step, numbers)| StepStats {
            loss: numbers[0],
            rates: step.rates,
            gradient_norm: numbers[1].sqrt(),
        });
        Ok(stats.collect())
    }
}

/// What a step reports.
#[derive(Clone, Copy, Debug)]
pub struct StepStats {
    /// The loss before the step, without the task's weight.
    pub loss: f64,
    /// The learning rates of the step.
    pub rates: LearningRates,
    /// The L2 norm of all gradients before their correction; 0 unless
    /// [`track_gradient_norm`](crate::network::Resources::track_gradient_norm) is set.
    pub gradient_norm: f64,
}
