//! Shares a few noisy updates whose noisy magnitude is above a noisy threshold.

use plugin_api::{Context, Error, Params, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::noise::Draw;
use crate::update::Update;

/// The number of passes over the rest after which the threshold counts as out of reach.
const MOST_PASSES: usize = 1000;

/// What the budget `epsilon` covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonOf {
    /// The whole selection: the threshold and the queries together, as in NVIDIA FLARE 2.9.
    #[default]
    Selection,
    /// The threshold alone, as in earlier versions of NVIDIA FLARE. The queries then cost an additional `(2n)^(2/3)`
    /// times as much.
    Threshold,
}

/// The noise of a round's selection.
struct Selection {
    /// Scale of the threshold's Laplace noise.
    threshold: f64,
    /// Scale of a query's Laplace noise.
    query: f64,
    /// The cost of both.
    epsilon: f64,
}

/// The mechanism's keys, named as in the configuration.
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
    /// Returns the changed parameters, and how many of their updates are shared.
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

    /// How many of `count` values to request: the fraction, rounded up.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of values that lie in memory"
    )]
    fn wanted(&self, count: usize) -> usize {
        ((count as f64 * self.fraction).ceil() as usize).min(count)
    }

    /// The noise to select `wanted` values: budgets in the proportion `1 : (2n)^(2/3)` (Lyu, Su and Li 2017).
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

    /// The cost of one round of a textbook sparse vector with the same noise: the selection plus each value.
    #[expect(clippy::cast_precision_loss, reason = "a number of values that lie in memory")]
    pub(crate) fn textbook_epsilon(&self, count: usize) -> f64 {
        let wanted = self.wanted(count);
        self.selection(wanted).epsilon + wanted as f64 * self.noise_var
    }

    /// Replaces the values by what is shared of them: 0 for most. Returns how many are shared.
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

    /// Draws `wanted` of the accepted values.
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
