//! Discrete Gaussian noise on the integers, sampled exactly.

use rand::distr::{Distribution, Uniform};
use rand::{Rng, RngExt};

/// The largest `t² b` of a [`DiscreteGaussian`], so that every intermediate number fits in 128 bits.
const LARGEST: u64 = 1 << 43;

/// The largest distance of a Laplace sample from 0, in blocks of `t`. A sample beyond it, with probability exp(-2²⁰),
/// is redrawn.
const MOST_BLOCKS: u64 = 1 << 20;

/// The standard deviation of the rounding that turns continuous noise into discrete noise; see
/// [`DiscreteGaussian::continuous`].
const ROUNDING: f64 = 3.0;

/// The discrete Gaussian distribution: the integer `x` has a probability proportional to `exp(-x² / (2σ²))`.
///
/// It is sampled by Algorithms 1 to 3 of Canonne, Kamath and Steinke, *The Discrete Gaussian for Differential Privacy*,
/// NeurIPS 2020: a discrete Laplace sample is accepted with a probability `exp(-n/d)` for integers `n` and `d`, and
/// such events are drawn by comparing random digits with those of fractions. All arithmetic is on integers and nothing
/// is rounded, so the distribution is exact for perfectly random bits. The time of a draw depends on its value.
///
/// # Privacy
///
/// Noise of variance σ² on each coordinate of an integer vector that a client moves by an integer vector `v` costs:
///
/// - **zCDP** `‖v‖² / (2σ²)`, like continuous noise (Canonne, Kamath and Steinke 2020, Theorem 14): a Rényi divergence
///   of at most `α ‖v‖² / (2σ²)` at every order, and exactly that at integer orders.
/// - **Poisson-sampled, at an integer order**, exactly [`renyi::sampled_gaussian`](crate::renyi::sampled_gaussian) with
///   multiplier `σ / ‖v‖`. For `E[(P(x - v) / P(x))ᵏ]` under `P` is `exp((k² - k) ‖v‖² / (2σ²))` times
///   `Σ exp(-‖x - kv‖² / (2σ²)) / Σ exp(-‖x‖² / (2σ²))`, and this quotient is 1 since `kv` is a vector of the lattice.
///   The binomial sum over `k` is then that of the continuous mechanism. The reflection `x → v - x` maps the lattice to
///   itself, so removing a client costs no less than adding it, by the argument of Mironov, Talwar and Zhang 2019,
///   Theorem 5.
/// - **By any account**, at most what continuous noise of the standard deviation [`continuous`](Self::continuous)
///   costs.
#[derive(Clone, Copy, Debug)]
pub struct DiscreteGaussian {
    /// The variance, `a / b`.
    variance: (u64, u64),
    /// The scale of the Laplace distribution to sample from, `⌊σ⌋ + 1`.
    t: u64,
    below_t: Uniform<u64>,
}

impl DiscreteGaussian {
    /// The distribution with `σ² = a / b`. `None` if `a` or `b` is 0, or `b (⌊σ⌋ + 1)²` is over 2⁴³; with `b = 1` any σ
    /// below 2²¹ works.
    #[must_use]
    pub fn new(a: u64, b: u64) -> Option<Self> {
        let t = a.checked_div(b)?.isqrt() + 1;
        let fits = t.checked_mul(t)?.checked_mul(b)? <= LARGEST;
        let below_t = Uniform::new(0, t).ok()?;
        (a > 0 && fits).then_some(Self { variance: (a, b), t, below_t })
    }

    /// `σ²`, which is the variance of the distribution up to about `exp(-2π²σ²)`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "below 2^44")]
    pub fn variance(&self) -> f64 {
        self.variance.0 as f64 / self.variance.1 as f64
    }

