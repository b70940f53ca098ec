//! The metrics of a model, and which of them is the score.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::participation::{HEADS, lines, refused, run};
use crate::support::Bench;

const METRICS: [&str; 7] = ["RMSE", "Spearman", "Pearson", "R2", "MAE", "NRMSE", "NMAE"];

/// The last values of a metric of the global model over the clients of a run.
fn last(summary: &Value, metric: &str) -> Vec<f64> {
    let tasks = summary["clients"].as_object().unwrap().values().flat_map(|tasks| tasks.as_array().unwrap());
    let value = |task: &Value| {
        let all = task["global_test"].as_array().unwrap();
        all.iter().find(|history| history["name"] == metric).unwrap()["last"].as_f64().unwrap()
    };
    tasks.map(value).collect()
}

#[test]
fn all_metrics_are_in_the_files_and_the_first_two_on_the_terminal() {
    let bench = Bench::new();
    let told = bench.run(&["configs/csv.toml", "--set", "federation.rounds=2"]);
    for metric in METRICS {
        for place in ["global_test", "local_test"] {
            let tag = format!("{metric}/{place}");
            let all = lines(&bench, "csv");
            let of_server = all.iter().filter(|line| line["tag"] == *tag && line["client"] == "server").count();
            // The first global model predicts one number for all rows, which has no correlation.
            let undefined = usize::from(["Spearman", "Pearson"].contains(&metric));
            assert_eq!(of_server, if place == "global_test" { 3 - undefined } else { 2 }, "{tag}");
        }
        let on_terminal = told.stderr.contains(&format!("last {metric} "));
        assert_eq!(on_terminal, METRICS[..2].contains(&metric), "{metric}: {}", told.stderr);
    }
    let run = bench.path("runs/csv").display().to_string();
    let compared = |more: &[&str]| bench.fedplug(&[&["compare", &run], more].concat()).stdout;
    let (table, csv) = (compared(&["--format", "markdown"]), compared(&["--format", "csv"]));
    for metric in METRICS {
        let title = format!("{metric}, global model");
        assert_eq!(table.contains(&format!("| {title}")), METRICS[..2].contains(&metric), "{metric}: {table}");
        assert!(csv.contains(&format!("\"{title}\"")), "{csv}");
    }
    let chosen = compared(&["--metrics", "R2,MAE", "--format", "markdown"]);
    assert!(chosen.contains("| R2, own models | MAE, global model |") && !chosen.contains("RMSE, "), "{chosen}");
}

/// The best model is the one with the best value of the metric, and everything that says `score` means that value.
#[test]
fn a_metric_that_is_chosen_decides() {
    let bench = Bench::new();
    let with = |name: &str, score: &str| {
        let score = format!("federation.score={score}");
        let sets =
            ["--set", "model.learning-rate=1.9", "--set", "federation.rounds=12", "--set", &score, "--name", name];
        bench.run(&[&["configs/csv.toml"], &sets[..]].concat())
    };
    let mut best = Vec::new();
    for (metric, sign) in [("Spearman", 1.0), ("MAE", -1.0)] {
        let told = with(metric, metric);
        let name = if sign < 0.0 { "-MAE" } else { metric };
        assert!(told.stderr.contains(&format!("score: {name}, averaged over clients; higher")), "{}", told.stderr);
        let all = lines(&bench, metric);
        let of_server = |tag: &str| -> BTreeMap<u64, f64> {
            let wanted = all.iter().filter(|line| line["client"] == "server" && line["tag"] == tag);
            wanted.map(|line| (line["step"].as_u64().unwrap(), line["value"].as_f64().unwrap())).collect()
        };
        let values = of_server(&format!("{metric}/global_test"));
        assert!(values.len() >= 12, "{values:?}");
        let scores = of_server("Score/global_test");
        assert_eq!(scores.keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
        let same = scores.values().zip(values.values()).all(|(score, value)| (score - sign * value).abs() < 1e-12);
        assert!(same, "{scores:?} {values:?}");
        let summary = bench.summary(metric);
        let better =
            |best: (u64, f64), (step, score): (&u64, &f64)| if *score > best.1 { (*step, *score) } else { best };
        let rounds = scores.iter().fold((0, f64::NEG_INFINITY), better).0;
        assert_eq!((summary["best"]["rounds"].as_u64().unwrap(), &summary["score-name"]), (rounds, &name.into()));
        let all = last(&summary, metric);
        let mean = sign * all.iter().sum::<f64>() / all.len() as f64;
        assert!((summary["last"]["score"].as_f64().unwrap() - mean).abs() < 1e-12);
        best.push(rounds);
    }
    // The model's own score chooses another model.
    bench.run(&[
        "configs/csv.toml",
        "--set",
        "model.learning-rate=1.9",
        "--set",
        "federation.rounds=12",
        "--name",
        "own",
    ]);
    let own = bench.summary("own")["best"]["rounds"].as_u64().unwrap();
    assert!(best.iter().any(|rounds| *rounds != own), "{best:?} {own}");

    let path = |name: &str| bench.path(format!("runs/{name}")).display().to_string();
    let runs = ["own", "MAE", "Spearman"].map(path);
    bench.run(&["configs/csv.toml", "--set", "federation.rounds=1", "--name", "short"]);
    let sorted = |by: &str, runs: &[&str]| {
        let told = bench.fedplug(&[&["compare", "--format", "csv", "--sort", by], runs].concat());
        (
            told.code,
            told.stderr,
            told.stdout.lines().skip(1).map(|row| row.split(',').next().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    let short = path("short");
    assert_eq!(sorted("MAE", &[&short, &runs[0]]).2, ["own", "short"]);
    assert_eq!(sorted("score", &[&short, &runs[0]]).2, ["own", "short"]);
    // Equal runs keep their order.
    assert_eq!(sorted("R2", &[&runs[0], &runs[2], &short]).2, ["own", "Spearman", "short"]);
    insta::assert_snapshot!("different scores", sorted("score", &[&runs[0], &runs[1]]).1);
    insta::assert_snapshot!("a metric that no run has", sorted("Kendall", &[&runs[0], &runs[1]]).1);
}

#[test]
fn a_metric_that_cannot_be_the_score_is_an_error() {
    insta::assert_snapshot!("an unknown score", refused(HEADS, &["federation.score=Kendall"]));
    insta::assert_snapshot!("a score with a unit", refused(HEADS, &["federation.score=MAE"]));
    insta::assert_snapshot!(
        "a score that nobody reports",
        refused(HEADS, &["federation.score=NMAE", "federation.report=none"])
    );
    let bench = Bench::new();
    run(&bench, HEADS, "scaled", &["federation.score=NMAE", "federation.rounds=1"]);
    assert_eq!(bench.summary("scaled")["score-name"], "-NMAE");
}
