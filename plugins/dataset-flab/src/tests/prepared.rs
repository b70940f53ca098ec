//! Prepared data, and its use.

use std::fs;

use super::*;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The names of all files below a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let below = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => names(&entry.path()).into_iter().map(|below| format!("{name}/{below}")).collect(),
            false => vec![name],
        }
    };
    let mut all: Vec<String> = fs::read_dir(folder).unwrap().flat_map(|entry| below(entry.unwrap())).collect();
    all.sort_unstable();
    all
}

fn with(mut keys: Value, more: Value) -> Value {
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    keys
}

#[test]
fn prepared_data_gives_the_tables_of_the_measurements() {
    let root = folder(&[("tm", 100), ("binding", 7)]);
    fs::write(root.path().join("tm/bad.csv"), "heavy,light,fitness\nA,B,\nA,,1\nA,B\nA,B,C,D\nA,B,3e0\n").unwrap();
    for split in ["random", "reference"] {
        for clients in [json!("by-task"), json!({ "count": 3, "alpha": 0.3 })] {
            let tasks = json!({ "tasks": ["tm", "binding"], "clients": clients });
            let out = tempfile::tempdir().unwrap();
            let mut raw = flab(root.path(), with(tasks.clone(), json!({ "split": split })));
            let files = raw.prepare(out.path(), &ctx()).unwrap();
            let mut relative: Vec<_> =
                files.iter().map(|path| path.strip_prefix(out.path()).unwrap().to_str().unwrap()).collect();
            relative.sort_unstable();
            assert_eq!(relative, names(out.path()));
            for more in [json!({}), json!({ "max-samples": 5 })] {
                let mut raw = flab(root.path(), with(with(tasks.clone(), json!({ "split": split })), more.clone()));
                let mut prepared = flab(out.path(), with(tasks.clone(), more));
                let clients = raw.describe(&ctx()).unwrap().clients;
                assert_eq!(prepared.describe(&ctx()).unwrap().clients, clients);
                for client in clients {
                    let both = [&mut raw, &mut prepared].map(|flab| {
                        let tables =
                            flab.load(&client.name, &ctx()).unwrap().into_iter().flat_map(|t| [t.train, t.test]);
                        let text =
                            |t: &Table| t.text("combined").unwrap().iter().map(str::to_owned).collect::<Vec<_>>();
                        tables.map(|table| (text(&table), fitness(&table))).collect::<Vec<_>>()
                    });
                    assert_eq!(both[0], both[1], "{split} {}", client.name);
                }
            }
        }
    }
}

#[test]
fn all_columns_are_kept_and_combined_is_added() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tm")).unwrap();
    let a = "\u{feff},heavy,light,fitness,note,note\n7,E V,DI,1.50,\"a,\nb\",x\n";
    for (name, text) in [("a.csv", a), ("b.csv", "fitness,light ,heavy,id\n2,DIQ,EVQ,3\n"), ("c.csv", "id\n1\n")] {
        fs::write(root.path().join("tm").join(name), text).unwrap();
    }
    let all = |split: &str| {
        let out = tempfile::tempdir().unwrap();
        flab(root.path(), json!({ "tasks": ["tm"], "split": split })).prepare(out.path(), &ctx()).unwrap();
        let files = ["train_data.csv", "test_data.csv"].map(|name| read(&out.path().join("tm").join(name)));
        let header = "Unnamed: 0,heavy,light,fitness,note,note.1,id,combined\n";
        let mut rows = files.map(|text| text.strip_prefix(header).unwrap().to_owned());
        rows.sort_unstable();
        rows
    };
    // A chain has no white space inside, but pandas leaves what it reads as it is, and writes whole numbers of a column
    // that has no value elsewhere as floats.
    let random = [",EVQ,DIQ,2,,,3,EVQ|DIQ\n", "7,E V,DI,1.50,\"a,\nb\",x,,EV|DI\n"];
    assert_eq!(all("random"), random);
    let reference = [",EVQ,DIQ,2.0,,,3.0,EVQ|DIQ\n", "7.0,E V,DI,1.5,\"a,\nb\",x,,E V|DI\n"];
    assert_eq!(all("reference"), reference);
}

