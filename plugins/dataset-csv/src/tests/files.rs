//! Reading, reporting and writing of files.

use super::*;

#[test]
fn text_is_kept_or_read_as_a_sequence_and_numbers_are_trimmed() {
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
fn skipped_rows_and_files_are_reported_per_file() {
    let bad = "seq,y,who\nA,1,n\n,1,n\nA,,n\nA,1,\u{200b}\nA,nan,n\nA,1e99,n\nA,1\n\n";
    let root = folder(&[("a.csv", bad), ("b.csv", "seq,who\nA,n\n"), ("c.csv", ""), ("d.csv", "seq,y,who\n")]);
    let recorder = Recorder::default();
    let ctx = Context::new(&recorder).with_seed(Seed::new(1));
    let keys = json!({ "files": "ROOT/*.csv", "clients": { "column": "who" } });
    let description = csv(&root, keys).describe(&ctx).unwrap();
    assert_eq!(description.sources.iter().map(|s| s.rows).collect::<Vec<_>>(), [1, 0, 0, 0]);
    assert!(description.sources.iter().all(|source| source.sha256.len() == 64));
    let reasons = "wrong number of columns (line 8), no `seq` (line 3), no `y` (2, first on line 4), no `who` (line 5), \
                   `y` is not a finite number (line 7)";
    assert_eq!(
        recorder.lines_below(root.path()),
        [
            format!("a.csv: 6 of 7 rows skipped: {reasons}"),
            "b.csv: file skipped: it has no column `y`, only `seq`, `who`".to_owned(),
            "c.csv: file skipped: it is empty".to_owned(),
            "d.csv: file skipped: it has no rows".to_owned(),
        ]
    );
    let keys = json!({ "files": ["ROOT/b.csv", "ROOT/d.csv"], "clients": "by-task" });
    let error = csv(&root, keys).describe(&Context::new(&Silent)).unwrap_err();
    assert_eq!(error.message(), "task `y` has no usable rows");
    assert_eq!(error.hint(), Some("a row needs a text in `seq`, a finite number in `y`"));
    assert_eq!(error.causes().len(), 2);
}

#[test]
fn missing_values_are_missing_in_every_column() {
    for text in ["NA", "nan", "None", "-", "\u{a0}N/A "] {
        let rows = format!("seq,age,y,who\n{text},1,1,n\nA,{text},2,n\nB,1,{text},n\nC,1,4,{text}\nD,1,5,n\n");
        let root = folder(&[("a.csv", &rows)]);
        let keys = json!({ "files": "ROOT/a.csv", "number-inputs": ["age"], "clients": { "column": "who" } });
        let mut csv = csv(&root, keys);
        let skipped = csv.describe(&ctx()).unwrap().sources[0].skipped.clone();
        assert_eq!(skipped, ["seq", "age", "y", "who"].map(|name| (format!("no `{name}`"), 1)), "{text}");
        assert_eq!(texts(&csv.load("n", &ctx()).unwrap()[0].train, "seq"), ["D"]);
    }
}

#[test]
fn reasons_for_invalid_numbers_are_reported() {
    let root =
        folder(&[("a.csv", "seq,age,y,set\nA,>1,1,train\nA,1,7 8,train\nA,\"1,5\",1,train\nA,1,1,x\nA,1,1,train\n")]);
    let keys = json!({ "files": "ROOT/a.csv", "number-inputs": ["age"], "clients": "by-task", "test-column": "set" });
    let skipped = csv(&root, keys).describe(&ctx()).unwrap().sources[0].skipped.clone();
    let reasons = [
        "`age` is censored or approximate (`>`, `<`, `~`)",
        "`age` has a decimal comma; set `decimal = \",\"`",
        "`y` is not a finite number",
        "`set` is neither `train` nor `test`",
    ];
    assert_eq!(skipped, reasons.map(|reason| (reason.to_owned(), 1)));
}

#[test]
fn sequences_are_read_in_upper_case_and_their_letters_reported() {
    let root = folder(&[("a.csv", "seq,y\nev q,1\nEVX,2\n0,3\nEVQ,4\n")]);
    for (text, expected, warnings) in
        [("sequence", vec!["EVQ", "EVQ", "EVX"], 4), ("plain", vec!["0", "EVQ", "EVX", "ev q"], 0)]
    {
        let recorder = Recorder::default();
        let keys = json!({ "files": "ROOT/a.csv", "clients": "by-task", "text": text });
        let mut csv = csv(&root, keys);
        let task = csv.load("y", &Context::new(&recorder).with_seed(Seed::new(1))).unwrap().remove(0);
        let mut all = [texts(&task.train, "seq"), texts(&task.test, "seq")].concat();
        all.sort_unstable();
        assert_eq!(all, expected);
        // Lower case, other letters, a row without a chain, and one sequence that then has two values.
        assert_eq!(recorder.lines().len(), warnings);
    }
}

#[test]
fn a_decimal_comma_is_read_and_written_again() {
    let rows: String = (0..9).map(|i| format!("S{i};{i},25\n")).collect();
    let root = folder(&[("a.csv", &format!("\u{feff}seq;y\n{rows}"))]);
    let keys = json!({ "files": "ROOT/a.csv", "clients": "by-task", "delimiter": ";", "decimal": "," });
    let out = tempfile::tempdir().unwrap();
    let mut raw = csv(&root, keys.clone());
    raw.prepare(out.path(), &ctx()).unwrap();
    let mut again = keys.clone();
    again["files"] = "ROOT/y/y/*.csv".into();
    let task = csv(&out, again).load("y", &ctx()).unwrap().remove(0);
    assert_eq!(sorted([&task.train, &task.test]), (0..9).map(|i| i as f32 + 0.25).collect::<Vec<_>>());
    raw.open_rows(&root.path().join("a.csv"), &ctx()).unwrap();
    assert_eq!(raw.next_rows(99, &ctx()).unwrap().rows(), 9);
    let mut other = keys;
    other["delimiter"] = ",".into();
    let error = csv(&root, other).describe(&ctx()).unwrap_err();
    let cause = "a.csv: its columns are separated by `;`, not `,`; set `delimiter = \";\"` (9 rows)";
    assert!(error.causes()[0].ends_with(cause), "{:?}", error.causes());
}

#[test]
fn invalid_client_names_are_errors_with_file_and_line() {
    for name in ["a/b", "a\\b", ".hidden", "server", &"x".repeat(256)] {
        let root = folder(&[("a.csv", &format!("seq,y,who\nA,1,n\nA,1,{name}\n"))]);
        let keys = json!({ "files": "ROOT/a.csv", "clients": { "column": "who" } });
        let error = csv(&root, keys).describe(&ctx()).unwrap_err();
        let place = root.path().join("a.csv");
        assert_eq!(error.to_string(), format!("{}:3: `{name}` cannot be the name of a client", place.display()));
    }
    let root = folder(&[("server.csv", &numbered(0..3))]);
    let error = csv(&root, json!({ "clients": { "pattern": "ROOT/{client}.csv" } })).describe(&ctx()).unwrap_err();
    assert!(error.to_string().ends_with("server.csv: `server` cannot be the name of a client"), "{error}");
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
        assert_eq!(error.message(), "the file already exists");
    }
}

