//! Targets that are classes.

use plugin_api::TargetKind;

use super::*;

/// Rows of a text, a class and a client.
fn rows(classes: &[&str]) -> String {
    let row = |(i, class): (usize, &&str)| format!("S{i},{class},c{}\n", i % 2);
    "seq,y,site\n".to_owned() + &classes.iter().enumerate().map(row).collect::<String>()
}

fn keys(classes: Value) -> Value {
    json!({ "files": "ROOT/*.csv", "clients": { "column": "site" }, "classes": classes })
}

#[test]
fn classes_are_agreed_over_all_clients_in_a_stable_order() {
    let first = rows(&["z", "b", "z", "b", "z", "b", "z", "b", "z", "b"]);
    let second = rows(&["a", "z", " a ", "NA", "a", "z", "a", "z", "a", "z"]);
    let wanted = ["a", "b", "z"].map(str::to_owned).to_vec();
    // The order of files changes nothing.
    for [a, b] in [[&first, &second], [&second, &first]] {
        let root = folder(&[("1.csv", a), ("2.csv", b)]);
        let mut found = csv(&root, keys(json!(true)));
        let description = found.describe(&ctx()).unwrap();
        assert_eq!(description.tasks[0].target_kind, TargetKind::Class(wanted.clone()));
        let counts: usize = description.sources.iter().map(|source| source.rows).sum();
        assert_eq!(counts, 19, "a missing value is no class");
        for client in ["c0", "c1"] {
            let task = found.load(client, &ctx()).unwrap().remove(0);
            assert_eq!(task.spec.target_kind, TargetKind::Class(wanted.clone()));
            let all = [texts(&task.train, "y"), texts(&task.test, "y")].concat();
            assert!(all.iter().all(|class| wanted.contains(class)), "{all:?}");
            assert_eq!(task.spec.class_indices(&task.train).unwrap().len(), task.train.rows());
        }
    }
    // A list gives the order.
    let root = folder(&[("1.csv", &first), ("2.csv", &second)]);
    let given = csv(&root, keys(json!(["z", "b", "a"]))).describe(&ctx()).unwrap();
    assert_eq!(given.tasks[0].target_kind, TargetKind::Class(["z", "b", "a"].map(str::to_owned).to_vec()));
}

#[test]
fn an_unknown_class_is_an_error_with_file_and_line() {
    let root = folder(&[("1.csv", &rows(&["no", "yes", "no"])), ("2.csv", &rows(&["yes", "no", "si"]))]);
    let error = csv(&root, keys(json!(["no", "yes"]))).describe(&ctx()).unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("2.csv") && told.contains('4') && told.contains("`si` in `y` is none of the classes"),
        "{told}"
    );
    let root = folder(&[("1.csv", &rows(&["no", "no", "no", "no"]))]);
    let error = csv(&root, keys(json!(true))).describe(&ctx()).unwrap_err();
    assert!(error.to_string().contains("all rows of task `y` are of the class `no`"), "{error}");
}

#[test]
fn prepared_classes_are_read_again() {
    let root = folder(&[("1.csv", &rows(&["b", "a"].repeat(10)))]);
    let mut data = csv(&root, keys(json!(["b", "a"])));
    let out = root.path().join("out");
    data.prepare(&out, &ctx()).unwrap();
    let again = json!({
        "files": "ROOT/out/y/*/train.csv", "test-files": "ROOT/out/y/*/test.csv", "classes": ["b", "a"],
        "clients": { "pattern": "ROOT/out/*/{client}/*.csv" },
    });
    let mut again = csv(&root, again);
    for client in ["c0", "c1"] {
        let [a, b] = [&mut data, &mut again].map(|data| data.load(client, &ctx()).unwrap().remove(0));
        assert_eq!(texts(&a.train, "y"), texts(&b.train, "y"));
        assert_eq!(a.spec.target_kind, b.spec.target_kind);
    }
}
