//! What components report during a call at a site.

use std::collections::BTreeMap;

use crate::artefacts::tracking::{Collected, Reporter};
use crate::federation::trace::Trace;
use crate::sites::protocol::Report;

/// Collects scalars.
pub(crate) struct Reports {
    reporter: Reporter,
    collected: Collected,
}

impl Reports {
    /// Starts without any.
    pub(crate) fn new() -> Self {
        let (reporter, collected) = Reporter::collecting();
        Self { reporter, collected }
    }

    /// A handle for reporting.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Everything that was reported.
    pub(crate) fn collect(self) -> Report {
        let Self { reporter, collected } = self;
        drop(reporter);
        let mut rounds: BTreeMap<u64, Trace> = BTreeMap::new();
        for (scalar, time) in collected {
            rounds.entry(scalar.round).or_default().push(&scalar.tag, scalar.step, scalar.value, time);
        }
        Report { scalars: rounds.into_iter().collect(), ..Report::default() }
    }
}
