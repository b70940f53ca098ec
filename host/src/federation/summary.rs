//! The results of a run: `summary.json` in its directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefacts::names;
use crate::error::{CliError, Diagnostic};
use crate::federation::best_models::Best;
use crate::federation::history::TaskHistory;
use crate::federation::notes::Note;
use crate::federation::usage::{Spent, Traffic};

/// The results of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Summary {
    /// The run's name.
    pub name: String,
    /// The number of rounds.
    pub rounds: u64,
    /// The name of the score that compares models, if the model gives one.
    #[serde(default)]
    pub score_name: Option<String>,
    /// The best global model.
    pub best: Option<ScoredModel>,
    /// The best global model for each task, in a run of several tasks: `best/tasks/TASK/model.safetensors`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub best_by_task: BTreeMap<String, ScoredModel>,
    /// The last global model.
    pub last: ScoredModel,
    /// The first, best and last value of each metric, for each client and task.
    pub clients: BTreeMap<String, Vec<TaskHistory>>,
    /// Bytes of tensors that each client received and sent, over all rounds.
    #[serde(default)]
    pub traffic: BTreeMap<String, Traffic>,
    /// Notes from components.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// The run's duration in seconds, over all processes that worked on it.
    pub seconds: f64,
    /// The time spent in rounds. Absent in summaries of earlier versions and of runs without reports.
    pub time: Option<Time>,
    /// The largest peak memory of the run's processes in bytes, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// The time spent in rounds, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Time {
    /// The total duration of the rounds.
    pub rounds: f64,
    /// The time in which models trained and evaluated, added up over all clients. If it is less than the rounds'
    /// duration times `workers`, the rest is exchange, aggregation and waiting for the slowest client.
    #[serde(flatten)]
    pub models: Spent,
    /// The number of clients that worked at the same time.
    pub workers: usize,
}

/// A global model and its score.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScoredModel {
    /// The number of rounds after which the model was made.
    pub rounds: u64,
    /// The mean of the clients' scores. For the best model of a task, the mean over the clients that have the task.
    pub score: Option<f64>,
    /// The same on the rows for validation, if there are any. They choose the best model if all that evaluate have some.
    #[serde(default, rename = "validation-score", skip_serializing_if = "Option::is_none")]
    pub validation_score: Option<f64>,
}

impl From<Best> for ScoredModel {
    fn from(Best { rounds, score, validation_score }: Best) -> Self {
        Self { rounds, score, validation_score }
    }
}

impl Summary {
    /// Reads the summary in a run's directory.
    ///
    /// # Errors
    /// If there is no summary, or it cannot be read.
    pub(crate) fn read(run: &Path) -> Result<Self, CliError> {
        let path = run.join(names::SUMMARY);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let report = Diagnostic::new(format!("{}: not a finished run", run.display())).cause(error);
            CliError::usage(report.hint(format!("a run writes `{}` when it finishes", names::SUMMARY)))
        })?;
        serde_json::from_str(&text).map_err(|error| {
            CliError::usage(Diagnostic::new(format!("{}: cannot be read", path.display())).cause(error))
        })
    }
}
