//! Folds for cross-validation.

use super::*;

#[test]
fn folds_test_every_row_of_each_client_once_and_keep_sequences_together() {
    // Each of forty sequences three times, at two clients.
    let rows: String = (0..120).map(|i| format!("S{},{i},{}\n", i % 40, ["n", "s"][i % 2])).collect();
    let root = folder(&[("a.csv", &format!("seq,y,who\n{rows}"))]);
    for (clients, of) in
        [(json!("by-task"), 1), (json!({ "column": "who" }), 2), (json!({ "count": 3, "alpha": 1.0 }), 3)]
    {
        let mut tested = Vec::new();
        for fold in 0..5 {
            let mut csv = csv(&root, json!({ "files": "ROOT/a.csv", "clients": clients, "folds": 5, "fold": fold }));
            let names: Vec<String> = csv.describe(&ctx()).unwrap().clients.into_iter().map(|one| one.name).collect();
            assert_eq!(names.len(), of);
            for (index, name) in names.iter().enumerate() {
                let task = csv.load(name, &ctx()).unwrap().remove(0);
                let train = texts(&task.train, "seq");
                assert!(texts(&task.test, "seq").iter().all(|sequence| !train.contains(sequence)));
                // Sites share the test rows.
                if of != 3 || index == 0 {
                    tested.push(task.test);
                }
            }
        }
        assert_eq!(sorted(&tested), up_to(120));
        let sizes: Vec<usize> = tested.iter().map(Table::rows).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 3, "{sizes:?}");
    }
}

#[test]
fn keys_of_folds_that_do_not_fit_are_refused() {
    let root = folder(&[("a.csv", &numbered(0..10)), ("b.csv", &numbered(10..20))]);
    let error = |keys: Value| {
        let mut table = json!({ "files": "ROOT/a.csv", "clients": "by-task" });
        table.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        try_csv(&root, &table).err().unwrap().to_string()
    };
    assert_eq!(error(json!({ "folds": 5 })), "`folds`: needs `fold`");
    assert_eq!(error(json!({ "fold": 1 })), "`fold`: needs `folds`");
    let both = error(json!({ "folds": 5, "fold": 1, "test-fraction": 0.2 }));
    assert_eq!(both, "`test-fraction`: `folds` already says how many rows are for testing");
    for given in [json!({ "test-column": "set" }), json!({ "test-files": "ROOT/b.csv" })] {
        let mut keys = json!({ "folds": 5, "fold": 1 });
        keys.as_object_mut().unwrap().extend(given.as_object().unwrap().clone());
        assert_eq!(error(keys), "`folds`: has no effect, since no rows are split at random");
    }
}
