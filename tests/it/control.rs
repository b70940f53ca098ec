//! Which clients take part, when a run stops, what is sent, and every model on every client's data.

use std::collections::BTreeMap;

use crate::support::Bench;

const LINEAR: &str = "configs/linear.toml";

fn lines(bench: &Bench, run: &str) -> Vec<serde_json::Value> {
    bench.text(run, "metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Which clients trained in each round.
fn present(bench: &Bench, run: &str) -> BTreeMap<u64, Vec<String>> {
    let mut rounds = BTreeMap::<u64, Vec<String>>::new();
    for line in lines(bench, run).iter().filter(|line| line["tag"] == "Bytes/sent") {
        rounds.entry(line["round"].as_u64().unwrap()).or_default().push(line["client"].as_str().unwrap().to_owned());
    }
    rounds
}

#[test]
fn a_share_of_the_clients_takes_part_in_each_round() {
    let bench = Bench::new();
    let half = ["--set", "federation.rounds=12", "--set", "federation.fraction=0.5"];
    for (name, threads) in [("half", "1"), ("again", "4")] {
        bench.run(&[&[LINEAR, "--name", name, "--threads", threads], &half[..]].concat());
    }
    let rounds = present(&bench, "half");
    assert_eq!(rounds.len(), 12);
    assert!(rounds.values().all(|clients| clients.len() == 3 && clients.is_sorted()), "{rounds:?}");
    assert!(rounds.values().any(|clients| *clients != rounds[&0]), "always the same clients");
    assert!(bench.results("half") == bench.results("again"), "the threads changed the result");
    // The last global model is evaluated at all of them.
    let last = lines(&bench, "half").iter().filter(|l| l["tag"] == "RMSE/global_test" && l["round"] == 12).count();
    assert_eq!(last, 6);
    bench.run(&[&[LINEAR, "--name", "five", "--set", "federation.min-clients=5"], &half[..]].concat());
    assert!(present(&bench, "five").values().all(|clients| clients.len() == 5));
}

#[test]
fn a_run_stops_when_nothing_gets_better() {
    let bench = Bench::new();
    let stopping = "federation.early-stopping={ patience = 3, metric = \"RMSE/local_test_tm\", min-delta = 1000.0 }";
    let told = bench.run(&[LINEAR, "--set", "federation.rounds=50", "--set", stopping]);
    assert!(
        told.stderr.contains("stopped after round 4: 3 rounds without a better RMSE/local_test_tm"),
        "{}",
        told.stderr
    );
    assert_eq!(bench.summary("linear")["rounds"], 4);
    let told = bench.fedplug(&[
        "run",
        LINEAR,
        "--force",
        "--quiet",
        "--set",
        "federation.early-stopping={ patience = 3, metric = \"RMSE/test\" }",
    ]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!(told.stderr);
}

#[test]
fn bytes_are_counted_on_both_ways() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=2"]);
    let summary = bench.summary("linear");
    let traffic = &summary["traffic"]["tm"];
    // The trunk of 8 × 27 numbers is all that is shared; the server's first message has the heads of all six tasks.
    let trunk = 8 * 27 * 4;
    assert_eq!(traffic["sent"], 2 * trunk);
    assert_eq!(traffic["received"], 2 * trunk + 6 * (8 + 1 + 2) * 4);
}

#[test]
fn every_model_meets_every_clients_data() {
    let bench = Bench::new();
    let told = bench.run(&[
        LINEAR,
        "--set",
        "federation.rounds=3",
        "--set",
        "federation.cross-site=true",
        "--set",
        "dataset.clients={ count = 3, alpha = 1.0 }",
    ]);
    assert!(told.stderr.contains("score of model"), "{}", told.stderr);
    let text = bench.text("linear", "cross_site.csv");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("model,client,task,examples,metric,value,note"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    // Three clients' models and the global one, at three clients, six tasks, loss and seven metrics.
    assert_eq!(rows.len(), 4 * 3 * 6 * 8);
    let value = |model: &str, client: &str, metric: &str| -> f64 {
        let row = rows.iter().find(|r| r[0] == model && r[1] == client && r[2] == "tm" && r[4] == metric).unwrap();
        row[5].parse().unwrap()
    };
    // A client's own model at home is what the run's last evaluation of it showed.
    let record = bench.summary("linear")["clients"]["site-1"].as_array().unwrap().clone();
    let tm = record.iter().find(|task| task["task"] == "tm").unwrap().clone();
    let last =
        tm["local_test"].as_array().unwrap().iter().find(|course| course["name"] == "RMSE").unwrap()["last"].clone();
    assert_eq!(value("site-1", "site-1", "RMSE"), last.as_f64().unwrap());
    // Heads are private, so each client has its own behind the others' trunks.
    assert_ne!(value("site-2", "site-1", "RMSE"), value("site-2", "site-3", "RMSE"));
    assert!(rows.iter().all(|row| row[6] == "completed with the client's own parameters"), "{text}");
    let below = "parameters that models do not send are the evaluating client's own: `regressors.0.weight` and 17 more";
    assert!(told.stderr.contains(below), "{}", told.stderr);
    // It changes nothing of the run.
    bench.run(&[
        LINEAR,
        "--name",
        "without",
        "--set",
        "federation.rounds=3",
        "--set",
        "dataset.clients={ count = 3, alpha = 1.0 }",
    ]);
    assert!(bench.results("linear") == bench.results("without"));
}

#[test]
fn a_model_that_is_sent_as_a_whole_is_the_same_everywhere() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(crate::support::root().join(LINEAR)).unwrap();
    let whole = bench.write("whole.toml", text.split("[[filter]]").next().unwrap());
    let sites = "dataset.clients={ count = 3, alpha = 1.0 }";
    let cross = "federation.cross-site=true";
    bench.run(&[whole.to_str().unwrap(), "--set", "federation.rounds=3", "--set", cross, "--set", sites]);
    let text = bench.text("linear", "cross_site.csv");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row[6].is_empty()), "{text}");
    let value = |model: &str, client: &str| {
        let row = rows.iter().find(|r| r[0] == model && r[1] == client && r[2] == "tm" && r[4] == "RMSE").unwrap();
        row[5].parse::<f64>().unwrap()
    };
    // The test rows are the same everywhere here.
    assert_eq!(value("site-2", "site-1"), value("site-2", "site-3"));
    assert_ne!(value("site-1", "site-1"), value("site-2", "site-1"));
}

