//! The table `[federation]`.

use std::path::PathBuf;

use plugin_api::Sampling;
use plugin_api::config::{self, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sites::{self, Site};
use crate::experiment::byte_size::ByteSize;

/// More rounds, or epochs per round, are certainly a typo.
const MOST_ROUNDS: u64 = 1_000_000_000;

/// More threads than any machine has.
pub(crate) const MOST_THREADS: u32 = 4096;

/// The table `[federation]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Federation {
    /// The number of rounds.
    #[schemars(range(min = 1, max = MOST_ROUNDS))]
    pub rounds: u64,
    /// The number of epochs that each client trains in a round.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MOST_ROUNDS))]
    pub local_epochs: u64,
    /// Where the clients compute: client k uses entry k modulo the length of the list. `auto` stands for the GPUs that
    /// the model finds, or the CPU if there are none.
    #[serde(default = "auto")]
    #[schemars(length(min = 1))]
    pub devices: Vec<String>,
    /// How many clients compute on one device other than the CPU at the same time. They share its memory. Results do not
    /// depend on it.
    #[serde(default = "one_client", skip_serializing_if = "is_one_client")]
    #[schemars(range(min = 1, max = MOST_THREADS))]
    pub clients_per_device: usize,
    /// How many clients work at the same time; 0 chooses from the number of cores and devices. Results do not
    /// depend on it.
    #[serde(default)]
    #[schemars(range(max = MOST_THREADS))]
    pub threads: usize,
    /// The number of threads that each client computes with. Results may depend on it.
    #[serde(default = "one_thread")]
    #[schemars(range(min = 1, max = MOST_THREADS))]
    pub threads_per_client: usize,
    /// What happens when a client fails.
    #[serde(default)]
    pub on_client_failure: OnClientFailure,
    /// The fraction of the clients that train in a round, drawn again in each round; `sampling` says how.
    #[serde(default = "all")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub fraction: f64,
    /// How the clients of a round are drawn.
    #[serde(default)]
    pub sampling: SamplingMethod,
    /// The safetensors file with the first global model. By default the model creates it from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "path"))]
    pub initial: Option<PathBuf>,
    /// The sites at which the clients are, if they are elsewhere: `fedplug serve` waits for them. Each key is the name of
    /// a client, and its value the fingerprint of the site's key, which `fedplug keys` shows, or a table for a plain
    /// Flower client. Clients are aggregated in this order.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(with = "std::collections::BTreeMap<String, super::sites::Entry>")]
    pub sites: Map<String, Value>,
    /// How many seconds to wait for a site that is away, before it counts as a client that failed; 0 waits for ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub site_timeout: u64,
    /// The minimum number of clients that train in a round. A round with fewer updates ends the run. Must be 1 with
    /// `sampling = "poisson"`.
    #[serde(default = "one_client")]
    #[schemars(range(min = 1))]
    pub min_clients: usize,
    /// The fraction of the clients that evaluate the global model in every round, whether they train in it or not;
    /// drawn once, from the seed. The server's metrics, the best model and early stopping depend on these clients only,
    /// so that all rounds are compared on the same clients.
    #[serde(default = "all")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub evaluation_fraction: f64,
    /// Whether metrics leave the clients.
    #[serde(default)]
    pub report: Reporting,
    /// The metric that chooses the best global model, and is the score of early stopping and of `compare`: `Spearman`,
    /// `MAE`, `AUROC` or any other that the model reports for all tasks. If lower values are better, the score is the
    /// metric times -1. By default the model defines the score. With several tasks, the metric must not have the
    /// target's unit, since scores are averaged over tasks: `NRMSE`, not `RMSE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// When to stop before the last round; never if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// Whether every client evaluates the models of all clients at the end. These models go through the filters, as
    /// updates do.
    #[serde(default)]
    pub cross_site: bool,
    /// How many rounds lie between two checkpoints; 0 uses `checkpoint-after`. Results do not depend on it.
    #[serde(default)]
    #[schemars(range(max = MOST_ROUNDS))]
    pub checkpoint_every: u64,
    /// How many seconds lie between two checkpoints if `checkpoint-every` is 0. The checkpoint is written at the end of
    /// the first round that ends at least this long after the last one; in a longer round it is written between two
    /// epochs. In that case all clients at work wait for the slowest client's epoch, so if several work at a time, at
    /// least ten of the longest epochs lie between two checkpoints. Results do not depend on it.
    #[serde(default = "a_minute")]
    pub checkpoint_after: u64,
    /// The longest time in seconds for which a client may show no progress: no log line, no scalar, no step and no new
    /// call of a plugin. Past it the client is asked to stop, and if it does, it has failed; if it does not, the run
    /// ends. 0, the default, waits for ever; a line is shown after a minute in any case.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = MOST_ROUNDS))]
    pub progress_timeout: u64,
    /// Keeps one in so many training steps in the metrics, to keep those of a long run small: a scalar that a model reports
    /// while it trains is written if its step is a multiple of this number, or if it is the last one of its tag in the epoch.
    /// 1, the default, keeps all. Evaluations and what aggregators and filters report are always written. Results do not
    /// depend on it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = MOST_ROUNDS))]
    pub scalars_every: u64,
    /// Evaluates a client's own model after one in so many of a round's epochs, and after the last one. 1, the default: after
    /// each. What is trained does not depend on it.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = MOST_ROUNDS))]
    pub local_evaluation_every: u64,
    /// The memory limit, such as `8 GiB`, for the best global model and the models of clients that are not at work,
    /// measured by the bytes of their states. Models beyond the limit are kept on disk. Where clients are at sites, the
    /// global model waits on disk for their updates if the limit leaves no room for it. Without a limit, all stay in
    /// memory. Results do not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_memory: Option<ByteSize>,
}

