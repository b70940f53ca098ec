//! Masked language modelling: what takes the place of targets and predictions.

use plugin_api::{Context, Evaluation, Result, Seed, Task};
use tch::{Kind, TchError, Tensor};

use super::Amplify;
use crate::batch::Batch;
use crate::bridge;
use crate::masking::{self, MaskedSequence, Masking};
use crate::memory;
use crate::targets::Targets;

impl Amplify {
    /// The batch of these rows with masked tokens, and what is to be restored. None if there is nothing.
    pub(super) fn masked_batch(
        &self,
        rows: &[Vec<u32>],
        picked: &[usize],
        seed: Seed,
    ) -> Result<Option<(Batch, Targets)>> {
        let masked = |masking: &Masking| -> Vec<MaskedSequence> {
            picked.iter().map(|&row| masking.masked(&rows[row], seed.at(row as u64))).collect()
        };
        let masked = self.masking.as_ref().map(masked).unwrap_or_default();
        let Some(targets) = Targets::masked(&masked) else { return Ok(None) };
        let ids: Vec<&[u32]> = masked.iter().map(|sequence| sequence.ids.as_slice()).collect();
        let batch = memory::retry(&self.context, "batch-size", || self.batch(&ids))?;
        Ok(Some((batch, targets)))
    }

    /// Evaluates a task on its test rows, with the same masks in every call.
    pub(super) fn evaluate_masked(
        &self,
        masking: &Masking,
        task: &Task,
        rows: &[Vec<u32>],
        ctx: &Context<'_>,
    ) -> Result<Evaluation> {
        let masked: Vec<MaskedSequence> = rows.iter().map(|ids| masking.masked_for_evaluation(ids)).collect();
        let inputs: Vec<Vec<u32>> = masked.iter().map(|sequence| sequence.ids.clone()).collect();
        // For each sequence, the sum over its masked tokens of the cross entropy, and the number that is right.
        let found = self.in_batches(&inputs, 2, ctx, |network, picked, batch, resources| {
            let mut sums = vec![0.0; 2 * picked.len()];
            if let Some(Targets::Tokens { positions, tokens }) = Targets::masked(picked.iter().map(|&row| &masked[row]))
            {
                let logits = network.logits(batch, &positions, resources)?;
                let measured = bridge::to_vec(&measure(&logits, &tokens).map_err(bridge::torch_error)?)?;
                for (&(row, _), values) in positions.iter().zip(measured.chunks_exact(2)) {
                    sums[2 * row] += values[0];
                    sums[2 * row + 1] += values[1];
                }
            }
            Ok(sums)
        })?;
        let sum = |part: usize| found.iter().skip(part).step_by(2).map(|&x| f64::from(x)).sum::<f64>();
        let count = masked.iter().map(MaskedSequence::count).sum();
        Ok(masking::evaluation(&task.spec, rows.len(), [sum(0), sum(1)], count))
    }
}

/// The cross entropy of each token, and 1 where it is the most probable one: (tokens, 2).
fn measure(logits: &Tensor, tokens: &[i64]) -> Result<Tensor, TchError> {
    let tokens = bridge::to_device(&Tensor::f_from_slice(tokens)?, logits.device())?;
    let log_p = logits.f_log_softmax(-1, Kind::Float)?;
    let entropy = log_p.f_gather(1, &tokens.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?.f_neg()?;
    let correct = logits.f_argmax(-1, false)?.f_eq_tensor(&tokens)?.f_to_kind(Kind::Float)?;
    Tensor::f_stack(&[entropy, correct], 1)
}
