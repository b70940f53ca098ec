//! Auditing: a lower bound of epsilon by experiment.
//!
//! An account gives an upper bound of a mechanism's cost, provided that the mechanism is what it claims to be. An audit
//! runs it on two neighbouring inputs many times and distinguishes the runs as well as it can (Jagielski, Ullman and
//! Oprea, *Auditing Differentially Private Machine Learning*, NeurIPS 2020). A lower bound above the account proves
//! that the account or the mechanism is wrong.

/// The number of thresholds to try.
const THRESHOLDS: usize = 100;

/// A set of scores: those at least or at most a threshold, and whether it is meant to contain the runs with the client.
#[derive(Clone, Copy)]
struct Event {
    threshold: f64,
    above: bool,
    with: bool,
}

/// A lower bound of the epsilon at `delta`, which is too large with a probability of at most `alpha`. It uses scores of
/// independent runs with a client's data and of as many without; a score may be any function of everything a run
/// releases.
///
/// If a mechanism is (ε, δ)-differentially private then `P(E) ≤ e^ε P'(E) + δ` for each event `E`. Here `E` is that the
/// score is beyond a threshold, which is chosen from one half of the runs; the bounds of `P` and `P'` come from the
/// other half, at a level of `alpha / 2` each (Clopper and Pearson 1934). The largest bound that `n` runs of each kind
/// can show is about `ln(n / 2) - ln ln(2 / alpha)`.
#[must_use]
pub fn epsilon_lower(with: &[f64], without: &[f64], delta: f64, alpha: f64) -> f64 {
    let (chosen_by, judged_by) = (with.split_at(with.len() / 2), without.split_at(without.len() / 2));
    let ([with, with_rest], [without, without_rest]) = ([chosen_by.0, chosen_by.1], [judged_by.0, judged_by.1]);
    let mut scores: Vec<f64> = with.iter().chain(without).copied().collect();
    scores.sort_by(f64::total_cmp);
    let thresholds = (0..THRESHOLDS.min(scores.len())).map(|k| scores[k * scores.len() / THRESHOLDS.min(scores.len())]);
    let events = thresholds.flat_map(|threshold| {
        let event = move |above, with| Event { threshold, above, with };
        [event(true, true), event(true, false), event(false, true), event(false, false)]
    });
    let judge = |event: &Event, with, without| event.epsilon(with, without, delta, alpha);
    let best = events.max_by(|a, b| judge(a, with, without).total_cmp(&judge(b, with, without)));
    best.map_or(0.0, |event| judge(&event, with_rest, without_rest))
}

impl Event {
    /// The lower bound of epsilon from this event's frequencies.
    fn epsilon(&self, with: &[f64], without: &[f64], delta: f64, alpha: f64) -> f64 {
        let (p, q) = if self.with { (with, without) } else { (without, with) };
        let count = |scores: &[f64]| scores.iter().filter(|&&score| self.holds(score)).count();
        let least = at_least(count(p), p.len(), alpha / 2.0);
        let most = 1.0 - at_least(q.len() - count(q), q.len(), alpha / 2.0);
        ((least - delta) / most).ln().max(0.0)
    }

    fn holds(&self, score: f64) -> bool {
        if self.above { score >= self.threshold } else { score <= self.threshold }
    }
}

/// The Clopper-Pearson bound: the probability at which `count` or more of `of` occur with probability `alpha`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "numbers of runs")]
pub fn at_least(count: usize, of: usize, alpha: f64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let (k, n) = (count as f64, of as f64);
    let ln_binomial = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let tail = |p: f64| {
        // Terms decrease from the first one on, since p is less than k / n.
        let mut term = (ln_binomial + k * p.ln() + (n - k) * (-p).ln_1p()).exp();
        let (mut sum, mut i) = (term, k);
        while i < n && term > sum * f64::EPSILON {
            term *= (n - i) / (i + 1.0) * p / (1.0 - p);
            sum += term;
            i += 1.0;
        }
        sum
    };
    let (mut low, mut high) = (0.0, k / n);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if tail(middle) < alpha { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SciPy 1.17.1, `binomtest(k, n).proportion_ci(confidence_level=1 - 2 * alpha, method="exact").low`.
    #[test]
    fn bounds_of_a_share_are_those_of_scipy() {
        for (k, n, alpha, wanted) in CLOPPER_PEARSON {
            let found = at_least(k, n, alpha);
            assert!((found - wanted).abs() < 1e-9, "{k} of {n}: {found}, not {wanted}");
        }
        assert_eq!(at_least(0, 10, 0.01), 0.0);
    }

    const CLOPPER_PEARSON: [(usize, usize, f64, f64); 5] = [
        (1, 10, 0.05, 0.005116196892304593),
        (3, 2000, 5e-07, 7.240975803750697e-06),
        (134, 2000, 5e-07, 0.04292465315085411),
        (1999, 2000, 0.005, 0.9962909016095778),
        (2000, 2000, 0.005, 0.9973543472409905),
    ];

    /// Randomised response, whose epsilon is known.
    #[test]
    fn the_bound_is_below_the_truth_and_not_far() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(5);
        for epsilon in [0.0, 0.5, 2.0] {
            let truth = f64::exp(epsilon) / (1.0 + f64::exp(epsilon));
            let mut told = |bit: bool| f64::from(u8::from(bit == (rng.random::<f64>() < truth)));
            let with: Vec<f64> = (0..8000).map(|_| told(true)).collect();
            let without: Vec<f64> = (0..8000).map(|_| told(false)).collect();
            let found = epsilon_lower(&with, &without, 0.0, 1e-6);
            assert!(found <= epsilon && found >= epsilon - 0.35, "{epsilon}: {found}");
        }
    }
}