impl Federation {
    /// A `[federation]` table with one round and the defaults.
    pub(super) fn of_one_round() -> Self {
        config::read(&serde_json::json!({ "rounds": 1 })).expect("only `rounds` has no default")
    }

    /// The settings that calls to components depend on.
    pub fn terms(&self) -> Terms {
        Terms {
            sampling: self.sampling(),
            reports: self.reports(),
            score: self.score.clone(),
            scalars_every: self.scalars_every,
            local_evaluation_every: self.local_evaluation_every,
        }
    }

    /// How the clients of a round are drawn, in the form that components receive.
    pub fn sampling(&self) -> Sampling {
        match self.sampling {
            SamplingMethod::Fixed => Sampling::Fixed,
            SamplingMethod::Poisson => Sampling::Poisson(self.fraction),
        }
    }

    /// Whether clients report metrics, which are needed to compare models and rounds.
    pub fn reports(&self) -> bool {
        self.report == Reporting::Full
    }

    /// The sites, in the order of aggregation. Those that [`problems`](Self::problems) complains of are missing.
    pub(crate) fn site_list(&self) -> Vec<Site> {
        self.sites.iter().filter_map(|(name, value)| Site::read(name, value).ok()).collect()
    }

    /// Errors in combinations of keys.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut wrong = |keys: &[&str], message: String| {
            let path = ["federation"].iter().chain(keys).map(|&key| key.to_owned()).collect();
            found.push(Problem { path, message, known: Vec::new() });
        };
        if self.sampling == SamplingMethod::Poisson && self.min_clients > 1 {
            let why = "clients join independently of one another, so a round may have any number of them";
            wrong(&["min-clients"], format!("must be 1 with `sampling = \"poisson\"`: {why}"));
        }
        if !self.reports() {
            let mut nothing = |key: &str, what: &str| {
                wrong(&[key], format!("{what}, but with `report = \"none\"` no client reports any"));
            };
            if self.early_stopping.is_some() {
                nothing("early-stopping", "watches a metric");
            }
            if self.score.is_some() {
                nothing("score", "names a metric");
            }
            if self.cross_site {
                nothing("cross-site", "makes a table of metrics");
            }
            #[expect(clippy::float_cmp, reason = "the default, exactly")]
            if self.evaluation_fraction != 1.0 {
                nothing("evaluation-fraction", "selects clients whose metrics count");
            }
        } else if let Some(EarlyStopping { metric: Some(metric), .. }) = &self.early_stopping
            && self.fraction < 1.0
            && is_local(metric)
        {
            let why = "is a mean over the clients that train in a round, which change if `fraction` is below 1";
            let instead = format!("watch a metric of the global model, such as `{SCORE}`");
            wrong(&["early-stopping", "metric"], format!("`{metric}` {why}: {instead}"));
        }
        found.extend(sites::problems(&self.sites));
        found
    }
}

