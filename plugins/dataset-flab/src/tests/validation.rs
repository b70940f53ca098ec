//! Rows for validation.

use std::collections::BTreeSet;

use super::groups::{files, rows};
use super::*;

fn tasks(root: &Path, mut keys: Value, fraction: Option<f64>) -> Vec<(ClientTask, Task)> {
    keys["tasks"] = json!(["tm"]);
    keys["validation-fraction"] = fraction.into();
    let mut flab = flab(root, keys);
    let clients = flab.describe(&ctx()).unwrap().clients;
    let of = |client: &ClientSpec| {
        let loaded = flab.load(&client.name, &ctx()).unwrap();
        client.tasks.iter().cloned().zip(loaded).collect::<Vec<_>>()
    };
    clients.iter().flat_map(of).collect()
}

#[test]
fn validation_rows_are_some_of_the_training_rows_of_any_split() {
    let root =
        files(&[("tm/a.csv", rows(0..40, 0.0)), ("tm/b.csv", rows(0..40, 0.25)), ("tm/c.csv", rows(20..60, 0.5))]);
    let sites = json!({ "count": 3, "alpha": 1.0 });
    let out = tempfile::tempdir().unwrap();
    flab(root.path(), json!({ "tasks": ["tm"], "clients": sites })).prepare(out.path(), &ctx()).unwrap();
    for (root, keys) in [
        (root.path(), json!({})),
        (root.path(), json!({ "task-per": "file" })),
        (root.path(), json!({ "clients": sites })),
        (root.path(), json!({ "folds": 4, "fold": 3 })),
        (root.path(), json!({ "split": "reference", "clients": sites })),
        (out.path(), json!({ "clients": sites })),
    ] {
        let (without, with) = (tasks(root, keys.clone(), None), tasks(root, keys.clone(), Some(0.25)));
        let (mut trained, mut held, mut all) = (BTreeSet::new(), BTreeSet::new(), 0);
        for ((_, before), (counts, task)) in without.iter().zip(&with) {
            assert_eq!(fitness(&task.train), fitness(&before.train));
            assert_eq!(fitness(&task.test), fitness(&before.test));
            let validation = task.validation_rows().unwrap();
            assert_eq!((counts.validation, counts.train + counts.validation), (validation.len(), task.train.rows()));
            for (row, antibody) in task.train.text("combined").unwrap().iter().enumerate() {
                if validation.contains(&row) {
                    held.insert(antibody.to_owned())
                } else {
                    trained.insert(antibody.to_owned())
                };
            }
            all += validation.len();
        }
        assert!(trained.is_disjoint(&held), "{keys}");
        let rows: usize = without.iter().map(|(_, task)| task.train.rows()).sum();
        assert!(all.abs_diff(rows / 4) <= 4, "{all} of {rows}: {keys}");
    }
}

#[test]
fn targets_are_standardised_by_the_rows_that_are_trained_on() {
    let root = files(&[("tm/a.csv", rows(0..50, 0.0))]);
    let out = tempfile::tempdir().unwrap();
    flab(root.path(), json!({ "tasks": ["tm"] })).prepare(out.path(), &ctx()).unwrap();
    for root in [root.path(), out.path()] {
        let (_, task) = tasks(root, json!({ "standardise": true }), Some(0.3)).remove(0);
        let validation = task.validation_rows().unwrap();
        let values = fitness(&task.train).into_iter().enumerate().filter(|(row, _)| !validation.contains(row));
        let values: Vec<f64> = values.map(|(_, y)| f64::from(y)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 1e-6, "{mean}");
    }
}
