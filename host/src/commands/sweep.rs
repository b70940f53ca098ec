//! `fedplug sweep`: an experiment with many choices of values, sorted by their score on the rows for validation.

use std::collections::BTreeSet;
use std::path::Path;

use plugin_api::{Level, Seed};
use serde_json::{Map, Value};

use self::table::table;
use self::watch::Watch;
use crate::artefacts::series::{Choice, Series};
use crate::commands::batch::{Batch, Member, share_cores};
use crate::commands::batch_folder;
use crate::commands::repeat::Options;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Experiment, Sweep};
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

mod table;
mod watch;

/// Runs an experiment once for each choice, and returns the table of all.
///
/// # Errors
/// If there is nothing to choose or nothing to choose by, the directory cannot be used, or not all runs finish.
pub(crate) fn sweep(experiment: &Experiment, options: &Options) -> Result<String, CliError> {
    let sweep = &experiment.sweep;
    check(experiment)?;
    let (stop, console) = (Stop::on_signals()?, Console::new(options.level));
    let folder = options.output.join(&experiment.name);
    let mut common = experiment.effective();
    if let Some(table) = common.as_object_mut() {
        table.shift_remove("name");
    }
    let (name, fedplug) = (experiment.name.clone(), env!("CARGO_PKG_VERSION").to_owned());
    let series = Series { name, fedplug, runs: numbered(Vec::new(), choices(sweep)), experiment: common };
    let extended = |before: Vec<Choice>, now: Vec<Choice>| {
        let new = now.into_iter().map(|run| run.values).filter(|values| before.iter().all(|run| run.values != *values));
        let new: Vec<_> = new.collect();
        numbered(before, new)
    };
    let (series, _lock) = batch_folder::claim(&folder, series, options.existing, extended)?;
    stop.begin();
    let members = series.runs.iter().map(member).collect::<Result<Vec<Member>, CliError>>()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (jobs, clients) = share_cores(cores, members.len(), &experiment.federation, options.jobs);
    console.log(Level::Info, &format!("{}: {} runs, {jobs} at a time", series.name, members.len()));
    let mut arguments = options.arguments.clone();
    arguments.extend(["--threads".into(), clients.to_string().into()]);
    let batch = Batch { folder: &folder, arguments, jobs, existing: options.existing, console: &console, stop: &stop };
    let mut watch = Watch::new(&folder, &members, sweep.median_rule);
    let ended = batch.run(&members, &mut |at_work| watch.judge(at_work))?;
    let text = table(&folder, &series.runs, &ended);
    match batch.verdict(&members, &ended, "run the missing ones with --resume") {
        Ok(()) => text,
        Err(failure) => {
            if let Ok(text) = text {
                console.log(Level::Info, text.trim_end());
            }
            Err(failure)
        }
    }
}

/// Checks that there is something to choose, and rows to choose by.
fn check(experiment: &Experiment) -> Result<(), CliError> {
    let wrong = |what: &str, hint: &str| Err(CliError::usage(Diagnostic::new(what).hint(hint)));
    if experiment.sweep.is_empty() {
        return wrong(
            "the experiment has no values to choose from",
            "list them in the file: [sweep] grid = { model = { learning-rate = [0.1, 0.01] } }",
        );
    }
    if !experiment.repeats.is_empty() {
        return wrong(
            "a sweep runs each choice once, but the file has a table `[repeats]`",
            "remove it, and repeat the best choice afterwards",
        );
    }
    let chosen = "validation-fraction";
    let swept = experiment.sweep.axes().iter().any(|(key, _)| *key == format!("dataset.{chosen}"));
    if !swept && experiment.dataset.config.get(chosen).is_none() {
        return wrong(
            "there are no rows for validation to choose by, and the test rows are to measure what was not chosen by them",
            "set `validation-fraction = 0.1` in `[dataset]`",
        );
    }
    Ok(())
}

