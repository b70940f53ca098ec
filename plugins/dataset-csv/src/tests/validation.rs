//! Rows for validation.

use std::collections::BTreeSet;

use super::*;

/// Each of forty sequences three times, at two clients and marked for training or testing.
fn root() -> TempDir {
    let rows: String =
        (0..120).map(|i| format!("S{},{i},{},{}\n", i % 40, ["n", "s"][i % 2], u8::from(i % 10 == 0))).collect();
    folder(&[("a.csv", &format!("seq,y,who,set\n{rows}"))])
}

/// The tasks of all clients without and with a fifth of the training rows for validation.
fn both(root: &TempDir, keys: &Value) -> [Vec<(ClientSpec, Task)>; 2] {
    [None, Some(0.2)].map(|fraction| {
        let mut keys = keys.clone();
        keys["files"] = "ROOT/a.csv".into();
        keys["validation-fraction"] = fraction.into();
        let mut csv = csv(root, keys);
        let clients = csv.describe(&ctx()).unwrap().clients;
        clients.into_iter().map(|client| (client.clone(), csv.load(&client.name, &ctx()).unwrap().remove(0))).collect()
    })
}

#[test]
fn validation_rows_are_some_of_the_training_rows_and_share_no_sequence_with_the_others() {
    let root = root();
    for keys in [
        json!({ "clients": "by-task" }),
        json!({ "clients": { "column": "who" } }),
        json!({ "clients": { "count": 3, "alpha": 1.0 } }),
        json!({ "clients": "by-task", "folds": 5, "fold": 1 }),
        json!({ "clients": "by-task", "test-column": "set" }),
    ] {
        let [without, with] = both(&root, &keys);
        let (mut trained, mut held, mut all) = (BTreeSet::new(), BTreeSet::new(), 0);
        for ((_, before), (client, task)) in without.iter().zip(&with) {
            // Nothing else changes.
            assert!(before.train.column(VALIDATION).is_none());
            assert_eq!(task.train.f32("y").unwrap(), before.train.f32("y").unwrap());
            assert_eq!(task.test.f32("y").unwrap(), before.test.f32("y").unwrap());
            assert!(task.test.column(VALIDATION).is_none());
            let validation = task.validation_rows().unwrap();
            let counts = &client.tasks[0];
            assert_eq!((counts.validation, counts.train + counts.validation), (validation.len(), task.train.rows()));
            for (row, sequence) in texts(&task.train, "seq").into_iter().enumerate() {
                if validation.contains(&row) {
                    held.insert(sequence)
                } else {
                    trained.insert(sequence)
                };
            }
            all += validation.len();
            let separate = keys["clients"].get("column").is_some();
            assert!(!separate || trained.is_disjoint(&held), "{keys}");
            if separate {
                (trained, held) = (BTreeSet::new(), BTreeSet::new());
            }
        }
        assert!(trained.is_disjoint(&held), "{keys}");
        let rows: usize = without.iter().map(|(_, task)| task.train.rows()).sum();
        assert!(all.abs_diff(rows / 5) <= 3, "{all} of {rows}: {keys}");
    }
}

#[test]
fn rows_of_a_given_split_are_grouped_for_validation_alone() {
    let root = root();
    let keys = |fraction: Option<f64>| {
        json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "set", "group-by": "none",
            "validation-fraction": fraction })
    };
    assert!(try_csv(&root, &keys(None)).err().unwrap().to_string().contains("no rows are split at random"));
    let task = csv(&root, keys(Some(0.25))).load("y", &ctx()).unwrap().remove(0);
    assert_eq!((task.train.rows(), task.validation_rows().unwrap().len()), (108, 27));
}

#[test]
fn targets_are_standardised_by_the_rows_that_are_trained_on() {
    let root = root();
    let keys = json!({ "files": "ROOT/a.csv", "clients": "by-task", "standardise": true, "validation-fraction": 0.3 });
    let task = csv(&root, keys).load("y", &ctx()).unwrap().remove(0);
    let validation = task.validation_rows().unwrap();
    let values = task.train.f32("y").unwrap().iter().enumerate().filter(|(row, _)| !validation.contains(row));
    let values: Vec<f64> = values.map(|(_, y)| f64::from(*y)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square = values.iter().map(|y| y * y).sum::<f64>() / values.len() as f64;
    assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "{mean} {square}");
}

#[test]
fn prepared_tables_have_validation_rows_among_the_training_rows() {
    let root = root();
    let prepare = |more: Value| {
        let mut keys = json!({ "files": "ROOT/a.csv", "clients": "by-task" });
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let out = tempfile::tempdir().unwrap();
        let files = csv(&root, keys).prepare(out.path(), &ctx()).unwrap();
        files.iter().map(|file| fs::read_to_string(file).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(prepare(json!({})), prepare(json!({ "validation-fraction": 0.2 })));
}
