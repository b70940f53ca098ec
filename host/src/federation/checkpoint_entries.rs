//! A checkpoint's index entries for clients in an unfinished round, as plain JSON.
//!
//! A resumed round starts again at the aggregator, with its queries, and at every filter. All of these return to their
//! states at the start of the round. Only the models' work is not repeated: a client's model continues with its next
//! epoch. If it had finished all epochs, the message it sent comes from the checkpoint. Scalars that were already
//! reported are reported again.

use plugin_api::{Evaluation, Goal, Metric, Trained};
use serde::{Deserialize, Serialize};

use crate::federation::client::{Failed, Progress};
use crate::federation::component_error::ComponentError;
use crate::federation::trace::Trace;
use crate::federation::usage::Spent;

/// [`Progress`] as stored in a checkpoint's index, without the trace.
#[derive(Serialize, Deserialize)]
pub(crate) struct ProgressEntry {
    round: u64,
    /// The number of finished epochs.
    pub epochs: u64,
    steps: u64,
    examples: u64,
    spent: Spent,
    global: Option<Vec<EvaluationEntry>>,
    local: Vec<Vec<EvaluationEntry>>,
}

impl ProgressEntry {
    /// Converts the progress for the index.
    pub(crate) fn of(progress: &Progress) -> Self {
        let Progress { round, epochs, trained: Trained { steps, examples }, spent, .. } = *progress;
        let kept = |all: &Vec<Evaluation>| all.iter().map(EvaluationEntry::of).collect();
        let (global, local) = (progress.global.as_ref().map(kept), progress.local.iter().map(kept).collect());
        Self { round, epochs, steps, examples, spent, global, local }
    }

    /// Converts the entry back and adds the trace.
    pub(crate) fn with(self, trace: Trace) -> Progress {
        let Self { round, epochs, steps, examples, spent, global, local } = self;
        let whole = |all: Vec<EvaluationEntry>| all.into_iter().map(EvaluationEntry::whole).collect();
        let (global, local) = (global.map(whole), local.into_iter().map(whole).collect());
        Progress { round, epochs, trained: Trained { steps, examples }, global, local, spent, trace }
    }
}

/// An evaluation whose floating-point numbers are stored as bits, since JSON has no NaN.
#[derive(Serialize, Deserialize)]
struct EvaluationEntry {
    task: String,
    examples: u64,
    loss: u64,
    score: u64,
    /// The name, the value's bits, and whether higher is better.
    metrics: Vec<(String, u64, bool)>,
}

impl EvaluationEntry {
    fn of(evaluation: &Evaluation) -> Self {
        let metric = |metric: &Metric| (metric.name.clone(), metric.value.to_bits(), metric.goal == Goal::Higher);
        Self {
            task: evaluation.task.clone(),
            examples: evaluation.examples,
            loss: evaluation.loss.to_bits(),
            score: evaluation.score.to_bits(),
            metrics: evaluation.metrics.iter().map(metric).collect(),
        }
    }

    fn whole(self) -> Evaluation {
        let metric = |(name, value, higher): (String, u64, bool)| {
            let goal = if higher { Goal::Higher } else { Goal::Lower };
            Metric { name, value: f64::from_bits(value), goal }
        };
        Evaluation {
            task: self.task,
            examples: self.examples,
            loss: f64::from_bits(self.loss),
            score: f64::from_bits(self.score),
            metrics: self.metrics.into_iter().map(metric).collect(),
        }
    }
}

/// [`Failed`] as stored in a checkpoint's index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FailureEntry {
    round: Option<u64>,
    #[serde(rename = "for_good")]
    permanent: bool,
    who: String,
    kind: String,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl FailureEntry {
    /// Converts the failure for the index.
    pub(crate) fn of(failed: &Failed) -> Self {
        let (who, error) = failed.fault.parts();
        Self {
            round: failed.round,
            permanent: failed.permanent,
            who: who.to_owned(),
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            causes: error.causes().to_vec(),
            hint: error.hint().map(str::to_owned),
        }
    }

    /// Converts the entry back.
    pub(crate) fn whole(self) -> Failed {
        let error = plugin_api::Error::new(self.kind.as_str().into(), self.message);
        let error = self.causes.into_iter().fold(error, |error, cause| error.because_of(cause));
        let error = self.hint.into_iter().fold(error, |error, hint| error.help(hint));
        Failed { round: self.round, permanent: self.permanent, fault: ComponentError::new(self.who, error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_to_the_bit() {
        let mut trace = Trace::default();
        for (tag, value) in [("a", 1.5), ("b", f64::NAN), ("a", f64::INFINITY)] {
            trace.push(tag, u64::MAX, value, 12.25);
        }
        let metrics = vec![Metric { name: "RMSE".to_owned(), value: f64::NAN, goal: Goal::Lower }];
        let evaluation =
            Evaluation { task: "tm".to_owned(), examples: 3, loss: 0.1, score: f64::NEG_INFINITY, metrics };
        let (global, local) = (Some(vec![evaluation.clone()]), vec![vec![evaluation]]);
        let progress = Progress { global, local, trace, epochs: 1, ..Progress::new(7) };
        let text = serde_json::to_string(&ProgressEntry::of(&progress)).unwrap();
        let kept: ProgressEntry = serde_json::from_str(&text).unwrap();
        let back = kept.with(Trace::read(&progress.trace.state().unwrap()).unwrap());
        assert_eq!(format!("{back:?}"), format!("{progress:?}"));
        let scalars: Vec<_> = back.trace.iter().map(|(tag, step, value, _)| (tag, step, value.to_bits())).collect();
        assert_eq!(scalars[1], ("b", u64::MAX, f64::NAN.to_bits()));
        assert_eq!(scalars.len(), 3);
    }

    #[test]
    fn a_failure_comes_back() {
        let error = plugin_api::Error::new(plugin_api::ErrorKind::Panic, "`train` panicked").because_of("at lib.rs:3");
        let fault = ComponentError::new("model `x`".to_owned(), error.help("mend it"));
        let failed = Failed { round: Some(3), permanent: true, fault };
        let text = serde_json::to_string(&FailureEntry::of(&failed)).unwrap();
        let back = serde_json::from_str::<FailureEntry>(&text).unwrap().whole();
        assert!(back.fault.is_panic());
        assert_eq!(format!("{back:?}"), format!("{failed:?}"));
    }
}
