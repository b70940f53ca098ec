//! Repeats of an experiment: `fedplug run` with several seeds, with folds, or both.
//!
//! Each is a run of its own, in a child process and in a folder of its own below the experiment's directory.

use std::ffi::OsString;
use std::path::PathBuf;

use plugin_api::Level;
use serde_json::Value;

use crate::artefacts::run_dir::Existing;
use crate::artefacts::series::{Repeat, Series};
use crate::commands::batch::{Batch, Member, share_cores};
use crate::commands::batch_folder;
use crate::commands::compare::{self, Format};
use crate::error::CliError;
use crate::experiment::config::{Experiment, Repeats};
use crate::terminal::console::Console;
use crate::terminal::signals::Stop;

/// The options of a repeated experiment.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The experiment's file and the options that all runs have.
    pub arguments: Vec<OsString>,
    /// The parent folder of the directory with the runs.
    pub output: PathBuf,
    /// What to do if there are such runs already.
    pub existing: Existing,
    /// How many runs work at the same time.
    pub jobs: Option<usize>,
    /// The most detailed level of messages that is shown.
    pub level: Level,
}

/// Runs an experiment once for each seed and fold, and shows the table of all.
///
/// # Errors
/// If the directory cannot be used, or not all runs finish.
pub(crate) fn run(experiment: &Experiment, repeats: &Repeats, options: &Options) -> Result<(), CliError> {
    let (stop, console) = (Stop::on_signals()?, Console::new(options.level));
    let folder = options.output.join(&experiment.name);
    let series = Series {
        name: experiment.name.clone(),
        fedplug: env!("CARGO_PKG_VERSION").to_owned(),
        runs: runs(repeats),
        experiment: common(experiment, repeats),
    };
    let extended = |mut before: Vec<Repeat>, now: Vec<Repeat>| {
        let new: Vec<Repeat> = now.into_iter().filter(|run| !before.contains(run)).collect();
        before.extend(new);
        before
    };
    let (series, _lock) = batch_folder::claim(&folder, series, options.existing, extended)?;
    stop.begin();
    let members: Vec<Member> = series.runs.iter().map(|run| member(run, repeats, &series.experiment)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (jobs, clients) = share_cores(cores, members.len(), &experiment.federation, options.jobs);
    console.log(Level::Info, &format!("{}: {} runs, {jobs} at a time", series.name, members.len()));
    let mut arguments = options.arguments.clone();
    arguments.extend(["--threads".into(), clients.to_string().into()]);
    let batch = Batch { folder: &folder, arguments, jobs, existing: options.existing, console: &console, stop: &stop };
    let ended = batch.run(&members, &mut |_| Vec::new())?;
    let resume = "run the missing ones with --resume";
    let verdict = batch.verdict(&members, &ended, resume);
    let shown = compare::Options {
        runs: vec![folder],
        task: None,
        metrics: Vec::new(),
        sort: None,
        spread: compare::Spread::Sd,
        paired: false,
        format: Format::Table,
    };
    // With no finished run there is nothing to show.
    if let Ok(table) = compare::compare(&shown) {
        console.log(Level::Info, table.trim_end());
    }
    verdict
}

/// All pairs of a seed and a fold.
fn runs(repeats: &Repeats) -> Vec<Repeat> {
    let seeds: Vec<Option<u32>> = match &repeats.seeds[..] {
        [] => vec![None],
        seeds => seeds.iter().copied().map(Some).collect(),
    };
    let folds = || -> Vec<Option<usize>> { repeats.folds.map_or(vec![None], |folds| (0..folds).map(Some).collect()) };
    let repeat = |seed: Option<u32>, fold: Option<usize>| {
        let parts = [seed.map(|seed| format!("seed-{seed}")), fold.map(|fold| format!("fold-{fold}"))];
        Repeat { folder: parts.into_iter().flatten().collect::<Vec<_>>().join("-"), seed, fold }
    };
    seeds.into_iter().flat_map(|seed| folds().into_iter().map(move |fold| repeat(seed, fold))).collect()
}

fn member(run: &Repeat, repeats: &Repeats, experiment: &Value) -> Member {
    let seed = run.seed.map(|seed| format!("seed={seed}"));
    let folds = run.fold.and(repeats.folds).map(|folds| format!("dataset.folds={folds}"));
    let fold = run.fold.map(|fold| format!("dataset.fold={fold}"));
    let mut overrides: Vec<String> = [seed, folds, fold].into_iter().flatten().collect();
    fill_in(experiment, "", run, &mut overrides);
    Member { folder: run.folder.clone(), overrides }
}

/// Sets each text that has `{seed}` or `{fold}` to the run's own: a file that was made for this fold, for example.
fn fill_in(value: &Value, key: &str, run: &Repeat, overrides: &mut Vec<String>) {
    match value {
        Value::Object(table) => table.iter().for_each(|(name, value)| {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            fill_in(value, &key, run, overrides);
        }),
        Value::String(text) => {
            let mut filled = text.clone();
            for (name, number) in [("{seed}", run.seed.map(u64::from)), ("{fold}", run.fold.map(|fold| fold as u64))] {
                if let Some(number) = number {
                    filled = filled.replace(name, &number.to_string());
                }
            }
            if filled != *text {
                overrides.push(format!("{key}={}", Value::String(filled)));
            }
        }
        _ => {}
    }
}

/// What all runs have in common: the effective experiment without its name and what the runs set.
fn common(experiment: &Experiment, repeats: &Repeats) -> Value {
    let mut value = experiment.effective();
    if let Some(table) = value.as_object_mut() {
        table.shift_remove("name");
        if !repeats.seeds.is_empty() {
            table.shift_remove("seed");
        }
    }
    if let (Some(folds), Some(dataset)) = (repeats.folds, value["dataset"].as_object_mut()) {
        dataset.insert("folds".to_owned(), folds.into());
        dataset.shift_remove("fold");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_seed_and_fold_is_a_run_that_sets_them() {
        let repeats = Repeats { seeds: vec![7, 3], folds: Some(2) };
        let experiment = json!({
            "model": { "pretrained": "made/{fold}", "other": "{folds}", "deep": { "texts": ["{fold}"], "of": "{seed}-{fold}" } },
        });
        let members: Vec<Member> = runs(&repeats).iter().map(|run| member(run, &repeats, &experiment)).collect();
        let named: Vec<&str> = members.iter().map(|member| member.folder.as_str()).collect();
        assert_eq!(named, ["seed-7-fold-0", "seed-7-fold-1", "seed-3-fold-0", "seed-3-fold-1"]);
        let set = ["seed=3", "dataset.folds=2", "dataset.fold=1"];
        let filled = ["model.pretrained=\"made/1\"", "model.deep.of=\"3-1\""];
        assert_eq!(members[3].overrides, [&set[..], &filled[..]].concat());
        let seeds = Repeats { seeds: vec![7], folds: None };
        assert_eq!(runs(&seeds), [Repeat { folder: "seed-7".to_owned(), seed: Some(7), fold: None }]);
        let folds = Repeats { seeds: Vec::new(), folds: Some(3) };
        assert_eq!(
            runs(&folds).iter().map(|run| run.folder.as_str()).collect::<Vec<_>>(),
            ["fold-0", "fold-1", "fold-2"]
        );
    }
}
