//! Messages that leave a client pass its filters, are counted, and are named if nothing protects them.

use crate::support::{Bench, root};

/// Three clients and nothing private, with noise at the clients.
const SITES: &str = r#"name = "sites"

[federation]
rounds = 4

[dataset]
plugin = "flab"
root = "configs/sample"
tasks = ["tm"]
clients = { count = 3, alpha = 1.0 }

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"

[[filter]]
plugin = "privacy"
at = "client-output"
mechanism = "gaussian"
clip = 0.1
noise-multiplier = 1.0
delta = 1e-5
reproducible = true
"#;

const CROSS_SITE: [&str; 2] = ["--set", "federation.cross-site=true"];

/// What a run's summary says under a key, for a client.
fn note(bench: &Bench, run: &str, key: &str, client: &str) -> String {
    let summary = bench.summary(run);
    let notes = summary["notes"].as_array().unwrap();
    let found = notes.iter().find(|note| note["key"] == key && note["client"] == client);
    found.map_or_else(String::new, |note| note["text"].as_str().unwrap().to_owned())
}

/// The model, the client, and the RMSE of each pair.
fn pairs(bench: &Bench, run: &str) -> Vec<(String, String, f64)> {
    let text = bench.text(run, "cross_site.csv");
    let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    rows.filter(|row| row[4] == "RMSE")
        .map(|row| (row[0].to_owned(), row[1].to_owned(), row[5].parse().unwrap()))
        .collect()
}

#[test]
fn a_model_that_others_evaluate_has_the_noise_and_counts() {
    let bench = Bench::new();
    let file = bench.write("sites.toml", SITES);
    bench.run(&[&[file.to_str().unwrap()], &CROSS_SITE[..]].concat());
    bench.run(&[file.to_str().unwrap(), "--name", "without"]);
    let quiet = bench.write("quiet.toml", SITES.split("[[filter]]").next().unwrap());
    bench.run(&[&[quiet.to_str().unwrap(), "--name", "quiet"], &CROSS_SITE[..]].concat());
    let own = |run: &str, client: &str| {
        let metrics = bench.summary(run)["clients"][client][0]["local_test"].as_array().unwrap().clone();
        metrics.iter().find(|metric| metric["name"] == "RMSE").unwrap()["last"].as_f64().unwrap()
    };
    for client in ["site-1", "site-2", "site-3"] {
        let at_home = |run: &str| {
            pairs(&bench, run).into_iter().find(|(model, at, _)| model == client && at == client).unwrap().2
        };
        assert_eq!(at_home("quiet"), own("quiet", client));
        assert_ne!(at_home("sites"), own("sites", client), "{client}: the model went past the filter");
        // Four rounds, and the model.
        assert!(note(&bench, "sites", "privacy", client).contains("sent in 5 rounds"), "{client}");
        assert!(note(&bench, "without", "privacy", client).contains("sent in 4 rounds"), "{client}");
    }
    // All see the same one of each client.
    let found = pairs(&bench, "sites");
    for (model, _, rmse) in &found {
        assert!(found.iter().filter(|(other, ..)| other == model).all(|(.., other)| other == rmse), "{found:?}");
    }
}

/// The message of a client that others evaluate lacks what its filter keeps at home, whatever the model is.
#[test]
fn no_private_head_crosses() {
    let bench = Bench::new();
    let told = bench.run(&[&["configs/csv.toml", "--set", "federation.rounds=2", "-vv"], &CROSS_SITE[..]].concat());
    let (_, after) = told.stderr.split_once("cross-site evaluation of model `").unwrap();
    let received: Vec<&str> = after.lines().filter(|line| line.contains("ignored [")).collect();
    // Six clients' models and the global one at six clients, and then the last evaluation of the global one.
    assert_eq!(received.len(), 7 * 6 + 6, "{after}");
    let heads = r#"did not get ["regressors.0.weight", "regressors.0.bias", "regressors.0.scale"]"#;
    assert!(received.iter().all(|line| line.contains("ignored []") && line.contains(heads)), "{received:#?}");
}

