//! Which clients take part, what happens to the parameters of those that do not, and draws that nobody can predict.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::resume::{signal, start, wait};
use crate::support::{Bench, Told};

const LINEAR: &str = "configs/linear.toml";

/// Six clients, each with a task of its own, whose heads are shared.
pub const HEADS: &str = r#"name = "heads"
seed = 42

[federation]
rounds = 8
fraction = 0.34
devices = ["cpu"]

[dataset]
plugin = "flab"
root = "configs/sample"
clients = "by-task"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"
"#;

pub fn run(bench: &Bench, text: &str, name: &str, sets: &[&str]) -> Told {
    let file = bench.write(&format!("{name}.toml"), text).display().to_string();
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    bench.run(&[&file[..], "--name", name].into_iter().chain(sets).collect::<Vec<_>>())
}

pub fn refused(text: &str, sets: &[&str]) -> String {
    let bench = Bench::new();
    let file = bench.write("refused.toml", text).display().to_string();
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let told = bench.fedplug(&["check", &file].into_iter().chain(sets).collect::<Vec<_>>());
    assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{}", told.stderr);
    told.stderr
}

pub fn lines(bench: &Bench, run: &str) -> Vec<Value> {
    bench.text(run, "metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Which clients trained in each round.
pub fn trained(bench: &Bench, run: &str) -> BTreeMap<u64, BTreeSet<String>> {
    let mut rounds = BTreeMap::<u64, BTreeSet<String>>::new();
    for line in lines(bench, run).iter().filter(|line| line["tag"] == "Bytes/sent") {
        rounds.entry(line["round"].as_u64().unwrap()).or_default().insert(line["client"].as_str().unwrap().to_owned());
    }
    rounds
}

/// A number of the clients, or of the server, by round and client.
pub fn numbers(bench: &Bench, run: &str, tag: &str) -> BTreeMap<u64, BTreeMap<String, f64>> {
    let mut rounds = BTreeMap::<u64, BTreeMap<String, f64>>::new();
    for line in lines(bench, run).iter().filter(|line| line["tag"] == tag) {
        let of_round = rounds.entry(line["round"].as_u64().unwrap()).or_default();
        of_round.insert(line["client"].as_str().unwrap().to_owned(), line["value"].as_f64().unwrap());
    }
    rounds
}

/// A model's tensors by name.
pub fn model(bench: &Bench, run: &str, file: &str) -> BTreeMap<String, Vec<f32>> {
    let bytes = bench.bytes(run, &format!("{file}/model.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    tensors.tensors().into_iter().map(|(name, tensor)| (name, floats(tensor.data()))).collect()
}

/// Asserts that two runs trained the same.
pub fn same_models(bench: &Bench, one: &str, other: &str) {
    let files = |run: &str| -> Vec<_> {
        let all = bench.results(run).into_iter();
        all.filter(|(path, _)| path.starts_with("clients") || path.ends_with("predictions.csv")).collect()
    };
    assert!(files(one).len() > 6 && files(one) == files(other), "the models of {one} and {other} differ");
    assert_eq!(model(bench, one, "global"), model(bench, other, "global"));
}

fn heads(model: &BTreeMap<String, Vec<f32>>) -> BTreeSet<String> {
    model.keys().filter_map(|name| Some(name.strip_prefix("regressors.")?.split('.').next()?.to_owned())).collect()
}

fn all_heads() -> BTreeSet<String> {
    (0..6).map(|head| head.to_string()).collect()
}

#[test]
fn heads_of_clients_that_were_not_drawn_stay_in_the_global_model() {
    let bench = Bench::new();
    for rounds in [1, 3] {
        run(&bench, HEADS, "heads", &[&format!("federation.rounds={rounds}")]);
        let seen: BTreeSet<String> = trained(&bench, "heads").into_values().flatten().collect();
        assert!(rounds > 1 || seen.len() == 2, "{seen:?}");
        assert_eq!(heads(&model(&bench, "heads", "global")), all_heads());
        // It is a whole model, and predicts all tasks.
        let rows = bench.write("rows.csv", "heavy,light\nEVQLVESGG,DIQMTQ\n").display().to_string();
        let told = bench.fedplug(&["predict", bench.path("runs/heads").to_str().unwrap(), &rows]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        std::fs::remove_dir_all(bench.path("runs/heads")).unwrap();
    }
    // Noise needs a global value of all that is sent.
    let noise = "\n[[filter]]\nplugin = \"privacy\"\nat = \"client-output\"\nmechanism = \"gaussian\"\nclip = 1.0\n\
                 noise-multiplier = 0.1\ndelta = 1e-5\n";
    run(&bench, &(HEADS.to_owned() + noise), "noised", &[]);
    assert_eq!(heads(&model(&bench, "noised", "global")), all_heads());
}

/// A step of Adam is about the learning rate. A head that had left the global model would come back as its client's own.
#[test]
fn a_head_takes_steps_and_does_not_jump() {
    let bench = Bench::new();
    let adam = "plugin = \"fedopt\"\noptimizer = \"adam\"\nlearning-rate = 0.1\n";
    let text = HEADS.replace("plugin = \"fedavg\"\n", adam);
    let after = |rounds: u64| {
        let name = format!("adam-{rounds}");
        run(&bench, &text, &name, &[&format!("federation.rounds={rounds}")]);
        model(&bench, &name, "global")
    };
    let mut before = after(1);
    for rounds in 2..=8 {
        let now = after(rounds);
        assert_eq!(heads(&now), all_heads(), "after {rounds} rounds");
        for (name, values) in &now {
            let far = values.iter().zip(&before[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 0.25, "round {rounds}: `{name}` moves by {far}");
        }
        before = now;
    }
}

#[test]
fn private_heads_leave_the_global_model_as_their_holders_take_part() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=2", "--set", "federation.fraction=0.34"]);
    let seen: BTreeSet<String> = trained(&bench, "linear").into_values().flatten().collect();
    assert!((2..6).contains(&seen.len()), "{seen:?}");
    let tasks = ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"];
    let absent = tasks.iter().enumerate().filter(|(_, task)| !seen.contains(**task));
    assert_eq!(heads(&model(&bench, "linear", "global")), absent.map(|(head, _)| head.to_string()).collect());
    // All of them, where all take part; and where the filter is the server's.
    for (name, at) in [("client", "client-output"), ("server", "server-input")] {
        let at = format!("filter.0.at=\"{at}\"");
        bench.run(&[LINEAR, "--name", name, "--set", "federation.rounds=2", "--set", &at]);
        assert_eq!(heads(&model(&bench, name, "global")), BTreeSet::new(), "{name}");
    }
    same_models(&bench, "client", "server");
}

#[test]
fn the_head_of_a_client_that_is_left_out_stays() {
    let bench = Bench::new();
    let spoilt =
        "\n[[filter]]\nplugin = \"misbehaving\"\nhow = \"nan\"\nclient = \"tm\"\nround = 2\nat = \"client-output\"\n";
    let text = HEADS.to_owned() + spoilt;
    let sets = ["federation.fraction=1.0", "federation.on-client-failure=leave-out"];
    run(&bench, &text, "before", &[&sets[..], &["federation.rounds=2"]].concat());
    let told = run(&bench, &text, "spoilt", &[&sets[..], &["federation.rounds=4"]].concat());
    assert!(told.stderr.contains("left out: round 3, client `tm`"), "{}", told.stderr);
    let [before, after] = ["before", "spoilt"].map(|name| model(&bench, name, "global"));
    assert_eq!(heads(&after), all_heads());
    for (name, values) in before {
        let stays = values == after[&name];
        assert_eq!(stays, name.starts_with("regressors.5"), "{name}");
    }
}

const POISSON: &str = "federation.sampling=\"poisson\"";

#[test]
fn a_poisson_draw_of_all_is_everyone() {
    let bench = Bench::new();
    run(&bench, HEADS, "fixed", &["federation.fraction=1.0"]);
    run(&bench, HEADS, "poisson", &["federation.fraction=1.0", POISSON]);
    assert!(bench.results("fixed") == bench.results("poisson"));
    assert!(bench.summary("poisson")["notes"].as_array().unwrap().is_empty());
    insta::assert_snapshot!("a poisson round with a floor", refused(HEADS, &[POISSON, "federation.min-clients=2"]));
}

#[test]
fn a_round_of_nobody_counts_where_the_aggregator_says_so() {
    let bench = Bench::new();
    let many = ["federation.fraction=0.2", "federation.rounds=40", POISSON];
    let note = |run: &str, who: &str, key: &str| {
        let notes = bench.summary(run)["notes"].clone();
        let found = notes.as_array().unwrap().iter().find(|note| note["who"] == who && note["key"] == key).cloned();
        found.map(|note| note["text"].as_str().unwrap().to_owned())
    };
    run(&bench, &HEADS.replace("\"fedavg\"", "\"suite\""), "counted", &many);
    let rounds = trained(&bench, "counted");
    assert_eq!(note("counted", "suite", "rounds").unwrap(), "40");
    assert_eq!(note("counted", "suite", "empty").unwrap(), (40 - rounds.len()).to_string());
    assert_eq!(note("counted", "suite", "sampling").unwrap(), "Some(Poisson(0.2))");
    // 0.8^6 = 0.26 of the rounds: that none of 40 is one happens once in 175,000 runs of this test.
    assert!(rounds.len() < 40 && rounds.values().any(|clients| clients.len() > 1), "{rounds:?}");
    assert!(
        note("counted", "fedplug", "sampling")
            .unwrap()
            .contains("another run of this experiment will give different results")
    );

    // For any other aggregator nothing happens in such a round.
    let told = run(&bench, HEADS, "kept", &many);
    let empty = 40 - trained(&bench, "kept").len();
    assert_eq!(told.stderr.matches("no client was drawn; the global model is unchanged").count(), empty);
    assert_eq!(numbers(&bench, "kept", "RMSE/global_test_tm").len(), 41, "rounds without an evaluation");
    assert_ne!(trained(&bench, "kept"), rounds, "two draws are the same");
    run(&bench, HEADS, "fixed", &["federation.fraction=0.2", "federation.rounds=4"]);
    assert!(trained(&bench, "fixed").values().all(|clients| clients.len() == 1));
}

/// A private head that left the model when its holder takes part would tell everybody who did.
#[test]
fn the_model_does_not_tell_who_was_drawn() {
    let bench = Bench::new();
    bench.run(&[LINEAR, "--set", "federation.rounds=1", "--set", "federation.fraction=0.5", "--set", POISSON]);
    assert_eq!(heads(&model(&bench, "linear", "global")), BTreeSet::new());
}

/// The rounds that were drawn when a run was killed, and the clients of each.
fn draws(bench: &Bench, run: &str) -> BTreeMap<u64, Vec<usize>> {
    let text = std::fs::read_to_string(bench.path("runs").join(run).join("checkpoint/draws.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let draw = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let clients = line["clients"].as_array().unwrap().iter().map(|place| place.as_u64().unwrap() as usize);
        (line["round"].as_u64().unwrap(), clients.collect())
    };
    whole.lines().map(draw).collect()
}

#[test]
#[cfg(unix)]
fn an_interrupted_round_goes_on_with_the_clients_that_were_drawn() {
    let bench = Bench::new();
    let file = bench.write("heads.toml", HEADS).display().to_string();
    // Stopped within a round, and killed some rounds after the last checkpoint.
    for (name, with, more) in [
        ("stopped", "-TERM", ["federation.local-epochs=40", "federation.checkpoint-after=0"]),
        ("killed", "-KILL", ["federation.local-epochs=4", "federation.checkpoint-every=1000"]),
    ] {
        let sets = ["federation.fraction=0.5", "federation.rounds=12", POISSON].into_iter().chain(more);
        let sets = sets.flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = [&file[..], "--name", name].into_iter().chain(sets).collect();
        let mut child = start(&bench, &arguments);
        wait(&mut child, || draws(&bench, name).len() > 3);
        signal(&bench, child, with);
        let drawn = draws(&bench, name);
        let told = bench.run(&[&arguments[..], &["--resume"]].concat());
        let names = ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"];
        let rounds = trained(&bench, name);
        for (round, clients) in drawn {
            let wanted: BTreeSet<String> = clients.into_iter().map(|place| names[place].to_owned()).collect();
            assert_eq!(
                rounds.get(&round).cloned().unwrap_or_default(),
                wanted,
                "{name}, round {round}: {}",
                told.stderr
            );
        }
        assert!(!bench.path("runs").join(name).join("checkpoint").exists());
    }
}
