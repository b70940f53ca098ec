//! The source of randomness: ChaCha20, seeded from the operating system's entropy or, if configured, from the
//! experiment's seed.

use plugin_api::{Context, Error, Result};
use rand::rngs::SysRng;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::{Distribution, StandardNormal};

/// The random draws of a mechanism.
pub(crate) trait Draw {
    /// A sample of the normal distribution of mean 0 and standard deviation 1.
    fn normal(&mut self) -> f64;
    /// A sample of the Laplace distribution of mean 0 and scale 1.
    fn laplace(&mut self) -> f64;
    /// A uniform number below `count`.
    fn below(&mut self, count: usize) -> usize;
}

impl Draw for ChaCha20Rng {
    fn normal(&mut self) -> f64 {
        StandardNormal.sample(self)
    }

    fn laplace(&mut self) -> f64 {
        laplace(self.next_u64())
    }

    fn below(&mut self, count: usize) -> usize {
        self.random_range(0..count)
    }
}

/// The inverse of the Laplace distribution function at a uniform number from 54 of these bits. The lowest one is the
/// sign; the upper 53 give a uniform number in `(0, 1]`, so that the logarithm is finite. The largest magnitude is 53
/// ln 2.
#[expect(clippy::cast_precision_loss, reason = "a number of at most 53 bits and its successor are exact")]
pub(crate) fn laplace(bits: u64) -> f64 {
    let uniform = ((bits >> 11) + 1) as f64 * 2_f64.powi(-53);
    let magnitude = -uniform.ln();
    if bits & 1 == 0 { magnitude } else { -magnitude }
}

/// The generator of an instance.
pub(crate) struct Noise {
    generator: ChaCha20Rng,
    reproducible: bool,
    told: bool,
}

impl Noise {
    /// Creates a generator with 256 bits of the operating system's entropy.
    pub(crate) fn new(reproducible: bool) -> Result<Self> {
        let generator = ChaCha20Rng::try_from_rng(&mut SysRng)
            .map_err(|e| Error::other("the operating system provides no entropy for the noise").because(&e))?;
        Ok(Self { generator, reproducible, told: false })
    }

    /// Whether someone who knows the experiment file can draw the same noise.
    pub(crate) fn reproducible(&self) -> bool {
        self.reproducible
    }

    /// The generator for one message.
    pub(crate) fn generator(&mut self, ctx: &Context<'_>) -> &mut ChaCha20Rng {
        if self.reproducible {
            self.generator = ChaCha20Rng::seed_from_u64(ctx.seed().of("privacy").value());
            if !std::mem::replace(&mut self.told, true) {
                ctx.warn(format_args!("the noise comes from the experiment's seed: it protects nothing"));
            }
        }
        &mut self.generator
    }
}
