//! Which clients are used to compare models when different ones train in every round, and runs that report no metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::participation::{HEADS, lines, model, numbers, refused, run, same_models, trained};
use crate::support::Bench;

#[test]
fn every_round_is_judged_by_the_same_clients() {
    let bench = Bench::new();
    // Six clients of one task, of which two train in a round.
    let sets = ["federation.fraction=0.34", "federation.rounds=12"];
    let with = |name: &'static str, more: &[&'static str]| {
        let sets = sets.iter().chain(more).flat_map(|set| ["--set", set]);
        bench.run(&["configs/csv.toml", "--name", name].into_iter().chain(sets).collect::<Vec<_>>())
    };
    with("all", &[]);
    let (trained, rmse) = (trained(&bench, "all"), numbers(&bench, "all", "RMSE/global_test"));
    let score = numbers(&bench, "all", "Score/global_test");
    assert!(trained.len() == 12 && trained.values().all(|clients| clients.len() == 2), "{trained:?}");
    // What an RMSE of each client makes a score.
    let summary = bench.summary("all");
    let scale = |client: &str| -> f64 {
        let task = &summary["clients"][client][0];
        let rmse = task["global_test"].as_array().unwrap().iter().find(|course| course["name"] == "RMSE").unwrap();
        task["global_score"]["last"].as_f64().unwrap() / rmse["last"].as_f64().unwrap()
    };
    let mean = |clients: &BTreeMap<String, f64>| clients.values().sum::<f64>() / clients.len() as f64;
    let mut of_trained = Vec::new();
    for (round, clients) in &rmse {
        let mut clients = clients.clone();
        let server = clients.remove("server").unwrap();
        assert_eq!(clients.len(), 6, "round {round}");
        assert!((server - mean(&clients)).abs() < 1e-12, "round {round}");
        let scores: BTreeMap<String, f64> = clients.iter().map(|(name, x)| (name.clone(), x * scale(name))).collect();
        let told = score[round]["server"];
        assert!((told - mean(&scores)).abs() < 1e-9, "round {round}: {told} {}", mean(&scores));
        let drawn = |name: &String| trained.get(round).is_none_or(|trained| trained.contains(name));
        of_trained.push((*round, mean(&scores.into_iter().filter(|(name, _)| drawn(name)).collect())));
    }
    let best = |all: &[(u64, f64)]| all.iter().fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { *b } else { a }).0;
    let of_all: Vec<(u64, f64)> = score.iter().map(|(round, value)| (*round, value["server"])).collect();
    assert_eq!(summary["best"]["rounds"], best(&of_all));
    // The means over those that trained choose another model, which is worse.
    assert_ne!(best(&of_trained), best(&of_all), "{of_trained:?} {of_all:?}");

    // A share of them judges all the same, and what is trained does not depend on who judges.
    let told = with("one", &["federation.evaluation-fraction=0.17"]);
    assert!(told.stderr.contains("1 evaluate every round's model"), "{}", told.stderr);
    let judged = numbers(&bench, "one", "RMSE/global_test");
    let common = judged.values().map(|clients| clients.keys().cloned().collect::<BTreeSet<_>>());
    let common = common.reduce(|a, b| &a & &b).unwrap();
    assert_eq!(common.len(), 2, "the server and one client: {common:?}");
    let one = common.iter().find(|name| *name != "server").unwrap();
    assert!(judged.values().all(|clients| clients["server"] == clients[one]), "{judged:?}");
    same_models(&bench, "one", "all");
}

/// Filters with a memory on the way to the clients, heads that stay with them, and models that wait on disk.
#[test]
fn evaluation_does_not_affect_training() {
    let bench = Bench::new();
    let filters = "\n[[filter]]\nplugin = \"misbehaving\"\nhow = \"behave\"\nat = [\"server-output\", \"client-input\"]\n\
                   \n[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"regressor\"\n";
    let text = HEADS.replace("plugin = \"linear\"", "plugin = \"linear\"\nproximal-mu = 0.1") + filters;
    let one = "federation.evaluation-fraction=0.17";
    run(&bench, &text, "one", &[one]);
    run(&bench, &text, "all", &[]);
    run(&bench, &text, "disk", &["federation.idle-memory=\"0 B\""]);
    run(&bench, &text, "threads", &["federation.threads=4"]);
    for name in ["all", "disk", "threads"] {
        same_models(&bench, name, "one");
    }
    assert!(bench.results("disk") == bench.results("all") && bench.results("threads") == bench.results("all"));
}

