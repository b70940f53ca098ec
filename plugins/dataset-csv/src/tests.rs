use std::fs;

use super::*;
use plugin_api::context::Silent;
use plugin_api::{Column, Seed, TaskSpec, VALIDATION, config};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::Recorder;

fn ctx() -> Context<'static> {
    Context::new(&Silent).with_seed(Seed::new(42))
}

/// A temporary folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// `S0,0`, `S1,1`, … under a header.
fn numbered(rows: std::ops::Range<usize>) -> String {
    let rows: String = rows.map(|i| format!("S{i},{i}\n")).collect();
    format!("seq,y\n{rows}")
}

/// A dataset with these keys, in which `ROOT` is this folder, and the defaults `inputs = ["seq"]` and `target = "y"`.
fn try_csv(root: &TempDir, keys: &Value) -> Result<CsvDataset> {
    let text = keys.to_string().replace("ROOT", root.path().to_str().unwrap());
    let mut keys: Value = serde_json::from_str(&text).unwrap();
    let table = keys.as_object_mut().unwrap();
    table.entry("inputs").or_insert(json!(["seq"]));
    table.entry("target").or_insert("y".into());
    CsvDataset::new(config::read(&keys).unwrap(), &ctx())
}

fn csv(root: &TempDir, keys: Value) -> CsvDataset {
    try_csv(root, &keys).unwrap()
}

fn texts(table: &Table, column: &str) -> Vec<String> {
    table.text(column).unwrap().iter().map(str::to_owned).collect()
}

/// A client with its tasks, each with the numbers of training and test rows.
type Counted = (String, Vec<(String, usize, usize)>);

fn counts(csv: &mut CsvDataset) -> Vec<Counted> {
    let clients = csv.describe(&ctx()).unwrap().clients;
    let tasks = |client: &ClientSpec| client.tasks.iter().map(|t| (t.name.clone(), t.train, t.test)).collect();
    clients.iter().map(|client| (client.name.clone(), tasks(client))).collect()
}

fn one(client: &str, task: &str, train: usize, test: usize) -> Counted {
    (client.to_owned(), vec![(task.to_owned(), train, test)])
}

/// The values of `y`, sorted, of all these tables.
fn sorted<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Vec<f32> {
    let mut all: Vec<f32> = tables.into_iter().flat_map(|table| table.f32("y").unwrap().to_vec()).collect();
    all.sort_unstable_by(f32::total_cmp);
    all
}

