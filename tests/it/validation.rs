//! Rows for validation choose the best model, and test rows measure it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Bench;

const LINEAR: &str = "configs/linear.toml";
const FIFTH: &str = "dataset.validation-fraction=0.2";

/// The server's values of a tag, by round.
fn of_server(bench: &Bench, run: &str, tag: &str) -> Vec<(u64, f64)> {
    let lines = bench.text(run, "metrics.jsonl");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_tag = lines.filter(|line| line["client"] == "server" && line["tag"] == tag);
    of_tag.map(|line| (line["round"].as_u64().unwrap(), line["value"].as_f64().unwrap())).collect()
}

/// The client, task and row of each prediction of a side.
fn rows(bench: &Bench, run: &str, split: &str) -> BTreeSet<String> {
    let text = bench.text(run, "predictions.csv");
    let mut lines = csv::Reader::from_reader(text.as_bytes());
    let records = lines.records().map(Result::unwrap).filter(|record| &record[3] == split);
    records.map(|record| format!("{} {} {}", &record[0], &record[1], &record[2])).collect()
}

#[test]
fn the_best_model_is_chosen_by_rows_that_nobody_trains_on() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--name", "without"]);
    let told = bench.run(&[LINEAR, "--name", "with", "--set", FIFTH]);
    assert!(told.stderr.contains("last validation score"), "{}", told.stderr);
    assert!(told.stderr.contains("global model: best validation score"), "{}", told.stderr);
    // The test rows are the same, and some of the training rows are trained on no more.
    assert_eq!(rows(&bench, "with", "test"), rows(&bench, "without", "test"));
    let (trained, all) = (rows(&bench, "with", "train"), rows(&bench, "without", "train"));
    assert!(trained.is_subset(&all));
    let share = (all.len() - trained.len()) as f64 / all.len() as f64;
    assert!((share - 0.2).abs() < 0.02, "{share}");

    let summary = bench.summary("with");
    let validation = of_server(&bench, "with", "Score/global_validation");
    let best = validation.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best }).unwrap();
    assert_eq!((&summary["best"]["rounds"], &summary["best"]["validation-score"]), (&best.0.into(), &best.1.into()));
    let test = of_server(&bench, "with", "Score/global_test")[usize::try_from(best.0).unwrap()].1;
    assert_eq!(summary["best"]["score"], test);
    assert_eq!(validation.len(), 21);
    // Each client's numbers of the best model are those of that round.
    let task = &summary["clients"]["tm"][0];
    let line = bench
        .metrics("with")
        .into_iter()
        .filter(|line| line.starts_with("{\"client\":\"tm\"") && line.contains("\"RMSE/global_test\""));
    let line: Vec<Value> = line.map(|line| serde_json::from_str(&format!("{line}}}")).unwrap()).collect();
    assert_eq!(task["best_model"]["RMSE"], line[usize::try_from(best.0).unwrap()]["value"]);
    assert!(task["local_validation"][0]["last"].is_number() && task["global_validation_score"]["best"].is_number());
    // Without validation rows nothing of this is there.
    let text = bench.text("without", "summary.json");
    assert!(!text.contains("validation") && !text.contains("best_model"));
    assert!(!bench.text("without", "metrics.jsonl").contains("validation"));
}

#[test]
fn early_stopping_goes_by_validation_rows_unless_it_names_a_metric() {
    let bench = Bench::new();
    let stopping = |more: &str| format!("federation.early-stopping={{ patience = 2, min-delta = 9.0{more} }}");
    let told = bench.run(&[LINEAR, "--set", FIFTH, "--set", &stopping("")]);
    assert!(told.stderr.contains("2 rounds without a better Score/global_validation"), "{}", told.stderr);
    let named = stopping(", metric = \"RMSE/local_validation_tm\"");
    let told = bench.run(&[LINEAR, "--name", "named", "--set", FIFTH, "--set", &named]);
    assert!(told.stderr.contains("2 rounds without a better RMSE/local_validation_tm"), "{}", told.stderr);
    let told = bench.run(&[LINEAR, "--name", "test", "--set", &stopping("")]);
    assert!(told.stderr.contains("2 rounds without a better Score/global_test"), "{}", told.stderr);
    // There is no such metric without rows for validation.
    let told = bench.fedplug(&["check", LINEAR, "--set", &named]);
    assert!(
        told.code == 2 && told.stderr.contains("the run has no metric `RMSE/local_validation_tm`"),
        "{}",
        told.stderr
    );
}

#[test]
fn a_stopped_run_goes_on_with_the_same_validation() {
    let bench = Bench::new();
    let options = [LINEAR, "--set", FIFTH, "--set", "federation.rounds=40", "--set", "federation.checkpoint-every=1"];
    bench.run(&[&options[..], &["--name", "whole"]].concat());
    let part = [&options[..], &["--name", "part"]].concat();
    let mut child = crate::resume::start(&bench, &part);
    crate::resume::wait(&mut child, || bench.path("runs/part/checkpoint").is_dir());
    crate::resume::signal(&bench, child, "-TERM");
    bench.run(&[&part[..], &["--resume"]].concat());
    assert!(bench.results("part") == bench.results("whole"));
    let both = ["part", "whole"].map(|run| bench.summary(run));
    for key in ["best", "last", "clients", "best-by-task"] {
        assert_eq!(both[0][key], both[1][key], "{key}");
    }
}

#[test]
fn check_counts_validation_rows_and_says_who_lacks_them() {
    let bench = Bench::new();
    let rows: String = (0..40).map(|i| format!("S{i},{i},n\n")).collect();
    let file = bench.write("a.csv", &format!("seq,y,who\n{rows}X,1,s\nY,2,s\nZ,3,t\nU,4,t\nV,5,t\n"));
    let check = |clients: &str| {
        let text = format!(
            "name = \"x\"\n[federation]\nrounds = 1\n[dataset]\nplugin = \"csv\"\nfiles = {file:?}\ninputs = [\"seq\"]\n\
             target = \"y\"\nclients = {clients}\nvalidation-fraction = 0.25\n[model]\nplugin = \"linear\"\n\
             [aggregator]\nplugin = \"fedavg\"\n"
        );
        let told = bench.fedplug(&["check", bench.write("x.toml", &text).to_str().unwrap()]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        told
    };
    let told = check("{ column = \"who\" }");
    assert!(told.stdout.contains("n on cpu: y 24+8 and 8 for validation"), "{}", told.stdout);
    let lacking = "client `s` has no rows for validation, so the best model and early stopping go by the test rows";
    assert!(told.stderr.contains(lacking), "{}", told.stderr);
    assert!(!check("\"by-task\"").stderr.contains("for validation"));
}
