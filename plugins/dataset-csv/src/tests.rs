use std::fs;
use std::sync::Mutex;

use super::*;
use plugin_api::context::{Host, Silent};
use plugin_api::{Column, Level, Seed, TaskSpec, config};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A host that keeps the lines of level `warn`.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl Host for Lines {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, _: &str, _: u64, _: f64) {}
    fn progress(&self, _: u64, _: u64) {}
    fn note(&self, _: &str, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

fn ctx() -> Context<'static> {
    Context::new(&Silent).with_seed(Seed::new(42))
}

/// A folder with these files.
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

/// The keys with `ROOT` in them as this folder, and `inputs = ["seq"]`, `target = "y"` unless they say otherwise.
fn try_csv(root: &TempDir, keys: &Value) -> Result<Csv> {
    let text = keys.to_string().replace("ROOT", root.path().to_str().unwrap());
    let mut keys: Value = serde_json::from_str(&text).unwrap();
    let table = keys.as_object_mut().unwrap();
    table.entry("inputs").or_insert(json!(["seq"]));
    table.entry("target").or_insert("y".into());
    Csv::new(config::read(&keys).unwrap(), &ctx())
}

fn csv(root: &TempDir, keys: Value) -> Csv {
    try_csv(root, &keys).unwrap()
}

fn texts(table: &Table, column: &str) -> Vec<String> {
    table.text(column).unwrap().iter().map(str::to_owned).collect()
}

/// A client with its tasks and their numbers of rows to train and to test on.
type Counted = (String, Vec<(String, usize, usize)>);

fn counts(csv: &mut Csv) -> Vec<Counted> {
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
    assert_eq!(task.spec, TaskSpec { name: "y".into(), inputs: vec!["seq".into()], target: "y".into() });
    assert_eq!(sorted([&task.train, &task.test]), (0..10).map(|i| (3 * i + 2) as f32).collect::<Vec<_>>());
    assert_eq!(texts(&task.train, "seq")[0], format!("S{}", task.train.f32("y").unwrap()[0]));
    let error = csv.load("east", &ctx()).unwrap_err();
    assert_eq!(
        (error.message(), error.hint()),
        ("there is no client `east`", Some("there are `St. Mary`, `north`, `south`"))
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
    assert!(error.message().starts_with(&format!("{}/south/a.csv does not fit ", root.path().display())), "{error:?}");
    assert_eq!(error.place(), Some(&plugin_api::Place::Key("clients.pattern".into())));
}

#[test]
fn sites_share_the_test_table_and_every_row_has_one_owner() {
    let root = folder(&[("a.csv", &numbered(0..100))]);
    let mut csv = csv(&root, json!({ "files": "ROOT/a.csv", "clients": { "count": 5, "alpha": 0.5 }, "name": "fit" }));
    let names: Vec<String> = counts(&mut csv).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["site-1", "site-2", "site-3", "site-4", "site-5"]);
    let tasks: Vec<Task> = names.iter().map(|name| csv.load(name, &ctx()).unwrap().remove(0)).collect();
    assert!(tasks.iter().all(|task| task.test.text("seq").unwrap().is_same(tasks[0].test.text("seq").unwrap())));
    assert_eq!(sorted(tasks.iter().map(|task| &task.train).chain([&tasks[0].test])), up_to(100));
    // The deal of dataset-flab, which the library's tests fix: the seed's "split", then the task.
    let sites = fedplug_tables::Sites { count: 5.try_into().unwrap(), alpha: 0.5 };
    let deal = fedplug_tables::Deal::random(100, 0.2, Some(sites), Seed::new(42).of("split").of("fit"));
    for (task, part) in tasks.iter().zip(deal.parts()) {
        assert_eq!(task.train.f32("y").unwrap(), part.iter().map(|&row| row as f32).collect::<Vec<_>>());
    }
}

