//! Groups of rows on one side of a split, files as tasks, scales of targets, and audits.

use std::collections::BTreeSet;

use plugin_api::ORIGIN;

use super::*;

/// The warnings and notes of a description.
fn warnings(root: &TempDir, keys: Value) -> Vec<String> {
    let recorder = Recorder::default();
    csv(root, keys).describe(&Context::new(&recorder).with_seed(Seed::new(42))).unwrap();
    recorder.lines_below(root.path())
}

fn overlaps(warnings: &[String]) -> Vec<&str> {
    warnings.iter().map(String::as_str).filter(|line| line.contains("in training, so")).collect()
}

/// The sequences of all training tables, and those of all test tables.
fn sides(csv: &mut CsvDataset) -> [BTreeSet<String>; 2] {
    let names: Vec<String> = csv.describe(&ctx()).unwrap().clients.into_iter().map(|client| client.name).collect();
    let mut sides = [BTreeSet::new(), BTreeSet::new()];
    for task in names.iter().flat_map(|name| csv.load(name, &ctx()).unwrap()) {
        sides[0].extend(texts(&task.train, "seq"));
        sides[1].extend(texts(&task.test, "seq"));
    }
    sides
}

#[test]
fn rows_of_one_sequence_stay_on_one_side_unless_not_grouped() {
    // Each of forty sequences three times.
    let rows: String = (0..120).map(|i| format!("S{},{i}\n", i % 40)).collect();
    let root = folder(&[("a.csv", &format!("seq,y\n{rows}"))]);
    for clients in [json!("by-task"), json!({ "count": 4, "alpha": 1.0 })] {
        let keys = json!({ "files": "ROOT/a.csv", "clients": clients });
        let [train, test] = sides(&mut csv(&root, keys.clone()));
        assert!(train.is_disjoint(&test) && test.len() == 8, "{test:?}");
        assert!(overlaps(&warnings(&root, keys.clone())).is_empty());
        let mut none = keys;
        none["group-by"] = "none".into();
        let [train, test] = sides(&mut csv(&root, none.clone()));
        assert!(!train.is_disjoint(&test));
        let warnings = warnings(&root, none);
        let lines = overlaps(&warnings);
        assert!(
            lines[0].ends_with(
                "of 24 test rows have their sequence in training, so its scores are too good; \
                                    `group-by = \"sequence\"` keeps them apart"
            ),
            "{lines:?}"
        );
    }
}

#[test]
fn similar_sequences_stay_on_one_side_if_grouped_by_identity() {
    // Twenty families of five, whose members differ in their last letter.
    let rows: String =
        (0..100).map(|i| format!("{}{}{},{i}\n", "EVQLVE".repeat(i % 20 + 1), "W", b"ACDEF"[i / 20] as char)).collect();
    let root = folder(&[("a.csv", &format!("seq,y\n{rows}"))]);
    let keys = json!({ "files": "ROOT/a.csv", "clients": "by-task", "group-by": { "identity": 0.8 } });
    let task = csv(&root, keys).load("y", &ctx()).unwrap().remove(0);
    let family = |table: &Table| texts(table, "seq").iter().map(String::len).collect::<BTreeSet<_>>();
    assert!(family(&task.train).is_disjoint(&family(&task.test)));
    assert!(task.test.rows().abs_diff(20) <= 5 && task.test.rows() > 0, "{}", task.test.rows());
}

#[test]
fn overlaps_of_given_splits_and_of_other_clients_are_counted() {
    let root = folder(&[
        ("train.csv", "seq,y\nA,1\nB,2\nC,3\n"),
        ("test.csv", "seq,y\nB,5\nD,4\nA,1\n"),
        ("set.csv", "seq,y,set\nA,1,train\nA,2,test\nB,3,test\n"),
        ("n.csv", "seq,y\nA,1\nB,2\nC,3\nD,4\n"),
        ("s.csv", "seq,y\nA,5\nB,6\nC,7\nD,8\n"),
    ]);
    let count = "test rows have their sequence in training, so its scores are too good";
    let files = json!({ "files": "ROOT/train.csv", "test-files": "ROOT/test.csv", "clients": "by-task" });
    assert_eq!(overlaps(&warnings(&root, files)), [format!("task `y`: 2 of 3 {count}")]);
    let column = json!({ "files": "ROOT/set.csv", "test-column": "set", "clients": "by-task" });
    assert_eq!(overlaps(&warnings(&root, column)), [format!("task `y`: 1 of 2 {count}")]);
    // Either client tests on another sequence than it trains on, and with this seed the other trains on it.
    let clients = json!({ "pattern": "ROOT/{client}.csv" });
    let each = json!({ "files": ["ROOT/n.csv", "ROOT/s.csv"], "clients": clients, "seed": 1 });
    let why = "clients are split independently, and others train on these sequences";
    assert_eq!(overlaps(&warnings(&root, each)), [format!("task `y`: 2 of 2 {count}; {why}")]);
}

