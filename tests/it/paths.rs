//! Relative paths: those of an experiment are relative to its file, those of the command line to the current directory.

use std::path::Path;

use crate::resume::{interrupt, same};
use crate::support::{Bench, Told, root};

const EXPERIMENT: &str = r#"name = "x"
[federation]
rounds = 3
checkpoint-every = 1
[dataset]
plugin = "csv"
files = "../data/*.csv"
exclude = "../data/bad.csv"
inputs = ["seq"]
target = "y"
clients = { count = 2, alpha = 1e6 }
[model]
plugin = "linear"
[aggregator]
plugin = "fedavg"
"#;

/// A project of two folders: experiments and data.
fn project(bench: &Bench, folder: &str) -> std::path::PathBuf {
    let row = |k: usize| format!("{},{k}.5\n", "ACDEFGHIKL".repeat(k % 7 + 1).split_at(k % 5).1);
    bench.write(&format!("{folder}/data/a.csv"), &format!("seq,y\n{}", (1..=40).map(row).collect::<String>()));
    bench.write(&format!("{folder}/data/bad.csv"), "nothing\n");
    bench.write(&format!("{folder}/experiments/x.toml"), EXPERIMENT)
}

/// `fedplug ARGUMENTS` in a folder.
fn within(bench: &Bench, folder: impl AsRef<Path>, arguments: &[&str]) -> Told {
    let output = bench.command(arguments).current_dir(folder).output().unwrap();
    Told::new(bench, output)
}

fn succeeds(told: &Told) {
    assert_eq!(told.code, 0, "{}", told.stderr);
}

/// The files of a run's data, according to its manifest.
fn data(bench: &Bench, run: &str) -> serde_json::Value {
    let manifest: serde_json::Value = serde_json::from_str(&bench.text(run, "manifest.json")).unwrap();
    manifest["data"].clone()
}

#[test]
fn an_experiment_gives_the_same_from_anywhere_and_its_copy_too() {
    let bench = Bench::new();
    let file = project(&bench, "p");
    let file = file.to_str().unwrap();
    succeeds(&within(&bench, bench.path("p/experiments"), &["run", "x.toml"]));
    let wanted = bench.results("x");
    let copy = bench.path("runs/x/experiment.toml");
    let copy = copy.to_str().unwrap();
    for (folder, file) in [("", "p/experiments/x.toml"), ("p/data", "../experiments/x.toml"), ("runs", file)] {
        succeeds(&within(&bench, bench.path(folder), &["run", file, "--name", "again", "--force"]));
        assert!(bench.results("again") == wanted, "{folder}");
    }
    succeeds(&within(&bench, root(), &["run", copy, "--name", "copy"]));
    assert!(bench.results("copy") == wanted);
    // A prediction needs the run alone.
    let rows = bench.write("rows.csv", "seq\nACDEFG\n");
    let predicted =
        within(&bench, root(), &["predict", bench.path("runs/x").to_str().unwrap(), rows.to_str().unwrap()]);
    succeeds(&predicted);
    assert!(predicted.stdout.starts_with("seq,y_predicted\nACDEFG,"), "{}", predicted.stdout);
    let prepared = within(&bench, bench.path("p"), &["check", "experiments/x.toml"]);
    succeeds(&prepared);
}

#[test]
fn a_run_is_resumed_from_another_folder_also_after_all_has_moved() {
    let bench = Bench::new();
    let file = project(&bench, "p");
    let long = ["--set", "federation.rounds=200"];
    succeeds(&within(
        &bench,
        bench.path("p"),
        &[&["run", "experiments/x.toml", "--name", "whole"], &long[..]].concat(),
    ));
    interrupt(&bench, &[&[file.to_str().unwrap()], &long[..]].concat(), "x", "-KILL");
    std::fs::rename(bench.path("p"), bench.path("moved")).unwrap();
    let resume = [&["run", "../experiments/x.toml", "--resume"], &long[..]].concat();
    // The data is compared by its content.
    let data = bench.path("moved/data/a.csv");
    let rows = std::fs::read_to_string(&data).unwrap();
    std::fs::write(&data, rows.replacen("1.5", "2.5", 1)).unwrap();
    let told = within(&bench, bench.path("moved/data"), &resume);
    assert!(told.code == 2 && told.stderr.contains("a.csv: was not part of the data"), "{}", told.stderr);
    std::fs::write(&data, rows).unwrap();
    succeeds(&within(&bench, bench.path("moved/data"), &resume));
    same(&bench, "x", "whole");
}

