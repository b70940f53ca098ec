//! An experiment with several seeds and folds: its runs, their comparison, and their curves.

use std::collections::BTreeMap;

use crate::support::{Bench, Told, files};

/// Eighty rows of forty sequences, in a file of the bench.
fn experiment(bench: &Bench, more: &str) -> String {
    let rows: String =
        (0..80).map(|i| format!("{}{},{i}\n", "EVQ".repeat(i % 40 / 4 + 1), b"ACDE"[i % 4] as char)).collect();
    let file = bench.write("rows.csv", &format!("seq,y\n{rows}"));
    let text = format!(
        "name = \"x\"\n{more}\n[federation]\nrounds = 3\n[dataset]\nplugin = \"csv\"\nfiles = {file:?}\ninputs = [\"seq\"]\n\
         target = \"y\"\nclients = \"by-task\"\n[model]\nplugin = \"linear\"\n[aggregator]\nplugin = \"fedavg\"\n"
    );
    bench.write("x.toml", &text).display().to_string()
}

/// How often each row is tested in the runs of a seed.
fn tested(bench: &Bench, seed: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for fold in 0..3 {
        let text = bench.text(&format!("x/seed-{seed}-fold-{fold}"), "predictions.csv");
        let mut lines = csv::Reader::from_reader(text.as_bytes());
        for record in lines.records().map(Result::unwrap).filter(|record| &record[3] == "test") {
            *counts.entry(record[2].to_owned()).or_default() += 1;
        }
    }
    counts
}

fn compare(bench: &Bench, arguments: &[&str]) -> Told {
    let told = bench.fedplug(&[&["compare"], arguments].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    told
}

#[test]
fn each_seed_and_fold_is_a_run_like_any_other() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    let told = bench.run(&[&file, "--seeds", "1,2", "--folds", "3"]);
    assert!(told.stderr.contains("x: 6 runs, "), "{}", told.stderr);
    assert!(told.stderr.contains("seed-2-fold-1: finished in ") && told.stderr.contains("(6 of 6)"), "{}", told.stderr);
    assert!(
        told.stderr.contains(" ± ") && told.stderr.contains("mean ± standard deviation over repeats"),
        "{}",
        told.stderr
    );
    // In each seed's folds every row is tested once, and seeds have folds of their own.
    for seed in ["1", "2"] {
        let counts = tested(&bench, seed);
        assert_eq!((counts.len(), counts.values().sum::<usize>()), (80, 80));
    }
    assert_ne!(bench.text("x/seed-1-fold-0", "predictions.csv"), bench.text("x/seed-2-fold-0", "predictions.csv"));
    bench.run(&[&file, "--name", "alone", "--set", "seed=2", "--set", "dataset.folds=3", "--set", "dataset.fold=1"]);
    assert!(bench.results("alone") == bench.results("x/seed-2-fold-1"));
    // Nothing is replaced unasked.
    let told = bench.fedplug(&["run", &file, "--seeds", "1"]);
    assert!(told.code == 2 && told.stderr.contains("this directory already contains repeats"), "{}", told.stderr);
    let told = bench.fedplug(&["run", &file]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    bench.run(&[&file, "--seeds", "1", "--force"]);
    let x = bench.path("runs/x").display().to_string();
    assert!(compare(&bench, &[&x, "--format", "csv"]).stdout.lines().nth(1).unwrap().starts_with("x,1,3,"));
}

#[test]
fn the_files_table_repeats_unless_once_is_asked_for() {
    let bench = Bench::new();
    let file = experiment(&bench, "[repeats]\nseeds = [4, 5]");
    let told = bench.run(&[&file, "--jobs", "1"]);
    assert!(told.stderr.contains("x: 2 runs, 1 at a time"), "{}", told.stderr);
    assert!(!bench.text("x/seed-4", "experiment.toml").contains("repeats"));
    assert!(bench.text("x/seed-4", "experiment.toml").contains("seed = 4"));
    bench.run(&[&file, "--once", "--name", "once"]);
    assert!(bench.path("runs/once/summary.json").is_file());
    let told = bench.fedplug(&["check", &experiment(&bench, "[repeats]\nseeds = [4, 4]\nfolds = 1")]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("must be at least 2") || told.stderr.contains("listed twice"), "{}", told.stderr);
}

#[test]
fn missing_runs_are_run_again_and_finished_ones_stay() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    bench.run(&[&file, "--seeds", "1,2"]);
    let (kept, lost) = (bench.results("x/seed-1"), bench.results("x/seed-2"));
    let modified = || std::fs::metadata(bench.path("runs/x/seed-1/summary.json")).unwrap().modified().unwrap();
    let before = modified();
    std::fs::remove_dir_all(bench.path("runs/x/seed-2")).unwrap();
    let x = bench.path("runs/x").display().to_string();
    assert!(compare(&bench, &[&x]).stdout.contains("x: 1 of 2 runs are finished"));
    let told = bench.run(&[&file, "--seeds", "2,3", "--resume"]);
    assert!(told.stderr.contains("x: 3 runs") && !told.stderr.contains("seed-1: "), "{}", told.stderr);
    assert!(bench.results("x/seed-1") == kept && bench.results("x/seed-2") == lost && modified() == before);
    // They belong to one experiment.
    let told = bench.fedplug(&["run", &file, "--seeds", "1,2,3", "--resume", "--set", "model.learning-rate=0.5"]);
    assert!(
        told.code == 2 && told.stderr.contains("`model.learning-rate`: not given then, 0.5 now"),
        "{}",
        told.stderr
    );
    let told = bench.fedplug(&["run", &file, "--seeds", "1", "--resume", "--name", "y"]);
    assert!(told.code == 2 && told.stderr.contains("there are no repeats to resume"), "{}", told.stderr);
    assert!(!bench.path("runs/y").exists());
}

