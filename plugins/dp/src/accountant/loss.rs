//! The privacy loss of one round of the Gaussian mechanism, sampled or not.

use std::f64::consts::{PI, SQRT_2};

use super::Rounds;

/// An upper bound of epsilon at `delta` of one Gaussian mechanism whose noise has the standard deviation `sigma` times
/// the sensitivity (Balle and Wang, *Improving the Gaussian Mechanism for Differential Privacy*, ICML 2018, Theorem 8).
/// Several rounds are equivalent to one with `sigma / √rounds`.
#[must_use]
pub fn gaussian_epsilon(sigma: f64, delta: f64) -> f64 {
    let spent = |epsilon: f64| {
        let (a, b) = (0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma);
        // e^ε Φ(b) is the density at `a` times Mills' ratio at `b`: nothing overflows.
        normal_cdf(a) - (-0.5 * a * a).exp() * 0.5 * scaled_erfc(-b / SQRT_2)
    };
    if spent(0.0) <= delta {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while spent(high) > delta {
        (low, high) = (high, 2.0 * high);
        if high > 1e12 {
            return f64::INFINITY;
        }
    }
    while high - low > 1e-13 * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if spent(middle) > delta { low = middle } else { high = middle }
    }
    high
}

/// One round's loss: of a run with the client against one without it (`removed`), or the reverse.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    sigma: f64,
    rate: f64,
    removed: bool,
}

impl Loss {
    pub(super) fn new(round: &Rounds, removed: bool) -> Self {
        Self { sigma: round.noise_multiplier, rate: round.sample_rate.min(1.0), removed }
    }

    /// The probability that the loss is at most `loss`.
    pub(super) fn cdf(&self, loss: f64) -> f64 {
        // ln(1 − q + q e^((2x − 1) / (2σ²))) grows with x, so each loss has one x.
        let x = |log: f64| {
            // ln((e^log − 1 + q) / q), without e^log if that would overflow.
            let ln_ratio = if log > 1.0 {
                log - self.rate.ln() + ((self.rate - 1.0) * (-log).exp()).ln_1p()
            } else {
                ((log.exp_m1() + self.rate) / self.rate).max(0.0).ln()
            };
            self.sigma * self.sigma * ln_ratio + 0.5
        };
        let without = |x: f64| normal_cdf(x / self.sigma);
        if self.removed {
            let x = x(loss);
            (1.0 - self.rate) * without(x) + self.rate * normal_cdf((x - 1.0) / self.sigma)
        } else {
            normal_cdf(-x(-loss) / self.sigma)
        }
    }

    /// A range that contains all but `tail` of the loss on each side.
    pub(super) fn range(&self, tail: f64) -> (f64, f64) {
        let bisect = |wanted: f64, mut low: f64, mut high: f64| {
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if self.cdf(middle) < wanted { low = middle } else { high = middle }
            }
            (low, high)
        };
        let gone = if self.rate < 1.0 { -(-self.rate).ln_1p() } else { 0.0 };
        let far = 0.5 / (self.sigma * self.sigma) + 40.0 / self.sigma + 1.0 + gone;
        (bisect(tail, -far, far).0, bisect(1.0 - tail, -far, far).1)
    }

    /// The probability that the loss is in each cell of a grid; the first cell includes everything below.
    #[expect(clippy::cast_precision_loss, reason = "points of a grid of 2^17")]
    pub(super) fn masses(&self, from: f64, step: f64, count: usize) -> Vec<f64> {
        let mut before = 0.0;
        let mass = |k: usize| {
            let upto = self.cdf(from + step * (k + 1) as f64);
            let mass = upto - before;
            before = upto;
            mass.max(0.0)
        };
        (0..count).map(mass).collect()
    }
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// `e^(x²) erfc(x)` for `x ≥ 0`, without underflow.
fn scaled_erfc(x: f64) -> f64 {
    if x < 20.0 {
        return (x * x).exp() * libm::erfc(x);
    }
    let inverse = 1.0 / (2.0 * x * x);
    (1.0 - inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse))) / (x * PI.sqrt())
}
