//! `split = "reference"` compared with the published files, which `parity/flab-splits.json` describes.

use std::fs;

use serde_json::Map;
use sha2::{Digest, Sha256};

use super::*;

/// The settings of the published files by their names there.
fn settings() -> [(&'static str, Value); 3] {
    [
        ("plain", json!("by-task")),
        ("six_clients_alpha_1", json!({ "count": 6, "alpha": 1.0 })),
        ("four_clients_alpha_0.1", json!({ "count": 4, "alpha": 0.1 })),
    ]
}

/// The lines `combined,fitness` of a file.
fn lines(path: &Path) -> Vec<String> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let mut place = |name| reader.headers().unwrap().iter().position(|header| header == name).unwrap();
    let (combined, fitness) = (place("combined"), place("fitness"));
    reader.records().map(|record| record.unwrap()).map(|r| format!("{},{}", &r[combined], &r[fitness])).collect()
}

/// What is loaded of such lines.
fn usable(lines: &[String]) -> Vec<(String, f32)> {
    let rows = lines.iter().filter_map(|line| line.rsplit_once(','));
    rows.filter_map(|(combined, fitness)| Some((combined.to_owned(), fitness.parse().ok()?))).collect()
}

fn loaded(table: &Table) -> Vec<(String, f32)> {
    table.text("combined").unwrap().iter().map(str::to_owned).zip(fitness(table)).collect()
}

#[test]
fn prepared_and_loaded_rows_are_the_published_ones() {
    let Some(published) = test_support::shared("parity/flab-splits.json") else { return };
    let Some(root) = test_support::shared("flab/data") else { return };
    let published: Map<String, Value> = serde_json::from_str(&fs::read_to_string(published).unwrap()).unwrap();
    let mut files = 0;
    for (setting, clients) in settings() {
        let keys = json!({ "split": "reference", "clients": clients });
        let out = tempfile::tempdir().unwrap();
        let written = flab(&root, keys.clone()).prepare(out.path(), &ctx()).unwrap();
        let mut expected_files = Vec::new();
        for (task, expected) in
            published.iter().flat_map(|(task, of)| of[setting].as_object().unwrap().iter().map(move |e| (task, e)))
        {
            let (name, expected) = expected;
            let path = out.path().join(task).join(name);
            let lines = lines(&path);
            assert_eq!(lines.len() as u64, expected["rows"], "{setting} {task} {name}");
            assert_eq!(lines.first().map_or("", String::as_str), expected["first"], "{setting} {task} {name}");
            let bytes: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(sha256, expected["sha256_of_combined_comma_fitness_lines"], "{setting} {task} {name}");
            expected_files.push(path);
            files += 1;
        }
        // Whatever else was written is the table of all rows to train on, which goes with the clients' tables.
        let more: Vec<_> = written.iter().filter(|path| !expected_files.contains(path)).collect();
        assert!(more.iter().all(|path| path.ends_with("train_data.csv") && setting != "plain"), "{more:?}");

        for from in [&root, out.path()] {
            let mut keys = keys.clone();
            if from != root {
                keys.as_object_mut().unwrap().remove("split");
            }
            let mut flab = flab(from, keys);
            for client in flab.describe(&ctx()).unwrap().clients {
                for task in flab.load(&client.name, &ctx()).unwrap() {
                    let train = match client.name.strip_prefix("site-") {
                        Some(number) => format!("client{number}_train_data.csv"),
                        None => "train_data.csv".to_owned(),
                    };
                    for (table, name) in [(&task.train, train.as_str()), (&task.test, "test_data.csv")] {
                        let lines = lines(&out.path().join(&task.spec.name).join(name));
                        assert_eq!(loaded(table), usable(&lines), "{setting} {} {name}", task.spec.name);
                    }
                }
            }
        }
    }
    assert_eq!(files, 6 * (2 + 7 + 5));
}

#[test]
fn only_the_published_split_loses_rows_and_warns_of_them() {
    let root = folder(&[("tm", 137)]);
    let warnings = |split: &str| {
        let recorder = Recorder::default();
        let keys = json!({ "tasks": ["tm"], "split": split, "clients": { "count": 6, "alpha": 1.0 } });
        let description = flab(root.path(), keys).describe(&Context::new(&recorder)).unwrap();
        let train: usize = description.clients.iter().map(|client| client.tasks[0].train).sum();
        (train, lines_below(&recorder, root.path()))
    };
    let lost = "task `tm`: 1 of 109 training rows belong to no client, as in the published preparation";
    assert_eq!(warnings("reference"), (108, vec![lost.to_owned()]));
    assert_eq!(warnings("random"), (110, vec![]));
}

#[test]
fn the_published_split_has_a_default_seed_and_accepts_another() {
    let root = folder(&[("tm", 10)]);
    let test = |keys: Value, seed| {
        let ctx = Context::new(&Silent).with_seed(Seed::new(seed));
        flab(root.path(), keys).load("tm", &ctx).map(|tasks| fitness(&tasks[0].test))
    };
    let keys = |seed: Option<u64>| json!({ "tasks": ["tm"], "split": "reference", "seed": seed });
    // sklearn.model_selection.train_test_split(range(10), test_size=0.2, random_state=42)[1], then with random_state=7
    assert_eq!(test(keys(None), 1).unwrap(), [8.0, 1.0]);
    assert_eq!(test(keys(None), 2).unwrap(), [8.0, 1.0]);
    assert_eq!(test(keys(Some(7)), 1).unwrap(), [8.0, 5.0]);
    let error = test(keys(Some(1 << 32)), 1).unwrap_err();
    assert_eq!(error.to_string(), "`seed`: must be at most 4294967295 for `split = \"reference\"`");
}