#[test]
fn a_run_that_fails_is_named_and_the_others_go_on() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    bench.run(&[&file, "--seeds", "1"]);
    bench.write("runs/x/seed-2/thesis.txt", "years of work");
    let told = bench.fedplug(&["run", &file, "--seeds", "1,2,3", "--resume"]);
    assert_eq!(told.code, 1, "{}", told.stderr);
    assert!(told.stderr.contains("1 of 3 runs failed"), "{}", told.stderr);
    assert!(
        told.stderr.contains("seed-2: BENCH/runs/x/seed-2: contains files that are not part of a run"),
        "{}",
        told.stderr
    );
    assert!(bench.path("runs/x/seed-3/summary.json").is_file());
    // An error in the experiment is the same in all runs, and is told once.
    let wrong = experiment(&bench, "").replace("x.toml", "wrong.toml");
    std::fs::write(&wrong, std::fs::read_to_string(&file).unwrap().replace("rows.csv", "no.csv")).unwrap();
    let told = bench.fedplug(&["run", &wrong, "--seeds", "1,2,3", "--name", "wrong"]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    assert!(
        told.stderr.contains("3 of 3 runs failed") && told.stderr.contains("seed-1, seed-2, seed-3: "),
        "{}",
        told.stderr
    );
    // None began, so nothing is in the way of the mended file.
    std::fs::write(&wrong, std::fs::read_to_string(&file).unwrap()).unwrap();
    bench.run(&[&wrong, "--seeds", "1,2", "--name", "wrong"]);
}

#[test]
#[cfg(unix)]
fn a_stop_reaches_all_runs_and_they_go_on_later() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    let options = [file.as_str(), "--set", "federation.rounds=200", "--set", "federation.checkpoint-every=1"];
    let repeated = [&options[..], &["--seeds", "1,2", "--jobs", "2"]].concat();
    let mut child = crate::resume::start(&bench, &repeated);
    let both = ["1", "2"].map(|seed| bench.path(format!("runs/x/seed-{seed}/checkpoint")));
    crate::resume::wait(&mut child, || both.iter().all(|path| path.is_dir()));
    let told = crate::resume::signal(&bench, child, "-TERM");
    assert_eq!(told.code, 130, "{}", told.stderr);
    assert!(told.stderr.contains("stopped on request, with 0 of 2 runs finished"), "{}", told.stderr);
    assert!(both.iter().all(|path| path.is_dir()));
    assert!(!bench.path("runs/x/run.lock").exists());
    bench.run(&[&repeated[..], &["--resume"]].concat());
    bench.run(&[&options[..], &["--name", "whole", "--set", "seed=2"]].concat());
    assert!(bench.results("x/seed-2") == bench.results("whole"));
}

