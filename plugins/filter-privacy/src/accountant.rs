//! What the Gaussian mechanism has cost: Rényi differential privacy (RDP), composed and converted to (epsilon, delta).

/// The largest order at which the privacy loss is bounded.
const LARGEST_ORDER: u32 = 512;

/// Bounds epsilon for a number of rounds with the same noise.
#[derive(Debug)]
pub(crate) struct Accountant {
    /// Orders α, and the RDP of one round at each.
    curve: Vec<(f64, f64)>,
    delta: f64,
}

impl Accountant {
    /// For noise of `noise_multiplier` times the sensitivity on a share `sample_rate` of the clients.
    ///
    /// Orders: all integers from 2 to 512, at which the sampled mechanism has a finite sum; without sampling, where the
    /// closed form holds at every order above 1, also `1 + 2^(k/8)` from 1.0625 on.
    pub(crate) fn new(noise_multiplier: f64, sample_rate: f64, delta: f64) -> Self {
        let integers = (2..=LARGEST_ORDER).map(|order| {
            let rdp = if sample_rate < 1.0 {
                sampled_gaussian(order, noise_multiplier, sample_rate)
            } else {
                gaussian(order.into(), noise_multiplier)
            };
            (order.into(), rdp)
        });
        let between = (-32..=72).map(|k| 1.0 + 2_f64.powf(f64::from(k) / 8.0));
        let between = between.filter(|_| sample_rate >= 1.0).map(|order| (order, gaussian(order, noise_multiplier)));
        Self { curve: integers.chain(between).collect(), delta }
    }

    /// An upper bound of epsilon after so many rounds: RDP adds up (Mironov 2017, Proposition 1), and the best order
    /// counts. Infinite without noise.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 rounds")]
    pub(crate) fn epsilon(&self, rounds: u64) -> f64 {
        if rounds == 0 {
            return 0.0;
        }
        let epsilons = self.curve.iter().map(|&(order, rdp)| epsilon(order, rounds as f64 * rdp, self.delta));
        epsilons.fold(f64::INFINITY, f64::min).max(0.0)
    }
}

/// RDP of the Gaussian mechanism at an order above 1: `α / (2σ²)` (Mironov 2017, Corollary 3).
pub(crate) fn gaussian(order: f64, sigma: f64) -> f64 {
    order / (2.0 * sigma * sigma)
}

/// RDP of the sampled Gaussian mechanism at an integer order of at least 2 and a rate `0 < q < 1` (Mironov, Talwar and
/// Zhang 2019): `ln A / (α − 1)` with `A = Σₖ C(α,k) (1−q)^(α−k) q^k exp((k²−k) / (2σ²))`.
///
/// The binomial weights add up to 1, so `A − 1` is the same sum with `exp(…) − 1`, whose terms are all positive and
/// vanish for `k < 2`: no digits are lost where `A` is close to 1.
pub(crate) fn sampled_gaussian(order: u32, sigma: f64, rate: f64) -> f64 {
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
pub(crate) fn epsilon(order: f64, rdp: f64, delta: f64) -> f64 {
    rdp + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}