#[test]
fn what_the_command_line_sets_is_relative_to_the_current_directory() {
    let bench = Bench::new();
    let file = project(&bench, "p");
    let file = file.to_str().unwrap();
    std::fs::rename(bench.path("p/data"), bench.path("p/elsewhere")).unwrap();
    let set = ["--set", "dataset.files=elsewhere/a.csv"];
    succeeds(&within(&bench, bench.path("p"), &[&["run", file], &set[..]].concat()));
    let wanted = bench.results("x");
    // Its copy means the same from anywhere.
    let recorded: toml::Table = bench.text("x", "experiment.toml").parse().unwrap();
    let absolute = bench.path("p/elsewhere/a.csv").canonicalize().unwrap();
    assert_eq!(Path::new(recorded["dataset"]["files"].as_str().unwrap()).canonicalize().unwrap(), absolute);
    assert_eq!(recorded["dataset"]["exclude"].as_str(), Some("../data/bad.csv"));
    let copy = bench.path("runs/x/experiment.toml");
    succeeds(&within(&bench, root(), &["run", copy.to_str().unwrap(), "--name", "copy"]));
    assert!(bench.results("copy") == wanted);
    let told = within(&bench, bench.path("p/experiments"), &[&["check", file], &set[..]].concat());
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("`elsewhere/a.csv` matches no file"), "{}", told.stderr);
}

#[test]
fn values_of_a_sweep_are_relative_to_the_file() {
    let bench = Bench::new();
    let file = project(&bench, "p");
    let text = EXPERIMENT.replace("files = ", "validation-fraction = 0.2\nfiles = ")
        + "[sweep]\ngrid = { dataset = { files = [\"../data/a.csv\"] } }\n";
    std::fs::write(&file, text).unwrap();
    let output = bench.path("runs");
    let sweep = ["sweep", "p/experiments/x.toml", "--output", output.to_str().unwrap()];
    succeeds(&within(&bench, bench.path(""), &sweep));
    assert_eq!(data(&bench, "x/run-01")[0]["path"], "p/data/a.csv");
}

#[test]
fn the_hosts_own_paths_are_relative_to_the_file() {
    let bench = Bench::new();
    let file = project(&bench, "p");
    succeeds(&within(&bench, bench.path(""), &["run", "p/experiments/x.toml", "--name", "first"]));
    std::fs::copy(bench.path("runs/first/global/model.safetensors"), bench.path("p/experiments/first.safetensors"))
        .unwrap();
    let library = crate::support::library("aggregator-fedavg");
    std::fs::copy(&library, bench.path("p").join(library.file_name().unwrap())).unwrap();
    let text = EXPERIMENT
        .replace("rounds = 3", "rounds = 3\ninitial = \"first.safetensors\"")
        .replace("plugin = \"fedavg\"", &format!("plugin = \"../{}\"", library.file_name().unwrap().to_str().unwrap()));
    std::fs::write(&file, format!("plugin-path = [\"plugins\"]\n{text}")).unwrap();
    succeeds(&within(&bench, bench.path(""), &["run", "p/experiments/x.toml"]));
    let copy = bench.path("runs/x/experiment.toml");
    succeeds(&within(&bench, root(), &["run", copy.to_str().unwrap(), "--name", "copy"]));
    assert!(bench.results("copy") == bench.results("x"));
    let schema = within(&bench, bench.path(""), &["schema", "p/experiments/x.toml"]);
    succeeds(&schema);
    let listed = within(&bench, bench.path(""), &["plugin", "list", "p/experiments/x.toml"]);
    assert!(listed.stdout.contains("p/experiments/plugins"), "{}", listed.stdout);
}

#[test]
fn init_names_the_data_as_seen_from_the_file_that_it_writes() {
    let bench = Bench::new();
    project(&bench, "p");
    let init = ["init", "data/a.csv", "--target", "y", "--output", "experiments/new.toml"];
    succeeds(&within(&bench, bench.path("p"), &init));
    let text = std::fs::read_to_string(bench.path("p/experiments/new.toml")).unwrap();
    assert!(text.contains("files = \"../data/a.csv\""), "{text}");
    succeeds(&within(&bench, root(), &["check", bench.path("p/experiments/new.toml").to_str().unwrap()]));
}

#[test]
fn a_key_that_is_a_path_is_shown_as_one() {
    let bench = Bench::new();
    let told = bench.fedplug(&["plugin", "inspect", "csv"]);
    succeeds(&told);
    assert!(told.stdout.contains("path, also with wildcards"), "{}", told.stdout);
}
