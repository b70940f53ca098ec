//! Time and memory of a run, over all processes that worked on it.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::federation::history::peak_memory;
use crate::federation::summary::Time;
use crate::federation::usage::Spent;

/// Time and memory used by a run so far.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    begun: Instant,
    round: Option<Instant>,
    before: TotalsEntry,
    time: Time,
}

/// The totals in a checkpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct TotalsEntry {
    seconds: f64,
    rounds: f64,
    models: Spent,
    peak_memory: Option<u64>,
}

impl Totals {
    /// Starts the totals of a process that started at `begun`, with this many clients at a time.
    pub(crate) fn new(begun: Instant, workers: usize) -> Self {
        let time = Time { workers, ..Time::default() };
        Self { begun, round: None, before: TotalsEntry::default(), time }
    }

    /// Adds the totals of earlier processes.
    pub(crate) fn resume(&mut self, before: TotalsEntry) {
        self.before = before;
        (self.time.rounds, self.time.models) = (before.rounds, before.models);
    }

    /// Starts the clock of a round.
    pub(crate) fn round_begins(&mut self) {
        self.round = Some(Instant::now());
    }

    /// Stops the clock of a round. Returns the round's duration in this process, in seconds.
    pub(crate) fn round_ends(&mut self) -> f64 {
        let seconds = self.round.take().map_or(0.0, |round| round.elapsed().as_secs_f64());
        self.time.rounds += seconds;
        seconds
    }

    /// Adds time in which a model trained and evaluated.
    pub(crate) fn computed(&mut self, spent: Spent) {
        self.time.models.training += spent.training;
        self.time.models.evaluation += spent.evaluation;
    }

    /// Returns the totals for a checkpoint.
    pub(crate) fn entry(&self) -> TotalsEntry {
        let round = self.round.map_or(0.0, |round| round.elapsed().as_secs_f64());
        TotalsEntry {
            seconds: self.seconds(),
            rounds: self.time.rounds + round,
            models: self.time.models,
            peak_memory: self.peak_memory(),
        }
    }

    /// The run's duration in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.before.seconds + self.begun.elapsed().as_secs_f64()
    }

    /// The time spent in rounds.
    pub(crate) fn time(&self) -> Time {
        self.time
    }

    /// The largest peak memory of the run's processes in bytes, if the system reports it.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.before.peak_memory.max(peak_memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_processes_took_is_added() {
        let mut totals = Totals::new(Instant::now(), 2);
        let models = Spent { training: 5.0, evaluation: 1.0 };
        totals.resume(TotalsEntry { seconds: 100.0, rounds: 90.0, models, peak_memory: Some(u64::MAX) });
        totals.round_begins();
        totals.computed(Spent { training: 1.0, evaluation: 1.0 });
        std::thread::sleep(std::time::Duration::from_millis(2));
        // The time of a round counts within the round as well as after it.
        assert!(totals.entry().rounds > 90.0);
        let round = totals.round_ends();
        assert!(round > 0.0 && totals.seconds() > 100.0);
        let kept = totals.entry();
        assert_eq!((kept.rounds, kept.models.training, kept.models.evaluation), (90.0 + round, 6.0, 2.0));
        assert_eq!((kept.peak_memory, totals.time().workers), (Some(u64::MAX), 2));
    }
}
