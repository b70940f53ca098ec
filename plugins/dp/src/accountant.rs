//! The privacy loss of Gaussian noise on a clipped sum over the rounds: epsilon at a delta.
//!
//! The unit is a client's whole update in every round, compared with none ("zero-out" or add-or-remove adjacency): the
//! sum moves by at most the clipping norm. Each bound below holds by itself, so the smallest of them does too.

mod grid;
mod loss;
pub mod renyi;
#[cfg(test)]
mod tests;

pub use loss::gaussian_epsilon;

/// Rounds of the Gaussian mechanism with the same noise and sampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounds {
    /// The standard deviation of the noise in units of the sensitivity, which is the clipping norm.
    pub noise_multiplier: f64,
    /// The probability that a client joins a round, independently of everything else and unknown to the observer. 1 if
    /// the client is always present, or the observer knows when it is.
    pub sample_rate: f64,
    /// The number of rounds.
    pub count: u64,
}

/// An upper bound of the epsilon of all these rounds together; each round may depend on the outcome of earlier ones.
/// Infinite without noise.
///
/// Without sampling it is exact up to rounding: Gaussians of multipliers `σᵢ` are one of `(Σ σᵢ⁻²)^(-1/2)` (Dong, Roth
/// and Su, *Gaussian Differential Privacy*, JRSS B 2022, Corollary 3.3). With sampling it is the smallest of the Rényi
/// bound at integer and fractional orders, the discretised privacy loss distribution, and the epsilon without sampling.
///
/// ```
/// use fedplug_dp::{Rounds, epsilon};
///
/// let rounds = |sample_rate| Rounds { noise_multiplier: 1.0, sample_rate, count: 20 };
/// assert!((epsilon(&[rounds(1.0)], 1e-5) - 28.373).abs() < 1e-3);
/// assert!((epsilon(&[rounds(0.01)], 1e-5) - 0.455).abs() < 1e-3);
/// ```
#[must_use]
pub fn epsilon(rounds: &[Rounds], delta: f64) -> f64 {
    let rounds: Vec<Rounds> = rounds.iter().copied().filter(|part| part.count > 0 && part.sample_rate > 0.0).collect();
    if rounds.is_empty() {
        return 0.0;
    }
    if rounds.iter().any(|part| part.noise_multiplier <= 0.0) {
        return f64::INFINITY;
    }
    let precision: f64 = rounds.iter().map(|part| part.times() / part.noise_multiplier.powi(2)).sum();
    let unsampled = loss::gaussian_epsilon(precision.sqrt().recip(), delta);
    if rounds.iter().all(|part| part.sample_rate >= 1.0) {
        return unsampled;
    }
    let renyi = renyi::sampled_epsilon(&rounds, delta);
    let discretised = grid::sampled_epsilon(&rounds, delta);
    unsampled.min(renyi).min(discretised.unwrap_or(f64::INFINITY))
}

impl Rounds {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 rounds")]
    pub(crate) fn times(&self) -> f64 {
        self.count as f64
    }
}
