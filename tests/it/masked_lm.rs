//! Masked language modelling on sequences without targets, and a supervised run from its export.

use safetensors::SafeTensors;

use crate::support::{Bench, has_libtorch, skip};

const FILE: &str = r#"name = "NAME"
seed = 42

[federation]
rounds = 4
local-epochs = 2
devices = ["cpu"]

[dataset]
plugin = "csv"
inputs = ["heavy"]
files = "ROOT/data.csv"
clients = { column = "hospital" }
COLUMN

[model]
plugin = "MODEL"
KEYS

[aggregator]
plugin = "fedavg"
"#;

const TRUNK: &str = "{ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 16 }";

/// 120 sequences of two hospitals, each repeats of a motif; a third of them has a target.
fn bench() -> Bench {
    let bench = Bench::new();
    let row = |i: usize| {
        let motif: String = ["LAGV", "SERT", "IDPKQ"][i % 3].chars().cycle().skip(i % 4).take(14 + i % 11).collect();
        let target = if i.is_multiple_of(2) { (i % 7).to_string() } else { String::new() };
        format!("{motif},{},{target}\n", ["north", "south"][i / 3 % 2])
    };
    let rows: String = (0..120).map(row).collect();
    bench.write("data.csv", &format!("heavy,hospital,tm\n{rows}"));
    bench
}

fn experiment(bench: &Bench, name: &str, column: &str, model: &str, keys: &str) -> String {
    let text = FILE.replace("ROOT", &bench.path("").display().to_string()).replace("NAME", name);
    let text = text.replace("COLUMN", column).replace("MODEL", model).replace("KEYS", keys);
    bench.write(&format!("{name}.toml"), &text).display().to_string()
}

const UNLABELLED: &str = "name = \"antibodies\"";

#[test]
fn perplexity_falls_and_the_export_is_the_trunk_of_a_supervised_run() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = bench();
    let keys = format!("pretrained = {TRUNK}\nobjective = \"masked-lm\"\ntrunk-lr = 1e-2\nbatch-size = 8");
    let file = experiment(&bench, "pretraining", UNLABELLED, "amplify", &keys);
    let told = bench.run(&[&file]);
    assert!(told.stderr.contains("score: -masked cross entropy"), "{}", told.stderr);
    assert_eq!(told.stderr.matches("no target to predict").count(), 1, "{}", told.stderr);
    let summary = bench.summary("pretraining");
    for client in ["north", "south"] {
        let history = summary["clients"][client][0]["global_test"].as_array().unwrap();
        let perplexity = history.iter().find(|history| history["name"] == "Perplexity").unwrap();
        let [first, last] = ["first", "last"].map(|when| perplexity[when].as_f64().unwrap());
        // An untrained trunk guesses among all 27 tokens.
        assert!((first - 27.0).abs() < 1.0 && last < 15.0, "{client}: {perplexity}");
        let names: Vec<&str> = history.iter().map(|history| history["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["Perplexity", "Accuracy", "Cross_entropy"]);
    }
    // The best model is that of the highest score, which is the last or close to it.
    assert!(bench.path("runs/pretraining/best/export/model.safetensors").is_file());

    // A frozen trunk stays the export's, bit by bit, and predicts.
    let export = bench.path("runs/pretraining/global/export");
    let keys = format!("pretrained = {:?}\nfrozen-trunk = true\nlayer-sizes = [8]", export.display().to_string());
    let file = experiment(&bench, "supervised", "target = \"tm\"", "amplify", &keys);
    bench.run(&[&file]);
    let (before, after) = (
        std::fs::read(export.join("model.safetensors")).unwrap(),
        bench.bytes("supervised", "global/model.safetensors"),
    );
    let [before, after] = [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert!(before.names().iter().any(|name| name.starts_with("decoder.")));
    for (name, tensor) in before.tensors() {
        assert!(after.tensor(&format!("trunk.{name}")).unwrap().data() == tensor.data(), "{name}");
    }
    assert!(after.names().iter().any(|name| name.starts_with("regressors.")));
    assert!(bench.text("supervised", "predictions.csv").lines().count() > 10);
}

#[test]
fn models_that_need_targets_refuse_tasks_without() {
    let bench = bench();
    let told = bench.fedplug(&["check", &experiment(&bench, "linear", UNLABELLED, "linear", "")]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("a model that needs targets", told.stderr);
    if has_libtorch() {
        let keys = format!("pretrained = {TRUNK}");
        let told = bench.fedplug(&["check", &experiment(&bench, "amplify", UNLABELLED, "amplify", &keys)]);
        assert_eq!(told.code, 2);
        insta::assert_snapshot!("an objective that needs targets", told.stderr);
        let keys = format!("pretrained = {TRUNK}\nobjective = \"masked-lm\"\nfrozen-trunk = true");
        let told = bench.fedplug(&["check", &experiment(&bench, "frozen", UNLABELLED, "amplify", &keys)]);
        assert_eq!(told.code, 2);
        insta::assert_snapshot!("nothing to train", told.stderr);
    }
    let told = bench.fedplug(&["check", &experiment(&bench, "nameless", "", "linear", "")]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("neither target nor name", told.stderr);
}
