//! Distributed noise: Kairouz, Liu and Steinke, *The Distributed Discrete Gaussian Mechanism for Federated Learning
//! with Secure Aggregation*, ICML 2021. The crate's documentation has the formulas.

use fedplug_dp::DiscreteGaussian;
use plugin_api::{Context, Error, Message, Result, Tensor};
use rand::distr::Distribution;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::fixed::Grid;
use crate::numbers::change;

/// The largest probability that a rounding is redrawn: the paper's β.
const REDRAWN: f64 = 0.606_530_659_712_633_4; // exp(-1/2)

/// The largest number of draws of a rounding; the probability that all fail is below 10⁻²⁰⁰.
const MOST_DRAWS: usize = 1000;

/// -log2 of the largest probability that some number of a sum leaves the ring in a round.
const WRAPS: f64 = 40.0;

/// The noise parameters that the aggregator announces.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Noise {
    /// The standard deviation of the noise in a sum, in units of the clipping norm.
    pub(crate) multiplier: f64,
    /// The delta of the privacy guarantee.
    pub(crate) delta: f64,
    /// How many clients may collude with the server, so that their noise does not count.
    pub(crate) colluding: usize,
}

/// The noise of a round's clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The fixed-point grid; its largest number represents the clipping norm.
    pub(crate) grid: Grid,
    /// The smallest number of non-colluding clients whose noise is in a sum.
    pub(crate) honest: usize,
    /// The noise of one client, on the grid.
    noise: DiscreteGaussian,
}