#[test]
fn masked_numbers_make_no_model_and_the_table_says_so() {
    let bench = Bench::new();
    let text = SITES.replace("\"fedavg\"", "\"secure\"\nclip = 2.0");
    let secure = "[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n";
    let file = bench.write("masked.toml", &(text.split("[[filter]]").next().unwrap().to_owned() + secure));
    let told = bench.run(&[&[file.to_str().unwrap()], &CROSS_SITE[..]].concat());
    assert!(told.stderr.contains("\n(1) not evaluated: filter `secure`: nobody asked this client"), "{}", told.stderr);
    let text = bench.text("sites", "cross_site.csv");
    for client in ["site-1", "site-2", "site-3"] {
        let line = format!("\n{client},site-1,,,,,not evaluated: filter `secure`: nobody asked");
        assert!(text.contains(&line), "{text}");
    }
    assert!(pairs(&bench, "sites").iter().all(|(model, ..)| model == "global"));
    assert_eq!(pairs(&bench, "sites").len(), 3);
}

#[test]
#[cfg(unix)]
fn what_left_before_a_kill_counts_after_it() {
    use crate::resume::{checkpointed, signal, start, wait};
    let bench = Bench::new();
    let file = bench.write("sites.toml", SITES);
    let rounds = |rounds: u64| format!("federation.rounds={rounds}");
    let begun = |run: &str| {
        let journal = std::fs::read_to_string(bench.path("runs").join(run).join("attempts.jsonl"));
        journal.map_or(0, |text| text.lines().count() as u64)
    };
    let epsilon = |run: &str| {
        let text = note(&bench, run, "privacy", "site-2");
        let (epsilon, _) = text.split_once(", for a client's whole update").unwrap();
        epsilon.to_owned()
    };
    for (name, every) in [("late", "federation.checkpoint-every=25"), ("never", "federation.checkpoint-every=1000")] {
        let of_60 = rounds(60);
        let arguments = [file.to_str().unwrap(), "--set", &of_60, "--set", every, "--name", name];
        // A checkpoint may come just before the kill; then nothing is lost, and it is tried again.
        let lost = (0..10).find_map(|_| {
            let mut child = start(&bench, &[&arguments[..], &["--force"]].concat());
            wait(&mut child, || match checkpointed(&bench, name) {
                Some(done) => begun(name) > done + 2,
                None => name == "never" && begun(name) > 5,
            });
            signal(&bench, child, "-KILL");
            let lost = begun(name) - checkpointed(&bench, name).unwrap_or(0);
            (lost > 0).then_some(lost)
        });
        let lost = lost.expect("every kill came after a checkpoint");
        bench.run(&[&arguments[..], &["--resume"]].concat());
        assert_eq!(begun(name), 60 + lost);
        // The account is that of a run with so many more rounds.
        let all = rounds(60 + lost);
        bench.run(&[file.to_str().unwrap(), "--set", &all, "--name", "longer", "--force"]);
        assert_eq!(epsilon(name), epsilon("longer"), "{name}, {lost} lost");
        let why = "interrupted, after ";
        assert!(note(&bench, name, "privacy", "site-2").contains(why), "{}", note(&bench, name, "privacy", "site-2"));
        // A new run in its place begins to count anew.
        bench.run(&[file.to_str().unwrap(), "--name", name, "--force"]);
        assert_eq!(begun(name), 4);
        assert!(epsilon(name).ends_with("sent in 4 rounds"), "{}", epsilon(name));
    }
}

