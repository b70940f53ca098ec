//! How many rounds count, and what they cost.

use std::collections::BTreeMap;

use fedplug_dp::Rounds;
use plugin_api::{Context, Result, Sampling};
use serde::{Deserialize, Serialize};

/// What was released so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Rounds that were begun and, so far as is known, ended.
    rounds: u64,
    /// How many of them each client was selected for, where the selection is known.
    clients: BTreeMap<String, u64>,
    /// How many rounds had been begun with the last of them, where the host says so.
    attempts: u64,
    /// Rounds that an interrupted process began, and may have released.
    lost: u64,
    /// Where clients are Poisson-sampled: how many rounds were released how often, at most, with the same clients.
    repeated: BTreeMap<u64, u64>,
    /// Up to this round each may be one that was released so many times more.
    until: u64,
    extra: u64,
}

impl Account {
    /// Counts a round that begins, with these clients.
    ///
    /// Of rounds that were begun before and are not known, each may be this one or one of the next. If there were `n` of
    /// them, they went no further than `n - 1` rounds beyond this one; so each of these is counted as if it had been
    /// released `n` times more. (A release that is not there costs nothing, so that is an upper bound.)
    pub(crate) fn begin(&mut self, clients: &[String], sampling: Sampling, ctx: &Context<'_>) -> Result<()> {
        let round = ctx.round().unwrap_or_default();
        let begun: Option<u64> = ctx.property("attempts")?;
        let lost = begun.map_or(0, |begun| begun.saturating_sub(self.attempts).saturating_sub(1));
        self.attempts = begun.unwrap_or(self.attempts);
        self.lost = self.lost.saturating_add(lost);
        self.rounds = self.rounds.saturating_add(1);
        if round >= self.until {
            self.extra = 0;
        }
        if lost > 0 {
            self.extra = self.extra.saturating_add(lost);
            self.until = self.until.max(round.saturating_add(lost));
        }
        match sampling {
            Sampling::Poisson(_) => *self.repeated.entry(self.extra.saturating_add(1)).or_default() += 1,
            Sampling::Fixed => clients.iter().for_each(|client| *self.clients.entry(client.clone()).or_default() += 1),
        }
        Ok(())
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// The rounds of the client that was selected most, and those that are not known.
    pub(crate) fn most(&self) -> u64 {
        self.clients.values().copied().max().unwrap_or_default().saturating_add(self.lost)
    }

    /// Epsilon with this noise.
    #[expect(clippy::cast_precision_loss, reason = "a number of repetitions")]
    pub(crate) fn epsilon(&self, noise_multiplier: f64, sampling: Sampling, delta: f64) -> f64 {
        let rounds: Vec<Rounds> = match sampling {
            // Who takes part can be foreseen, so each client pays for the rounds that it was in, and for nothing else.
            Sampling::Fixed => vec![Rounds { noise_multiplier, sample_rate: 1.0, count: self.most() }],
            // Of `k` releases with the same clients the mean is all that matters: one with less noise.
            Sampling::Poisson(sample_rate) => {
                let noise = |times: u64| noise_multiplier / (times as f64).sqrt();
                let part = |(&times, &count)| Rounds { noise_multiplier: noise(times), sample_rate, count };
                self.repeated.iter().map(part).collect()
            }
        };
        fedplug_dp::epsilon(&rounds, delta)
    }

    /// A sentence's end that says why more rounds count than were reported.
    pub(crate) fn explained(&self) -> String {
        match self.lost {
            0 => String::new(),
            1 => "; one more round was begun and may have been released before an interruption, and counts".to_owned(),
            n => format!("; {n} more rounds were begun and may have been released before an interruption, and count"),
        }
    }
}
