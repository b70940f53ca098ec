//! Clipping and Gaussian noise.

use fedplug_dp::Accountant;
use plugin_api::{Context, Params, Result};

use crate::noise::Draw;
use crate::update::Update;

/// Clips a client's whole update to an L2 norm and adds noise to every element.
#[derive(Debug)]
pub(crate) struct Gaussian {
    clip: f64,
    noise_multiplier: f64,
    delta: f64,
    accountant: Accountant,
}

impl Gaussian {
    pub(crate) fn new(clip: f64, noise_multiplier: f64, delta: f64) -> Self {
        // Each client adds noise of its own, so whoever sees its messages knows in which rounds it was: nothing is amplified.
        let accountant = Accountant::new(noise_multiplier, 1.0, delta);
        Self { clip, noise_multiplier, delta, accountant }
    }

    /// `base + u · min(1, C / ‖u‖) + N(0, (σC)²)`, and `‖u‖`.
    pub(crate) fn apply(&self, update: &Update<'_>, draw: &mut impl Draw, ctx: &Context<'_>) -> Result<(Params, f64)> {
        let norm = update.norm()?;
        let scale = if self.clips(norm) { self.clip / norm } else { 1.0 };
        let deviation = self.noise_multiplier * self.clip;
        let params = if deviation > 0.0 {
            update.changed(ctx, |update| scale * update + deviation * draw.normal())?
        } else {
            update.changed(ctx, |update| scale * update)?
        };
        Ok((params, norm))
    }

    /// Whether an update of this norm is scaled down.
    pub(crate) fn clips(&self, norm: f64) -> bool {
        norm > self.clip
    }

    pub(crate) fn epsilon(&self, rounds: u64) -> f64 {
        self.accountant.epsilon(rounds)
    }

    /// What is guaranteed after so many rounds.
    pub(crate) fn guarantee(&self, rounds: u64) -> String {
        if self.noise_multiplier == 0.0 {
            return format!("clipped to {} without noise: epsilon is infinite", self.clip);
        }
        let (epsilon, delta, plural) = (self.epsilon(rounds), self.delta, if rounds == 1 { "" } else { "s" });
        format!(
            "epsilon {epsilon:.4} at delta {delta:e} for the parameters sent in {rounds} round{plural}, for a client's whole \
             update against none"
        )
    }
}
