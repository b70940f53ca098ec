//! Rényi differential privacy (RDP) of the sampled Gaussian mechanism, composed and converted to (epsilon, delta).

use super::Rounds;

/// The largest order that is tried.
const LARGEST_ORDER: u32 = 512;

/// The largest number of points for an integral; more are needed only if there is almost no noise.
const MOST_POINTS: f64 = 1e5;

/// An upper bound of epsilon after these rounds. RDP is additive (Mironov 2017, Proposition 1); the best order is used,
/// from the integers 2 to 512 and fractional orders from 1.1 to 12.
pub(super) fn sampled_epsilon(rounds: &[Rounds], delta: f64) -> f64 {
    let total = |order: f64, of_one: &dyn Fn(&Rounds) -> f64| {
        epsilon(order, rounds.iter().map(|part| part.times() * of_one(part)).sum(), delta)
    };
    let whole = (2..=LARGEST_ORDER).map(|order| {
        total(order.into(), &|part| match part.sample_rate {
            rate if rate < 1.0 => sampled_gaussian(order, part.noise_multiplier, rate),
            _ => gaussian(order.into(), part.noise_multiplier),
        })
    });
    let fractional = (-24..=28).map(|k| 1.0 + 2_f64.powf(f64::from(k) / 8.0)).map(|order| {
        total(order, &|part| match part.sample_rate {
            rate if rate < 1.0 => sampled_gaussian_fractional(order, part.noise_multiplier, rate),
            _ => gaussian(order, part.noise_multiplier),
        })
    });
    whole.chain(fractional).fold(f64::INFINITY, f64::min).max(0.0)
}

/// RDP of the Gaussian mechanism at an order above 1: `α / (2σ²)` (Mironov 2017, Corollary 3).
#[must_use]
pub fn gaussian(order: f64, sigma: f64) -> f64 {
    order / (2.0 * sigma * sigma)
}

/// RDP of the sampled Gaussian mechanism at an integer order of at least 2 and a rate `0 < q < 1` (Mironov, Talwar and
/// Zhang 2019): `ln A / (α − 1)` with `A = Σₖ C(α,k) (1−q)^(α−k) q^k exp((k²−k) / (2σ²))`.
///
/// The binomial weights sum to 1, so `A − 1` is the same sum with `exp(…) − 1`, whose terms are all non-negative and
/// vanish for `k < 2`: no digits are lost when `A` is close to 1.
#[must_use]
pub fn sampled_gaussian(order: u32, sigma: f64, rate: f64) -> f64 {
    let alpha = f64::from(order);
    let (stays, joins) = ((-rate).ln_1p(), rate.ln());
    let mut ln_binomial = alpha.ln();
    let ln_terms = (2..=order).map(|k| {
        let k = f64::from(k);
        ln_binomial += ((alpha - k + 1.0) / k).ln();
        let exponent = (k * k - k) / (2.0 * sigma * sigma);
        ln_binomial + (alpha - k) * stays + k * joins + exponent + (-(-exponent).exp_m1()).ln()
    });
    ln_of_one_and(ln_sum(ln_terms.collect())) / (alpha - 1.0)
}

/// RDP of the sampled Gaussian mechanism at any order `α` above 1, by the defining integral: `A − 1` is the mean of
/// `(1 + q (w − 1))^α − 1 − αq (w − 1)` over `x` of `N(0, σ²)`, with the likelihood ratio `w = exp((2x − 1) / (2σ²))`,
/// whose mean is 1. The integrand is never negative. Infinite if the noise is too small for the integral.
///
/// The rectangle rule converges as fast as `exp(−2πy / h)` for a step `h`, if the integrand is analytic within `y` of
/// the real axis (Trefethen and Weideman, *The Exponentially Convergent Trapezoidal Rule*, SIAM Review 2014); its
/// nearest branch points are `πσ²` away.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 10^5 points"
)]
pub fn sampled_gaussian_fractional(order: f64, sigma: f64, rate: f64) -> f64 {
    let step = (sigma / 4.0).min(sigma * sigma / 2.0);
    let (from, to) = (-14.0 * sigma, order + 14.0 * sigma);
    let points = ((to - from) / step).ceil();
    if points > MOST_POINTS {
        return f64::INFINITY;
    }
    let ln_weight = step.ln() - sigma.ln() - 0.5 * std::f64::consts::TAU.ln();
    let ln_terms = (0..points as u64).map(|k| {
        let x = from + step * k as f64;
        let exponent = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
        let excess = if exponent < 30.0 {
            let gain = rate * exponent.exp_m1();
            ((order * gain.ln_1p()).exp_m1() - order * gain).max(0.0).ln()
        } else {
            // (1 − q + qw)^α is far above the rest, and may overflow.
            let ln_power = order * (rate.ln() + exponent + ((1.0 - rate) / rate * (-exponent).exp()).ln_1p());
            let rest = (1.0 - order * rate) * (-ln_power).exp() + order * rate * (exponent - ln_power).exp();
            ln_power + (1.0 - rest).max(0.0).ln()
        };
        ln_weight - x * x / (2.0 * sigma * sigma) + excess
    });
    ln_of_one_and(ln_sum(ln_terms.collect())) / (order - 1.0)
}

/// The logarithm of a sum of numbers given by their logarithms.
fn ln_sum(ln_terms: Vec<f64>) -> f64 {
    let largest = ln_terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    largest + ln_terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
}

/// `ln(1 + e^x)`
fn ln_of_one_and(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The epsilon at `delta` of a mechanism with this RDP (Canonne, Kamath and Steinke 2020, Proposition 12; the same
/// bound as Balle et al. 2020, Theorem 21): `ε = ρ + ln(1 − 1/α) − ln(δα) / (α − 1)`.
#[must_use]
pub fn epsilon(order: f64, rdp: f64, delta: f64) -> f64 {
    rdp + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}