#[test]
fn no_row_is_lost_or_doubled_by_a_random_split() {
    let root = folder(&[("tm", 1000)]);
    for (count, alpha) in [(1, 1.0), (7, 1e-6), (400, 0.01), (2000, 10.0)] {
        let out = tempfile::tempdir().unwrap();
        let keys = json!({ "tasks": ["tm"], "clients": { "count": count, "alpha": alpha }, "test-fraction": 0.37 });
        let files = flab(root.path(), keys).prepare(out.path(), &ctx()).unwrap();
        assert_eq!(files.len(), 2 + count);
        let rows = |path: &PathBuf| read(path).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        let dealt: Vec<String> = files[2..].iter().flat_map(rows).collect();
        assert_eq!(dealt, rows(&files[0]));
        let mut all = [dealt, rows(&files[1])].concat();
        all.sort_unstable();
        let mut expected: Vec<String> = (0..1000).map(|i| format!("H{i},L,{i},H{i}|L")).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }
}

#[test]
fn files_are_not_overwritten_and_data_is_not_prepared_twice() {
    let root = folder(&[("tm", 9), ("binding", 9)]);
    let out = tempfile::tempdir().unwrap();
    let tasks = json!({ "tasks": ["tm", "binding"] });
    fs::create_dir(out.path().join("binding")).unwrap();
    let taken = out.path().join("binding/test_data.csv");
    fs::write(&taken, "mine").unwrap();
    let error = flab(root.path(), tasks.clone()).prepare(out.path(), &ctx()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: the file already exists", taken.display()));
    assert_eq!((names(out.path()), read(&taken)), (vec!["binding/test_data.csv".to_owned()], "mine".to_owned()));
    fs::remove_file(taken).unwrap();
    flab(root.path(), tasks.clone()).prepare(out.path(), &ctx()).unwrap();
    let error = flab(out.path(), tasks).prepare(&out.path().join("again"), &ctx()).unwrap_err();
    assert_eq!(error.message(), "the data is already prepared");
}

#[test]
fn a_file_that_cannot_be_written_completely_does_not_appear() {
    let root = folder(&[("tm", 9)]);
    let out = tempfile::tempdir().unwrap();
    // A folder has the name of the temporary file.
    let part = out.path().join("tm/test_data.csv.part");
    fs::create_dir_all(&part).unwrap();
    let error = flab(root.path(), json!({ "tasks": ["tm"] })).prepare(out.path(), &ctx()).unwrap_err();
    assert!(error.to_string().starts_with(&part.display().to_string()), "{error}");
    assert_eq!(names(out.path()), ["tm/train_data.csv"]);
}

#[test]
fn keys_and_files_ignored_for_prepared_data_cause_warnings() {
    let root = folder(&[("tm", 9)]);
    let out = tempfile::tempdir().unwrap();
    flab(root.path(), json!({ "tasks": ["tm"] })).prepare(out.path(), &ctx()).unwrap();
    fs::write(out.path().join("tm/more.csv"), "").unwrap();
    let recorder = Recorder::default();
    let keys = json!({ "tasks": ["tm"], "split": "reference", "seed": 1 });
    flab(out.path(), keys).describe(&Context::new(&recorder)).unwrap();
    let lines = lines_below(&recorder, out.path());
    let first = format!("{}: the data is already prepared; ignored: `split`, `seed`", out.path().display());
    assert_eq!(lines, [first.as_str(), "tm: not read, since the data is prepared: `more.csv`"]);
    let sites = json!({ "tasks": ["tm"], "clients": { "count": 2, "alpha": 1.0 } });
    let error = flab(out.path(), sites).describe(&ctx()).unwrap_err();
    assert_eq!(error.message(), "the data was prepared without clients, not for 2");
}

#[test]
fn prepared_files_have_combined_or_chains_and_need_the_target() {
    let out = tempfile::tempdir().unwrap();
    let tm = out.path().join("tm");
    fs::create_dir(&tm).unwrap();
    fs::write(tm.join("train_data.csv"), "combined,fitness\nA|B,1\n|B,2\nA|,3\n,4\nC|D,\n").unwrap();
    fs::write(tm.join("test_data.csv"), "heavy,light,fitness\nE,F,5\n").unwrap();
    let mut prepared = flab(out.path(), json!({ "tasks": ["tm"] }));
    let task = prepared.load("tm", &ctx()).unwrap().remove(0);
    assert_eq!(task.train.text("combined").unwrap().iter().collect::<Vec<_>>(), ["A|B"]);
    assert_eq!(task.test.text("combined").unwrap().iter().collect::<Vec<_>>(), ["E|F"]);
    let single = |chain: &str| format!("no {chain} chain; `chains = \"any\"` accepts single chains");
    let skipped = [
        ("no heavy or light chain".to_owned(), 1),
        (single("heavy"), 1),
        (single("light"), 1),
        ("no `fitness`".to_owned(), 1),
    ];
    assert_eq!(prepared.describe(&ctx()).unwrap().sources[1].skipped, skipped);
    fs::write(tm.join("test_data.csv"), "heavy,light,fitnes\nE,F,5\n").unwrap();
    let error = flab(out.path(), json!({ "tasks": ["tm"] })).describe(&ctx()).unwrap_err();
    assert_eq!(error.message(), "it has no column `fitness`");
}

#[test]
fn of_many_rows_none_is_lost_or_doubled() {
    const ROWS: usize = 200_000;
    let root = folder(&[("tm", ROWS)]);
    let out = tempfile::tempdir().unwrap();
    let keys = json!({ "tasks": ["tm"], "clients": { "count": 6, "alpha": 1.0 } });
    let files = flab(root.path(), keys).prepare(out.path(), &ctx()).unwrap();
    let mut seen = vec![0_u8; ROWS];
    let mut parts = 0;
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "train_data.csv" {
            continue;
        }
        parts += 1;
        for line in read(&path).lines().skip(1) {
            // heavy,light,fitness,combined: `H7,L,7,H7|L`
            let row: usize = line.split(',').nth(2).unwrap().parse().unwrap();
            assert!(line == format!("H{row},L,{row},H{row}|L"), "{line}");
            seen[row] += 1;
        }
    }
    assert_eq!(parts, 7);
    assert!(seen.iter().all(|&times| times == 1));
    // All training rows are in one file as well.
    let train = read(&out.path().join("tm/train_data.csv")).lines().count() - 1;
    assert_eq!(train, ROWS - read(&out.path().join("tm/test_data.csv")).lines().count() + 1);
}

#[test]
fn what_was_described_is_not_read_again_and_tables_are_no_hindrance() {
    let root = folder(&[("tm", 9)]);
    fs::write(root.path().join("tm/b.csv"), "heavy,light,fitness\nA,B,\nA,B,1\n").unwrap();
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recorder = Recorder::default();
    let ctx = Context::new(&recorder).with_seed(Seed::new(42)).with_threads(3);
    let mut flab = flab(root.path(), json!({ "tasks": ["tm"], "clients": { "count": 3, "alpha": 1.0 } }));
    flab.describe(&ctx).unwrap();
    let files = flab.prepare(one.path(), &ctx).unwrap();
    assert_eq!(lines_below(&recorder, root.path()), ["tm/b.csv: 1 of 2 rows skipped: no `fitness` (line 2)"]);
    // On one thread, and after tables were made.
    flab.load("site-1", &super::ctx()).unwrap();
    for (a, b) in files.iter().zip(flab.prepare(two.path(), &super::ctx()).unwrap()) {
        assert_eq!(read(a), read(&b));
    }
}
