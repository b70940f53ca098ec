//! The norm to which updates are clipped, fixed or adaptive.

use plugin_api::{Error, Result};
use rand_chacha::ChaCha20Rng;

use super::config::{AdaptiveClip, Clip};
use crate::lattice::{Lattice, NoiseKind};

/// A clipping norm.
#[derive(Clone, Debug)]
pub(crate) struct Clipping {
    pub(crate) norm: f64,
    /// Set if the norm adapts, with the noise of the count.
    adaptive: Option<(AdaptiveClip, Lattice)>,
    /// The count of clients within the norm, minus those beyond it, in steps of its lattice.
    count: i64,
}

impl Clipping {
    /// Returns the clipping of the first round, and the noise multiplier that remains for the updates.
    pub(crate) fn new(clip: Clip, noise_multiplier: f64, kind: NoiseKind) -> Result<(Self, f64)> {
        let adapt = match clip {
            Clip::Fixed(norm) => return Ok((Self { norm, adaptive: None, count: 0 }, noise_multiplier)),
            Clip::Adaptive(adapt) => adapt,
        };
        let rest = adapt.rest(noise_multiplier)?;
        // A client counts as plus or minus one half.
        let noise = if noise_multiplier == 0.0 { 0.0 } else { 2.0 * adapt.count_noise };
        let lattice = Lattice::new(noise, kind).map_err(|e| e.at_key("clip.count-noise"))?;
        Ok((Self { norm: adapt.initial, adaptive: Some((adapt, lattice)), count: 0 }, rest))
    }

    pub(crate) fn is_adaptive(&self) -> bool {
        self.adaptive.is_some()
    }

    pub(crate) fn begin(&mut self) {
        self.count = 0;
    }

    /// Counts a client whose update has this norm.
    pub(crate) fn count(&mut self, norm: f64) {
        if let Some((_, lattice)) = &self.adaptive {
            let half = i64::from(lattice.steps());
            self.count += if norm <= self.norm { half } else { -half };
        }
    }

    /// The multiplier of continuous noise that costs as much as these updates and the count together.
    pub(crate) fn joint(&self, updates: &Lattice) -> f64 {
        let precision = |lattice: &Lattice| lattice.multiplier().powi(-2);
        let count = self.adaptive.as_ref().map_or(0.0, |(_, lattice)| precision(lattice));
        (precision(updates) + count).sqrt().recip()
    }

    /// Moves the norm by the noisy fraction of `expected` clients within it: `C e^(-η (b - γ))` (Andrew et al. 2021,
    /// Algorithm 1). The fraction is clamped to [0, 1].
    ///
    /// # Errors
    /// If the norm overflows or underflows.
    pub(crate) fn adapt(&mut self, expected: f64, rng: &mut ChaCha20Rng) -> Result<()> {
        let Some((adapt, lattice)) = &self.adaptive else { return Ok(()) };
        let halves = lattice.noisy(self.count, rng) / f64::from(lattice.steps());
        let share = (0.5 + 0.5 * halves / expected).clamp(0.0, 1.0);
        let norm = self.norm * (-adapt.learning_rate * (share - adapt.quantile)).exp();
        if !norm.is_normal() {
            return Err(Error::other(format!("the clipping norm of {} cannot adapt further", self.norm))
                .help("a lower learning rate of `clip`, or a fixed norm"));
        }
        self.norm = norm;
        Ok(())
    }
}
