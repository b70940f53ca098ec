//! Counts rounds, and computes their privacy cost.

use std::collections::BTreeMap;

use fedplug_dp::Rounds;
use plugin_api::{Context, Result, Sampling};
use serde::{Deserialize, Serialize};

/// The releases so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Rounds that started and, as far as is known, ended.
    rounds: u64,
    /// How often each client was selected, if the selection is known.
    clients: BTreeMap<String, u64>,
    /// How many rounds had started at the last of them, if the host reports it.
    attempts: u64,
    /// Rounds that an interrupted process started, and may have released.
    lost: u64,
    /// With Poisson sampling: an upper bound of how many rounds were released how often with the same clients.
    repeated: BTreeMap<u64, u64>,
    /// Each round up to this one may have been released `extra` more times.
    until: u64,
    extra: u64,
}

impl Account {
    /// Counts a round that starts with these clients.
    ///
    /// Each round that started before and is unknown may be this one or a later one. If there were `n` of them, they
    /// reached at most `n - 1` rounds beyond this one, so each of these rounds counts as released `n` more times.
    /// (Counting a release that did not happen costs nothing, so this is an upper bound.)
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

    /// The number of rounds of the client selected most often, plus the unknown ones.
    pub(crate) fn most(&self) -> u64 {
        self.clients.values().copied().max().unwrap_or_default().saturating_add(self.lost)
    }

    /// Epsilon with this noise.
    #[expect(clippy::cast_precision_loss, reason = "a number of repetitions")]
    pub(crate) fn epsilon(&self, noise_multiplier: f64, sampling: Sampling, delta: f64) -> f64 {
        let rounds: Vec<Rounds> = match sampling {
            // Who takes part is predictable, so each client pays only for the rounds that it was in.
            Sampling::Fixed => vec![Rounds { noise_multiplier, sample_rate: 1.0, count: self.most() }],
            // Of `k` releases with the same clients only the mean matters: one release with less noise.
            Sampling::Poisson(sample_rate) => {
                let noise = |times: u64| noise_multiplier / (times as f64).sqrt();
                let part = |(&times, &count)| Rounds { noise_multiplier: noise(times), sample_rate, count };
                self.repeated.iter().map(part).collect()
            }
        };
        fedplug_dp::epsilon(&rounds, delta)
    }

    /// The end of a sentence that says why more rounds count than were reported.
    pub(crate) fn explained(&self) -> String {
        match self.lost {
            0 => String::new(),
            1 => "; one more round was interrupted, may have been released, and counts".to_owned(),
            n => format!("; {n} more rounds were interrupted, may have been released, and count"),
        }
    }
}
