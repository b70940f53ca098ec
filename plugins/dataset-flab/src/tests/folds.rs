//! Folds for cross-validation.

use super::groups::{files, rows};
use super::*;

#[test]
fn folds_test_every_row_once_and_keep_antibodies_together() {
    let root =
        files(&[("tm/a.csv", rows(0..40, 0.0)), ("tm/b.csv", rows(0..40, 0.25)), ("tm/c.csv", rows(20..60, 0.5))]);
    for (per, tasks) in [("folder", 1), ("file", 3)] {
        let mut tested = vec![Vec::new(); tasks];
        for fold in 0..4 {
            let keys = json!({ "tasks": ["tm"], "task-per": per, "folds": 4, "fold": fold });
            let mut flab = flab(root.path(), keys);
            let names: Vec<String> = flab.describe(&ctx()).unwrap().clients.into_iter().map(|one| one.name).collect();
            let loaded: Vec<Task> = names.iter().flat_map(|name| flab.load(name, &ctx()).unwrap()).collect();
            let train: Vec<String> = loaded.iter().flat_map(|task| texts(&task.train)).collect();
            for (task, tested) in loaded.iter().zip(&mut tested) {
                assert!(texts(&task.test).iter().all(|antibody| !train.contains(antibody)));
                // Each file is shared out evenly.
                assert!(task.test.rows().abs_diff(120 / tasks / 4) <= 2, "{}", task.test.rows());
                tested.extend(fitness(&task.test));
            }
        }
        let mut all = tested.concat();
        all.sort_unstable_by(f32::total_cmp);
        all.dedup();
        assert_eq!((tested.iter().map(Vec::len).sum::<usize>(), all.len()), (120, 120));
    }
}

fn texts(table: &Table) -> Vec<String> {
    table.text("combined").unwrap().iter().map(str::to_owned).collect()
}

#[test]
fn the_published_split_and_prepared_data_have_no_folds() {
    let root = folder(&[("tm", 20)]);
    let keys = json!({ "root": root.path(), "tasks": ["tm"], "folds": 5, "fold": 0, "split": "reference" });
    let error = Flab::new(config::read(&keys).unwrap(), &ctx()).err().unwrap();
    assert_eq!(error.message(), "`split = \"reference\"` is one split, as published");
    let out = tempfile::tempdir().unwrap();
    flab(root.path(), json!({ "tasks": ["tm"] })).prepare(out.path(), &ctx()).unwrap();
    let mut prepared = flab(out.path(), json!({ "tasks": ["tm"], "folds": 5, "fold": 0 }));
    assert_eq!(prepared.describe(&ctx()).unwrap_err().message(), "the data is already prepared, with one split");
}
