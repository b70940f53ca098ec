//! The baselines of the model `linear`, in the built binary.

use crate::support::{Bench, root};

const FILE: &str = r#"name = "NAME"
seed = 42

[federation]
rounds = 1

[dataset]
plugin = "csv"
inputs = ["heavy"]
target = "tm"
files = "ROOT/*.csv"
clients = { column = "COLUMN" }
test-column = "test"

[model]
plugin = "linear"
method = "METHOD"
kmer = 2

[aggregator]
plugin = "fedavg"
"#;

/// The global model's predictions of the test rows, by sequence and target.
fn predictions(bench: &Bench, name: &str, column: &str, method: &str) -> Vec<(String, f64)> {
    let text = FILE.replace("ROOT", &bench.path("").display().to_string()).replace("NAME", name);
    let text = text.replace("COLUMN", column).replace("METHOD", method);
    bench.run(&[&bench.write(&format!("{name}.toml"), &text).display().to_string()]);
    let text = bench.text(name, "predictions.csv");
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at = |name: &str| header.iter().position(|found| *found == name).unwrap();
    let (split, measured, global) = (at("split"), at("measured"), at("global_predicted"));
    let tests = lines.filter(|row| row[split] == "test");
    let mut found: Vec<_> = tests.map(|row| (row[measured].to_owned(), row[global].parse().unwrap())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Three hospitals with 10, 20 and 60 rows, and the same rows at one.
#[test]
fn a_federation_of_sums_predicts_as_one_client_with_all_rows() {
    let bench = Bench::new();
    let row = |i: usize| {
        let site = if i < 10 {
            "a"
        } else if i < 30 {
            "b"
        } else {
            "c"
        };
        let motif = ["ACD", "WWF", "GHK", "LMN", "ACW"];
        let heavy = format!("{}{}{}", motif[i % 5].repeat(1 + i % 4), motif[i * 7 % 5], "Q".repeat(i % 6));
        let tm = 60.0 + heavy.matches('W').count() as f64 - 0.5 * heavy.matches("AC").count() as f64 + i as f64 / 1e4;
        format!("{heavy},{tm},{site},all,{}\n", if i % 6 == 1 { "test" } else { "train" })
    };
    let rows: String = (0..90).map(row).collect();
    bench.write("data.csv", &format!("heavy,tm,site,together,test\n{rows}"));
    for (method, equal) in [("pooled-ridge", true), ("mean", true), ("ridge", false)] {
        let federated = predictions(&bench, &format!("{method}-sites"), "site", method);
        let central = predictions(&bench, &format!("{method}-one"), "together", method);
        assert_eq!(federated.len(), 15);
        let difference = federated.iter().zip(&central).map(|((a, x), (b, y))| {
            assert_eq!(a, b);
            (x - y).abs()
        });
        let difference = difference.fold(0.0, f64::max);
        assert_eq!(difference < 1e-5, equal, "{method}: {difference}");
        if method == "pooled-ridge" {
            let off = central.iter().map(|(measured, y)| (measured.parse::<f64>().unwrap() - y).abs());
            assert!(off.fold(0.0, f64::max) < 0.5, "{central:?}");
        }
    }
}

#[test]
fn the_sample_has_a_ridge_baseline() {
    let bench = Bench::new();
    let file = root().join("configs/linear.toml").display().to_string();
    // The file keeps heads private, and ridge regression has nothing else.
    let sets = ["filter=[]", "model.method=ridge", "model.kmer=2", "federation.rounds=1"];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let told = bench.run(&[&[file.as_str()], &sets[..]].concat());
    assert!(bench.summary("linear")["last"]["score"].as_f64().is_some(), "{}", told.stderr);
    let refused = bench.fedplug(&["check", &file, "--set", "model.features=one-hot"]);
    assert_eq!(refused.code, 2);
    insta::assert_snapshot!("one-hot without positions", refused.stderr);
}
