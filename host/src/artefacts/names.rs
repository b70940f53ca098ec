//! The names of the files and folders in a run's directory.

/// Tells a run's directory from any other; what the run was made of.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The experiment that the run was started with, with defaults written out.
pub(crate) const EXPERIMENT: &str = "experiment.toml";
/// Which clients started which rounds.
pub(crate) const JOURNAL: &str = "attempts.jsonl";
/// All scalars of all clients.
pub(crate) const METRICS: &str = "metrics.jsonl";
/// The run's results.
pub(crate) const SUMMARY: &str = "summary.json";
/// The runs of a directory with several runs of one experiment.
pub(crate) const REPEATS: &str = "repeats.json";
/// The runs of a directory with the runs of a sweep.
pub(crate) const SWEEP: &str = "sweep.json";
/// Every client's model on every client's data.
pub(crate) const CROSS_SITE: &str = "cross_site.csv";
/// Predictions of the clients' test rows.
pub(crate) const PREDICTIONS: &str = "predictions.csv";
/// Held by the process that works in the directory.
pub(crate) const LOCK: &str = "run.lock";
/// Models that wait on disk.
pub(crate) const IDLE: &str = "idle";
/// The checkpoint that a stopped run resumes from.
pub(crate) const CHECKPOINT: &str = "checkpoint";