/// A method that keeps something of what it sent needs to know whether it arrived.
#[test]
fn a_model_is_told_which_of_its_updates_the_server_has() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(crate::support::root().join(LINEAR)).unwrap();
    let text = text
        .split("[[filter]]")
        .next()
        .unwrap()
        .replace("\"linear\"\n\n[agg", "\"misbehaving\"\nhow = \"behave\"\n\n[agg");
    let lost =
        "[[filter]]\nplugin = \"misbehaving\"\nhow = \"nothing\"\nclient = \"tm\"\nround = 2\nat = \"client-output\"\n";
    let file = bench.write("lost.toml", &format!("{text}{lost}"));
    let told = bench.run(&[
        file.to_str().unwrap(),
        "--set",
        "federation.rounds=5",
        "--set",
        "federation.on-client-failure=leave-out",
        "-vv",
    ]);
    for (client, known) in
        [("tm", [None, Some(0), Some(1), Some(1), Some(1)]), ("binding", [None, Some(0), Some(1), Some(2), Some(3)])]
    {
        for (round, taken) in known.iter().enumerate() {
            let line = format!("client {client}, misbehaving: in round {round} the server has the update of {taken:?}");
            assert!(told.stderr.contains(&line), "{line}: {}", told.stderr);
        }
    }
}

#[test]
fn impossible_numbers_of_clients_are_errors() {
    let bench = Bench::new();
    let told = bench.fedplug(&["check", LINEAR, "--set", "federation.min-clients=7"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("more clients than there are", told.stderr);
    let told =
        bench.fedplug(&["check", LINEAR, "--set", "federation.fraction=1.5", "--set", "federation.min-clients=0"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("shares that cannot be", told.stderr);
}

#[test]
fn compare_shows_runs_side_by_side() {
    let bench = Bench::new();
    for (name, rounds) in [("short", "1"), ("long", "4")] {
        bench.run(&[LINEAR, "--name", name, "--set", &format!("federation.rounds={rounds}")]);
    }
    let runs = ["short", "long"].map(|name| bench.path("runs").join(name).display().to_string());
    let told = bench.fedplug(&["compare", &runs[0], &runs[1], "--format", "csv"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    // Six tasks in units of their own: the score alone has a mean over them.
    assert!(
        told.stdout.contains("score (-RMSE/SD), global") && !told.stdout.contains("RMSE, global"),
        "{}",
        told.stdout
    );
    let told = bench.fedplug(&["compare", &runs[0], &runs[1], "--format", "csv", "--task", "tm"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let rows: Vec<Vec<&str>> = told.stdout.lines().map(|line| line.split(',').collect()).collect();
    let header = ["run", "rounds", "RMSE", "Pearson"];
    assert!(header.iter().all(|name| rows[0].iter().any(|cell| cell.trim_matches('"').starts_with(name))), "{rows:?}");
    assert_eq!((rows[1][0], rows[2][0], rows[2][1]), ("short", "long", "4"));
    let told = bench.fedplug(&["compare", &runs[0], &runs[1], "--format", "markdown"]);
    assert!(told.stdout.starts_with("| run ") && told.stdout.lines().count() == 4, "{}", told.stdout);
    let told = bench.fedplug(&["compare", "no/such/run"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!(told.stderr);
}

/// A metric is not defined where all targets are equal, and is no zero then.
#[test]
fn undefined_metrics_do_not_enter_a_mean() {
    let bench = Bench::new();
    // Six clients of one task.
    bench.run(&["configs/csv.toml", "--set", "federation.rounds=1"]);
    let run = bench.path("runs/csv");
    let mut summary = bench.summary("csv");
    let mut defined = Vec::new();
    for (place, tasks) in summary["clients"].as_object_mut().unwrap().values_mut().enumerate() {
        let spearman = &mut tasks[0]["local_test"][1];
        assert_eq!(spearman["name"], "Spearman");
        if place < 2 {
            spearman["last"] = serde_json::Value::Null;
        } else {
            defined.push(spearman["last"].as_f64().unwrap());
        }
    }
    std::fs::write(run.join("summary.json"), summary.to_string()).unwrap();
    let mean = defined.iter().sum::<f64>() / defined.len() as f64;
    let compared = |format: &str| bench.fedplug(&["compare", run.to_str().unwrap(), "--format", format]).stdout;
    assert!(compared("table").contains("(4 of 6)"), "{}", compared("table"));
    let csv = compared("csv");
    assert!(csv.lines().nth(1).unwrap().split(',').any(|cell| cell == mean.to_string()), "{csv} has no {mean}");
}
