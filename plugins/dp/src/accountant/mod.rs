//! What Gaussian noise on a clipped sum costs over the rounds: epsilon at a delta.
//!
//! The unit is a client's whole update in every round, against none ("zero-out" or add-or-remove adjacency): the sum moves
//! by at most the clipping norm. Each bound below holds by itself, so the smallest of them does.

mod loss;
pub mod renyi;
#[cfg(test)]
mod tests;

pub use loss::gaussian_epsilon;

/// Bounds epsilon for a number of rounds with the same noise.
#[derive(Clone, Copy, Debug)]
pub struct Accountant {
    noise_multiplier: f64,
    sample_rate: f64,
    delta: f64,
}

impl Accountant {
    /// For noise whose standard deviation is `noise_multiplier` times the sensitivity, where a client joins each round with
    /// probability `sample_rate`, independently of all else and unknown to whoever the account is about; 1 if it is always
    /// there, or known when it is.
    pub fn new(noise_multiplier: f64, sample_rate: f64, delta: f64) -> Self {
        Self { noise_multiplier, sample_rate, delta }
    }

    /// An upper bound of epsilon after so many rounds. Infinite without noise.
    ///
    /// Without sampling it is exact but for rounding: `rounds` times a Gaussian of multiplier σ is one of σ / √rounds (Dong,
    /// Roth and Su, *Gaussian Differential Privacy*, JRSS B 2022, Corollary 3.3). With sampling it is the smallest of the
    /// Rényi bound, the discretised privacy loss distribution, and the epsilon without sampling.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 rounds")]
    pub fn epsilon(&self, rounds: u64) -> f64 {
        let Self { noise_multiplier: sigma, sample_rate, delta } = *self;
        if rounds == 0 {
            return 0.0;
        }
        if sigma <= 0.0 {
            return f64::INFINITY;
        }
        let exact = loss::gaussian_epsilon(sigma / (rounds as f64).sqrt(), delta);
        if sample_rate >= 1.0 {
            return exact;
        }
        let renyi = renyi::sampled_epsilon(sigma, sample_rate, rounds, delta);
        let discretised = loss::sampled_epsilon(sigma, sample_rate, rounds, delta);
        exact.min(renyi).min(discretised.unwrap_or(f64::INFINITY))
    }
}