impl Plan {
    /// Plans the clients' noise: its sum over `threshold` minus `colluding` clients has the announced variance, or
    /// slightly more.
    ///
    /// # Errors
    /// If no client remains, or the noise does not fit the grid.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^53"
    )]
    pub(crate) fn new(noise: Noise, grid: Grid, threshold: usize, members: usize) -> Result<Self> {
        let Noise { multiplier, delta, .. } = noise;
        // The aggregator's values are untrusted.
        if !(multiplier.is_finite() && multiplier > 0.0 && delta > 0.0 && delta < 1.0) {
            return Err(Error::config(format!(
                "noise of {multiplier} times `clip-norm` protects nothing at delta {delta}"
            )));
        }
        if 2 * threshold <= members.saturating_add(noise.colluding) {
            let most = (2 * threshold).saturating_sub(members + 1);
            let message = format!("{} of {members} clients on the server's side are too many", noise.colluding);
            return Err(Error::config(message)
                .at_key("colluding")
                .help(format!("a `threshold` of {threshold} allows at most {most}: raise it, or lower `colluding`")));
        }
        let honest = threshold - noise.colluding;
        let variance = |bits: u32| {
            let deviation = noise.multiplier * f64::from(Grid { bits, ..grid }.limit());
            (deviation * deviation / honest as f64).ceil()
        };
        let fits = |bits: u32| {
            Some(variance(bits)).filter(|v| *v < 2_f64.powi(53)).and_then(|v| DiscreteGaussian::new(v as u64, 1))
        };
        match fits(grid.bits) {
            Some(noise) => Ok(Self { grid, honest, noise }),
            None => {
                let most = (2..grid.bits).rev().find(|&bits| fits(bits).is_some());
                let message =
                    format!("noise of {} times `clip-norm` is too wide for {} bits", noise.multiplier, grid.bits);
                Err(Error::config(message).at_key("bits").help(format!("at most {} fit", most.unwrap_or_default())))
            }
        }
    }

    /// A client's variance on the grid.
    pub(crate) fn variance(&self) -> f64 {
        self.noise.variance()
    }

    /// The largest squared norm, on the grid, of a rounded update of `values` values: the paper's Δ₂² (Theorem 1).
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "below 2^100"
    )]
    pub(crate) fn largest_square(&self, values: usize) -> u128 {
        let (norm, root) = (f64::from(self.grid.limit()), (values as f64).sqrt());
        let always = (norm + root).powi(2);
        let mostly = norm * norm + 0.25 * values as f64 + (-2.0 * REDRAWN.ln()).sqrt() * (norm + 0.5 * root);
        always.min(mostly).floor() as u128
    }

    /// A bound on each number of a sum over `clients` clients that holds up to a probability of 2⁻⁴⁰ per round. It
    /// bounds the rounded updates by their norms, and the noise by its tails over all values, which are no heavier than
    /// those of a normal distribution of the same variance (Canonne, Kamath and Steinke 2020).
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    pub(crate) fn largest_sum(&self, clients: usize, values: usize) -> f64 {
        let (clients, values) = (clients as f64, values.max(1));
        let tail = (2.0 * ((2.0 * values as f64).ln() + WRAPS * std::f64::consts::LN_2)).sqrt();
        clients * (self.largest_square(values) as f64).sqrt() + (clients * self.variance()).sqrt() * tail
    }

    /// Checks that every number of a sum over `clients` clients stays within the 32-bit ring.
    pub(crate) fn fits(&self, clients: usize, values: usize) -> Result<()> {
        let largest = |bits: u32| {
            // Both parts of the sum grow with the grid.
            self.largest_sum(clients, values) * f64::from(Grid { bits, ..self.grid }.limit())
                / f64::from(self.grid.limit())
        };
        let fits = |largest: f64| largest <= f64::from(i32::MAX);
        if fits(largest(self.grid.bits)) {
            return Ok(());
        }
        let most = (2..self.grid.bits).rev().find(|&bits| fits(1.01 * largest(bits)));
        let message =
            format!("a sum of {clients} numbers of {} bits with their noise may not fit in 32", self.grid.bits);
        Err(Error::config(message).at_key("bits").help(format!("{} are safe", most.unwrap_or_default())))
    }

    /// Encodes a client's whole update, clipped, rounded and with its noise, tensor by tensor modulo 2³². Also reports
    /// whether the update had any non-zero value.
    ///
    /// # Errors
    /// If there is no update, or it is not finite.
    pub(crate) fn encoded(
        &self,
        params: &[(&str, &Tensor)],
        base: &Message,
        rng: &mut impl Rng,
        ctx: &Context<'_>,
    ) -> Result<Encoded> {
        let (mut square, mut values) = (0.0, 0);
        for (name, tensor) in params {
            let Some(change) = change(name, tensor, base)? else { continue };
            square += change.iter().map(|x| x * x).sum::<f64>();
            values += change.len();
        }
        let norm = square.sqrt();
        if !norm.is_finite() {
            return Err(Error::data("the norm of the update overflows"));
        }
        if values == 0 {
            return Err(Error::config(
                "the message contains no floating-point parameter, so there is nothing to protect",
            ));
        }
        let scale = if norm > self.grid.clip { self.grid.clip / norm } else { 1.0 } / self.grid.step();
        let mut tensors = self.rounded(params, base, (scale, values), rng, ctx)?;
        for (numbers, (_, tensor)) in tensors.iter_mut().zip(params) {
            ctx.check()?;
            if tensor.is_float() {
                for number in numbers {
                    *number = number.wrapping_add(ring(self.noise.sample(rng)));
                }
            }
        }
        Ok(Encoded { tensors, values, moved: norm > 0.0 })
    }

    /// Conditional randomised rounding: each value is rounded to one of its two neighbours so that the mean is right.
    /// All are redrawn until the exact norm is at most that of the account.
    #[expect(clippy::cast_possible_truncation, reason = "at most a little over the grid's largest number, of 30 bits")]
    pub(crate) fn rounded(
        &self,
        params: &[(&str, &Tensor)],
        base: &Message,
        (scale, values): (f64, usize),
        rng: &mut impl Rng,
        ctx: &Context<'_>,
    ) -> Result<Vec<Vec<u32>>> {
        let largest = self.largest_square(values);
        for _ in 0..MOST_DRAWS {
            let mut square = 0_u128;
            let mut round = |x: &f64| {
                let exact = x * scale;
                let below = exact.floor();
                let number = below as i64 + i64::from(rng.random::<f64>() < exact - below);
                square += u128::from(number.unsigned_abs()).pow(2);
                ring(number)
            };
            let tensor = |(name, tensor): &(&str, &Tensor)| {
                ctx.check()?;
                let change = change(name, tensor, base)?;
                Ok(change.map_or_else(|| vec![0; tensor.len()], |change| change.iter().map(&mut round).collect()))
            };
            let tensors = params.iter().map(tensor).collect::<Result<Vec<Vec<u32>>>>()?;
            if square <= largest {
                return Ok(tensors);
            }
        }
        Err(Error::other("no rounding of the update keeps its norm"))
    }
}

/// An update with noise.
pub(crate) struct Encoded {
    /// Numbers modulo 2³², for each parameter.
    pub(crate) tensors: Vec<Vec<u32>>,
    /// How many of them represent a floating-point value.
    pub(crate) values: usize,
    /// Whether the update had any non-zero value.
    pub(crate) moved: bool,
}

/// Reduces a number modulo 2³².
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ring's arithmetic")]
fn ring(number: i64) -> u32 {
    number as u32
}
