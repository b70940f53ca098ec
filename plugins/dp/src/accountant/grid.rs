//! The distribution of the privacy loss of many sampled rounds, on a grid.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

use super::Rounds;
use super::loss::Loss;

/// Points of the grid. More points give a tighter bound and take more time: one transform of this length for each kind
/// of round, and one back.
const POINTS: usize = 1 << 17;

/// Points of the coarse grid that determines the range of the fine one.
const COARSE: usize = 1 << 14;

/// The fraction of delta allowed outside the grid.
const CUT: f64 = 1e-4;

/// An upper bound of epsilon for rounds of the Poisson-sampled Gaussian mechanism. The loss of a round is rounded up to
/// a grid, its distribution is convolved by Fourier transforms, and everything outside the grid counts as delta
/// (Koskela, Jälkö and Honkela, *Computing Tight Differential Privacy Guarantees Using FFT*, AISTATS 2020). A client
/// may be added or removed, so the larger of both directions counts. `None` if the grid is too coarse for this delta.
pub(super) fn sampled_epsilon(rounds: &[Rounds], delta: f64) -> Option<f64> {
    let both = [true, false].map(|removed| one_way(rounds, removed, delta));
    Some(both[0]?.max(both[1]?))
}

/// Rounds with the same noise and sampling.
struct Part {
    loss: Loss,
    times: f64,
    exponent: i32,
    /// All but a negligible part of a round's loss is between these.
    low: f64,
    high: f64,
}

impl Part {
    /// The loss of a round on the coarse grid, with its probabilities, and the width of a cell.
    #[expect(clippy::cast_precision_loss, reason = "points of a grid of 2^14")]
    fn coarse(&self) -> (Vec<(f64, f64)>, f64) {
        let cell = (self.high - self.low) / COARSE as f64;
        let masses = self.loss.masses(self.low, cell, COARSE).into_iter().enumerate();
        (masses.map(|(k, mass)| (self.low + cell * (k + 1) as f64, mass)).collect(), cell)
    }
}

fn one_way(rounds: &[Rounds], removed: bool, delta: f64) -> Option<f64> {
    let cut = delta * CUT;
    let times: f64 = rounds.iter().map(Rounds::times).sum();
    let part = |part: &Rounds| {
        let loss = Loss::new(part, removed);
        let (low, high) = loss.range((cut / times).max(1e-15));
        Some(Part { loss, times: part.times(), exponent: i32::try_from(part.count).ok()?, low, high })
    };
    let parts = rounds.iter().map(part).collect::<Option<Vec<Part>>>()?;
    let sum = Sum::of(&parts, range_of_sum(&parts, cut))?;
    let lost = sum.outside + 2.0 * cut + sum.rounding(times);
    (lost <= 0.01 * delta).then(|| sum.epsilon(lost, delta))
}

/// The distribution of the loss of all rounds.
struct Sum {
    /// The probability of each point of the grid.
    masses: Vec<f64>,
    /// The loss at the first point.
    first: f64,
    /// The distance of two points.
    step: f64,
    /// The probability that a round's loss is beyond the grid.
    outside: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "points of a grid of 2^17"
)]
impl Sum {
    /// `None` if the range has no width that numbers can express.
    fn of(parts: &[Part], (from, to): (f64, f64)) -> Option<Self> {
        let step = (to - from) / (POINTS - 2) as f64;
        if !(step.is_finite() && step > 0.0) {
            return None;
        }
        let mut planner = FftPlanner::new();
        let mut product = vec![Complex::new(1.0, 0.0); POINTS];
        // Index k of the product represents the loss (offset + k) · step.
        let (mut offset, mut inside) = (0.0, 1.0);
        for part in parts {
            // The grid of one round starts at a multiple of the step, so that the sums do too.
            let first = (part.low / step).floor();
            let count = (((part.high - part.low) / step).ceil() as usize + 2).min(POINTS);
            let mut values = vec![Complex::new(0.0, 0.0); POINTS];
            let masses = part.loss.masses(first * step, step, count);
            masses.iter().zip(&mut values).for_each(|(&mass, value)| value.re = mass);
            planner.plan_fft_forward(POINTS).process(&mut values);
            product.iter_mut().zip(values).for_each(|(product, value)| *product *= value.powi(part.exponent));
            let outside = 1.0 - part.loss.cdf((first + count as f64) * step);
            inside *= (1.0 - outside.max(0.0)).powf(part.times);
            offset += part.times * (first + 1.0);
        }
        planner.plan_fft_inverse(POINTS).process(&mut product);

        // Sums beyond the grid wrap around to its start, so the window from `from` on is read in order.
        let start = (from / step).ceil() - offset;
        let index = |k: usize| (start + k as f64).rem_euclid(POINTS as f64) as usize;
        let scale = 1.0 / POINTS as f64;
        let masses = (0..POINTS).map(|k| (product[index(k)].re * scale).max(0.0)).collect();
        Some(Self { masses, first: start + offset, step, outside: 1.0 - inside })
    }

    /// A bound of what the transforms' rounding moves.
    fn rounding(&self, times: f64) -> f64 {
        let norm = self.masses.iter().map(|p| p * p).sum::<f64>().sqrt();
        (times + 64.0) * f64::EPSILON * (POINTS as f64).sqrt() * norm
    }

    /// The least epsilon at which `lost` and `Σ pₖ (1 − e^(ε − lossₖ))` over the losses above it stay within `delta`.
    fn epsilon(&self, lost: f64, delta: f64) -> f64 {
        let loss = |k: usize| (self.first + k as f64) * self.step;
        // The sum grows as ε falls: the search stops at the first value that is too large.
        let (mut mass, mut weighted) = (0.0, 0.0);
        for k in (0..POINTS).rev() {
            // Weights are relative to the current loss, so that none overflows.
            weighted *= (-self.step).exp();
            if lost + mass - weighted > delta {
                return loss(k + 1).max(0.0);
            }
            mass += self.masses[k];
            weighted += self.masses[k];
            if loss(k) < 0.0 {
                break;
            }
        }
        0.0
    }
}

/// A range that contains all but `cut` of the sum on each side, by Chernoff's bound on a coarse grid.
fn range_of_sum(parts: &[Part], cut: f64) -> (f64, f64) {
    let coarse: Vec<_> = parts.iter().map(Part::coarse).collect();
    let bound = |sign: f64| {
        let exponents = (-40..=40).map(|k| 2_f64.powf(f64::from(k) / 4.0));
        let bounds = exponents.map(|lambda| {
            let ln_moment = |part: &Part, losses: &[(f64, f64)]| {
                let peak = if sign > 0.0 { part.high } else { -part.low };
                let moment: f64 = losses.iter().map(|(loss, mass)| mass * (lambda * (sign * loss - peak)).exp()).sum();
                part.times * (moment.ln() + lambda * peak)
            };
            let ln_moments: f64 = parts.iter().zip(&coarse).map(|(part, (losses, _))| ln_moment(part, losses)).sum();
            (ln_moments - cut.ln()) / lambda
        });
        sign * bounds.fold(f64::INFINITY, f64::min)
    };
    // Both grids round up, by less than a coarse cell per round.
    let slack: f64 = parts.iter().zip(&coarse).map(|(part, (_, cell))| part.times * cell).sum();
    let low = parts.iter().map(|part| part.low).fold(f64::INFINITY, f64::min);
    let high = parts.iter().map(|part| part.high).fold(f64::NEG_INFINITY, f64::max);
    ((bound(-1.0) - slack).min(low), (bound(1.0) + slack).max(high))
}
