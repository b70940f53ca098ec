//! Rényi differential privacy (RDP) of the sampled Gaussian mechanism, composed and converted to (epsilon, delta).

/// The largest order at which the privacy loss is bounded.
const LARGEST_ORDER: u32 = 512;

/// An upper bound of epsilon after so many rounds: RDP adds up (Mironov 2017, Proposition 1), and the best order counts, of
/// the integers from 2 to 512. Where the best order lies between them or below, the grid of the loss is tighter anyway.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 rounds")]
pub(crate) fn sampled_epsilon(sigma: f64, rate: f64, rounds: u64, delta: f64) -> f64 {
    let epsilons = (2..=LARGEST_ORDER)
        .map(|order| epsilon(order.into(), rounds as f64 * sampled_gaussian(order, sigma, rate), delta));
    epsilons.fold(f64::INFINITY, f64::min).max(0.0)
}

/// RDP of the Gaussian mechanism at an order above 1: `α / (2σ²)` (Mironov 2017, Corollary 3).
pub fn gaussian(order: f64, sigma: f64) -> f64 {
    order / (2.0 * sigma * sigma)
}

/// RDP of the sampled Gaussian mechanism at an integer order of at least 2 and a rate `0 < q < 1` (Mironov, Talwar and
/// Zhang 2019): `ln A / (α − 1)` with `A = Σₖ C(α,k) (1−q)^(α−k) q^k exp((k²−k) / (2σ²))`.
///
/// The binomial weights add up to 1, so `A − 1` is the same sum with `exp(…) − 1`, whose terms are all positive and
/// vanish for `k < 2`: no digits are lost where `A` is close to 1.
pub fn sampled_gaussian(order: u32, sigma: f64, rate: f64) -> f64 {
    let alpha = f64::from(order);
    let (stays, joins) = ((-rate).ln_1p(), rate.ln());
    let mut ln_binomial = alpha.ln();
    let ln_terms: Vec<f64> = (2..=order)
        .map(|k| {
            let k = f64::from(k);
            ln_binomial += ((alpha - k + 1.0) / k).ln();
            let exponent = (k * k - k) / (2.0 * sigma * sigma);
            ln_binomial + (alpha - k) * stays + k * joins + exponent + (-(-exponent).exp_m1()).ln()
        })
        .collect();
    let largest = ln_terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return if largest > 0.0 { f64::INFINITY } else { 0.0 };
    }
    let ln_excess = largest + ln_terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln();
    (ln_excess.max(0.0) + (-ln_excess.abs()).exp().ln_1p()) / (alpha - 1.0)
}

/// The epsilon at `delta` of a mechanism of this RDP (Canonne, Kamath and Steinke 2020, Proposition 12; the same bound
/// as Balle et al. 2020, Theorem 21): `ε = ρ + ln(1 − 1/α) − ln(δα) / (α − 1)`.
pub fn epsilon(order: f64, rdp: f64, delta: f64) -> f64 {
    rdp + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}