#[test]
fn each_file_is_a_task_that_clients_share_by_its_name() {
    let root = folder(&[
        ("n/kd.csv", &numbered(0..10)),
        ("n/Tm (C).csv", &numbered(0..20)),
        ("s/kd.csv", &numbered(5..15)),
        ("s/empty.csv", "seq,y\n"),
    ]);
    let keys = json!({ "clients": { "pattern": "ROOT/{client}/*.csv" }, "task-per": "file" });
    let mut clients = csv(&root, keys);
    let names: Vec<String> = clients.describe(&ctx()).unwrap().tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["Tm__C_", "kd"]);
    let count = |name: &str, train, test| (name.to_owned(), train, test);
    assert_eq!(
        counts(&mut clients),
        [("n".into(), vec![count("Tm__C_", 16, 4), count("kd", 8, 2)]), ("s".into(), vec![count("kd", 8, 2)])]
    );
    // What the files of one client share is for testing in all of them or in none.
    let tasks = clients.load("n", &ctx()).unwrap();
    let on = |table: &Table| texts(table, "seq").into_iter().collect::<BTreeSet<_>>();
    assert!(
        on(&tasks[0].test).is_disjoint(&on(&tasks[1].train)) && on(&tasks[1].test).is_disjoint(&on(&tasks[0].train))
    );
    let one = json!({ "files": "ROOT/*/*.csv", "exclude": "ROOT/s/*", "clients": "by-task", "task-per": "file", "name": "fit" });
    let mut by_task = csv(&root, one);
    let all: Vec<String> = counts(&mut by_task).into_iter().map(|(client, _)| client).collect();
    assert_eq!(all, ["fit-Tm__C_", "fit-kd"]);
}

#[test]
fn targets_are_standardised_for_each_task_but_not_when_prepared() {
    let root = folder(&[("a.csv", &numbered(0..50)), ("b.csv", &numbered(1000..1100))]);
    let keys = json!({ "files": "ROOT/*.csv", "clients": { "count": 3, "alpha": 1.0 }, "task-per": "file", "standardise": true });
    let mut csv = csv(&root, keys);
    let scales = csv.describe(&ctx()).unwrap().scales;
    assert_eq!(scales.keys().collect::<Vec<_>>(), ["a", "b"]);
    for (number, (task, scale)) in scales.iter().enumerate() {
        let tables: Vec<Table> = ["site-1", "site-2", "site-3"]
            .iter()
            .map(|name| csv.load(name, &ctx()).unwrap().remove(number).train)
            .collect();
        let scores: Vec<f64> =
            tables.iter().flat_map(|table| table.f32("y").unwrap().to_vec()).map(f64::from).collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let square = scores.iter().map(|y| y * y).sum::<f64>() / scores.len() as f64;
        assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-4, "{task}: {mean}, {square}");
        // The sequence of a row says its value.
        for table in &tables {
            for (text, score) in texts(table, "seq").iter().zip(table.f32("y").unwrap()) {
                assert_eq!(format!("S{:.0}", scale.restore((*score).into())), *text);
            }
        }
    }
    let out = tempfile::tempdir().unwrap();
    for path in csv.prepare(out.path(), &ctx()).unwrap() {
        let text = fs::read_to_string(path).unwrap();
        assert!(
            text.starts_with("seq,y\n")
                && text
                    .lines()
                    .skip(1)
                    .all(|line| line[1..].split(',').all(|part| part.len() < 5 && !part.contains('.'))),
            "{text}"
        );
    }
}

#[test]
fn each_row_has_its_file_and_line() {
    let root = folder(&[("a.csv", "seq,y\nA,1\n,2\n\"B\nC\",3\nD,4\n"), ("b.csv", "seq,y\nE,5\n")]);
    let mut csv = csv(&root, json!({ "files": "ROOT/*.csv", "clients": "by-task" }));
    let task = csv.load("y", &ctx()).unwrap().remove(0);
    let mut origins: Vec<(String, f32)> = [&task.train, &task.test]
        .iter()
        .flat_map(|table| texts(table, ORIGIN).into_iter().zip(table.f32("y").unwrap().to_vec()))
        .map(|(origin, y)| (origin.replace(&format!("{}/", root.path().display()), ""), y))
        .collect();
    origins.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_eq!(
        origins.iter().map(|(origin, _)| origin.as_str()).collect::<Vec<_>>(),
        ["a.csv:2", "a.csv:4", "a.csv:6", "b.csv:2"]
    );
}

#[test]
fn keys_without_effect_are_errors() {
    let root = folder(&[("a.csv", &numbered(0..5))]);
    for (keys, wanted) in [
        (
            json!({ "files": "ROOT/a.csv", "test-column": "set", "group-by": "sequence" }),
            "`group-by`: has no effect, since no rows are split at random",
        ),
        (
            json!({ "files": "ROOT/a.csv", "inputs": [], "number-inputs": ["age"], "group-by": { "identity": 0.9 } }),
            "`group-by`: task `y` has no text inputs to compare",
        ),
    ] {
        let mut keys = keys;
        keys["clients"] = "by-task".into();
        assert_eq!(try_csv(&root, &keys).err().unwrap().to_string(), wanted);
    }
    let keys = json!({ "files": "ROOT/*.csv", "exclude": "ROOT/?.csv", "clients": "by-task" });
    let error = csv(&root, keys).describe(&ctx()).unwrap_err();
    assert_eq!(error.to_string(), "`exclude`: all files of `files` are excluded");
}

#[test]
fn sequences_that_another_task_trains_on_are_counted() {
    let root = folder(&[("a.csv", "seq,y,set\nA,1,train\nB,2,test\n"), ("b.csv", "seq,y,set\nB,1,train\nC,2,test\n")]);
    let tasks = json!([{ "name": "a", "files": "ROOT/a.csv" }, { "name": "b", "files": "ROOT/b.csv" }]);
    let keys = json!({ "clients": "by-task", "test-column": "set", "task": tasks });
    let count = "1 of 1 test rows have a sequence that other tasks train on: `b`";
    assert_eq!(
        warnings(&root, keys),
        [
            format!("task `a`: {count}; a trunk that tasks share has seen it"),
            format!("note overlap across tasks a: {count}")
        ]
    );
}