/// Whether a tag names a metric of the clients' own models.
fn is_local(tag: &str) -> bool {
    let of = |place: &str| tag.rfind(&format!("/{place}_test")).max(tag.rfind(&format!("/{place}_validation")));
    of("local") > of("global")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(number: &u64) -> bool {
    *number == 1
}

fn one() -> u64 {
    1
}

fn a_minute() -> u64 {
    60
}

fn one_thread() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn one_client() -> usize {
    1
}

fn is_one_client(number: &usize) -> bool {
    *number == 1
}

fn auto() -> Vec<String> {
    vec!["auto".to_owned()]
}

/// The table `[federation.early-stopping]`: the run stops after `patience` rounds without an improvement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EarlyStopping {
    /// The number of rounds.
    #[schemars(range(min = 1, max = MOST_ROUNDS))]
    pub patience: u64,
    /// The tag of the server metric to watch; by default the score of the global model on the rows for validation,
    /// `Score/global_validation`, or on the test rows, `Score/global_test`, if clients that evaluate have no rows for
    /// validation. `Score/local_validation` and `Score/local_test` are those of the clients' own models. Scores are
    /// averaged over clients and tasks; they have no unit, higher is better, and each model defines its own, unless
    /// `score` names a metric. Metrics have units, so they are averaged over the clients of a single task:
    /// `RMSE/local_test` in a run with one task, `RMSE/local_test_TASK` in a run with several. With `fraction` below 1,
    /// only metrics of the global model can be watched, because other clients train in every round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// The minimum improvement over the best value so far that counts.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
}

impl EarlyStopping {
    /// The tag of the metric to watch, in a run that goes by rows for validation or does not.
    pub(crate) fn metric(&self, by_validation: bool) -> &str {
        self.metric.as_deref().unwrap_or(if by_validation { VALIDATION_SCORE } else { SCORE })
    }
}

/// The tag of the global model's score among the server's metrics.
pub(crate) const SCORE: &str = "Score/global_test";

/// The tag of the global model's score on the rows for validation.
pub(crate) const VALIDATION_SCORE: &str = "Score/global_validation";

/// The tag of the score of the clients' own models.
pub(crate) const LOCAL_SCORE: &str = "Score/local_test";

/// The tag of the score of the clients' own models on the rows for validation.
pub(crate) const LOCAL_VALIDATION_SCORE: &str = "Score/local_validation";

/// How the clients of a round are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SamplingMethod {
    /// A fixed number of clients, drawn from the experiment's seed: the same in every run. Anyone who has the file
    /// knows who trains.
    #[default]
    Fixed,
    /// Each client joins each round with the probability `fraction`, independently of all others, using secret
    /// randomness from the operating system, as amplified privacy accounting assumes. A round may have no clients, and
    /// runs are not reproducible.
    Poisson,
}

/// Whether metrics leave the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reporting {
    /// Clients evaluate the model, and report metrics, predictions and what their model and filters record.
    #[default]
    Full,
    /// Clients evaluate nothing and report no number except the epsilon of a privacy account. The last model is the
    /// result.
    None,
}

/// What happens when a client fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnClientFailure {
    /// The run ends.
    #[default]
    Stop,
    /// The round continues without the client, with a warning.
    LeaveOut,
}

/// The parts of an experiment's sampling and reporting settings that calls to components depend on.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How the clients of a round are drawn.
    pub sampling: Sampling,
    /// Whether clients report metrics.
    pub reports: bool,
    /// The metric that is the score, unless the model defines it.
    pub score: Option<String>,
    /// One in how many training steps is kept in the metrics.
    pub scalars_every: u64,
    /// A client's own model is evaluated after one in so many of a round's epochs, and after the last.
    pub local_evaluation_every: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { sampling: Sampling::Fixed, reports: true, score: None, scalars_every: 1, local_evaluation_every: 1 }
    }
}
