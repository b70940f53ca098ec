//! The results of a run: models, summary, final messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use plugin_api::{Message, Scale};

use crate::artefacts::durable;
use crate::artefacts::names;
use crate::artefacts::run_dir::RunDir;
use crate::artefacts::safetensors;
use crate::error::CliError;
use crate::federation::best_models::{Best, Ranking};
use crate::federation::clients::Clients;
use crate::federation::cross_site;
use crate::federation::history::short;
use crate::federation::predictions;
use crate::federation::rounds::Federation;
use crate::federation::services::HostServices;
use crate::federation::summary::{ScoredModel, Summary};
use crate::setup::Shared;
use crate::setup::plugins::Plugins;
use crate::terminal::signals::Stop;

/// The maximum number of tasks whose best model is listed at the end.
const MOST_TASKS: usize = 12;

/// Writes each client's own complete model, before the last global model replaces the shared part.
pub(super) fn save_clients(federation: &mut Federation<'_>, run_dir: &RunDir) -> Result<(), CliError> {
    for index in federation.clients.indices() {
        federation.stop_if_asked()?;
        save_client(&mut federation.clients, index, run_dir)?;
    }
    Ok(())
}

/// Writes one client's own complete model.
fn save_client(clients: &mut Clients<'_>, index: usize, run_dir: &RunDir) -> Result<(), CliError> {
    let (policy, client) = (clients.policy, clients.get_mut(index));
    let (services, name) = (policy.services, client.name().to_owned());
    let saved = client.save_model(&run_dir.path().join("clients").join(&name), services);
    saved.or_else(|fault| policy.apply(&fault, &format!("saving client `{name}`")))
}

/// The optional results of a run.
#[derive(Default)]
pub(super) struct Extras {
    /// The table of the cross-site evaluation.
    pub(super) cross_site: Option<String>,
    /// The first failure. It is reported after everything else is saved.
    pub(super) failure: Option<CliError>,
}

/// Makes the cross-site evaluation, the last evaluation and the predictions. The clients are not called afterwards.
///
/// # Errors
/// If a client fails to evaluate the last global model, a file cannot be written, or the run is asked to stop.
pub(super) fn save_extras(
    federation: &mut Federation<'_>,
    scales: &BTreeMap<String, Scale>,
    stop: &Stop,
) -> Result<Extras, CliError> {
    let mut extras = Extras::default();
    match federation.plan.cross_site.then(|| cross_site::evaluate(federation)).transpose() {
        Ok(found) => extras.cross_site = found.map(|found| found.write(federation)).transpose()?,
        // The run can be resumed.
        Err(failure) if stop.asked() || failure.is_of_host() => return Err(failure),
        Err(failure) => {
            stop.cancel.store(false, Ordering::Relaxed);
            extras.failure = Some(failure);
        }
    }
    // From here on clients release the state that a checkpoint would need, so the run can no longer be stopped.
    federation.stop_if_asked()?;
    federation.close();
    if federation.plan.reports() {
        let mut predictions = predictions::Writer::new(federation.run_dir.path(), scales);
        match federation.evaluate(&mut predictions)? {
            None => predictions.finish()?,
            // A file without one of the clients would look complete.
            Some(failure) => extras.failure = extras.failure.or(Some(failure)),
        }
    }
    federation.leave();
    Ok(extras)
}

/// Writes the last global model, the best one, and the best one for each task if there are several. This ends the run: the
/// federation has no global model any more, so that it does not take memory beside the best one.
pub(super) fn save_globals(
    federation: &mut Federation<'_>,
    shared: &Shared,
    device: &str,
    run_dir: &RunDir,
) -> Result<(), CliError> {
    let services = federation.services;
    let (score, validation_score) = (federation.score, federation.validation_score);
    let last = Best { rounds: federation.done, score, validation_score };
    let global = std::mem::take(&mut federation.server.global);
    let folder = write_global(run_dir, Path::new("global"), last, &global)?;
    export_global("global", &folder, &global, shared, device, services)?;
    drop(global);
    let Ranking { overall, tasks } = federation.best.ranking().clone();
    if let Some(best) = overall
        && let Some(global) = federation.best.get(best.rounds)?
    {
        let folder = write_global(run_dir, Path::new("best"), best, &global)?;
        export_global("best", &folder, &global, shared, device, services)?;
    }
    for (task, best) in tasks {
        if let Some(global) = federation.best.get(best.rounds)? {
            write_global(run_dir, &Path::new("best/tasks").join(task), best, &global)?;
        }
    }
    Ok(())
}

