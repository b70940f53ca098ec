//! Warnings about rows and clients that make scores mean less than they seem to.

use std::path::Path;

use crate::support::Bench;

/// An experiment on files of one's own with the linear model.
fn experiment(dataset: &str) -> String {
    format!(
        "name = \"split\"\nseed = 1\n[federation]\nrounds = 1\n[dataset]\n{dataset}\n[model]\nplugin = \"linear\"\n\
         [aggregator]\nplugin = \"fedavg\"\n"
    )
}

#[test]
fn antibodies_on_both_sides_are_told_by_check_and_kept_in_the_summary() {
    let bench = Bench::new();
    let rows = |more: usize| (0..20).map(|i| format!("EVQ{},DIQ,{}\n", "G".repeat(i), i + more)).collect::<String>();
    for (name, more) in [("a", 0), ("b", 1)] {
        bench.write(&format!("data/tm/{name}.csv"), &format!("heavy,light,fitness\n{}", rows(more)));
    }
    let root = bench.path("data");
    let flab = |more: &str| experiment(&format!("plugin = \"flab\"\nroot = {root:?}\ntasks = [\"tm\"]\n{more}"));
    let grouped = bench.write("grouped.toml", &flab(""));
    let alone = bench.write("alone.toml", &flab("group-by = \"none\""));
    let told = |command: &str, path: &std::path::Path| {
        let told = bench.fedplug(&[command, path.to_str().unwrap()]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        told.stderr
    };
    assert!(!told("check", &grouped).contains("in training"));
    let overlap = "8 test rows have their sequence in training";
    let line = told("check", &alone);
    assert!(line.contains(overlap) && line.contains("`group-by = \"sequence\"` keeps them apart"), "{line}");
    told("run", &alone);
    let summary: serde_json::Value = serde_json::from_str(&bench.text("split", "summary.json")).unwrap();
    let notes: Vec<&str> =
        summary["notes"].as_array().unwrap().iter().filter_map(|note| note["text"].as_str()).collect();
    assert!(notes.iter().any(|note| note.contains(overlap)), "{notes:?}");
}

/// What `check` says of a file with given test rows and these clients.
fn checked(bench: &Bench, file: &Path, clients: &str) -> String {
    let keys = "plugin = \"csv\"\ninputs = [\"seq\"]\ntarget = \"y\"\ntest-column = \"set\"";
    let text = experiment(&format!("{keys}\nfiles = {file:?}\nclients = {clients}"));
    let told = bench.fedplug(&["check", bench.write("x.toml", &text).to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    told.stderr
}

#[test]
fn a_task_without_a_row_to_test_on_is_told_by_check() {
    let bench = Bench::new();
    let file = bench.write("a.csv", "seq,y,who,set\nA,1,n,train\nB,2,n,test\nC,3,s,train\nD,4,w,train\n");
    let check = |clients: &str| checked(&bench, &file, clients);
    let told = check("{ column = \"who\" }");
    assert!(told.contains("task `y` has no test rows at `s`, `w`"), "{told}");
    assert!(!check("\"by-task\"").contains("no test rows"));
    std::fs::write(&file, "seq,y,who,set\nA,1,n,train\n").unwrap();
    let told = check("\"by-task\"");
    assert!(told.contains("task `y` has no test rows anywhere"), "{told}");
}

#[test]
fn clients_without_training_rows_are_named_by_check() {
    let bench = Bench::new();
    let file = bench.write("a.csv", "seq,y,who,set\nA,1,n,train\nB,2,n,test\nC,3,s,test\nD,4,w,test\nE,5,w,train\n");
    let check = |clients: &str| checked(&bench, &file, clients);
    let told = check("{ column = \"who\" }");
    assert!(told.contains("clients without training rows never train: `s`\n"), "{told}");
    assert!(!check("\"by-task\"").contains("without training rows"));
    let told = check("{ count = 9, alpha = 1.0 }");
    assert!(
        told.contains("clients without training rows never train: `site-") && told.contains(" and 2 more\n"),
        "{told}"
    );
}

#[test]
fn antibodies_that_another_folder_trains_on_are_told_by_check_and_kept_in_the_summary() {
    let bench = Bench::new();
    let rows = |more: usize| (0..20).map(|i| format!("EVQ{},DIQ,{}\n", "G".repeat(i), i + more)).collect::<String>();
    for (folder, more) in [("tm", 0), ("binding", 7)] {
        bench.write(&format!("data/{folder}/a.csv"), &format!("heavy,light,fitness\n{}", rows(more)));
    }
    let root = bench.path("data");
    let text = experiment(&format!("plugin = \"flab\"\nroot = {root:?}\ntasks = [\"tm\", \"binding\"]"));
    let told = bench.fedplug(&["run", bench.write("x.toml", &text).to_str().unwrap()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let count = "test rows have a sequence that other tasks train on: `binding`";
    assert!(told.stderr.contains(count), "{}", told.stderr);
    let summary: serde_json::Value = serde_json::from_str(&bench.text("split", "summary.json")).unwrap();
    let notes: Vec<&str> =
        summary["notes"].as_array().unwrap().iter().filter_map(|note| note["text"].as_str()).collect();
    assert!(notes.iter().any(|note| note.contains(count)), "{notes:?}");
}
