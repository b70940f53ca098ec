//! The distribution of the privacy loss: in closed form for the Gaussian mechanism, on a grid for the sampled one.

use std::f64::consts::{PI, SQRT_2};

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Points of the grid. More of them make a tighter bound, and cost time: two transforms of this length.
const POINTS: usize = 1 << 17;

/// Points of the coarse grid that the range of the fine one is found by.
const COARSE: usize = 1 << 14;

/// The share of delta that what lies outside the grid may have.
const CUT: f64 = 1e-4;

/// Epsilon at `delta` of one Gaussian mechanism whose noise has the standard deviation `sigma` times the sensitivity, from
/// above (Balle and Wang, *Improving the Gaussian Mechanism for Differential Privacy*, ICML 2018, Theorem 8). So many rounds
/// are one of `sigma / √rounds`.
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

/// Epsilon of so many rounds of the Poisson-sampled Gaussian mechanism, from above: the loss of a round is rounded up to a
/// grid, its distribution is convolved by Fourier transforms, and all that lies outside the grid counts as delta (Koskela,
/// Jälkö and Honkela, *Computing Tight Differential Privacy Guarantees Using FFT*, AISTATS 2020). A client may be added or
/// removed, so the larger of both directions counts. None where the grid is too coarse for this delta.
pub(crate) fn sampled_epsilon(sigma: f64, rate: f64, rounds: u64, delta: f64) -> Option<f64> {
    let both = [true, false].map(|removed| Round { sigma, rate, removed }.epsilon(rounds, delta));
    Some(both[0]?.max(both[1]?))
}

/// One round's loss: of a run with the client against one without it (`removed`), or the other way round.
#[derive(Clone, Copy)]
struct Round {
    sigma: f64,
    rate: f64,
    removed: bool,
}

impl Round {
    /// The probability that the loss is at most `loss`.
    fn cdf(&self, loss: f64) -> f64 {
        // ln(1 − q + q e^((2x − 1) / (2σ²))) grows with x, so a loss has one x.
        let x = |log: f64| {
            let ratio = (log.exp_m1() + self.rate) / self.rate;
            if ratio > 0.0 { self.sigma * self.sigma * ratio.ln() + 0.5 } else { f64::NEG_INFINITY }
        };
        let without = |x: f64| normal_cdf(x / self.sigma);
        if self.removed {
            let x = x(loss);
            (1.0 - self.rate) * without(x) + self.rate * normal_cdf((x - 1.0) / self.sigma)
        } else {
            normal_cdf(-x(-loss) / self.sigma)
        }
    }

    /// The ends between which all but `tail` of the loss lies at either side.
    fn range(&self, tail: f64) -> (f64, f64) {
        let bisect = |wanted: f64, mut low: f64, mut high: f64| {
            for _ in 0..200 {
                let middle = 0.5 * (low + high);
                if self.cdf(middle) < wanted { low = middle } else { high = middle }
            }
            (low, high)
        };
        let far = 0.5 / (self.sigma * self.sigma) + 40.0 / self.sigma + 1.0 - (-self.rate).ln_1p();
        (bisect(tail, -far, far).0, bisect(1.0 - tail, -far, far).1)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "points of a grid of 2^17, and rounds below 2^53"
    )]
    fn epsilon(&self, rounds: u64, delta: f64) -> Option<f64> {
        let times = rounds as f64;
        let cut = delta * CUT;
        let (low, high) = self.range((cut / times).max(1e-15));
        // A coarse look at a round gives the range of the sum, by Chernoff's bound on its moments.
        let cell = (high - low) / COARSE as f64;
        let coarse: Vec<(f64, f64)> = self
            .masses(low, cell, COARSE)
            .into_iter()
            .enumerate()
            .map(|(k, mass)| (low + cell * (k + 1) as f64, mass))
            .collect();
        let bound = |sign: f64| {
            let exponents = (-40..=40).map(|k| 2_f64.powf(f64::from(k) / 4.0));
            let bounds = exponents.map(|lambda| {
                let peak = if sign > 0.0 { high } else { -low };
                let moment: f64 = coarse.iter().map(|(loss, mass)| mass * (lambda * (sign * loss - peak)).exp()).sum();
                (times * (moment.ln() + lambda * peak) - cut.ln()) / lambda
            });
            sign * bounds.fold(f64::INFINITY, f64::min)
        };
        // Both grids round up, by less than a coarse cell a round.
        let slack = times * cell;
        let (from, to) = ((bound(-1.0) - slack).min(low), (bound(1.0) + slack).max(high));
        let step = (to - from) / (POINTS - 2) as f64;
        if !(step.is_finite() && step > 0.0) {
            return None;
        }
        // The grid of one round begins at a multiple of the step, so that the sums do.
        let first = (low / step).floor();
        let count = (((high - low) / step).ceil() as usize + 2).min(POINTS);
        let masses = self.masses(first * step, step, count);
        let outside = 1.0 - self.cdf((first + count as f64) * step);

        let mut values = vec![Complex::new(0.0, 0.0); POINTS];
        masses.iter().zip(&mut values).for_each(|(&mass, value)| value.re = mass);
        let mut planner = FftPlanner::new();
        planner.plan_fft_forward(POINTS).process(&mut values);
        let exponent = i32::try_from(rounds).ok()?;
        values.iter_mut().for_each(|value| *value = value.powi(exponent));
        planner.plan_fft_inverse(POINTS).process(&mut values);
        let scale = 1.0 / POINTS as f64;

        // Index k of the sum stands for the loss (rounds · (first + 1) + k) · step, round about: sums beyond the grid come in
        // again at its start, so the window from `from` on is read in order.
        let offset = times * (first + 1.0);
        let start = (from / step).ceil() - offset;
        let place = |k: usize| (start + k as f64).rem_euclid(POINTS as f64) as usize;
        let sum: Vec<f64> = (0..POINTS).map(|k| (values[place(k)].re * scale).max(0.0)).collect();
        let norm = sum.iter().map(|p| p * p).sum::<f64>().sqrt();
        let rounding = (times + 64.0) * f64::EPSILON * (POINTS as f64).sqrt() * norm;
        let lost = 1.0 - (1.0 - outside.max(0.0)).powf(times) + 2.0 * cut + rounding;
        if lost > 0.01 * delta {
            return None;
        }
        let loss = |k: usize| (start + k as f64 + offset) * step;
        // Σ pₖ (1 − e^(ε − lossₖ)) over the losses above ε grows as ε falls: the first that is too much ends the search.
        let (mut mass, mut weighted) = (0.0, 0.0);
        for k in (0..POINTS).rev() {
            // Weights are relative to the loss at hand, so that none overflows.
            weighted *= (-step).exp();
            if lost + mass - weighted > delta {
                return Some(loss(k + 1).max(0.0));
            }
            mass += sum[k];
            weighted += sum[k];
            if loss(k) < 0.0 {
                break;
            }
        }
        Some(0.0)
    }

    /// The probabilities that the loss is in each cell of a grid, all below it in the first.
    #[expect(clippy::cast_precision_loss, reason = "points of a grid of 2^17")]
    fn masses(&self, from: f64, step: f64, count: usize) -> Vec<f64> {
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

/// `e^(x²) erfc(x)` for `x` of at least 0, in which nothing underflows.
fn scaled_erfc(x: f64) -> f64 {
    if x < 20.0 {
        return (x * x).exp() * libm::erfc(x);
    }
    let inverse = 1.0 / (2.0 * x * x);
    (1.0 - inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse))) / (x * PI.sqrt())
}
