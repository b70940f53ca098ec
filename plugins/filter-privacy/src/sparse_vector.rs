//! Sharing a few noisy updates whose noisy magnitude is above a noisy threshold.

use plugin_api::{Context, Error, Params, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::noise::Draw;
use crate::update::Update;

/// After so many passes over the rest the threshold is out of reach.
const MOST_PASSES: usize = 1000;

/// What the key `epsilon` is the budget of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonOf {
    /// Of the whole selection: of the threshold and the queries together, as in NVIDIA FLARE 2.9.
    #[default]
    Selection,
    /// Of the threshold alone, as in NVIDIA FLARE before. The queries then cost `(2n)^(2/3)` times as much besides.
    Threshold,
}

/// What the selection's noise is, in a round.
struct Selection {
    /// Scale of the threshold's Laplace noise.
    threshold: f64,
    /// Scale of a query's Laplace noise.
    query: f64,
    /// What both cost.
    epsilon: f64,
}

/// The keys of the mechanism, by the names that they have in the file.
#[derive(Clone, Debug)]
pub(crate) struct SparseVector {
    pub(crate) fraction: f64,
    pub(crate) epsilon: f64,
    pub(crate) epsilon_of: EpsilonOf,
    pub(crate) noise_var: f64,
    pub(crate) gamma: f64,
    pub(crate) tau: f64,
    pub(crate) replace: bool,
}

impl SparseVector {
    /// The changed parameters, and how many of their updates are shared.
    pub(crate) fn apply(
        &self,
        update: &Update<'_>,
        draw: &mut impl Draw,
        ctx: &Context<'_>,
    ) -> Result<(Params, usize)> {
        let mut values = update.values()?;
        let shared = self.share(&mut values, draw, ctx)?;
        let mut next = values.into_iter();
        Ok((update.changed(ctx, |_| next.next().unwrap_or_default())?, shared))
    }

    /// How many of `count` values are asked for: the fraction, rounded up.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of values that lie in memory"
    )]
    fn wanted(&self, count: usize) -> usize {
        ((count as f64 * self.fraction).ceil() as usize).min(count)
    }

    /// The noise of the selection of so many values: budgets in the proportion `1 : (2n)^(2/3)` (Lyu, Su and Li 2017).
    #[expect(clippy::cast_precision_loss, reason = "a number of values that lie in memory")]
    fn selection(&self, wanted: usize) -> Selection {
        let (gamma, n, ratio) = (self.gamma, wanted as f64, (2.0 * wanted as f64).powf(2.0 / 3.0));
        match self.epsilon_of {
            EpsilonOf::Selection => {
                let threshold = self.epsilon / (1.0 + ratio);
                let query = self.epsilon - threshold;
                Selection { threshold: gamma / threshold, query: 2.0 * gamma * n / query, epsilon: self.epsilon }
            }
            EpsilonOf::Threshold => {
                let query = self.epsilon * ratio;
                let scales = (2.0 * gamma / self.epsilon, 4.0 * gamma * n / query);
                Selection { threshold: scales.0, query: scales.1, epsilon: self.epsilon + query }
            }
        }
    }

    /// What a textbook sparse vector with the same noise would cost in one round: the selection, and a value each.
    #[expect(clippy::cast_precision_loss, reason = "a number of values that lie in memory")]
    pub(crate) fn textbook_epsilon(&self, count: usize) -> f64 {
        let wanted = self.wanted(count);
        self.selection(wanted).epsilon + wanted as f64 * self.noise_var
    }

    /// Replaces the values by what is shared of them: 0 for most. Says how many are shared.
    pub(crate) fn share(&self, values: &mut [f64], draw: &mut impl Draw, ctx: &Context<'_>) -> Result<usize> {
        let wanted = self.wanted(values.len());
        let Selection { threshold, query, .. } = self.selection(wanted);
        let threshold = self.tau + threshold * draw.laplace();
        let clip = |value: f64| value.clamp(-self.gamma, self.gamma);

        let mut rest: Vec<usize> = (0..values.len()).collect();
        let mut accepted = Vec::new();
        for _ in 0..MOST_PASSES {
            ctx.check()?;
            rest.retain(|&index| {
                let above = clip(values[index]).abs() + query * draw.laplace() >= threshold;
                if above {
                    accepted.push(index);
                }
                !above
            });
            if accepted.len() >= wanted {
                break;
            }
        }
        if accepted.len() < wanted {
            let message = format!(
                "after {MOST_PASSES} passes only {} of {wanted} values were above the threshold of {threshold:e}",
                accepted.len()
            );
            return Err(Error::other(message).at_key("tau").help("`tau` is of the size of `gamma` at most"));
        }

        let mut chosen = self.choose(accepted, wanted, draw);
        chosen.sort_unstable();
        chosen.dedup();
        let noisy: Vec<f64> = chosen
            .iter()
            .map(|&index| clip(clip(values[index]) + 2.0 * self.gamma / self.noise_var * draw.laplace()))
            .collect();
        values.fill(0.0);
        chosen.iter().zip(noisy).for_each(|(&index, value)| values[index] = value);
        Ok(chosen.len())
    }

    /// Draws so many of the accepted.
    fn choose(&self, mut accepted: Vec<usize>, wanted: usize, draw: &mut impl Draw) -> Vec<usize> {
        if self.replace {
            return (0..wanted).map(|_| accepted[draw.below(accepted.len())]).collect();
        }
        for place in 0..wanted {
            let other = place + draw.below(accepted.len() - place);
            accepted.swap(place, other);
        }
        accepted.truncate(wanted);
        accepted
    }
}
