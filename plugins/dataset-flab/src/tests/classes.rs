//! Targets that are classes.

use plugin_api::TargetKind;

use super::*;

/// Two files in the folder of a task, with these classes.
fn folder_of(first: &[&str], second: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("tm")).unwrap();
    for (name, classes) in [("a", first), ("b", second)] {
        let row = |(i, class): (usize, &&str)| format!("H{name}{i},L,{class}\n");
        let rows: String = classes.iter().enumerate().map(row).collect();
        std::fs::write(root.path().join(format!("tm/{name}.csv")), format!("heavy,light,binds\n{rows}")).unwrap();
    }
    root
}

fn keys(classes: Value, more: Value) -> Value {
    let mut keys = json!({ "tasks": ["tm"], "target": "binds", "classes": classes });
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys
}

fn names(names: &[&str]) -> TargetKind {
    TargetKind::Class(names.iter().map(|&name| name.to_owned()).collect())
}

/// The sequence and the class of each row.
fn rows(table: &Table) -> Vec<(String, String)> {
    let text = |name| table.text(name).unwrap().iter().map(str::to_owned).collect::<Vec<_>>();
    text("combined").into_iter().zip(text("binds")).collect()
}

#[test]
fn classes_are_found_or_listed_and_each_row_keeps_its_own() {
    let root = folder_of(&["z", "b", "z", "b", "NA"], &["a", " a ", "z", "", "a"]);
    for (classes, wanted) in [(json!(true), names(&["a", "b", "z"])), (json!(["z", "b", "a"]), names(&["z", "b", "a"]))]
    {
        for more in [json!({}), json!({ "clients": { "count": 2, "alpha": 1.0 } }), json!({ "split": "reference" })] {
            let mut flab = flab(root.path(), keys(classes.clone(), more.clone()));
            let description = flab.describe(&ctx()).unwrap();
            assert_eq!(description.tasks[0].target_kind, wanted, "{more}");
            assert_eq!(description.sources.iter().map(|source| source.rows).sum::<usize>(), 8);
            let mut all = Vec::new();
            for (client, first) in description.clients.iter().zip([true, false]) {
                let task = flab.load(&client.name, &ctx()).unwrap().remove(0);
                assert_eq!(task.spec.target_kind, wanted);
                assert_eq!(task.spec.class_indices(&task.train).unwrap().len(), task.train.rows());
                all.extend(rows(&task.train));
                all.extend(if first { rows(&task.test) } else { Vec::new() });
            }
            all.sort_unstable();
            // The published split leaves rows out.
            assert!(all.len() == 8 || more.get("split").is_some(), "{all:?}");
            let found = |sequence: &str| all.iter().find(|row| row.0 == sequence).map(|row| row.1.as_str());
            for (sequence, class) in [("Ha0|L", "z"), ("Ha1|L", "b"), ("Hb1|L", "a"), ("Hb2|L", "z")] {
                assert!(found(sequence).is_none_or(|found| found == class), "{all:?}");
            }
        }
    }
}

#[test]
fn prepared_classes_and_classes_of_each_file_are_read() {
    let root = folder_of(&["b", "a"].repeat(10), &["a", "b"].repeat(10));
    for split in ["random", "reference"] {
        let mut raw = flab(root.path(), keys(json!(true), json!({ "split": split })));
        let out = tempfile::tempdir().unwrap();
        raw.prepare(out.path(), &ctx()).unwrap();
        let mut prepared = flab(out.path(), keys(json!(true), json!({})));
        let [a, b] = [&mut raw, &mut prepared].map(|flab| flab.load("tm", &ctx()).unwrap().remove(0));
        assert_eq!((rows(&a.train), rows(&a.test)), (rows(&b.train), rows(&b.test)), "{split}");
        assert_eq!((a.spec.target_kind, b.spec.target_kind), (names(&["a", "b"]), names(&["a", "b"])));
    }
    let mut by_file = flab(root.path(), keys(json!(true), json!({ "task-per": "file" })));
    let kinds: Vec<_> = by_file.describe(&ctx()).unwrap().tasks.into_iter().map(|task| task.target_kind).collect();
    assert_eq!(kinds, [names(&["a", "b"]), names(&["a", "b"])]);
}

#[test]
fn what_is_no_class_is_an_error() {
    let root = folder_of(&["no", "yes"], &["no", "si"]);
    let told =
        |classes: Value, more: Value| flab(root.path(), keys(classes, more)).describe(&ctx()).unwrap_err().to_string();
    let unknown = told(json!(["no", "yes"]), json!({}));
    assert!(unknown.ends_with("tm/b.csv:3: `si` in `binds` is none of the classes"), "{unknown}");
    let one = told(json!(true), json!({ "files": "a.csv", "standardise": true }));
    assert!(one.contains("`standardise`") && one.contains("all targets are classes"), "{one}");
    let root = folder_of(&["no", "no"], &["no"]);
    let error = flab(root.path(), keys(json!(true), json!({}))).describe(&ctx()).unwrap_err();
    assert!(error.to_string().contains("all rows of task `tm` are of the class `no`"), "{error}");
}