#[test]
fn a_clients_split_depends_on_seed_task_client_and_its_rows_alone() {
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
fn several_tasks_take_what_they_do_not_say_from_the_table_above() {
    let root = folder(&[
        ("a.csv", "seq,age,y,z\nA,1,10,0.5\nC,2,,1.5\nD,?,30,2.5\nE,4,40,\n"),
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
fn a_client_has_the_tasks_that_it_has_rows_of() {
    let root = folder(&[("a.csv", "seq,who,y,z\nA,n,1,1\nB,s,2,\n")]);
    let tasks = json!([{ "name": "y" }, { "name": "z", "target": "z" }]);
    let keys = json!({ "files": "ROOT/a.csv", "clients": { "column": "who" }, "task": tasks });
    let names: Vec<(String, usize)> = counts(&mut csv(&root, keys)).into_iter().map(|(c, t)| (c, t.len())).collect();
    assert_eq!(names, [("n".to_owned(), 2), ("s".to_owned(), 1)]);
}

#[test]
fn a_given_split_is_kept_in_the_files_order() {
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
    assert_ne!(sorted([&task.train]), up_to(4), "the first rows are no random ones");
    let mut sites = files;
    sites["clients"] = json!({ "count": 2, "alpha": 100.0 });
    let mut csv = csv(&root, sites);
    let parts = ["site-1", "site-2"].map(|name| csv.load(name, &ctx()).unwrap().remove(0));
    assert_eq!(sorted(parts.iter().map(|task| &task.train)), up_to(20));
    assert_ne!(parts[0].train.f32("y").unwrap(), up_to(parts[0].train.rows()), "a part of the first rows");
    assert!(parts.iter().all(|task| task.test.rows() == 5));
}

#[test]
fn text_is_kept_or_read_as_a_sequence_and_numbers_without_what_does_not_show() {
    let root = folder(&[("a.tsv", "\u{feff}seq\tage \ty\n\"\u{200b} E V\nQ \"\t\u{a0}1.5\t\u{202d}-2e1\n")]);
    for (text, expected) in [("plain", "E V\nQ"), ("sequence", "EVQ")] {
        let keys = json!({ "files": "ROOT/*.tsv", "delimiter": "\t", "number-inputs": ["age"], "clients": "by-task", "text": text });
        let table = csv(&root, keys).load("y", &ctx()).unwrap().remove(0).train;
        assert_eq!(texts(&table, "seq"), [expected]);
        assert_eq!((table.f32("age").unwrap(), table.f32("y").unwrap()), (&[1.5][..], &[-20.0][..]));
        assert!(matches!(table.column("age"), Some(Column::F32(_))));
    }
}

#[test]
fn what_cannot_be_used_is_told_file_by_file() {
    let bad = "seq,y,who\nA,1,n\n,1,n\nA,,n\nA,1,\u{200b}\nA,nan,n\nA,1e99,n\nA,1\n\n";
    let root = folder(&[("a.csv", bad), ("b.csv", "seq,who\nA,n\n"), ("c.csv", ""), ("d.csv", "seq,y,who\n")]);
    let lines = Lines::default();
    let ctx = Context::new(&lines).with_seed(Seed::new(1));
    let keys = json!({ "files": "ROOT/*.csv", "clients": { "column": "who" } });
    let description = csv(&root, keys).describe(&ctx).unwrap();
    assert_eq!(description.sources.iter().map(|s| s.rows).collect::<Vec<_>>(), [1, 0, 0, 0]);
    assert!(description.sources.iter().all(|source| source.sha256.len() == 64));
    let told: Vec<String> = lines.0.into_inner().unwrap();
    let told: Vec<String> = told.iter().map(|l| l.replace(&format!("{}/", root.path().display()), "")).collect();
    let reasons = "wrong number of columns (1), no `seq` (1), no `y` (1), no `who` (1), `y` is not a finite number (2)";
    assert_eq!(
        told,
        [
            format!("a.csv: 6 of 7 rows left out: {reasons}"),
            "b.csv: the file is left out: it has no column `y`, only `seq`, `who`".to_owned(),
            "c.csv: the file is left out: it is empty".to_owned(),
            "d.csv: the file is left out: it has no row".to_owned(),
        ]
    );
    let keys = json!({ "files": ["ROOT/b.csv", "ROOT/d.csv"], "clients": "by-task" });
    let error = csv(&root, keys).describe(&Context::new(&Silent)).unwrap_err();
    assert_eq!(error.message(), "task `y` has no usable row");
    assert_eq!(error.hint(), Some("a row needs a text in `seq`, a finite number in `y`"));
    assert_eq!(error.causes().len(), 2);
}

#[test]
fn a_value_that_cannot_name_a_client_is_told_with_its_file_and_line() {
    for name in ["a/b", "a\\b", ".hidden", "server", &"x".repeat(256)] {
        let root = folder(&[("a.csv", &format!("seq,y,who\nA,1,n\nA,1,{name}\n"))]);
        let keys = json!({ "files": "ROOT/a.csv", "clients": { "column": "who" } });
        let error = csv(&root, keys).describe(&ctx()).unwrap_err();
        let place = root.path().join("a.csv");
        assert_eq!(error.to_string(), format!("{}:3: `{name}` cannot name a client", place.display()));
    }
    let root = folder(&[("server.csv", &numbered(0..3))]);
    let error = csv(&root, json!({ "clients": { "pattern": "ROOT/{client}.csv" } })).describe(&ctx()).unwrap_err();
    assert!(error.to_string().ends_with("server.csv: `server` cannot name a client"), "{error}");
}

#[test]
fn prepared_data_are_read_again_to_the_same_bits() {
    let rows: String = (0..40)
        .map(|i| {
            format!(
                "\"S {i},\n\",{},{},{}\n",
                1.0 / (f64::from(i) + 0.7),
                f64::from(i) * 1e-30,
                ["n", "s"][(i % 2) as usize]
            )
        })
        .collect();
    let root = folder(&[("a.csv", &format!("seq,y,age,who\n{rows}Z,1,1,alone\n"))]);
    for clients in [json!({ "column": "who" }), json!({ "count": 3, "alpha": 1.0 })] {
        let keys = json!({ "files": "ROOT/a.csv", "number-inputs": ["age"], "clients": clients, "max-samples": 12 });
        let mut raw = csv(&root, keys);
        let out = tempfile::tempdir().unwrap();
        let files = raw.prepare(out.path(), &ctx()).unwrap();
        assert!(files.iter().all(|path| path.is_file()) && files[0].ends_with("train.csv"));
        let pattern = json!({ "pattern": "ROOT/*/{client}/*.csv" });
        let again = json!({
            "files": "ROOT/y/*/train.csv", "test-files": "ROOT/y/*/test.csv", "number-inputs": ["age"], "clients": pattern,
        });
        let mut again = csv(&out, again);
        assert_eq!(counts(&mut again), counts(&mut raw));
        for (client, _) in counts(&mut raw) {
            let both = [&mut raw, &mut again].map(|csv| {
                let task = csv.load(&client, &ctx()).unwrap().remove(0);
                let bits =
                    |table: &Table, name| table.f32(name).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                [&task.train, &task.test].map(|table| (texts(table, "seq"), bits(table, "y"), bits(table, "age")))
            });
            assert_eq!(both[0], both[1]);
        }
        let error = raw.prepare(out.path(), &ctx()).unwrap_err();
        assert_eq!(error.message(), "there is such a file already");
    }
}

#[test]
fn rows_to_be_predicted_come_with_the_inputs_in_the_files_order() {
    let root = folder(&[("x.csv", "age,id,\u{feff}seq\n1,7, E V \n2.5,8,Q\n3,9,L\n"), ("half.csv", "seq\nA\n")]);
    let keys = json!({
        "files": "ROOT/none.csv", "clients": "by-task",
        "task": [{ "name": "first", "number-inputs": ["age"] }, { "name": "second" }],
    });
    let mut csv = csv(&root, keys);
    for at_most in [1, 2, 100] {
        csv.open_rows(&root.path().join("x.csv"), &ctx()).unwrap();
        let (mut seqs, mut ages) = (Vec::new(), Vec::new());
        loop {
            let table = csv.next_rows(at_most, &ctx()).unwrap();
            assert_eq!(table.columns().map(|(name, _)| name).collect::<Vec<_>>(), ["seq", "age"]);
            if table.rows() == 0 {
                break;
            }
            seqs.extend(texts(&table, "seq"));
            ages.extend(table.f32("age").unwrap().to_vec());
        }
        assert_eq!((seqs, ages), (vec!["E V".into(), "Q".into(), "L".into()], vec![1.0, 2.5, 3.0]));
    }
    // A file that is enough for one task alone.
    csv.open_rows(&root.path().join("half.csv"), &ctx()).unwrap();
    assert_eq!(csv.next_rows(9, &ctx()).unwrap().columns().map(|(name, _)| name).collect::<Vec<_>>(), ["seq"]);
}

#[test]
fn what_cannot_be_predicted_is_told_with_its_line() {
    for (text, wanted) in [
        ("age,y\n1,2\n", "x.csv:1: has no column `seq`"),
        ("seq,age\nA,1\n ,2\n", "x.csv:3: no `seq`"),
        ("seq,age\nA,1\nB\n", "x.csv:3: no `age`"),
        ("seq,age\nA,one\n", "x.csv:2: `age` is not a finite number"),
    ] {
        let root = folder(&[("x.csv", text)]);
        let mut csv = csv(&root, json!({ "files": "none.csv", "clients": "by-task", "number-inputs": ["age"] }));
        let told = csv.open_rows(&root.path().join("x.csv"), &ctx()).and_then(|()| csv.next_rows(9, &ctx()).map(drop));
        let told = told.unwrap_err().to_string();
        assert!(told.ends_with(wanted), "{told}");
    }
}

#[test]
fn keys_that_do_not_go_together_are_told_with_their_place() {
    let root = folder(&[("a.csv", &numbered(0..5))]);
    for (keys, wanted) in [
        (json!({}), "`files` is missing"),
        (json!({ "files": "x", "inputs": [] }), "`inputs` is missing"),
        (json!({ "files": "x", "task": [{ "name": "a", "inputs": [] }] }), "`task.0`: `inputs` is missing"),
        (json!({ "files": "x", "name": "b", "task": [{ "name": "a" }] }), "`name`: each task has a name of its own"),
        (json!({ "files": "x", "task": [{ "name": "a" }, { "name": "a" }] }), "`task.1.name`: two tasks are named `a`"),
        (json!({ "files": "x", "name": "a/b" }), "`name`: `a/b` cannot name the task's folder"),
        (json!({ "files": "x", "inputs": ["y"] }), "`target`: `y` is what the model reads"),
        (json!({ "files": "x", "inputs": ["seq", "seq"] }), "`inputs`: `seq` stands here twice"),
        (
            json!({ "files": "x", "task": [{ "name": "a" }, { "name": "b", "inputs": [], "number-inputs": ["seq"] }] }),
            "`task.1.inputs`: `seq` is text for one task and a number for another",
        ),
        (
            json!({ "files": "x", "test-files": "y", "test-column": "set" }),
            "`test-column`: both `test-column` and `test-files` say which rows are to be tested on",
        ),
        (
            json!({ "files": "x", "test-column": "set", "test-fraction": 0.5 }),
            "`test-fraction`: no row is split at random, so there is no influence of it",
        ),
    ] {
        let mut keys = keys;
        keys["clients"] = "by-task".into();
        assert_eq!(try_csv(&root, &keys).err().unwrap().to_string(), wanted);
    }
    for (keys, wanted) in [
        (json!({ "files": "ROOT/b*.csv" }), "`files`: `ROOT/b*.csv` names no file"),
        (json!({ "files": "ROOT/a.csv", "test-files": "ROOT/b.csv" }), "`test-files`: `ROOT/b.csv` names no file"),
        (
            json!({ "files": "ROOT/a.csv", "task": [{ "name": "t", "files": ["ROOT/a.csv", "ROOT/b"] }] }),
            "`task.0.files`: `ROOT/b` names no file",
        ),
        (
            json!({ "files": "ROOT/a.csv", "test-files": "ROOT/*.csv" }),
            "`test-files`: ROOT/a.csv is also one of `files`, whose rows are trained on",
        ),
        (
            json!({ "clients": { "pattern": "ROOT/{client}/*.csv" } }),
            "`clients.pattern`: `ROOT/{client}/*.csv` names no file",
        ),
    ] {
        let mut keys = keys;
        keys.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let told = csv(&root, keys).describe(&ctx()).unwrap_err().to_string();
        assert_eq!(told.replace(root.path().to_str().unwrap(), "ROOT"), wanted);
    }
}

#[test]
fn a_given_split_needs_rows_to_train_on_and_tells_that_none_are_tested() {
    let root = folder(&[("a.csv", "seq,y,set,no\nA,1,test,train\n")]);
    let error = csv(&root, json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "set" }))
        .describe(&ctx())
        .unwrap_err();
    assert_eq!(error.message(), "task `y` has no row to train on");
    let lines = Lines::default();
    let mut csv = csv(&root, json!({ "files": "ROOT/a.csv", "clients": "by-task", "test-column": "no" }));
    csv.describe(&Context::new(&lines)).unwrap();
    assert_eq!(lines.0.into_inner().unwrap(), ["task `y` has no row to test on"]);
}

#[test]
fn keys_are_checked_while_they_are_read() {
    let told = |mut more: Value| -> Vec<String> {
        more.as_object_mut().unwrap().entry("clients").or_insert("by-task".into());
        let problems = config::read::<Config>(&more).unwrap_err();
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    };
    let ways = "`\"by-task\"`, `{ column = \"hospital\" }`, `{ pattern = \"data/{client}/*.csv\" }` or \
                `{ count = 6, alpha = 1.0 }`";
    for (keys, wanted) in [
        (json!({ "clients": {} }), format!("clients: must be one of {ways}")),
        (json!({ "clients": { "column": "a", "count": 2 } }), format!("clients: must be one of {ways}")),
        (json!({ "clients": 3 }), format!("clients: invalid type: integer `3`, expected {ways}")),
        (json!({ "clients": "by-tusk" }), "clients: unknown value `by-tusk`".into()),
        (json!({ "clients": { "columm": "a" } }), "clients.columm: unknown key `columm`".into()),
        (json!({ "clients": { "count": 2 } }), "clients: `alpha` is missing".into()),
        (
            json!({ "clients": { "count": 2, "alpha": 0 } }),
            "clients.alpha: must lie between 0.000001 and 1000000, not 0".into(),
        ),
        (
            json!({ "clients": { "pattern": "data/*.csv" } }),
            "clients: `data/*.csv` does not say with `{client}` where a client's name stands".into(),
        ),
        (
            json!({ "files": "{client}.csv" }),
            "files: `{client}.csv`: `{client}` has its place in `clients = { pattern = \"{client}.csv\" }`".into(),
        ),
        (
            json!({ "files": ["a.csv", "b/**"] }),
            "files.1: `b/**`: `**` has no meaning here; a `*` stands for names in one folder".into(),
        ),
        (json!({ "files": [] }), "files: names no file".into()),
        (json!({ "task": [] }), "task: an experiment needs at least one task".into()),
        (json!({ "task": [{ "nam": "x", "name": "y" }] }), "task.0.nam: unknown key `nam`".into()),
        (json!({ "delimiter": ";;" }), "delimiter: must be one ASCII character other than `\"`, not `;;`".into()),
        (json!({ "test-fraction": 1 }), "test-fraction: must be more than 0 and less than 1, not 1".into()),
    ] {
        assert_eq!(told(keys)[0], wanted);
    }
}
