use super::*;
use plugin_api::context::Silent;
use plugin_api::{ClientSpec, ClientTask, Seed, Table, TaskSpec, config};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::Recorder;

/// The recorded lines, with paths relative to the folder. Chains made up here contain digits, whose warnings are omitted.
pub(crate) fn lines_below(recorder: &Recorder, folder: &Path) -> Vec<String> {
    let mut lines = recorder.lines_below(folder);
    let digit = |line: &String| line.contains("letters other") && ('0'..='9').any(|d| line.contains(&format!("`{d}`")));
    lines.retain(|line| !digit(line));
    lines
}

fn ctx() -> Context<'static> {
    Context::new(&Silent).with_seed(Seed::new(42))
}

/// A temporary folder with tasks of this many rows, whose fitness is 0, 1, 2, …
fn folder(tasks: &[(&str, usize)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (task, rows) in tasks {
        std::fs::create_dir(root.path().join(task)).unwrap();
        let rows: String = (0..*rows).map(|i| format!("H{i},L,{i}\n")).collect();
        std::fs::write(root.path().join(task).join("a.csv"), format!("heavy,light,fitness\n{rows}")).unwrap();
    }
    root
}

fn flab(root: &Path, keys: Value) -> Flab {
    let mut table = json!({ "root": root });
    table.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Flab::new(config::read(&table).unwrap(), &ctx()).unwrap()
}

fn fitness(table: &Table) -> Vec<f32> {
    table.f32("fitness").unwrap().to_vec()
}

#[test]
fn by_task_each_client_has_its_task() {
    let root = folder(&[("tm", 10), ("binding", 5)]);
    let mut flab = flab(root.path(), json!({ "tasks": ["tm", "binding"] }));
    let description = flab.describe(&ctx()).unwrap();
    let counts: Vec<_> =
        description.clients.iter().map(|c| (c.name.as_str(), c.tasks[0].train, c.tasks[0].test)).collect();
    assert_eq!(counts, [("tm", 8, 2), ("binding", 4, 1)]);
    assert_eq!(
        description.tasks[1],
        TaskSpec {
            name: "binding".into(),
            inputs: vec!["combined".into()],
            target: "fitness".into(),
            ..TaskSpec::default()
        }
    );
    assert_eq!(description.sources.iter().map(|s| s.rows).collect::<Vec<_>>(), [10, 5]);
    let task = flab.load("tm", &ctx()).unwrap().remove(0);
    let mut all = [fitness(&task.train), fitness(&task.test)].concat();
    assert_eq!(task.train.text("combined").unwrap().get(0), format!("H{}|L", all[0]));
    all.sort_unstable_by(f32::total_cmp);
    assert_eq!(all, (0..10).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn sites_share_the_test_table_and_every_training_row_belongs_to_one_of_them() {
    let root = folder(&[("tm", 100), ("binding", 7)]);
    for alpha in [0.001, 1.0] {
        let keys = json!({ "tasks": ["tm", "binding"], "clients": { "count": 5, "alpha": alpha } });
        let mut flab = flab(root.path(), keys);
        let names: Vec<_> = flab.describe(&ctx()).unwrap().clients.into_iter().map(|client| client.name).collect();
        assert_eq!(names, ["site-1", "site-2", "site-3", "site-4", "site-5"]);
        let loaded: Vec<_> = names.iter().map(|name| flab.load(name, &ctx()).unwrap()).collect();
        for (task, rows) in [(0, 100), (1, 7)] {
            let test = &loaded[0][task].test;
            assert!(
                loaded.iter().all(|tasks| tasks[task]
                    .test
                    .text("combined")
                    .unwrap()
                    .is_same(test.text("combined").unwrap()))
            );
            let mut all: Vec<f32> =
                loaded.iter().flat_map(|tasks| fitness(&tasks[task].train)).chain(fitness(test)).collect();
            all.sort_unstable_by(f32::total_cmp);
            assert_eq!(all, (0..rows).map(|i| i as f32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_split_depends_only_on_seed_and_task() {
    let root = folder(&[("tm", 50), ("binding", 50)]);
    let train = |keys, seed| {
        let ctx = Context::new(&Silent).with_seed(Seed::new(seed));
        fitness(&flab(root.path(), keys).load("tm", &ctx).unwrap()[0].train)
    };
    let only = || json!({ "tasks": ["tm"] });
    assert_eq!(train(only(), 1), train(json!({ "tasks": ["binding", "tm"] }), 1));
    assert_ne!(train(only(), 1), train(only(), 2));
    let own_seed = || json!({ "tasks": ["tm"], "seed": 7 });
    assert_eq!(train(own_seed(), 1), train(own_seed(), 2));
}

#[test]
fn samples_are_a_subset_of_all_rows() {
    let root = folder(&[("tm", 50)]);
    let load = |keys| flab(root.path(), keys).load("tm", &ctx()).unwrap().remove(0);
    let (few, all) = (load(json!({ "tasks": ["tm"], "max-samples": 5 })), load(json!({ "tasks": ["tm"] })));
    assert_eq!((few.train.rows(), few.test.rows(), all.train.rows()), (5, 5, 40));
    assert!(fitness(&few.train).iter().all(|value| fitness(&all.train).contains(value)));
}

#[test]
fn files_are_sorted_by_name_and_the_target_can_be_chosen() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("tm")).unwrap();
    for (name, row) in [("b.csv", "B,B,2"), ("a.csv", "A,A,1"), ("c.csv", "")] {
        std::fs::write(root.path().join("tm").join(name), format!("heavy,light,log Kd\n{row}\n")).unwrap();
    }
    let mut flab = flab(root.path(), json!({ "tasks": ["tm"], "target": "log Kd" }));
    let description = flab.describe(&ctx()).unwrap();
    let files: Vec<_> =
        description.sources.iter().map(|s| (s.path.file_name().unwrap().to_str().unwrap(), s.rows)).collect();
    assert_eq!(files, [("a.csv", 1), ("b.csv", 1), ("c.csv", 0)]);
    assert_eq!(flab.load("tm", &ctx()).unwrap()[0].train.f32("log Kd").unwrap().len(), 1);
}

#[test]
fn a_task_without_usable_rows_is_an_error_with_the_reasons() {
    let root = folder(&[("tm", 0), ("binding", 3)]);
    std::fs::write(root.path().join("tm/b.csv"), "heavy,light,fitness\nA,B,\n").unwrap();
    let error = flab(root.path(), json!({ "tasks": ["binding", "tm"] })).describe(&ctx()).unwrap_err();
    assert_eq!(error.message(), "task `tm` has no usable rows");
    let tm = root.path().join("tm");
    let cause = |file: &str, what: &str| format!("{}: {what}", tm.join(file).display());
    assert_eq!(error.causes(), [cause("a.csv", "it has no rows (0 rows)"), cause("b.csv", "no `fitness` (1 rows)")]);
    assert_eq!(error.hint(), Some("a row needs `heavy`, `light` and a finite number in `fitness`"));
    std::fs::create_dir(root.path().join("empty")).unwrap();
    let error = flab(root.path(), json!({ "tasks": ["empty"] })).describe(&ctx()).unwrap_err();
    assert_eq!(error.causes(), ["the folder contains no CSV files"]);
}

#[test]
fn unknown_clients_and_inputs_as_targets_are_errors() {
    let root = folder(&[("tm", 3)]);
    let error = flab(root.path(), json!({ "tasks": ["tm"] })).load("tn", &ctx()).unwrap_err();
    assert_eq!((error.message(), error.hint()), ("there is no client `tn`", Some("its clients: `tm`")));
    let config = config::read(&json!({ "root": "x", "target": "light" })).unwrap();
    assert_eq!(Flab::new(config, &ctx()).err().unwrap().to_string(), "`target`: `light` is an input of the model");
}

#[test]
fn all_real_measurements_are_read() {
    let Some(root) = test_support::shared("flab/data") else { return };
    let recorder = Recorder::default();
    let ctx = Context::new(&recorder).with_seed(Seed::new(42));
    let description = flab(&root, json!({})).describe(&ctx).unwrap();
    let rows: Vec<_> = description.clients.iter().map(|c| c.tasks[0].train + c.tasks[0].test).collect();
    assert_eq!(rows.len(), 6);
    let without_value: usize =
        description.sources.iter().flat_map(|s| &s.skipped).filter(|s| s.0 == "no `fitness`").map(|s| s.1).sum();
    let binding: usize =
        description.sources.iter().filter(|s| s.path.starts_with(root.join("binding"))).map(|s| s.rows).sum();
    assert_eq!((without_value, binding, rows[1]), (1097, 2277 - 1097, 2277 - 1097));
    let lines = lines_below(&recorder, &root);
    assert_eq!(lines.iter().filter(|line| line.contains("rows skipped")).count(), 1, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("in training")), "{lines:?}");
}

mod classes;
mod folders;
mod folds;
mod groups;
mod parity;
mod prepared;
mod validation;

#[test]
fn standardised_targets_have_one_scale_at_all_sites() {
    let root = folder(&[("tm", 50)]);
    let keys = |standardise: bool| json!({ "tasks": ["tm"], "clients": { "count": 3, "alpha": 1.0 }, "standardise": standardise });
    let train = |standardise: bool| -> Vec<f32> {
        let mut flab = flab(root.path(), keys(standardise));
        let names: Vec<_> = flab.describe(&ctx()).unwrap().clients.into_iter().map(|client| client.name).collect();
        names.iter().flat_map(|name| fitness(&flab.load(name, &ctx()).unwrap()[0].train)).collect()
    };
    let (raw, scores) = (train(false), train(true));
    let mean = raw.iter().sum::<f32>() / raw.len() as f32;
    let deviation = (raw.iter().map(|y| (y - mean).powi(2)).sum::<f32>() / raw.len() as f32).sqrt();
    assert!(raw.iter().zip(&scores).all(|(y, score)| ((y - mean) / deviation - score).abs() < 1e-5));
}

#[test]
fn a_scale_is_noted_once_and_is_that_of_the_tables() {
    let root = folder(&[("tm", 5)]);
    let (recorder, later) = (Recorder::default(), Recorder::default());
    let mut flab = flab(root.path(), json!({ "tasks": ["tm"], "standardise": true }));
    flab.describe(&Context::new(&recorder)).unwrap();
    let task = flab.load("tm", &Context::new(&later)).unwrap().remove(0);
    let lines = lines_below(&recorder, root.path());
    let numbers: Vec<f32> = lines[0].split(' ').filter_map(|word| word.parse().ok()).collect();
    // The fitness of a row is its number, which its heavy chain says as well.
    let text = |table: &Table, row: usize| table.text("combined").unwrap().get(row).to_owned();
    for table in [&task.train, &task.test] {
        for (row, score) in fitness(table).into_iter().enumerate() {
            assert_eq!(text(table, row), format!("H{:.0}|L", (numbers[0] + numbers[1] * score).abs()));
        }
    }
    // And that it reveals something of the data.
    assert!(lines[1].ends_with("mean and standard deviation of each task's targets"), "{lines:?}");
    assert_eq!((lines.len(), lines_below(&later, root.path()).len()), (2, 0), "{lines:?}");
}

#[test]
fn targets_are_standardised_by_given_numbers_without_a_word_of_the_data() {
    let root = folder(&[("tm", 20), ("kd", 10)]);
    let scale = json!({ "mean": 3.0, "deviation": 2.0 });
    let keys = |standardise: serde_json::Value| json!({ "tasks": ["tm", "kd"], "standardise": standardise });
    let train = |standardise| fitness(&flab(root.path(), keys(standardise)).load("tm", &ctx()).unwrap()[0].train);
    let raw = train(json!(false));
    for given in [scale.clone(), json!({ "tm": scale, "kd": { "mean": 0, "deviation": 1 } })] {
        let wanted: Vec<f32> = raw.iter().map(|y| (y - 3.0) / 2.0).collect();
        assert_eq!(train(given.clone()), wanted);
        let recorder = Recorder::default();
        let description = flab(root.path(), keys(given)).describe(&Context::new(&recorder)).unwrap();
        assert_eq!(description.scales["tm"], plugin_api::Scale { mean: 3.0, deviation: 2.0 });
        assert!(!lines_below(&recorder, root.path()).iter().any(|line| line.contains("mean and standard deviation")));
    }
    let error = flab(root.path(), keys(json!({ "tm": scale }))).describe(&ctx()).unwrap_err();
    assert_eq!(error.to_string(), "`standardise`: task `kd` has no mean and deviation here");
    let all = json!({ "tm": scale, "kd": scale, "ph": scale });
    let error = flab(root.path(), keys(all)).describe(&ctx()).unwrap_err();
    assert_eq!(error.to_string(), "`standardise.ph`: there is no task `ph`");
}