#[test]
fn rows_for_prediction_keep_the_order_of_the_file() {
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
    // A file with the inputs of one task only.
    csv.open_rows(&root.path().join("half.csv"), &ctx()).unwrap();
    let table = csv.next_rows(9, &ctx()).unwrap();
    let inputs = table.columns().map(|(name, _)| name).filter(|name| plugin_api::cell_name(name).is_none());
    assert_eq!(inputs.collect::<Vec<_>>(), ["seq"]);
}

#[test]
fn fasta_records_fill_text_columns() {
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
    // FASTA has no numbers, and these names do not say which column is which chain.
    for keys in [json!({ "number-inputs": ["age"] }), json!({ "inputs": ["seq", "antigen"] })] {
        let mut keys = keys;
        keys["files"] = "none.csv".into();
        keys["clients"] = "by-task".into();
        let error = read("one.fa", keys).unwrap_err();
        assert_eq!(error.message(), "FASTA records cannot fill the model's input columns");
    }
}

#[test]
fn rows_that_cannot_be_predicted_are_errors_with_their_line() {
    for (text, wanted) in [
        ("age,y\n1,2\n", "x.csv:1: has no column `seq`"),
        ("seq,age\nA,1\n ,2\n", "x.csv:3: no `seq`"),
        ("seq,age\r\nA,1\r\nNA,2\r\n", "x.csv:3: no `seq`, only `NA`"),
        ("seq,age\nA,1\nB\n", "x.csv:3: no `age`"),
        ("age,seq,id, seq\n1,A,2,B\n", "x.csv:1: columns 2 and 4 are both named `seq`"),
        ("seq,age\nA,one\n", "x.csv:2: `age` is not a finite number"),
        ("seq,age\nnan,1\n", "x.csv:2: no `seq`, only `nan`"),
        ("seq,age\nA,NA\n", "x.csv:2: no `age`, only `NA`"),
        ("seq,age\nA,>1\n", "x.csv:2: `age` is censored or approximate (`>`, `<`, `~`)"),
    ] {
        let root = folder(&[("x.csv", text)]);
        let mut csv = csv(&root, json!({ "files": "none.csv", "clients": "by-task", "number-inputs": ["age"] }));
        let result =
            csv.open_rows(&root.path().join("x.csv"), &ctx()).and_then(|()| csv.next_rows(9, &ctx()).map(drop));
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with(wanted), "{error}");
    }
}

#[test]
fn a_required_column_with_a_namesake_is_an_error_that_names_file_and_columns() {
    for (header, wanted) in [
        ("seq,y,note,note,who", None),
        ("seq,y,y,id,who", Some("columns 2 and 3 are both named `y`")),
        ("seq,y,id,\u{feff} seq,who", Some("columns 1 and 4 are both named `seq`")),
        ("who,y,seq,id,who", Some("columns 1 and 5 are both named `who`")),
    ] {
        let root = folder(&[("a.csv", &format!("{header}\nA,1,1,1,n\nC,2,2,2,n\n"))]);
        let keys = json!({ "files": "ROOT/a.csv", "text": "plain", "clients": { "column": "who" } });
        let error = csv(&root, keys).describe(&ctx()).err().map(|error| error.to_string());
        assert_eq!(error, wanted.map(|wanted| format!("{}/a.csv:1: {wanted}", root.path().display())), "{header}");
    }
}
