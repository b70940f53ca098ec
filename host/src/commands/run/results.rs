//! The results of a run: models, summary, final messages.

use std::path::Path;

use plugin_api::Message;

use crate::artefacts::names;
use crate::artefacts::run_dir::RunDir;
use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::federation::best_models::{Best, Ranking};
use crate::federation::history::short;
use crate::federation::rounds::{Federation, handle_client_failure};
use crate::federation::services::{CallScope, ComponentError};
use crate::federation::summary::{ScoredModel, Summary};
use crate::setup::LoadedPlugin;

/// The maximum number of tasks whose best model is listed at the end.
const MOST_TASKS: usize = 12;

/// Writes each client's own complete model, before the last global model replaces the shared part.
pub(super) fn save_clients(federation: &mut Federation<'_>, run_dir: &RunDir) -> Result<(), CliError> {
    let (services, policy) = (federation.services, federation.plan.on_client_failure);
    for place in 0..federation.clients.len() {
        federation.stop_if_asked()?;
        let client = &mut federation.clients[place];
        let name = client.name().to_owned();
        let place = format!("saving client `{name}`");
        let params = match client.parameters(services) {
            Ok(params) => params,
            Err(fault) => {
                handle_client_failure(&fault, &place, policy, services)?;
                continue;
            }
        };
        let folder = run_dir.folder(Path::new("clients").join(&name))?;
        safetensors::write(&folder.join("model.safetensors"), &params, &[("client", name)])?;
        drop(params);
        export(&folder, |to| client.export(to, services).map_err(|fault| CliError::run(fault.report(&place))))?;
        client.release(services).or_else(|fault| handle_client_failure(&fault, &place, policy, services))?;
    }
    Ok(())
}

/// Writes the last global model, the best one, and the best one for each task if there are several.
pub(super) fn save_globals(
    federation: &mut Federation<'_>,
    model: &LoadedPlugin,
    plan: &plugin_api::ModelSetup,
    device: &str,
    run_dir: &RunDir,
) -> Result<(), CliError> {
    let services = federation.services;
    let write = |name: &Path, best: Best, global: &Message| {
        let folder = run_dir.folder(name)?;
        let score = if best.score.is_nan() { "none".to_owned() } else { best.score.to_string() };
        let metadata = [("rounds", best.rounds.to_string()), ("score", score)];
        safetensors::write(&folder.join("model.safetensors"), &global.params, &metadata)?;
        Ok(folder)
    };
    let export_of = |name: &str, folder: &Path, global: &Message| {
        let told = |e| {
            CliError::run(
                ComponentError::new(format!("model `{}`", model.choice.plugin), e)
                    .report(&format!("saving the {name} model")),
            )
        };
        let scope = CallScope::new(services, &model.choice.plugin, None, None).on(device);
        let ctx = scope.context();
        export(folder, |to| {
            let mut instance = model.component.new_model(&model.choice.config, plan, &ctx).map_err(told)?;
            instance.receive(global, &ctx).map_err(told)?;
            instance.export(to, &ctx).map_err(told)
        })
    };
    let last = Best { rounds: federation.done, score: federation.score.unwrap_or(f64::NAN) };
    export_of("global", &write(Path::new("global"), last, &federation.global)?, &federation.global)?;
    let Ranking { overall, tasks } = federation.best.ranking().clone();
    if let Some((best, global)) =
        overall.zip(overall.map(|best| federation.best.get(best.rounds)).transpose()?.flatten())
    {
        export_of("best", &write(Path::new("best"), best, &global)?, &global)?;
    }
    for (task, best) in tasks {
        if let Some(global) = federation.best.get(best.rounds)? {
            write(&Path::new("best/tasks").join(task), best, &global)?;
        }
    }
    Ok(())
}

/// Lets a model write its domain's formats to `folder/export`. The folder is removed if the model writes none.
fn export(folder: &Path, write: impl FnOnce(&Path) -> Result<Vec<String>, CliError>) -> Result<(), CliError> {
    let to = folder.join("export");
    std::fs::create_dir_all(&to).map_err(|e| CliError::io(&to, "create the folder", &e))?;
    if write(&to)?.is_empty() {
        let _ = std::fs::remove_dir(&to);
    }
    Ok(())
}

/// The contents of `summary.json`.
pub(super) fn summary(federation: &Federation<'_>, name: &str, score_name: Option<&str>, seconds: f64) -> Summary {
    let Ranking { overall, tasks } = federation.best.ranking().clone();
    Summary {
        name: name.to_owned(),
        rounds: federation.done,
        score_name: score_name.map(str::to_owned),
        best: overall.map(ScoredModel::from),
        best_by_task: tasks.into_iter().map(|(task, best)| (task, best.into())).collect(),
        last: ScoredModel { rounds: federation.done, score: federation.score },
        clients: federation.record.clients.clone(),
        traffic: federation.record.traffic.clone(),
        notes: federation.services.notes.list(),
        seconds,
        time: federation.plan.reports().then(|| federation.totals.time()),
        peak_memory_bytes: federation.totals.peak_memory(),
    }
}

/// The final messages of a run.
pub(super) fn closing(
    federation: &Federation<'_>,
    cross_site: Option<&str>,
    score_name: Option<&str>,
    run_dir: &RunDir,
    seconds: f64,
) -> String {
    let (path, reports) = (run_dir.path().display(), federation.plan.reports());
    let mut text = if reports { format!("{}\n", federation.record.table()) } else { String::new() };
    if let Some(table) = cross_site {
        text += &format!("{table}\nevery metric of every pair: {path}/{}\n", names::CROSS_SITE);
    }
    for line in federation.services.notes.lines() {
        text += &format!("{line}\n");
    }
    let Ranking { overall, tasks } = federation.best.ranking();
    if let Some(best) = overall {
        let last = federation.score.map_or_else(|| "none".to_owned(), short);
        text += &format!(
            "global model: best score {} after round {}; {last} after the last round\n",
            short(best.score),
            best.rounds
        );
    }
    if tasks.len() > 1 {
        let one = |(task, best): (&String, &Best)| format!("{task} {} after {}", short(best.score), best.rounds);
        let shown: Vec<String> = tasks.iter().take(MOST_TASKS).map(one).collect();
        let more = tasks.len().checked_sub(MOST_TASKS + 1).map(|more| format!(", … {} more", more + 1));
        text += &format!("best for a task: {}{}\n", shown.join(", "), more.unwrap_or_default());
    }
    if reports {
        let name = score_name.unwrap_or("defined by the model");
        let over = if federation.several_tasks { "clients and tasks" } else { "clients" };
        text += &format!("score: {name}, averaged over {over}; higher is better\n");
    }
    // A run without a defined score has no best model, and a run whose models failed to predict has no predictions.
    let best = overall.as_ref().map_or_else(String::new, |_| format!("{path}/best, "));
    text += &format!("models: {path}/global, {best}{path}/clients\n");
    if run_dir.path().join(names::PREDICTIONS).is_file() {
        text += &format!("predictions of the test rows: {path}/{}\n", names::PREDICTIONS);
    }
    text += &format!("curves: tensorboard --logdir {path}/events; the same numbers in {path}/metrics.jsonl\n");
    let traffic = federation.record.all_traffic();
    text += &format!("{seconds:.1} s");
    if reports {
        text += &format!(", {} sent to clients and {} by them", size(traffic.received), size(traffic.sent));
    }
    if let Some(bytes) = federation.totals.peak_memory() {
        text += &format!(", at most {} MiB of memory", bytes >> 20);
    }
    text
}

/// Formats a number of bytes.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
