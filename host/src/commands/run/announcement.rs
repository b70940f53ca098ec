//! Messages before a run starts.

use plugin_api::{Level, Sampling, Seed};

use crate::federation::model_evaluation::Validation;
use crate::federation::resume::CheckpointIndex;
use crate::federation::sampling::{self, select};
use crate::setup::Shared;
use crate::terminal::console::Console;

/// Warns of tasks that no evaluating client has: they have no best model and do not count towards the score. Warns if rows
/// for validation cannot choose the best model.
pub(super) fn warn_of_unevaluated(shared: &Shared, console: &Console) {
    let Shared { experiment, description, .. } = shared;
    let evaluators =
        sampling::evaluators(description.clients.len(), &experiment.federation, Seed::new(u64::from(experiment.seed)));
    let evaluated =
        |task: &str| evaluators.iter().any(|&k| description.clients[k].tasks.iter().any(|own| own.name == task));
    let without = description.tasks.iter().filter(|task| !evaluated(&task.name)).map(|task| format!("`{}`", task.name));
    let without: Vec<String> = without.collect();
    if experiment.federation.reports() && !without.is_empty() {
        let what = "no client that evaluates has it, so it has no best model and does not count towards the score";
        console.log(Level::Warn, &format!("task {}: {what}", without.join(", ")));
    }
    if let Validation::Lacking(who) = shared.validation() {
        let then = "so the best model and early stopping go by the test rows";
        console.log(Level::Warn, &format!("{who} no rows for validation, {then}"));
    }
}

/// The first line of a run.
pub(super) fn first_line(shared: &Shared, workers: usize, resumed: Option<&CheckpointIndex>) -> String {
    let Shared { experiment, model_setup, description, .. } = shared;
    let clients = description.clients.len();
    let plural = |count: u64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let mut text = format!(
        "{}: {}, {} of {}, {} at a time",
        experiment.name,
        plural(clients as u64, "client"),
        plural(model_setup.rounds, "round"),
        plural(model_setup.local_epochs, "epoch"),
        workers,
    );
    let federation = &experiment.federation;
    match federation.sampling() {
        _ if federation.fraction >= 1.0 => {}
        Sampling::Poisson(probability) => text += &format!(", each joining a round with probability {probability}"),
        Sampling::Fixed => {
            let drawn = select(clients, federation.fraction, federation.min_clients, Seed::new(0), 0).len();
            text += &format!(", {drawn} per round");
        }
    }
    match (federation.reports(), sampling::evaluators(clients, federation, Seed::new(0)).len()) {
        (false, _) => text += ", without reports",
        (true, evaluators) if evaluators < clients => text += &format!(", {evaluators} evaluate every round's model"),
        _ => {}
    }
    match resumed {
        Some(index) if index.least_rounds() > index.done => {
            text += &format!(", resuming in round {} with {} done", index.done + 1, plural(index.epochs(), "epoch"));
        }
        Some(index) => text += &format!(", resuming after round {}", index.done),
        None => {}
    }
    text
}
