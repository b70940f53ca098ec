//! What `--resume` refuses: another experiment, other data, another plugin, or a directory in use.
#![cfg(unix)]

use std::time::Duration;

use crate::resume::{LINEAR, checkpointed, interrupt, same, signal, start, wait};
use crate::support::{Bench, Told, files};

#[test]
fn a_run_that_never_started_or_is_finished_is_not_resumed() {
    let bench = Bench::new();
    let told = bench.fedplug(&["run", LINEAR, "--resume"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("nothing to resume", told.stderr);
    bench.run(&[LINEAR, "--set", "federation.rounds=1"]);
    let told = bench.fedplug(&["run", LINEAR, "--set", "federation.rounds=1", "--resume"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("finished", told.stderr);
}

/// A run `cut` of 60 rounds that was killed. Its data are a copy, so that they can change.
struct Cut {
    bench: Bench,
    arguments: Vec<String>,
}

impl Cut {
    fn new() -> Self {
        let bench = Bench::new();
        let sample = crate::support::root().join("configs/sample");
        for file in files(&sample) {
            let copy = format!("data/{}", file.strip_prefix(&sample).unwrap().display());
            bench.write(&copy, &std::fs::read_to_string(&file).unwrap());
        }
        let root = format!("dataset.root={}", bench.path("data").display());
        let arguments = [LINEAR, "--set", &root, "--set", "federation.checkpoint-every=2"].map(str::to_owned).to_vec();
        let cut = Self { bench, arguments };
        interrupt(&cut.bench, &cut.with(&["--name", "cut", "--set", "federation.rounds=60"]), "cut", "-KILL");
        cut
    }

    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.arguments.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    fn resume(&self, changes: &[&str]) -> Told {
        let sets: Vec<&str> = changes.iter().flat_map(|change| ["--set", change]).collect();
        self.bench.fedplug(&[&["run"], &self.with(&["--name", "cut", "--resume"])[..], &sets].concat())
    }
}

#[test]
fn another_experiment_is_not_resumed() {
    let told =
        Cut::new().resume(&["federation.rounds=60", "seed=1", "federation.local-epochs=2", "model.learning-rate=0.5"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("another experiment", told.stderr);
}

#[test]
fn a_run_with_other_data_is_not_resumed() {
    let cut = Cut::new();
    // One measurement less, and its place is dealt to another row.
    let csv = |file: &std::path::PathBuf| file.extension().is_some_and(|extension| extension == "csv");
    let changed = files(&cut.bench.path("data/tm")).into_iter().find(csv).unwrap();
    let text = std::fs::read_to_string(&changed).unwrap();
    let shorter: Vec<&str> =
        text.lines().enumerate().filter(|(number, _)| *number != 4).map(|(_, line)| line).collect();
    std::fs::write(&changed, shorter.join("\n") + "\n").unwrap();
    let told = cut.resume(&["federation.rounds=60"]);
    assert_eq!(told.code, 2);
    let wanted = format!("{}: has changed", changed.display());
    let wanted = wanted.replace(&cut.bench.path("").display().to_string(), "BENCH/");
    assert!(told.stderr.contains(&wanted), "{}", told.stderr);
}

#[test]
fn a_run_with_another_library_under_the_same_name_is_not_resumed() {
    let cut = Cut::new();
    let manifest = cut.bench.path("runs/cut/manifest.json");
    let mut other: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&manifest).unwrap()).unwrap();
    other["plugins"][1]["sha256"] = "0123456789abcdef".into();
    std::fs::write(&manifest, other.to_string()).unwrap();
    let told = cut.resume(&["federation.rounds=60"]);
    let wanted = "the library of model `linear`: version 0.1.0 (SHA-256 0123456789ab…) then";
    assert!(told.stderr.contains(wanted), "{}", told.stderr);
}

#[test]
fn what_changes_no_result_may_change_and_the_rounds_of_a_model_that_allows_it() {
    let cut = Cut::new();
    let told = cut.resume(&[
        "federation.rounds=66",
        "federation.threads=2",
        "federation.checkpoint-every=7",
        "federation.idle-memory=\"1 kB\"",
        "plugin-path=[\"nowhere\"]",
    ]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    cut.bench.run(&cut.with(&["--name", "whole", "--set", "federation.rounds=66"]));
    same(&cut.bench, "cut", "whole");
    let manifest: serde_json::Value = serde_json::from_str(&cut.bench.text("cut", "manifest.json")).unwrap();
    assert_eq!(manifest["resumed"].as_array().map(Vec::len), Some(1));
    assert!(cut.bench.text("cut", "experiment.toml").contains("rounds = 66"));
}

#[test]
fn a_model_that_does_not_say_so_has_no_more_rounds() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(crate::support::root().join(LINEAR)).unwrap();
    let text = text.replace("plugin = \"linear\"", "plugin = \"misbehaving\"\nhow = \"behave\"");
    let text = text.replace("rounds = 20", "rounds = 40\ncheckpoint-every = 2");
    let file = bench.write("other.toml", text.split("[[filter]]").next().unwrap()).display().to_string();
    interrupt(&bench, &[&file, "--name", "cut"], "cut", "-KILL");
    let told = bench.fedplug(&["run", &file, "--name", "cut", "--resume", "--set", "federation.rounds=41"]);
    assert_eq!(told.code, 2);
    let text = "`federation.rounds`: 40 then, 41 now: model `misbehaving` does not declare";
    assert!(told.stderr.contains(text), "{}", told.stderr);
}

#[test]
fn one_process_at_a_time_works_in_a_directory() {
    let bench = Bench::new();
    let arguments = [LINEAR, "--quiet", "--set", "federation.rounds=100000", "--set", "federation.checkpoint-every=5"];
    let mut child = start(&bench, &arguments);
    wait(&mut child, || checkpointed(&bench, "linear").is_some());
    for more in [&[][..], &["--resume"], &["--force"]] {
        let told = bench.fedplug(&[&["run"], &arguments[..], more].concat());
        assert_eq!(told.code, 2);
        let text = format!("BENCH/runs/linear: process {} is running this experiment", child.id());
        assert!(told.stderr.contains(&text), "{}", told.stderr);
    }
    // The one that works is not disturbed, and the lock ends with it.
    assert_eq!(signal(&bench, child, "-TERM").code, 130);
    let rest = start(&bench, &[&arguments[..], &["--resume"]].concat());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(signal(&bench, rest, "-KILL").code, -1);
    assert!(bench.text("linear", "metrics.jsonl").lines().count() > 100);
    for line in bench.text("linear", "metrics.jsonl").lines().rev().skip(1) {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}
