//! Groups of rows on one side of a split, files as tasks, and overlaps.

use std::collections::BTreeSet;
use std::fs;

use super::*;

/// A temporary folder with these files.
pub(super) fn files(files: &[(&str, String)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, rows) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("heavy,light,fitness\n{rows}")).unwrap();
    }
    root
}

/// Rows of these antibodies, whose fitness is their number plus `more`.
pub(super) fn rows(antibodies: std::ops::Range<usize>, more: f32) -> String {
    antibodies.map(|i| format!("H{i},L,{}\n", i as f32 + more)).collect()
}

/// The warnings and notes of a description.
pub(super) fn warnings(root: &Path, keys: Value) -> Vec<String> {
    let recorder = Recorder::default();
    flab(root, keys).describe(&Context::new(&recorder).with_seed(Seed::new(42))).unwrap();
    lines_below(&recorder, root)
}

fn overlaps(warnings: &[String]) -> Vec<&str> {
    warnings.iter().map(String::as_str).filter(|line| line.contains("in training, so")).collect()
}

fn antibodies(table: &Table) -> BTreeSet<String> {
    table.text("combined").unwrap().iter().map(str::to_owned).collect()
}

/// The tasks of all clients.
fn tasks(flab: &mut Flab) -> Vec<Task> {
    let names: Vec<String> = flab.describe(&ctx()).unwrap().clients.into_iter().map(|client| client.name).collect();
    names.iter().flat_map(|name| flab.load(name, &ctx()).unwrap()).collect()
}

#[test]
fn an_antibody_stays_on_one_side_unless_not_grouped() {
    let root =
        files(&[("tm/a.csv", rows(0..40, 0.0)), ("tm/b.csv", rows(0..40, 0.1)), ("tm/c.csv", rows(20..60, 0.2))]);
    for clients in [json!("by-task"), json!({ "count": 3, "alpha": 0.5 })] {
        let keys = |more: Value| {
            let mut keys = json!({ "tasks": ["tm"], "clients": clients });
            keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            keys
        };
        let tables = tasks(&mut flab(root.path(), keys(json!({}))));
        let train: BTreeSet<String> = tables.iter().flat_map(|task| antibodies(&task.train)).collect();
        assert!(train.is_disjoint(&antibodies(&tables[0].test)));
        assert_eq!((train.len() + antibodies(&tables[0].test).len(), tables[0].test.rows()), (60, 24));
        assert!(overlaps(&warnings(root.path(), keys(json!({})))).is_empty());
        for (more, advice) in [
            (json!({ "group-by": "none" }), "`group-by = \"sequence\"` keeps them apart"),
            (json!({ "split": "reference" }), "`split = \"random\"` keeps them apart"),
        ] {
            let mut flab = flab(root.path(), keys(more.clone()));
            let tables = tasks(&mut flab);
            let train: BTreeSet<String> = tables.iter().flat_map(|task| antibodies(&task.train)).collect();
            let test = tables[0].test.text("combined").unwrap();
            let count = test.iter().filter(|text| train.contains(*text)).count();
            let count = format!("{count} of 24 test rows have their sequence in training");
            let lines = warnings(root.path(), keys(more));
            assert_eq!(overlaps(&lines), [format!("task `tm`: {count}, so its scores are too good; {advice}")]);
            assert!(lines.contains(&format!("note overlap tm: {count}")), "no note in {lines:?}");
            // The prepared split has the same overlap.
            let out = tempfile::tempdir().unwrap();
            flab.prepare(out.path(), &ctx()).unwrap();
            let lines = warnings(out.path(), keys(json!({})));
            assert!(overlaps(&lines)[0].starts_with(&format!("task `tm`: {count}")), "{lines:?}");
        }
    }
}

#[test]
fn a_task_that_is_one_group_has_no_test_rows_and_a_warning() {
    let root = files(&[("tm/a.csv", (0..9).map(|i| format!("EVQLVESGG{i},L,{i}\n")).collect())]);
    let keys = json!({ "tasks": ["tm"], "group-by": { "identity": 0.9 } });
    assert_eq!(
        warnings(root.path(), keys.clone()),
        ["`tm`: all 9 rows are one group of `group-by`, so there are no test rows"]
    );
    assert_eq!(tasks(&mut flab(root.path(), keys))[0].test.rows(), 0);
}

#[test]
fn the_published_split_does_not_group() {
    let keys = |by: &str| config::read(&json!({ "root": "x", "split": "reference", "group-by": by })).unwrap();
    assert!(Flab::new(keys("none"), &ctx()).is_ok());
    let error = Flab::new(keys("sequence"), &ctx()).err().unwrap();
    assert_eq!(error.to_string(), "`group-by`: `split = \"reference\"` splits row by row, as published");
}

