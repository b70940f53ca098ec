//! Clipping and Gaussian noise.

use fedplug_dp::Rounds;
use plugin_api::{Context, Params, Result};
use rand_chacha::ChaCha20Rng;

use crate::lattice::{Lattice, NoiseKind};
use crate::noise::Draw;
use crate::update::Update;

/// Rounds for an account. Each client adds its own noise, so whoever sees its messages knows which rounds it was in:
/// nothing is amplified.
pub(crate) fn rounds_of(noise_multiplier: f64, count: u64) -> Rounds {
    Rounds { noise_multiplier, sample_rate: 1.0, count }
}

/// Clips a client's whole update to an L2 norm and adds noise to every element.
#[derive(Debug)]
pub(crate) struct Gaussian {
    clip: f64,
    noise_multiplier: f64,
    delta: f64,
    /// Set if the noise is discrete.
    lattice: Option<Lattice>,
}

impl Gaussian {
    pub(crate) fn new(clip: f64, noise_multiplier: f64, delta: f64, kind: NoiseKind) -> Result<Self> {
        let discrete = kind == NoiseKind::Discrete && noise_multiplier > 0.0;
        let lattice = discrete.then(|| Lattice::new(noise_multiplier, kind)).transpose()?;
        let noise_multiplier = lattice.map_or(noise_multiplier, |lattice| lattice.multiplier());
        Ok(Self { clip, noise_multiplier, delta, lattice })
    }

    /// Returns `base + u · min(1, C / ‖u‖) + N(0, (σC)²)`, and `‖u‖`.
    pub(crate) fn apply(&self, update: &Update<'_>, rng: &mut ChaCha20Rng, ctx: &Context<'_>) -> Result<(Params, f64)> {
        let norm = update.norm()?;
        if let Some(lattice) = &self.lattice {
            let rounding = lattice.rounding(update, norm, self.clip)?;
            let step = self.clip / f64::from(lattice.steps());
            let params = update.changed(ctx, |x| lattice.noisy(rounding.integer(x), rng) * step)?;
            return Ok((params, norm));
        }
        let scale = if self.clips(norm) { self.clip / norm } else { 1.0 };
        let deviation = self.noise_multiplier * self.clip;
        let params = if deviation > 0.0 {
            update.changed(ctx, |update| scale * update + deviation * rng.normal())?
        } else {
            update.changed(ctx, |update| scale * update)?
        };
        Ok((params, norm))
    }

    /// Whether an update of this norm is scaled down.
    pub(crate) fn clips(&self, norm: f64) -> bool {
        norm > self.clip
    }

    /// The multiplier of the noise, for an account.
    pub(crate) fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    pub(crate) fn delta(&self) -> f64 {
        self.delta
    }

    pub(crate) fn epsilon(&self, rounds: u64) -> f64 {
        fedplug_dp::epsilon(&[rounds_of(self.noise_multiplier, rounds)], self.delta)
    }

    /// Describes the guarantee after `rounds` rounds.
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