#[test]
fn beside_an_account_stands_what_it_does_not_cover() {
    let bench = Bench::new();
    let file = bench.write("sites.toml", SITES);
    let told = bench.run(&[file.to_str().unwrap()]);
    let text = note(&bench, "sites", "privacy.clear", "server");
    assert!(told.stderr.contains(&format!("fedplug, privacy.clear: {text}")), "{}", told.stderr);
    let always =
        ["metrics and scores", "the best model", "steps and examples", "norms of updates", "predictions of its rows"];
    for what in always {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert!(!text.contains("standard deviation"), "{text}");
    let masked = SITES.replace("\"fedavg\"", "\"secure\"\nclip = 2.0")
        + "[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n";
    let file = bench.write("masked.toml", &masked);
    bench.run(&[file.to_str().unwrap(), "--name", "masked", "--set", "dataset.standardise=true"]);
    let text = note(&bench, "masked", "privacy.clear", "server");
    for what in ["how many values of an update were clamped", "mean and standard deviation of each task's targets"] {
        assert!(text.contains(what), "{what}: {text}");
    }
    // Without an account there is nothing that it could be taken to cover.
    bench.run(&["configs/linear.toml", "--set", "federation.rounds=1", "--set", "dataset.standardise=true"]);
    assert!(!bench.text("linear", "summary.json").contains("privacy.clear"));
}

#[test]
fn targets_are_standardised_by_given_numbers_and_told_in_their_own_unit() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(root().join("configs/csv.toml")).unwrap();
    let privacy = SITES.split_once("[[filter]]").unwrap().1;
    let file = bench.write("csv.toml", &format!("{text}\n[[filter]]{privacy}"));
    let given = "dataset.standardise={ mean = 1.5, deviation = 4.0 }";
    for (name, standardise) in
        [("plain", "dataset.standardise=false"), ("rows", "dataset.standardise=true"), ("given", given)]
    {
        bench.run(&[file.to_str().unwrap(), "--name", name, "--set", standardise, "--set", "federation.rounds=5"]);
    }
    let manifest: serde_json::Value = serde_json::from_str(&bench.text("given", "manifest.json")).unwrap();
    assert_eq!(manifest["scales"]["fitness"], serde_json::json!({ "mean": 1.5, "deviation": 4.0 }));
    let reveals = |run: &str| note(&bench, run, "privacy.clear", "server").contains("mean and standard deviation");
    assert_eq!(["plain", "rows", "given"].map(reveals), [false, true, false]);
    let column = |run: &str, column: usize| -> Vec<f64> {
        let text = bench.text(run, "predictions.csv");
        let rows = text.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().to_owned());
        rows.filter_map(|cell| cell.parse().ok()).collect()
    };
    // What was measured stands in its own unit, and a model that scales targets itself predicts nearly the same.
    for (at, tolerance) in [(4, 1e-5), (6, 1e-3)] {
        let (plain, given) = (column("plain", at), column("given", at));
        assert!(plain.len() > 10 && plain.len() == given.len());
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * (1.0 + a.abs());
        assert!(plain.iter().zip(&given).all(near), "column {at}: {plain:?} {given:?}");
    }
}

#[test]
fn a_budget_for_all_runs_ends_the_round_that_would_exceed_it() {
    let bench = Bench::new();
    // At sigma 3, 13 messages cost about 6 at delta 1e-5: a run of 4 rounds of 3 clients, and one message more.
    let ledger = bench.path("privacy.json");
    let budget = format!("budget = {{ epsilon = 6.0, ledger = {ledger:?} }}\n");
    let text =
        SITES.replace("reproducible = true\n", &budget).replace("noise-multiplier = 1.0", "noise-multiplier = 3.0");
    let file = bench.write("sites.toml", &text);
    bench.run(&[file.to_str().unwrap()]);
    let kept = || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&ledger).unwrap()).unwrap() };
    // Each message once: the rehearsal sends nothing.
    assert_eq!(kept()["messages"], serde_json::json!([{ "noise-multiplier": 3.0, "count": 12 }]));
    let spent = note(&bench, "sites", "privacy.budget", "site-3");
    assert!(
        spent.contains(" of 6 at delta 1e-5 is spent, for ") && spent.ends_with(" messages in all runs"),
        "{spent}"
    );
    let told = bench.fedplug(&["run", file.to_str().unwrap(), "--name", "again"]);
    assert_eq!(told.code, 1, "{}", told.stderr);
    assert!(told.stderr.contains("the privacy budget is spent: epsilon would be "), "{}", told.stderr);
    let count = kept()["messages"][0]["count"].as_u64().unwrap();
    // With nothing left, the rehearsal ends the run before anything is trained.
    let told = bench.fedplug(&["run", file.to_str().unwrap(), "--name", "more"]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    assert!(told.stderr.contains("sites.toml:"), "{}", told.stderr);
    assert_eq!(kept()["messages"][0]["count"], count);
}
