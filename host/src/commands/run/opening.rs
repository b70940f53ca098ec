//! Messages before a run starts.

use plugin_api::{Level, Sampling, Seed};

use crate::federation::resume::CheckpointIndex;
use crate::federation::sampling::{evaluators, select};
use crate::setup::Setup;
use crate::terminal::console::Console;

/// Warns of tasks that no evaluating client has: they have no best model and do not count towards the score.
pub(super) fn tell_unjudged(setup: &Setup, console: &Console) {
    let Setup { experiment, description, .. } = setup;
    let judges = evaluators(description.clients.len(), &experiment.federation, Seed::new(u64::from(experiment.seed)));
    let judged = |task: &str| judges.iter().any(|&k| description.clients[k].tasks.iter().any(|own| own.name == task));
    let without = description.tasks.iter().filter(|task| !judged(&task.name)).map(|task| format!("`{}`", task.name));
    let without: Vec<String> = without.collect();
    if experiment.federation.reports() && !without.is_empty() {
        let what = "no client that evaluates has it, so it has no best model and does not count towards the score";
        console.log(Level::Warn, &format!("task {}: {what}", without.join(", ")));
    }
}

/// The first line of a run.
pub(super) fn opening(setup: &Setup, resumed: Option<&CheckpointIndex>) -> String {
    let Setup { experiment, plan, .. } = setup;
    let clients = setup.description.clients.len();
    let plural = |count: u64, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let mut text = format!(
        "{}: {}, {} of {}, {} at a time",
        experiment.name,
        plural(clients as u64, "client"),
        plural(plan.rounds, "round"),
        plural(plan.local_epochs, "epoch"),
        setup.placement.workers,
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
    match (federation.reports(), evaluators(clients, federation, Seed::new(0)).len()) {
        (false, _) => text += ", without reports",
        (true, judges) if judges < clients => text += &format!(", {judges} evaluate every round's model"),
        _ => {}
    }
    match resumed {
        Some(kept) if kept.least_rounds() > kept.done => {
            text += &format!(", resuming in round {} with {} done", kept.done + 1, plural(kept.epochs(), "epoch"));
        }
        Some(kept) => text += &format!(", resuming after round {}", kept.done),
        None => {}
    }
    text
}
