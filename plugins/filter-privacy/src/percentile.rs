//! Shares only the largest updates.

use plugin_api::{Context, Params, Result};

use crate::update::Update;

/// Sets updates below a percentile of the magnitudes to 0 and clips the rest.
#[derive(Debug)]
pub(crate) struct Percentile {
    percentile: f64,
    gamma: f64,
}

impl Percentile {
    pub(crate) fn new(percentile: f64, gamma: f64) -> Self {
        Self { percentile, gamma }
    }

    /// Returns the changed parameters, and how many of their updates are not 0.
    pub(crate) fn apply(&self, update: &Update<'_>, ctx: &Context<'_>) -> Result<(Params, usize)> {
        let mut magnitudes = update.values()?;
        magnitudes.iter_mut().for_each(|value| *value = value.abs());
        let cutoff = percentile(&mut magnitudes, self.percentile);
        drop(magnitudes);
        let mut shared = 0;
        let params = update.changed(ctx, |update| {
            let kept = if update.abs() < cutoff { 0.0 } else { update.clamp(-self.gamma, self.gamma) };
            shared += usize::from(kept != 0.0);
            kept
        })?;
        Ok((params, shared))
    }
}

/// The percentile of at least one value, interpolated linearly between the two nearest, like NumPy's default. Reorders
/// the values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place among values that lie in memory"
)]
pub(crate) fn percentile(values: &mut [f64], percentile: f64) -> f64 {
    let last = values.len() - 1;
    let place = percentile / 100.0 * last as f64;
    let below = (place.floor() as usize).min(last);
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    if high.is_finite() { low + (high - low) * (place - below as f64) } else { low }
}
