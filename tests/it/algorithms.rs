//! The experiments of `configs/algorithms`, with a trunk and data small enough to run them all.

use crate::resume::interrupt;
use crate::support::{Bench, files, has_libtorch, root, skip};

/// What makes one of them small.
const SMALL: [&str; 4] = [
    "--set",
    "dataset.max-samples=2",
    "--set",
    "model.pretrained={ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 16 }",
];

/// What leaves those of FLAb's data two tasks of six, which all clients have.
const TWO_TASKS: [&str; 4] =
    ["--set", "dataset.tasks=[\"immunogenicity\", \"tm\"]", "--set", "dataset.clients={ count = 6, alpha = 100.0 }"];

fn all() -> Vec<String> {
    let names = files(&root().join("configs/algorithms"));
    names.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn file(name: &str) -> String {
    format!("configs/algorithms/{name}.toml")
}

#[test]
fn every_algorithm_runs() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let names = all();
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        let tasks: &[&str] = if name == "masked-lm" { &[] } else { &TWO_TASKS };
        let told = bench.run(&[&[&file(name), "--set", "federation.rounds=2"], &SMALL[..], tasks].concat());
        // The file is named after its run, and after two rounds there is a model with finite numbers.
        let summary = bench.summary(name);
        assert!(summary["last"]["score"].as_f64().is_some(), "{name}: {}", told.stderr);
    }
    // All begin from the same model on the same data; `fp16` rounds the model on its way to the clients, and masked language
    // modelling predicts nothing.
    let first = |name: &str| -> f64 {
        let line = bench.metrics(name).into_iter().find(|line| line.contains("RMSE/global_test_tm")).unwrap();
        line.rsplit_once(':').unwrap().1.trim_end_matches('}').parse().unwrap()
    };
    let wanted = first("fedavg");
    for name in names.iter().filter(|name| *name != "masked-lm") {
        let allowed = if name == "fp16" { 1e-3 } else { 0.0 };
        assert!((first(name) - wanted).abs() <= allowed, "{name}: {} is not {wanted}", first(name));
    }
}

#[test]
fn control_variates_survive_a_lost_client_and_reach_every_site() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    // A filter that spoils one client's update in the third round.
    let text = std::fs::read_to_string(root().join(file("scaffold"))).unwrap()
        + "\n[[filter]]\nplugin = \"misbehaving\"\nhow = \"nan\"\nclient = \"site-2\"\nround = 2\nat = \"client-output\"\n";
    let path = bench.write("algorithms/scaffold.toml", &text);
    let control = ["federation.rounds=4", "federation.on-client-failure=leave-out", "federation.cross-site=true"];
    let control = control.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> =
        [path.to_str().unwrap()].into_iter().chain(control).chain(SMALL).chain(TWO_TASKS).collect();
    let told = bench.run(&arguments);
    let left_out = told.stderr.lines().filter(|line| line.contains("left out: ")).collect::<Vec<_>>();
    // Two rounds, and the model that it would have shown the others.
    assert_eq!(left_out.len(), 3, "{}", told.stderr);
    assert!(left_out[..2].iter().all(|line| line.contains("client `site-2`, update: tensor `")), "{left_out:?}");
    assert!(left_out[2].contains("cross-site evaluation, client `site-2`, model: tensor `"), "{left_out:?}");
    assert!(told.stderr.contains("score of model"), "{}", told.stderr);
}

#[test]
#[cfg(unix)]
fn methods_with_state_resume_to_the_same_bits() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    for name in ["fedadam", "scaffold", "ditto", "lora", "fedex-lora", "top-k", "dp-low"] {
        let path = file(name);
        let control = ["--set", "federation.rounds=8", "--set", "federation.checkpoint-every=2"];
        let arguments =
            |run: &'static str| [&[&path, "--name", run, "--force"], &control[..], &SMALL[..], &TWO_TASKS[..]].concat();
        bench.run(&arguments("whole"));
        interrupt(&bench, &arguments("killed"), "killed", "-KILL");
        let mut resumed = arguments("killed");
        resumed.retain(|argument| *argument != "--force");
        let told = bench.run(&[&resumed[..], &["--resume"]].concat());
        assert!(told.stderr.contains("resuming after round"), "{}", told.stderr);
        assert!(bench.results_but_the_account("killed") == bench.results_but_the_account("whole"), "{name} differs");
    }
}
