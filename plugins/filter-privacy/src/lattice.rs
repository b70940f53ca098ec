//! Clipped updates as integer vectors, and noise for them.

use fedplug_dp::DiscreteGaussian;
use plugin_api::{Error, Result};
use rand::distr::Distribution;
use rand_chacha::ChaCha20Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::noise::Draw;
use crate::update::Update;

/// The noise's standard deviation in lattice steps, which determines the step size.
const DEVIATION: f64 = (1 << 20) as f64;

/// The largest number of steps from 0 to the sensitivity, used if there is little or no noise.
const MOST_STEPS: f64 = (1 << 30) as f64;

/// The distribution of the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// The discrete Gaussian distribution, sampled exactly on integers. The released values depend only on the noisy
    /// sum.
    Discrete,
    /// The normal distribution, in floating-point numbers. Their low bits may reveal what they were added to.
    Gaussian,
}

/// The integers that updates are rounded to, and their noise. `steps` integers represent the clipping norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lattice {
    steps: u32,
    noise: Noise,
}

#[derive(Clone, Copy, Debug)]
enum Noise {
    None,
    Discrete(DiscreteGaussian),
    /// Normal noise of this standard deviation, in steps.
    Gaussian(f64),
}

impl Lattice {
    /// Creates a lattice with noise of the standard deviation `multiplier`, in units of the sensitivity: about 2²⁰
    /// steps.
    ///
    /// # Errors
    /// If there is so much noise that a step would exceed the sensitivity.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^43")]
    pub(crate) fn new(multiplier: f64, kind: NoiseKind) -> Result<Self> {
        let much = || Error::config(format!("noise of {multiplier} times the clipping norm is too much"));
        let steps = (DEVIATION / multiplier).floor().min(MOST_STEPS);
        if steps < 1.0 {
            return Err(much().at_key("noise-multiplier"));
        }
        let deviation = multiplier * steps;
        let noise = match kind {
            _ if multiplier == 0.0 => Noise::None,
            NoiseKind::Gaussian => Noise::Gaussian(deviation),
            NoiseKind::Discrete => {
                // Rounded up, so never less than requested.
                let variance = (deviation * deviation).ceil() as u64 + 1;
                Noise::Discrete(DiscreteGaussian::new(variance, 1).ok_or_else(much)?)
            }
        };
        Ok(Self { steps: steps as u32, noise })
    }

    /// The integer that represents the sensitivity.
    pub(crate) fn steps(&self) -> u32 {
        self.steps
    }

    /// The multiplier for the account: that of continuous noise that costs at least as much.
    pub(crate) fn multiplier(&self) -> f64 {
        let deviation = match self.noise {
            Noise::None => 0.0,
            Noise::Discrete(noise) => noise.continuous().unwrap_or_default(),
            Noise::Gaussian(deviation) => deviation,
        };
        deviation / f64::from(self.steps)
    }

    /// Finds the rounding of an update to integers whose norm is at most `steps`, which represents the norm `clip`.
    pub(crate) fn rounding(&self, update: &Update<'_>, norm: f64, clip: f64) -> Result<Rounding> {
        let mut rounding = Rounding(f64::from(self.steps) / norm.max(clip));
        let most = u128::from(self.steps).pow(2);
        // The product is rounded, so the norm may be over by a few units in the last place.
        while rounding.square(update)? > most {
            rounding.0 *= 1.0 - 64.0 * f64::EPSILON;
        }
        Ok(rounding)
    }

    /// Adds noise to a sum of integers. Exact for discrete noise, below 2⁵³.
    #[expect(clippy::cast_precision_loss, reason = "sums are below 2^52, and noise far below that")]
    pub(crate) fn noisy(&self, sum: i64, rng: &mut ChaCha20Rng) -> f64 {
        match self.noise {
            Noise::None => sum as f64,
            Noise::Discrete(noise) => (sum + noise.sample(rng)) as f64,
            Noise::Gaussian(deviation) => sum as f64 + deviation * rng.normal(),
        }
    }
}

/// Rounds the elements of an update to integers: multiplies and rounds towards 0, which makes no norm larger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounding(f64);

impl Rounding {
    #[expect(clippy::cast_possible_truncation, reason = "that is what is wanted, and 2^31 at most")]
    pub(crate) fn integer(self, x: f64) -> i64 {
        (x * self.0) as i64
    }

    /// The squared norm of the integers, exactly.
    fn square(self, update: &Update<'_>) -> Result<u128> {
        let mut square = 0;
        for pair in update.pairs() {
            pair.each(|x| square += u128::from(self.integer(x).unsigned_abs()).pow(2))?;
        }
        Ok(square)
    }
}