#[test]
fn experiments_with_the_same_seeds_are_compared_pair_by_pair() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    for (name, rate) in [("slow", "0.001"), ("fast", "0.1")] {
        let rate = format!("model.learning-rate={rate}");
        bench.run(&[&file, "--name", name, "--seeds", "1,2", "--folds", "2", "--set", &rate]);
    }
    let runs = ["slow", "fast"].map(|name| bench.path("runs").join(name).display().to_string());
    let told = compare(&bench, &[&runs[0], &runs[1]]);
    assert!(
        told.stdout.contains("minus slow") && told.stdout.contains("s² (1/n + 1/1) (Nadeau and Bengio 2003)"),
        "{}",
        told.stdout
    );
    let told = compare(&bench, &[&runs[0], &runs[1], "--spread", "interval", "--metrics", "Spearman"]);
    assert!(told.stdout.contains("mean and its 95% interval") && told.stdout.contains(", "), "{}", told.stdout);
    // The numbers are the means of the runs' own.
    let rows = |arguments: &[&str]| -> Vec<Vec<String>> {
        let told = compare(&bench, &[&["--format", "csv"], arguments].concat());
        let mut lines = csv::ReaderBuilder::new().has_headers(false).from_reader(told.stdout.as_bytes());
        lines.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
    };
    let table = rows(&[&runs[0], &runs[1]]);
    let column = table[0].iter().position(|title| title == "RMSE, global model").unwrap();
    assert_eq!(
        table[0][column + 1..column + 4],
        ["SD", "95% from", "95% to"].map(|what| format!("RMSE, global model, {what}"))
    );
    let of = |name: &str| -> Vec<f64> {
        let one = |run: &str| {
            let summary = bench.summary(&format!("{name}/{run}"));
            summary["clients"]["y"][0]["global_test"][0]["last"].as_f64().unwrap()
        };
        ["seed-1-fold-0", "seed-1-fold-1", "seed-2-fold-0", "seed-2-fold-1"].map(one).to_vec()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let near =
        |text: &str, wanted: f64| assert!((text.parse::<f64>().unwrap() - wanted).abs() < 1e-12, "{text}, {wanted}");
    near(&table[1][column], mean(&of("slow")));
    let paired = rows(&[&runs[0], &runs[1], "--paired"]);
    let row = paired.iter().find(|row| row[1] == "RMSE, global model").unwrap();
    assert_eq!((row[0].as_str(), row[2].as_str()), ("fast", "4"));
    let differences: Vec<f64> = of("fast").iter().zip(of("slow")).map(|(a, b)| a - b).collect();
    near(&row[3], mean(&differences));
    // One experiment alone, or without shared seeds, has no pairs.
    assert!(compare(&bench, &[&runs[0], "--paired"]).stdout.contains("no two experiments share"));
}

#[test]
fn curves_of_repeats_are_one_with_a_band() {
    let bench = Bench::new();
    let file = experiment(&bench, "");
    bench.run(&[&file, "--seeds", "1,2,3"]);
    let (x, out) = (bench.path("runs/x").display().to_string(), bench.path("figures").display().to_string());
    let told = bench.fedplug(&["plot", &x, "--tag", "Score/global_test", "--output", &out, "--window", "1"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let svg =
        files(&bench.path("figures")).into_iter().find(|path| path.extension().is_some_and(|e| e == "svg")).unwrap();
    let text = std::fs::read_to_string(svg).unwrap();
    assert!(text.contains("x (3 runs)") && text.contains("mean ± SD over runs"), "{text}");
    assert_eq!((text.matches("<polygon").count(), text.matches("stroke-width=\"1.8\"").count()), (1, 1));
}
