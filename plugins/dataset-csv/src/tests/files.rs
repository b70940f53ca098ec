//! What is read of files, told of them and written.

use super::*;

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
            let names = table.columns().map(|(name, _)| plugin_api::cell_name(name).unwrap_or(name));
            assert_eq!(names.collect::<Vec<_>>(), ["seq", "age", "age", "id", "\u{feff}seq"]);
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
    let table = csv.next_rows(9, &ctx()).unwrap();
    let inputs = table.columns().map(|(name, _)| name).filter(|name| plugin_api::cell_name(name).is_none());
    assert_eq!(inputs.collect::<Vec<_>>(), ["seq"]);
}

#[test]
fn fasta_records_fill_the_columns_of_text() {
    let root = folder(&[("one.fa", ">a 1\nEVQ\n>b\nQ\n"), ("two.fa", ">a_L\nDIQ\n>a_H\nEVQ\n")]);
    let read = |file: &str, keys: serde_json::Value| {
        let mut csv = csv(&root, keys);
        csv.open_rows(&root.path().join(file), &ctx()).and_then(|()| csv.next_rows(9, &ctx()))
    };
    let one = read("one.fa", json!({ "files": "none.csv", "clients": "by-task" })).unwrap();
    assert_eq!(
        (texts(&one, "seq"), texts(&one, "fedplug.cell.0.name")),
        (vec!["EVQ".into(), "Q".into()], vec!["a 1".into(), "b".into()])
    );
    let two = json!({ "files": "none.csv", "clients": "by-task", "inputs": ["vl", "vh"] });
    let two = read("two.fa", two).unwrap();
    assert_eq!((texts(&two, "vh"), texts(&two, "vl")), (vec!["EVQ".to_owned()], vec!["DIQ".to_owned()]));
    // It has no numbers, and nothing says which of any two texts a record is.
    for keys in [json!({ "number-inputs": ["age"] }), json!({ "inputs": ["seq", "antigen"] })] {
        let mut keys = keys;
        keys["files"] = "none.csv".into();
        keys["clients"] = "by-task".into();
        let error = read("one.fa", keys).unwrap_err();
        assert_eq!(error.message(), "a FASTA file has one text a record, and the model reads other columns");
    }
}

#[test]
fn what_cannot_be_predicted_is_told_with_its_line() {
    for (text, wanted) in [
        ("age,y\n1,2\n", "x.csv:1: has no column `seq`"),
        ("seq,age\nA,1\n ,2\n", "x.csv:3: no `seq`"),
        ("seq,age\r\nA,1\r\nNA,2\r\n", "x.csv:3: no `seq`: `NA` stands for a missing value"),
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
