//! What a run came to: `summary.json` in its directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefacts::names;
use crate::error::{CliError, Diagnostic};
use crate::federation::best_models::Best;
use crate::federation::history::TaskHistory;
use crate::federation::notes::Note;
use crate::federation::usage::{Spent, Traffic};

/// What a run came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// The run's name.
    pub name: String,
    /// How many rounds it had.
    pub rounds: u64,
    /// What the score is by which models are compared, where the model says it.
    #[serde(default)]
    pub score_name: Option<String>,
    /// The best global model.
    pub best: Option<ScoredModel>,
    /// The best global model for each task, in a run of several: `best/tasks/TASK/model.safetensors`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub best_by_task: BTreeMap<String, ScoredModel>,
    /// The last global model.
    pub last: ScoredModel,
    /// First, best and last value of each metric, of each client and task.
    pub clients: BTreeMap<String, Vec<TaskHistory>>,
    /// Bytes of tensors that each client got and sent, over all rounds.
    #[serde(default)]
    pub traffic: BTreeMap<String, Traffic>,
    /// What components have to say.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// How long it took, over all processes that worked on it.
    pub seconds: f64,
    /// Where the time of the rounds went. Absent from runs of earlier versions, and from those without reports.
    pub time: Option<Time>,
    /// The most memory that a process of it held, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// Where the time of the rounds went, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Time {
    /// From the beginnings of the rounds to their ends.
    pub rounds: f64,
    /// In which all clients' models trained and evaluated, added up. Where this is less than the rounds' time times the
    /// clients at a time, the rest is exchange, aggregation, and waiting for the slowest client.
    #[serde(flatten)]
    pub models: Spent,
    /// How many clients worked at the same time.
    pub workers: usize,
}

/// A global model and its score.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScoredModel {
    /// After how many rounds it was made.
    pub rounds: u64,
    /// The mean of the clients' scores; of a task's best model the mean over the clients that have the task.
    pub score: Option<f64>,
}

impl From<Best> for ScoredModel {
    fn from(Best { rounds, score }: Best) -> Self {
        Self { rounds, score: Some(score) }
    }
}

impl Summary {
    /// The summary of the run in a directory.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read(run: &Path) -> Result<Self, CliError> {
        let path = run.join(names::SUMMARY);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let report = Diagnostic::new(format!("{}: no run that is done", run.display())).cause(error);
            CliError::usage(report.hint(format!("a run writes `{}` at its end", names::SUMMARY)))
        })?;
        serde_json::from_str(&text).map_err(|error| {
            CliError::usage(Diagnostic::new(format!("{}: cannot be read", path.display())).cause(error))
        })
    }
}