#[test]
fn each_file_is_a_task_with_its_own_scale_and_antibodies_are_on_one_side_in_all() {
    let root = files(&[
        ("aggregation/CST_HIC.csv", rows(0..50, 0.0)),
        ("aggregation/CST SAS.csv", rows(0..50, 1000.0)),
        ("aggregation/no.csv", "A,B,\n".to_owned()),
        ("tm/a.csv", rows(30..60, 0.5)),
    ]);
    for split in ["random", "reference"] {
        for clients in [json!("by-task"), json!({ "count": 2, "alpha": 1.0 })] {
            let keys = json!({
                "tasks": ["aggregation", "tm"], "clients": clients, "split": split, "task-per": "file", "standardise": true,
            });
            let mut raw = flab(root.path(), keys.clone());
            let description = raw.describe(&ctx()).unwrap();
            let names: Vec<&str> = description.tasks.iter().map(|task| task.name.as_str()).collect();
            assert_eq!(names, ["aggregation-CST_SAS", "aggregation-CST_HIC", "tm-a"]);
            assert!(description.scales["aggregation-CST_SAS"].mean > 1000.0 && description.scales["tm-a"].mean < 60.0);
            if clients == "by-task" {
                let clients: Vec<&str> = description.clients.iter().map(|client| client.name.as_str()).collect();
                assert_eq!(clients, names);
            }
            let tables = tasks(&mut raw);
            let all: usize = description.clients.iter().flat_map(|client| &client.tasks).map(|task| task.train).sum();
            assert!(all + tables.iter().map(|task| task.test.rows()).max().unwrap() > 100, "rows are lost");
            let of = |name: &str, part: fn(&Task) -> &Table| {
                let tables = tables.iter().filter(|task| task.spec.name.starts_with(name));
                tables.flat_map(|task| antibodies(part(task))).collect::<BTreeSet<_>>()
            };
            if split == "random" {
                assert_eq!(of("aggregation-CST_SAS", |task| &task.test).len(), 10);
                assert!(of("aggregation", |task| &task.train).is_disjoint(&of("aggregation", |task| &task.test)));
            }
            // Each row's value is its own file's, in its own unit.
            for task in &tables {
                let scale = description.scales[&task.spec.name];
                for (text, score) in task.train.text("combined").unwrap().iter().zip(fitness(&task.train)) {
                    let number: f64 = text.trim_start_matches('H').trim_end_matches("|L").parse().unwrap();
                    let more = match task.spec.name.as_str() {
                        "tm-a" => 0.5,
                        "aggregation-CST_SAS" => 1000.0,
                        _ => 0.0,
                    };
                    assert!((scale.restore(score.into()) - number - more).abs() < 1e-2, "{text} {score}");
                }
            }
            // Prepared data is used with the same keys.
            let out = tempfile::tempdir().unwrap();
            raw.prepare(out.path(), &ctx()).unwrap();
            let mut prepared = flab(out.path(), keys);
            let again = prepared.describe(&ctx()).unwrap();
            let counts = |description: &Description| {
                let tasks = description.clients.iter().flat_map(|client| &client.tasks);
                tasks.fold((0, 0), |sum, task| (sum.0 + task.train, sum.1 + task.test))
            };
            assert_eq!(counts(&again), counts(&description));
            for (task, scale) in &again.scales {
                assert!((scale.mean - description.scales[task].mean).abs() < 1e-3, "{task}");
            }
        }
    }
}

#[test]
fn antibodies_that_another_folder_trains_on_are_counted() {
    let root = files(&[("tm/a.csv", rows(0..40, 0.0)), ("binding/b.csv", rows(20..60, 0.1))]);
    let out = tempfile::tempdir().unwrap();
    let keys = json!({ "tasks": ["tm", "binding"], "clients": { "count": 2, "alpha": 1.0 } });
    let mut raw = flab(root.path(), keys.clone());
    let all = tasks(&mut raw);
    let shared = |task: usize, other: usize| {
        let trained: BTreeSet<String> =
            all.iter().skip(other).step_by(2).flat_map(|task| antibodies(&task.train)).collect();
        all[task].test.text("combined").unwrap().iter().filter(|text| trained.contains(*text)).count()
    };
    let expected: Vec<String> = [("tm", "binding", shared(0, 1)), ("binding", "tm", shared(1, 0))]
        .iter()
        .map(|(task, other, count)| format!("note overlap across tasks {task}: {count} of 8 test rows have a sequence that other tasks train on: `{other}`"))
        .collect();
    raw.prepare(out.path(), &ctx()).unwrap();
    // The split of the measurements and the prepared one.
    for root in [root.path(), out.path()] {
        let notes: Vec<String> =
            warnings(root, keys.clone()).into_iter().filter(|line| line.starts_with("note overlap across")).collect();
        assert_eq!(notes, expected);
    }
    assert!(warnings(root.path(), json!({ "tasks": ["tm"] })).is_empty());
}

#[test]
fn real_measurements_overlap_only_across_tasks_by_default() {
    let Some(shared) = std::env::var_os("FEDPLUG_SHARED") else {
        eprintln!("skipped: FEDPLUG_SHARED does not name the folder with flab/data");
        return;
    };
    let root = PathBuf::from(shared).join("flab/data");
    let count = |keys: Value| -> Vec<String> {
        let warnings = warnings(&root, keys);
        overlaps(&warnings).iter().map(|line| line.split(" test rows").next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        count(json!({ "group-by": "none" })),
        [
            "task `aggregation`: 164 of 164",
            "task `binding`: 137 of 236",
            "task `immunogenicity`: 1 of 43",
            "task `polyreactivity`: 106 of 110",
        ]
    );
    assert!(count(json!({})).is_empty());
    assert!(count(json!({ "task-per": "file" })).is_empty());
    // Folders are split independently, and most have the same 137 clinical-stage antibodies.
    let across: Vec<String> = warnings(&root, json!({}))
        .iter()
        .filter_map(|line| line.strip_prefix("note overlap across tasks ")?.split_once(" test rows"))
        .map(|(count, _)| count.to_owned())
        .collect();
    assert_eq!(
        across,
        [
            "aggregation: 162 of 162",
            "expression: 27 of 27",
            "immunogenicity: 19 of 43",
            "polyreactivity: 108 of 108",
            "tm: 27 of 27",
        ]
    );
}