/// All combinations of values, or those that are drawn, in the order of the grid.
fn choices(sweep: &Sweep) -> Vec<Map<String, Value>> {
    let axes = sweep.axes();
    let all = sweep.combinations().unwrap_or(usize::MAX);
    let numbers: Vec<usize> = match sweep.random {
        Some(random) if random.samples < all => {
            let mut draws =
                (0..).map(|draw| (Seed::new(random.seed).of("sweep").at(draw).value() % all as u64) as usize);
            let mut drawn = BTreeSet::new();
            while drawn.len() < random.samples {
                drawn.extend(draws.next());
            }
            drawn.into_iter().collect()
        }
        _ => (0..all).collect(),
    };
    let choice = |mut number: usize| {
        // The last key changes fastest.
        let mut values: Vec<(String, Value)> = Vec::new();
        for (key, list) in axes.iter().rev() {
            values.push((key.clone(), list[number % list.len()].clone()));
            number /= list.len();
        }
        values.into_iter().rev().collect()
    };
    numbers.into_iter().map(choice).collect()
}

/// These runs and one for each of the choices, in folders with the next numbers.
fn numbered(mut runs: Vec<Choice>, choices: Vec<Map<String, Value>>) -> Vec<Choice> {
    for values in choices {
        runs.push(Choice { folder: format!("run-{:02}", runs.len() + 1), values });
    }
    runs
}

fn member(run: &Choice) -> Result<Member, CliError> {
    let set = |(key, value): (&String, &Value)| {
        let text = toml::Value::try_from(value).map_err(|error| {
            CliError::usage(Diagnostic::new(format!("`sweep.grid.{key}`: cannot be written as TOML")).cause(error))
        })?;
        Ok(format!("{key}={text}"))
    };
    let overrides = run.values.iter().map(set).collect::<Result<_, CliError>>()?;
    Ok(Member { folder: run.folder.clone(), overrides })
}

/// The path of a file of a run.
fn file(folder: &Path, run: &str, name: &str) -> std::path::PathBuf {
    folder.join(run).join(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(table: Value) -> Sweep {
        plugin_api::config::read(&table).unwrap()
    }

    #[test]
    fn a_grid_has_all_combinations_and_the_last_key_changes_fastest() {
        let sweep = of(json!({ "grid": { "model": { "rate": [0.1, 0.01], "layers": [[1, 2], [3]] }, "seed": [1] } }));
        let shown: Vec<String> =
            choices(&sweep).iter().map(|values| Value::Object(values.clone()).to_string()).collect();
        let wanted = [
            r#"{"model.rate":0.1,"model.layers":[1,2],"seed":1}"#,
            r#"{"model.rate":0.1,"model.layers":[3],"seed":1}"#,
            r#"{"model.rate":0.01,"model.layers":[1,2],"seed":1}"#,
            r#"{"model.rate":0.01,"model.layers":[3],"seed":1}"#,
        ];
        assert_eq!(shown, wanted);
        let runs = numbered(Vec::new(), choices(&sweep));
        let first = member(&runs[0]).unwrap();
        assert_eq!(
            (first.folder.as_str(), &first.overrides[..]),
            ("run-01", &["model.rate=0.1", "model.layers=[1, 2]", "seed=1"].map(str::to_owned)[..])
        );
    }

    #[test]
    fn random_choices_are_drawn_once_each_from_the_seed() {
        let grid = json!({ "a": [1, 2, 3, 4], "b": [1, 2, 3] });
        let drawn = |seed: u64| choices(&of(json!({ "grid": grid, "random": { "samples": 5, "seed": seed } })));
        let all = choices(&of(json!({ "grid": grid })));
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(drawn(1).len() == 5 && drawn(1).iter().all(|one| all.contains(one)));
        assert_eq!(choices(&of(json!({ "grid": { "a": [1, 2] }, "random": { "samples": 9 } }))).len(), 2);
    }
}