fn up_to(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn each_value_of_a_column_is_a_client_with_its_own_rows() {
    let rows: String =
        (0..30).map(|i| format!("S{i},{i},{}\n", [" south", "St. Mary", "north\u{200b}"][i % 3])).collect();
    let root = folder(&[("a.csv", &format!("seq,y,hospital\n{rows}"))]);
    let keys = json!({ "files": "ROOT/*.csv", "clients": { "column": "hospital" } });
    let mut csv = csv(&root, keys);
    assert_eq!(counts(&mut csv), [one("St. Mary", "y", 8, 2), one("north", "y", 8, 2), one("south", "y", 8, 2)]);
    let task = csv.load("north", &ctx()).unwrap().remove(0);
    assert_eq!(
        task.spec,
        TaskSpec { name: "y".into(), inputs: vec!["seq".into()], target: "y".into(), ..TaskSpec::default() }
    );
    assert_eq!(sorted([&task.train, &task.test]), (0..10).map(|i| (3 * i + 2) as f32).collect::<Vec<_>>());
    assert_eq!(texts(&task.train, "seq")[0], format!("S{}", task.train.f32("y").unwrap()[0]));
    let error = csv.load("east", &ctx()).unwrap_err();
    assert_eq!(
        (error.message(), error.hint()),
        ("there is no client `east`", Some("its clients: `St. Mary`, `north`, `south`"))
    );
}

#[test]
fn each_match_of_a_pattern_is_a_client() {
    let root = folder(&[
        ("north/a.csv", &numbered(0..10)),
        ("north/b.csv", &numbered(10..20)),
        ("south/a.csv", &numbered(20..25)),
    ]);
    let pattern = json!({ "pattern": "ROOT/{client}/*.csv" });
    assert_eq!(
        counts(&mut csv(&root, json!({ "clients": pattern }))),
        [one("north", "y", 16, 4), one("south", "y", 4, 1)]
    );
    // `files` may be fewer, in an order of their own.
    let files = json!(["ROOT/south/a.csv", "ROOT/*/b.csv", "ROOT/north/b.csv"]);
    assert_eq!(
        counts(&mut csv(&root, json!({ "clients": pattern, "files": files }))),
        [one("north", "y", 8, 2), one("south", "y", 4, 1)]
    );
    let error = csv(&root, json!({ "clients": { "pattern": "ROOT/n{client}/*.csv" }, "files": "ROOT/*/a.csv" }))
        .describe(&ctx())
        .unwrap_err();
    assert!(
        error.message().starts_with(&format!("{}/south/a.csv does not match ", root.path().display())),
        "{error:?}"
    );
    assert_eq!(error.place(), Some(&plugin_api::Place::Key("clients.pattern".into())));
}

#[test]
fn sites_share_the_test_table_and_every_row_belongs_to_one_of_them() {
    let root = folder(&[("a.csv", &numbered(0..100))]);
    let mut csv = csv(&root, json!({ "files": "ROOT/a.csv", "clients": { "count": 5, "alpha": 0.5 }, "name": "fit" }));
    let names: Vec<String> = counts(&mut csv).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["site-1", "site-2", "site-3", "site-4", "site-5"]);
    let tasks: Vec<Task> = names.iter().map(|name| csv.load(name, &ctx()).unwrap().remove(0)).collect();
    assert!(tasks.iter().all(|task| task.test.text("seq").unwrap().is_same(tasks[0].test.text("seq").unwrap())));
    assert_eq!(sorted(tasks.iter().map(|task| &task.train).chain([&tasks[0].test])), up_to(100));
    // The split of dataset-flab, which the library's tests fix: the seed's "split", then the task.
    let sites = fedplug_tables::Sites { count: 5.try_into().unwrap(), alpha: 0.5 };
    let (rows, seed) = ((0..100).collect::<Vec<_>>(), Seed::new(42).of("split").of("fit"));
    let split = fedplug_tables::Split::random(&rows, &[0; 100], 0.2, seed).across_sites(Some(sites), seed);
    for (task, part) in tasks.iter().zip(split.site_rows()) {
        assert_eq!(task.train.f32("y").unwrap(), part.iter().map(|&row| row as f32).collect::<Vec<_>>());
    }
}

#[test]
fn a_clients_split_depends_only_on_seed_task_client_and_rows() {
    let both = folder(&[("north.csv", &numbered(0..50)), ("south.csv", &numbered(50..90))]);
    let alone = folder(&[("north.csv", &numbered(0..50))]);
    let train = |root, keys: &Value, seed| {
        let mut keys = keys.clone();
        keys["clients"] = json!({ "pattern": "ROOT/{client}.csv" });
        let ctx = Context::new(&Silent).with_seed(Seed::new(seed));
        csv(root, keys).load("north", &ctx).unwrap()[0].train.f32("y").unwrap().to_vec()
    };
    let none = json!({});
    assert_eq!(train(&both, &none, 1), train(&alone, &none, 1));
    assert_ne!(train(&both, &none, 1), train(&both, &none, 2));
    assert_ne!(train(&both, &none, 1), train(&both, &json!({ "name": "other" }), 1));
    assert_eq!(train(&both, &json!({ "seed": 7 }), 1), train(&both, &json!({ "seed": 7 }), 2));
    let (few, all) = (train(&both, &json!({ "max-samples": 5 }), 1), train(&both, &none, 1));
    assert_eq!(few, all[..5]);
}

#[test]
fn several_tasks_inherit_keys_from_the_table_above() {
    let root = folder(&[
        ("a.csv", "seq,age,y,z\nA,1,10,0.5\nC,2,,1.5\nD,x,30,2.5\nE,4,40,\n"),
        ("b.csv", "seq,y\nF,1\nG,2\n"),
    ]);
    let keys = json!({
        "files": "ROOT/a.csv", "clients": "by-task", "test-fraction": 0.5, "number-inputs": ["age"],
        "task": [
            { "name": "first" },
            { "name": "second", "target": "z" },
            { "name": "third", "files": "ROOT/b.csv", "number-inputs": [] },
        ],
    });
    let mut csv = csv(&root, keys);
    assert_eq!(
        counts(&mut csv),
        [one("first", "first", 1, 1), one("second", "second", 1, 1), one("third", "third", 1, 1)]
    );
    let description = csv.describe(&ctx()).unwrap();
    assert_eq!(description.tasks[1].inputs, ["seq", "age"]);
    let skipped = |i: usize| description.sources[i].skipped.clone();
    let reason = |text: &str| (text.to_owned(), 1);
    assert_eq!(skipped(0), [reason("no `y`"), reason("`age` is not a finite number")]);
    assert_eq!(skipped(1), [reason("no `z`"), reason("`age` is not a finite number")]);
    assert_eq!(description.tasks[2].inputs, ["seq"]);
    let second = csv.load("second", &ctx()).unwrap().remove(0);
    let mut pairs: Vec<(f32, f32)> =
        [&second.train, &second.test].map(|table| (table.f32("age").unwrap()[0], table.f32("z").unwrap()[0])).to_vec();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(pairs, [(1.0, 0.5), (2.0, 1.5)]);
}

