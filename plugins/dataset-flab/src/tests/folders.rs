//! Which files of a folder are read, what is reported of them, and where each row is from.

use std::fs;

use plugin_api::ORIGIN;

use super::groups::{files, rows, warnings};
use super::*;

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