    /// A standard deviation of continuous Gaussian noise that is at least as revealing as this noise: `√(σ² - 9)`.
    /// `None` if σ is at most 3.
    ///
    /// Every account of a mechanism with that continuous noise therefore also holds for the discrete one, sampled or
    /// not, in any number of dimensions and rounds.
    ///
    /// Let `y = m + N(0, σ² - s²)` for an integer `m`, and round `y` to an integer `x` with a probability proportional
    /// to `exp(-(x - y)² / (2s²))`, which depends on `y` alone. The normalising sum is `s √(2π) (1 ± η)` for every `y`,
    /// with `η = 2 Σₖ exp(-2π²k²s²)` by Poisson's summation formula, so `x` has a probability of
    /// `N(x; m, σ²) / (1 ± η)`: up to a factor of `(1 + η) / (1 - η)` that of the discrete Gaussian around `m` (the
    /// argument of Peikert, *An Efficient and Parallel Gaussian Sampler for Lattices*, CRYPTO 2010, Theorem 3.1). With
    /// `s = 3`, η is below 10⁻⁷⁶, so 2⁵³ rounds in 2⁵³ dimensions change epsilon by less than 10⁻⁴³.
    #[must_use]
    pub fn continuous(&self) -> Option<f64> {
        let rest = self.variance() - ROUNDING * ROUNDING;
        (rest > 0.0).then(|| rest.sqrt())
    }

    /// Draws from the discrete Laplace distribution of scale `t`; returns magnitude and sign.
    fn laplace<R: Rng + ?Sized>(&self, rng: &mut R) -> (u64, bool) {
        loop {
            let within = self.below_t.sample(rng);
            if !bernoulli_exp(u128::from(within), u128::from(self.t), rng) {
                continue;
            }
            let mut blocks = 0;
            while blocks < MOST_BLOCKS && bernoulli_exp(1, 1, rng) {
                blocks += 1;
            }
            let (magnitude, negative) = (within + self.t * blocks, rng.random::<bool>());
            // 0 has only one sign.
            if magnitude > 0 || !negative {
                return (magnitude, negative);
            }
        }
    }
}

impl Distribution<i64> for DiscreteGaussian {
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> i64 {
        let (a, b, t) = (u128::from(self.variance.0), u128::from(self.variance.1), u128::from(self.t));
        loop {
            let (magnitude, negative) = self.laplace(rng);
            // (|y| - σ²/t)² / (2σ²)
            let distance = (u128::from(magnitude) * t * b).abs_diff(a);
            if bernoulli_exp(distance * distance, 2 * t * t * a * b, rng) {
                let magnitude = magnitude.cast_signed();
                return if negative { -magnitude } else { magnitude };
            }
        }
    }
}

/// Returns true with probability `exp(-n/d)`, exactly, for `d` from 1 to 2⁸⁸ (Canonne, Kamath and Steinke 2020,
/// Algorithm 1).
pub fn bernoulli_exp<R: Rng + ?Sized>(mut n: u128, d: u128, rng: &mut R) -> bool {
    while n > d {
        if !exp_of_fraction(1, 1, rng) {
            return false;
        }
        n -= d;
    }
    exp_of_fraction(n, d, rng)
}

/// The same for `n ≤ d`: draws events of probability `n / (kd)` for `k` = 1, 2, … until one fails; true if at an odd
/// `k`.
fn exp_of_fraction<R: Rng + ?Sized>(n: u128, d: u128, rng: &mut R) -> bool {
    // The first is certain if n = d.
    let mut k = 1 + u128::from(n == d);
    // It fails within 2⁸ tries, except with a probability of 1 / 256!.
    while k < 256 && bernoulli(n, k * d, rng) {
        k += 1;
    }
    k % 2 == 1
}

/// Returns true with probability `n / d`, exactly, for `n ≤ d < 2⁹⁶`: compares a uniform number in [0, 1) with it,
/// digit by digit in base 2³².
fn bernoulli<R: Rng + ?Sized>(mut n: u128, d: u128, rng: &mut R) -> bool {
    loop {
        let (digit, next) = (u128::from(rng.next_u32()) * d, n << 32);
        if digit + d <= next {
            return true;
        }
        if digit >= next {
            return false;
        }
        n = next - digit;
    }
}

#[cfg(test)]
mod tests;