/// Writes a global model's parameters into a folder of the run, and returns the folder.
fn write_global(run_dir: &RunDir, name: &Path, best: Best, global: &Message) -> Result<PathBuf, CliError> {
    let folder = run_dir.folder(name)?;
    let score = best.score.map_or_else(|| "none".to_owned(), |score| score.to_string());
    let mut metadata = vec![("rounds", best.rounds.to_string()), ("score", score)];
    metadata.extend(best.validation_score.map(|score| ("validation-score", score.to_string())));
    safetensors::write(&folder.join("model.safetensors"), &global.params, &metadata)?;
    Ok(folder)
}

/// Lets a new instance of the model write a global model in its domain's formats. `name` is for errors.
fn export_global(
    name: &str,
    folder: &Path,
    global: &Message,
    shared: &Shared,
    device: &str,
    services: &HostServices<'_>,
) -> Result<(), CliError> {
    let Shared { plugins: Plugins { model: Some(model), .. }, model_setup, .. } = shared else { return Ok(()) };
    export(folder, |to| {
        let exported = model.call(services, device, |ctx| {
            let mut instance = model.component.new_model(&model.plugin_ref.config, model_setup, ctx)?;
            instance.receive(global, ctx)?;
            instance.export(to, ctx)
        });
        exported.map_err(|error| CliError::run(model.fault(error).report(&format!("saving the {name} model"))))
    })
}

/// Lets a model write its domain's formats to `folder/export`. The folder is removed if the model writes none.
fn export(folder: &Path, write: impl FnOnce(&Path) -> Result<Vec<String>, CliError>) -> Result<(), CliError> {
    let to = folder.join("export");
    durable::empty_folder(&to)?;
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
        last: ScoredModel {
            rounds: federation.done,
            score: federation.score,
            validation_score: federation.validation_score,
        },
        clients: federation.history.clients.clone(),
        traffic: federation.history.traffic.clone(),
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
    let (path, reports) = (run_dir.shown(), federation.plan.reports());
    let mut text = if reports { format!("{}\n", federation.history.table()) } else { String::new() };
    if let Some(table) = cross_site {
        text += &format!("{table}\nevery metric of every pair: {path}/{}\n", names::CROSS_SITE);
    }
    for line in federation.services.notes.lines() {
        text += &format!("{line}\n");
    }
    text += &best_models(federation);
    if reports {
        let name = score_name.unwrap_or("defined by the model");
        let over = if federation.several_tasks { "clients and tasks" } else { "clients" };
        text += &format!("score: {name}, averaged over {over}; higher is better\n");
    }
    text += &files(federation, run_dir);
    let traffic = federation.history.all_traffic();
    text += &format!("{seconds:.1} s");
    if reports {
        text += &format!(", {} sent to clients and {} by them", size(traffic.received), size(traffic.sent));
    }
    if let Some(bytes) = federation.totals.peak_memory() {
        text += &format!(", at most {} MiB of memory", bytes >> 20);
    }
    text
}

/// The scores of the best global models.
fn best_models(federation: &Federation<'_>) -> String {
    let Ranking { overall, tasks } = federation.best.ranking();
    let mut text = String::new();
    if let Some(best) = overall {
        let shown = |score: Option<f64>| score.map_or_else(|| "none".to_owned(), short);
        let (score, last, rounds) = (shown(best.score), shown(federation.score), best.rounds);
        text += &match best.validation_score {
            None => format!("global model: best score {score} after round {rounds}; {last} after the last round\n"),
            Some(validation) => format!(
                "global model: best validation score {} after round {rounds}, where the score on the test rows is \
                 {score}; {last} after the last round\n",
                short(validation)
            ),
        };
    }
    if tasks.len() > 1 {
        let chosen = |best: &Best| best.validation_score.or(best.score).map_or_else(|| "none".to_owned(), short);
        let one = |(task, best): (&String, &Best)| format!("{task} {} after {}", chosen(best), best.rounds);
        let shown: Vec<String> = tasks.iter().take(MOST_TASKS).map(one).collect();
        let more = tasks.len().checked_sub(MOST_TASKS + 1).map(|more| format!(", … {} more", more + 1));
        text += &format!("best for a task: {}{}\n", shown.join(", "), more.unwrap_or_default());
    }
    text
}

/// Where the results are.
fn files(federation: &Federation<'_>, run_dir: &RunDir) -> String {
    let path = run_dir.shown();
    // A run without a defined score has no best model, and a run whose models failed to predict has no predictions.
    let best = federation.best.ranking().overall.map_or_else(String::new, |_| format!("{path}/best, "));
    let mut text = format!("models: {path}/global, {best}{path}/clients\n");
    if run_dir.path().join(names::PREDICTIONS).is_file() {
        text += &format!("predictions of the test rows: {path}/{}\n", names::PREDICTIONS);
    }
    text + &format!("curves: tensorboard --logdir {path}/events; the same numbers in {path}/metrics.jsonl\n")
}

/// Formats a number of bytes.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