#[test]
fn a_lost_evaluator_is_told_once_and_chooses_nothing() {
    let bench = Bench::new();
    let model = "plugin = \"misbehaving\"\nhow = \"panic-in-evaluate\"\nclient = \"tm\"\nround = 3";
    let text = HEADS.replace("plugin = \"linear\"", model);
    let told = run(&bench, &text, "lost", &["federation.on-client-failure=leave-out"]);
    let said = |text: &str| told.stderr.matches(text).count();
    assert_eq!(said("the global model after 3 rounds was evaluated by 5 of 6 clients"), 1, "{}", told.stderr);
    assert!(said("left out: evaluation in round") <= 1, "{}", told.stderr);
    let of_five = numbers(&bench, "lost", "Loss/global_test");
    assert!(of_five[&2].contains_key("tm") && !of_five[&5].contains_key("tm"), "{of_five:?}");
}

#[test]
fn tasks_that_nobody_evaluates_are_reported() {
    let bench = Bench::new();
    let told = run(&bench, HEADS, "few", &["federation.evaluation-fraction=0.34", "federation.rounds=2"]);
    let line = told.stderr.lines().find(|line| line.contains("no client that evaluates has it")).unwrap();
    let best = bench.summary("few")["best-by-task"].as_object().unwrap().len();
    assert_eq!((line.matches('`').count() / 2, best), (4, 2), "{line}");
}

#[test]
fn numbers_that_cannot_be_compared_are_refused() {
    let local = "federation.early-stopping={ patience = 2, metric = \"Score/local_test\" }";
    insta::assert_snapshot!("a number of those that trained", refused(HEADS, &[local]));
    // One client judges, and it does not have this task.
    let of_task = "federation.early-stopping={ patience = 2, metric = \"RMSE/global_test_binding\" }";
    insta::assert_snapshot!(
        "a task that nobody judges",
        refused(HEADS, &[of_task, "federation.evaluation-fraction=0.17"])
    );
}

#[test]
fn a_run_without_reports_leaves_its_model_and_its_account() {
    let bench = Bench::new();
    let noise = "\n[[filter]]\nplugin = \"privacy\"\nat = \"client-output\"\nmechanism = \"gaussian\"\nclip = 1.0\n\
                 noise-multiplier = 0.1\ndelta = 1e-5\n";
    let file = bench.write("silent.toml", &(HEADS.to_owned() + noise)).display().to_string();
    let none = ["--set", "federation.report=\"none\"", "--set", "federation.fraction=1.0"];
    let told = bench.run(&[&[&file, "-v", "--name", "silent"], &none[..]].concat());
    for word in ["RMSE", "score ", "Pearson", "norm of", "│", "sent to clients"] {
        assert!(!told.stderr.contains(word), "{word}: {}", told.stderr);
    }
    assert!(told.stderr.contains("epsilon"), "{}", told.stderr);
    assert!(told.stderr.contains("fedplug, report: metrics, scores, predictions"), "{}", told.stderr);
    let tags: BTreeSet<String> = lines(&bench, "silent").iter().map(|line| line["tag"].to_string()).collect();
    assert_eq!(tags, BTreeSet::from(["\"Privacy/epsilon\"".to_owned()]));
    let summary = bench.summary("silent");
    assert!(summary["best"].is_null() && summary["last"]["score"].is_null() && summary["time"].is_null(), "{summary}");
    assert!(summary["clients"].as_object().unwrap().is_empty() && summary["traffic"].as_object().unwrap().is_empty());
    let run_dir = bench.path("runs/silent");
    assert!(!run_dir.join("predictions.csv").exists() && !run_dir.join("best").exists());

    // The last model is the result, and is what a run with reports has.
    let rows = bench.write("rows.csv", "heavy,light\nEVQLVESGG,DIQMTQ\n").display().to_string();
    let predict = |more: &[&str]| bench.fedplug(&[&["predict", run_dir.to_str().unwrap(), &rows], more].concat());
    assert_eq!(predict(&[]).code, 0, "{}", predict(&[]).stderr);
    let told = predict(&["--best-of", "tm"]);
    assert_eq!(told.code, 2);
    assert!(told.stderr.contains("the run has no best models: its clients reported no scores"), "{}", told.stderr);
    for (name, report) in [("full", "full"), ("none", "none")] {
        run(&bench, HEADS, name, &[&format!("federation.report=\"{report}\"")]);
    }
    assert_eq!(model(&bench, "full", "global"), model(&bench, "none", "global"));
    let told = bench.fedplug(&["compare", run_dir.to_str().unwrap(), "--format", "csv"]);
    assert!(told.stdout.lines().nth(1).is_some_and(|row| row.contains(",-,-,")), "{}", told.stdout);
    insta::assert_snapshot!(
        "what takes reports",
        refused(
            HEADS,
            &[
                "federation.report=\"none\"",
                "federation.early-stopping={ patience = 2 }",
                "federation.cross-site=true",
                "federation.evaluation-fraction=0.5",
            ]
        )
    );
}
