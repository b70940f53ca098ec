//! The privacy loss of the sums: epsilon at a delta.

use fedplug_dp::{gaussian_epsilon, renyi};

use crate::noise::{Noise, Plan};

/// The privacy parameters of one round's sum, over all values together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// The norm of one client's contribution, divided by the standard deviation of the noise.
    sensitivity: f64,
    /// The variance of the noise in a sum, on the grid.
    variance: f64,
    /// The norm, on the grid.
    norm: f64,
    /// The largest difference, for one value, between the log probability of the sum of discrete Gaussians and that of
    /// one discrete Gaussian of the same variance (the τ of Theorem 1).
    tau: f64,
    /// The number of values in a sum.
    values: f64,
    delta: f64,
}

impl Account {
    /// The account of a round with this noise, for updates of `values` values.
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    pub(crate) fn new(plan: &Plan, noise: Noise, values: usize) -> Self {
        // Slightly rounded up, to cover f64 rounding.
        let norm = (plan.largest_square(values) as f64).sqrt() * (1.0 + 1e-12);
        Self::of(norm, (plan.honest, plan.variance()), values, noise.delta)
    }

    /// The account for updates of at most `norm` in `values` values, with noise from `clients` clients of `variance`
    /// each.
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    pub(crate) fn of(norm: f64, (clients, variance): (usize, f64), values: usize, delta: f64) -> Self {
        let sum = clients as f64 * variance;
        Self {
            sensitivity: norm / sum.sqrt(),
            variance: sum,
            norm,
            tau: tau(clients, variance),
            values: values as f64,
            delta,
        }
    }

    /// An upper bound of epsilon after `rounds` rounds: the smaller of two bounds, each of which holds on its own.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 rounds")]
    pub(crate) fn epsilon(&self, rounds: u64) -> f64 {
        if rounds == 0 {
            return 0.0;
        }
        self.renyi(rounds as f64).min(self.continuous(rounds as f64))
    }

    /// By Theorem 1 of the paper, whose ½ε² times the order is a Rényi divergence; the best order is used.
    pub(crate) fn renyi(&self, rounds: f64) -> f64 {
        let Self { sensitivity, tau, values, delta, .. } = *self;
        let bound = |ln_order: f64| {
            let order = 1.0 + ln_order.exp();
            // For each value, probabilities are within exp(±τ) of those of one discrete Gaussian.
            let apart = 0.5 * order * sensitivity * sensitivity + (2.0 * order - 1.0) / (order - 1.0) * tau * values;
            let together = 0.5 * order * (sensitivity + tau * values.sqrt()).powi(2);
            renyi::epsilon(order, rounds * apart.min(together), delta)
        };
        // Every order gives a bound. A grid search, then a ternary search in its best cell, comes close to the best
        // one.
        let grid = (-400..=400).map(|k| f64::from(k) / 20.0);
        let best = grid.min_by(|a, b| bound(*a).total_cmp(&bound(*b))).unwrap_or_default();
        let (mut low, mut high) = (best - 0.05, best + 0.05);
        for _ in 0..60 {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if bound(a) < bound(b) { high = b } else { low = a }
        }
        bound(low).min(bound(best)).max(0.0)
    }

    /// By the exact accounting of continuous noise (Balle and Wang 2018). A discrete Gaussian of variance σ² can be
    /// generated from a continuous one of variance σ² - 9 without further access to the data, see
    /// [`fedplug_dp::DiscreteGaussian::continuous`]; probabilities of the sum are within `exp(±τ)` of its own for each
    /// value and round. So an epsilon at `delta exp(-τ d T)` holds with `2 τ d T` more.
    pub(crate) fn continuous(&self, rounds: f64) -> f64 {
        let off = self.tau * self.values * rounds;
        let deviation = (self.variance - 9.0).max(0.0).sqrt();
        let delta = self.delta * (-off).exp();
        // Rounded up for the error of less than 10^-43 in the argument for one discrete Gaussian.
        if deviation <= 0.0 || delta <= 0.0 {
            return f64::INFINITY;
        }
        gaussian_epsilon(deviation / (self.norm * rounds.sqrt()), delta) * (1.0 + 1e-12) + 2.0 * off
    }
}

/// `10 Σₖ exp(-2π² s² k / (k + 1))` over `k` from 1 to `n - 1`, for `n` discrete Gaussians of variance `s²`.
#[expect(clippy::cast_precision_loss, reason = "numbers of clients")]
pub(crate) fn tau(clients: usize, variance: f64) -> f64 {
    let term = |k: usize| (-2.0 * std::f64::consts::PI.powi(2) * variance * k as f64 / (k + 1) as f64).exp();
    10.0 * (1..clients).map(term).sum::<f64>()
}