#[test]
fn a_client_has_only_tasks_with_rows() {
    let root = folder(&[("a.csv", "seq,who,y,z\nA,n,1,1\nB,s,2,\n")]);
    let tasks = json!([{ "name": "y" }, { "name": "z", "target": "z" }]);
    let keys = json!({ "files": "ROOT/a.csv", "clients": { "column": "who" }, "task": tasks });
    let names: Vec<(String, usize)> = counts(&mut csv(&root, keys)).into_iter().map(|(c, t)| (c, t.len())).collect();
    assert_eq!(names, [("n".to_owned(), 2), ("s".to_owned(), 1)]);
}

#[test]
fn a_given_split_keeps_the_order_of_the_files() {
    let rows: String = (0..20).map(|i| format!("S{i},{i},{}\n", if i % 4 == 0 { " Test" } else { "train" })).collect();
    let root = folder(&[("a.csv", &format!("seq,y,set\n{rows}X,99,val\nX,99,\n"))]);
    let keys = json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "set" });
    let task = csv(&root, keys.clone()).load("y", &ctx()).unwrap().remove(0);
    assert_eq!(task.test.f32("y").unwrap(), [0.0, 4.0, 8.0, 12.0, 16.0]);
    assert_eq!(task.train.f32("y").unwrap()[..4], [1.0, 2.0, 3.0, 5.0]);
    let skipped = csv(&root, keys).describe(&ctx()).unwrap().sources[0].skipped.clone();
    assert_eq!(skipped, [("no `set`".to_owned(), 1), ("`set` is neither `train` nor `test`".to_owned(), 1)]);

    let root = folder(&[("train.csv", &numbered(0..20)), ("test.csv", &numbered(20..25))]);
    let files = json!({ "files": "ROOT/train.csv", "test-files": "ROOT/test.csv", "clients": "by-task" });
    let task = csv(&root, files.clone()).load("y", &ctx()).unwrap().remove(0);
    assert_eq!((task.train.f32("y").unwrap(), sorted([&task.test])[0]), (&up_to(20)[..], 20.0));
    let mut few = files.clone();
    few["max-samples"] = 4.into();
    let task = csv(&root, few).load("y", &ctx()).unwrap().remove(0);
    assert_eq!((task.train.rows(), task.test.rows()), (4, 4));
    assert_ne!(sorted([&task.train]), up_to(4), "the first rows are not a random sample");
    let mut sites = files;
    sites["clients"] = json!({ "count": 2, "alpha": 100.0 });
    let mut csv = csv(&root, sites);
    let parts = ["site-1", "site-2"].map(|name| csv.load(name, &ctx()).unwrap().remove(0));
    assert_eq!(sorted(parts.iter().map(|task| &task.train)), up_to(20));
    assert_ne!(parts[0].train.f32("y").unwrap(), up_to(parts[0].train.rows()), "a part of the first rows");
    assert!(parts.iter().all(|task| task.test.rows() == 5));
}

#[test]
fn a_given_split_needs_training_rows() {
    let root = folder(&[("a.csv", "seq,y,set,no\nA,1,test,train\n")]);
    let error = csv(&root, json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "set" }))
        .describe(&ctx())
        .unwrap_err();
    assert_eq!(error.message(), "task `y` has no training rows");
    let mut csv = csv(&root, json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "no" }));
    assert_eq!(counts(&mut csv), [one("y", "y", 1, 0)]);
}

mod classes;
mod files;
mod folds;
mod groups;
mod keys;
mod no_target;
mod validation;
