//! Groups of rows on one side of a split, files as tasks, and audits.

use std::collections::BTreeSet;
use std::fs;

use plugin_api::ORIGIN;

use super::*;

/// A temporary folder with these files.
fn files(files: &[(&str, String)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, rows) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("heavy,light,fitness\n{rows}")).unwrap();
    }
    root
}

/// Rows of these antibodies, whose fitness is their number plus `more`.
fn rows(antibodies: std::ops::Range<usize>, more: f32) -> String {
    antibodies.map(|i| format!("H{i},L,{}\n", i as f32 + more)).collect()
}

/// The warnings and notes of a description.
fn warnings(root: &Path, keys: Value) -> Vec<String> {
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
fn files_are_selected_by_patterns() {
    let root = files(&[
        ("tm/a_HIC.csv", rows(0..9, 0.0)),
        ("tm/b_HIC.csv", rows(9..15, 0.0)),
        ("tm/c_SAS.csv", rows(15..40, 0.0)),
    ]);
    let read = |keys: Value| -> Vec<usize> {
        flab(root.path(), keys).describe(&ctx()).unwrap().sources.iter().map(|source| source.rows).collect()
    };
    assert_eq!(read(json!({ "tasks": ["tm"], "files": "*_HIC.csv" })), [9, 6]);
    assert_eq!(read(json!({ "tasks": ["tm"], "files": ["*_HIC.csv"], "exclude": ["tm/a*"] })), [6]);
    let error = flab(root.path(), json!({ "tasks": ["tm"], "exclude": "*_hic.csv" })).describe(&ctx()).unwrap_err();
    assert_eq!(error.to_string(), "`exclude`: `*_hic.csv` matches no file");
}

#[test]
fn identical_files_repeats_contradictions_and_units_are_reported_and_nothing_is_dropped() {
    let kd = || rows(0..20, 60.0);
    let root = files(&[
        ("tm/d44_Kd.csv", kd()),
        ("tm/d44_kd.csv", kd()),
        ("tm/e.csv", kd().replace("H3,L,63\n", "H3,L,-75.5\n")),
    ]);
    let same = format!("identical files, all of them used: {0}/tm/d44_Kd.csv, {0}/tm/d44_kd.csv", "ROOT");
    let lines = warnings(root.path(), json!({ "tasks": ["tm"] }));
    let assays = "; if the files are different assays, `task-per = \"file\"` makes each a task";
    assert_eq!(
        lines,
        [
            "task `tm`: 39 rows repeat a sequence with the same value".to_owned(),
            format!(
                "task `tm`: 1 sequence has different values, the furthest apart -75.5 in tm/e.csv:5 and 63 in \
                 tm/d44_kd.csv:5{assays}"
            ),
            same.replace("ROOT/", ""),
        ]
    );
    let description = flab(root.path(), json!({ "tasks": ["tm"] })).describe(&ctx()).unwrap();
    assert_eq!(description.sources.iter().map(|source| source.rows).sum::<usize>(), 60);

    let molar = (0..20).map(|i| format!("M{i},L,{}e-9\n", i + 1)).collect();
    let root = files(&[("binding/kd_M.csv", molar), ("binding/neglog.csv", rows(5..12, 0.0))]);
    assert_eq!(
        warnings(root.path(), json!({ "tasks": ["binding"] })),
        [
            "task `binding`: the medians of its files differ by a factor of ten or more, 1.1e-8 in binding/kd_M.csv and 8e0 in \
          binding/neglog.csv: are they in one unit? `task-per = \"file\"` makes each file a task"
        ]
    );
    assert!(warnings(root.path(), json!({ "tasks": ["binding"], "task-per": "file" })).is_empty());
}

/// As with `pandas.concat`: rows of files without the target take part in the split.
#[test]
fn the_published_split_includes_rows_of_files_without_the_target() {
    let root = files(&[("tm/a.csv", rows(0..20, 0.0))]);
    let without: String = (20..40).map(|i| format!("H{i},L,no bind\n")).collect();
    fs::write(root.path().join("tm/b.csv"), format!("heavy,light,KD\n{without}")).unwrap();
    fs::write(root.path().join("tm/c.csv"), "heavy,fitness\nA,1\n").unwrap();
    let keys = |split: &str| json!({ "tasks": ["tm"], "split": split });
    // sklearn.model_selection.train_test_split(range(40), test_size=0.2, random_state=42)[1]
    let published = [19, 16, 15, 26, 4, 12, 37, 27];
    let mut reference = flab(root.path(), keys("reference"));
    let task = reference.load("tm", &ctx()).unwrap().remove(0);
    let tested: Vec<f32> = published.iter().filter(|row| **row < 20).map(|row| *row as f32).collect();
    assert_eq!((fitness(&task.test), task.train.rows()), (tested, 15));
    let out = tempfile::tempdir().unwrap();
    reference.prepare(out.path(), &ctx()).unwrap();
    let test = fs::read_to_string(out.path().join("tm/test_data.csv")).unwrap();
    let lines: Vec<&str> = test.lines().collect();
    assert_eq!(lines[..3], ["heavy,light,fitness,KD,combined", "H19,L,19.0,,H19|L", "H16,L,16.0,,H16|L"]);
    assert_eq!((lines.len(), lines[4]), (9, "H26,L,,no bind,H26|L"));
    let warnings = warnings(root.path(), keys("reference"));
    assert_eq!(
        warnings[0],
        "tm/b.csv: no column `fitness`; its rows take part in the split, as in the published preparation"
    );
    let random = flab(root.path(), keys("random")).load("tm", &ctx()).unwrap().remove(0);
    assert_eq!((random.train.rows(), random.test.rows()), (16, 4));
}

#[test]
fn each_row_has_its_file_and_line_before_and_after_it_is_prepared() {
    let root = files(&[("tm/a.csv", "H0,L,0\nH1,,9\nH2,L,2\n".into()), ("tm/b.csv", "H3,L,3\n".into())]);
    let origins = |root: &Path, keys: Value| {
        let task = flab(root, keys).load("tm", &ctx()).unwrap().remove(0);
        let both = [task.train, task.test];
        let rows = both.iter().flat_map(|table| {
            let origins = table.text(ORIGIN).unwrap().iter().map(str::to_owned).collect::<Vec<_>>();
            fitness(table).into_iter().zip(origins)
        });
        let mut rows: Vec<(f32, String)> = rows.collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        rows.into_iter().map(|(_, origin)| origin).collect::<Vec<_>>()
    };
    for split in ["random", "reference"] {
        let keys = json!({ "tasks": ["tm"], "split": split });
        assert_eq!(origins(root.path(), keys.clone()), ["tm/a.csv:2", "tm/a.csv:4", "tm/b.csv:2"]);
        let out = tempfile::tempdir().unwrap();
        for path in flab(root.path(), keys).prepare(out.path(), &ctx()).unwrap() {
            assert!(!fs::read_to_string(path).unwrap().contains("origin"));
        }
        let mut prepared = origins(out.path(), json!({ "tasks": ["tm"] }));
        prepared.sort();
        assert_eq!(prepared.len(), 3);
        assert!(
            prepared.iter().all(|origin| origin.starts_with("tm/t") && origin.contains("_data.csv:")),
            "{prepared:?}"
        );
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
