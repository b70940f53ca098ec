//! Which models are best, and that numbers of different units are not mixed.

use crate::support::{Bench, Told};

/// Two tasks in different units at three clients, with nothing private: the global model is whole.
const SITES: &str = r#"name = "sites"

[federation]
rounds = 4
devices = ["cpu"]

[dataset]
plugin = "flab"
root = "configs/sample"
tasks = ["tm", "expression"]
clients = { count = 3, alpha = 1.0 }

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"
"#;

fn sites(bench: &Bench, arguments: &[&str]) -> Told {
    let file = bench.write("sites.toml", SITES);
    bench.run(&[&[file.to_str().unwrap()], arguments].concat())
}

/// The server's numbers, by tag and round.
fn server(bench: &Bench, run: &str) -> Vec<(String, u64, f64)> {
    let lines = bench.text(run, "metrics.jsonl");
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter(|line| line["client"] == "server")
        .map(|line| {
            (line["tag"].as_str().unwrap().to_owned(), line["round"].as_u64().unwrap(), line["value"].as_f64().unwrap())
        })
        .collect()
}

#[test]
fn each_task_has_its_best_model_besides_the_best_of_all() {
    let bench = Bench::new();
    sites(&bench, &[]);
    let numbers = server(&bench, "sites");
    let best = |tag: &str| {
        let of = numbers.iter().filter(|(name, ..)| name == tag);
        let best = of.fold(
            (0, f64::NEG_INFINITY),
            |best, (_, round, value)| if *value > best.1 { (*round, *value) } else { best },
        );
        serde_json::json!({ "rounds": best.0, "score": best.1 })
    };
    let summary = bench.summary("sites");
    assert_eq!(summary["best"], best("Score/global_test"));
    for task in ["tm", "expression"] {
        assert_eq!(summary["best-by-task"][task], best(&format!("Score/global_test_{task}")), "{task}");
    }
    let rounds = |task: &str| summary["best-by-task"][task]["rounds"].as_u64().unwrap();
    assert_ne!(rounds("tm"), rounds("expression"), "the two have one best model, so nothing is shown");

    // It is the model that predicts when it is asked for.
    let rows = bench.write("rows.csv", "heavy,light\nEVQLVESGG,DIQMTQ\nQVQLQQSGA,EIVLTQ\n");
    let run = bench.path("runs/sites");
    let predict = |arguments: &[&str]| {
        let told = bench.fedplug(&[&["predict", run.to_str().unwrap(), rows.to_str().unwrap()], arguments].concat());
        assert_eq!(told.code, 0, "{}", told.stderr);
        told.stdout
    };
    let (overall, [tm, expression]) = (predict(&[]), ["tm", "expression"].map(|task| predict(&["--best-of", task])));
    assert_ne!(tm, expression);
    assert!([&tm, &expression].contains(&&overall) || bench.summary("sites")["best"]["rounds"] != rounds("tm"));
    let file = |path: &str| bench.path("runs/sites").join(path).join("model.safetensors");
    std::fs::copy(file("best/tasks/expression"), file("best")).unwrap();
    assert_eq!(predict(&[]), expression);
    let told = bench.fedplug(&["predict", run.to_str().unwrap(), rows.to_str().unwrap(), "--best-of", "tn"]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("did you mean `tm`?"), "{}", told.stderr);
}

#[test]
fn of_several_tasks_only_scores_have_a_mean() {
    let bench = Bench::new();
    let told = sites(&bench, &["--set", "federation.rounds=1"]);
    let tags: Vec<String> = server(&bench, "sites").into_iter().map(|(tag, ..)| tag).collect();
    for tag in ["Score/global_test", "Score/local_test", "RMSE/global_test_tm", "RMSE/local_test_expression"] {
        assert!(tags.iter().any(|t| t == tag), "no {tag} in {tags:?}");
    }
    assert!(!tags.iter().any(|tag| tag == "RMSE/global_test" || tag == "RMSE/local_test"), "{tags:?}");
    assert!(told.stderr.lines().any(|line| line.starts_with("round 1/1, score -")), "{}", told.stderr);
    let means: Vec<Vec<&str>> = told
        .stderr
        .lines()
        .filter(|line| line.starts_with("│ mean"))
        .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let firsts: Vec<_> = means.iter().map(|row| &row[..3]).collect();
    assert_eq!(firsts.len(), 3, "{}", told.stderr);
    assert_eq!((firsts[0][1], firsts[1][1], firsts[2]), ("tm", "expression", &["mean", "all", "-"][..]));
    // In a run of one task the metrics have means under their plain tags, and there is one best model.
    sites(&bench, &["--set", "federation.rounds=1", "--set", "dataset.tasks=[\"tm\"]", "--name", "one"]);
    let tags: Vec<String> = server(&bench, "one").into_iter().map(|(tag, ..)| tag).collect();
    assert!(
        tags.iter().any(|tag| tag == "RMSE/local_test") && !tags.iter().any(|tag| tag.ends_with("_tm")),
        "{tags:?}"
    );
    assert!(!bench.path("runs/one/best/tasks").exists() && bench.path("runs/one/best/model.safetensors").exists());
}

#[test]
fn early_stopping_watches_a_score_or_one_tasks_metric() {
    let bench = Bench::new();
    for metric in ["Score/local_test", "Score/global_test_tm", "RMSE/global_test_tm"] {
        let rule = format!("federation.early-stopping={{ patience = 2, metric = \"{metric}\", min-delta = 1000.0 }}");
        let told = sites(&bench, &["--set", "federation.rounds=9", "--set", &rule, "--force"]);
        assert!(
            told.stderr.contains(&format!("stopped after round 3: 2 rounds without a better {metric}")),
            "{}",
            told.stderr
        );
    }
    let file = bench.path("sites.toml");
    let mean = "federation.early-stopping={ patience = 2, metric = \"RMSE/global_test\" }";
    let told = bench.fedplug(&["run", file.to_str().unwrap(), "--quiet", "--force", "--set", mean]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("a mean of different units", told.stderr);
}
