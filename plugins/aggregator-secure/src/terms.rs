//! The terms of a round: the aggregator announces them, and each client checks them against its own bounds.

use plugin_api::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::fixed::Grid;
use crate::noise::{Noise, Plan};

/// The terms of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// How many clients it takes to unmask.
    pub(crate) threshold: usize,
    /// How many clients in a sum must have trained.
    pub(crate) minimum: usize,
    /// The largest absolute value of a change; with noise, the largest norm of all changes together.
    pub(crate) clip: f64,
    /// Bits per fixed-point number.
    pub(crate) bits: u32,
    /// The noise that the clients add, if any.
    #[serde(default)]
    pub(crate) noise: Option<Noise>,
}

/// The lowest terms that a client accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) minimum: usize,
    pub(crate) threshold: Option<usize>,
    pub(crate) noise_multiplier: Option<f64>,
    pub(crate) colluding: usize,
}

impl Terms {
    /// The grid of fixed-point numbers.
    pub(crate) fn grid(self) -> Grid {
        Grid { clip: self.clip, bits: self.bits }
    }

    /// Returns the number of members if the threshold suits it: more than half, so that two groups without a common
    /// client can never both unmask, and at most all of them.
    pub(crate) fn check(self, members: usize) -> Result<u8> {
        let least = members / 2 + 1;
        if !(least..=members).contains(&self.threshold) {
            let message = format!("{} of {members} clients is not a valid minimum for unmasking", self.threshold);
            return Err(Error::config(message).help(format!("must be from {least} to {members}")));
        }
        u8::try_from(members).map_err(|_| Error::config(format!("{members} clients are more than 255")))
    }

    /// The noise that the clients add, if any.
    pub(crate) fn plan(self, members: usize) -> Result<Option<Plan>> {
        self.noise.map(|noise| Plan::new(noise, self.grid(), self.threshold, members)).transpose()
    }

    /// The terms as bytes, for the signed digest.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let numbers = [self.threshold as u64, self.minimum as u64, self.clip.to_bits(), self.bits.into()];
        let noise =
            |Noise { multiplier, delta, colluding }: Noise| [multiplier.to_bits(), delta.to_bits(), colluding as u64];
        let noise = self.noise.map(noise).into_iter().flatten();
        numbers.into_iter().chain(noise).flat_map(u64::to_le_bytes).collect()
    }
}

impl Bounds {
    /// Checks that the terms protect the client at least as much as it requires. Returns the number of members.
    pub(crate) fn accept(self, terms: Terms, members: usize) -> Result<u8> {
        let clients = terms.check(members)?;
        let grid = terms.grid();
        let fits = || terms.noise.is_some() || grid.largest_sum(members).is_some();
        let is_grid = || grid.step().is_normal() && grid.clip > 0.0;
        if !(2..=30).contains(&grid.bits) || !fits() || !is_grid() {
            return Err(Error::other(format!("numbers of {} bits do not suit {clients} clients", grid.bits)));
        }
        terms.plan(members)?;
        for (key, theirs, ours) in [
            ("threshold", terms.threshold, self.threshold.unwrap_or_default()),
            ("minimum", terms.minimum, self.minimum),
        ] {
            if theirs < ours {
                let message = format!("the aggregator's `{key}` is {theirs}, but this client requires at least {ours}");
                return Err(Error::config(message).at_key(key).help(format!(
                    "raise `{key}` in the table `aggregator`, or lower it in this filter's if {theirs} clients are \
                     enough for you"
                )));
            }
        }
        self.accept_noise(terms.noise)?;
        Ok(clients)
    }

    fn accept_noise(self, noise: Option<Noise>) -> Result<()> {
        let Some(least) = self.noise_multiplier else { return Ok(()) };
        let Some(noise) = noise else {
            return Err(Error::config(format!(
                "the aggregator asks for no noise, but this client requires at least {least}"
            ))
            .at_key("noise-multiplier")
            .help("`clip-norm`, `noise-multiplier` and `delta` in the table `aggregator` ask for noise"));
        };
        // The comparison also rejects NaN.
        if !(noise.multiplier >= least && noise.multiplier.is_finite()) {
            let message =
                format!("the aggregator's is {}, but this client requires at least {least}", noise.multiplier);
            return Err(Error::config(message).at_key("noise-multiplier"));
        }
        if noise.colluding < self.colluding {
            let message =
                format!("the aggregator assumes {}, but this client assumes {}", noise.colluding, self.colluding);
            return Err(Error::config(message).at_key("colluding"));
        }
        Ok(())
    }
}
