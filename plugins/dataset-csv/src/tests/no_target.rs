//! Tasks of inputs alone.

use super::*;
use plugin_api::TargetKind;

const ROWS: &str = "seq,hospital,y\nAAA,n,1\nCCC,n,\nDDD,n,x\nEEE,s,\nFFF,s,2\n,s,3\n";

fn keys(more: &Value) -> Value {
    let mut keys = json!({ "files": "ROOT/a.csv", "target": null, "clients": { "column": "hospital" } });
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys
}

#[test]
fn without_a_target_every_row_with_its_inputs_is_used() {
    let root = folder(&[("a.csv", ROWS)]);
    let mut csv = csv(&root, keys(&json!({ "name": "antibodies", "test-fraction": 0.4 })));
    let description = csv.describe(&ctx()).unwrap();
    assert_eq!(description.tasks, [TaskSpec::without_target("antibodies", ["seq"])]);
    assert_eq!(description.sources[0].skipped, [("no `seq`".to_owned(), 1)]);
    assert_eq!(counts(&mut csv), [one("n", "antibodies", 2, 1), one("s", "antibodies", 1, 1)]);
    for client in ["n", "s"] {
        let task = csv.load(client, &ctx()).unwrap().remove(0);
        assert_eq!(task.spec.target_kind, TargetKind::None);
        for table in [&task.train, &task.test] {
            assert_eq!(table.columns().map(|(name, _)| name).collect::<Vec<_>>(), ["seq", plugin_api::ORIGIN]);
        }
    }
}

#[test]
fn the_split_is_that_of_the_same_rows_with_a_target() {
    let root = folder(&[("a.csv", &numbered(0..40))]);
    let train = |target: Value| {
        let keys = json!({ "files": "ROOT/a.csv", "target": target, "name": "t", "clients": "by-task" });
        texts(&csv(&root, keys).load("t", &ctx()).unwrap()[0].train, "seq")
    };
    assert_eq!(train(json!(null)), train(json!("y")));
}

#[test]
fn prepared_rows_without_a_target_are_read_again() {
    let root = folder(&[("a.csv", ROWS)]);
    let mut data = csv(&root, keys(&json!({ "name": "t", "test-fraction": 0.4 })));
    data.prepare(&root.path().join("out"), &ctx()).unwrap();
    let again = json!({
        "files": "ROOT/out/t/*/train.csv", "test-files": "ROOT/out/t/*/test.csv", "target": null, "name": "t",
        "clients": { "pattern": "ROOT/out/*/{client}/*.csv" },
    });
    let mut again = csv(&root, again);
    for client in ["n", "s"] {
        let [a, b] = [&mut data, &mut again].map(|data| data.load(client, &ctx()).unwrap().remove(0));
        assert_eq!((texts(&a.train, "seq"), texts(&a.test, "seq")), (texts(&b.train, "seq"), texts(&b.test, "seq")));
    }
}

#[test]
fn keys_of_a_target_need_one() {
    let root = folder(&[("a.csv", ROWS)]);
    for (more, wanted) in [
        (json!({}), "`target` is missing"),
        (json!({ "name": "t", "classes": true }), "`classes`: has no effect without `target`"),
        (json!({ "name": "t", "standardise": true }), "`standardise`: has no effect, since no target is a number"),
    ] {
        assert_eq!(try_csv(&root, &keys(&more)).err().unwrap().to_string(), wanted);
    }
}
