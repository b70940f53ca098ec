//! Predictions of a trained model.

use crate::support::{Bench, Told};

/// Three antibodies of the sample's kind, as CSV.
const ROWS: &str = "id,heavy,light\n1,EVQLVESGG,DIQMTQ\n2,QVQLQQSGA,EIVLTQ\n3,EVQLVESGG,DIQMTQ\n";

fn trained() -> Bench {
    let bench = Bench::new();
    bench.run(&["configs/linear.toml", "--set", "federation.rounds=3"]);
    bench
}

fn predict(bench: &Bench, arguments: &[&str]) -> Told {
    let run = bench.path("runs/linear");
    bench.fedplug(&[&["predict", run.to_str().unwrap()], arguments].concat())
}

/// The cells of CSV text, the header first.
fn cells(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// What is predicted of a file, as cells.
fn predicted(bench: &Bench, name: &str, text: &str, arguments: &[&str]) -> Vec<Vec<String>> {
    let file = bench.write(name, text);
    let told = predict(bench, &[&[file.to_str().unwrap(), "--client", "tm"], arguments].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    cells(&told.stdout)
}

fn last(rows: &[Vec<String>]) -> Vec<&str> {
    rows.iter().map(|row| row.last().unwrap().as_str()).collect()
}

#[test]
fn each_row_gets_its_prediction_in_order_beside_all_that_it_says() {
    let bench = trained();
    let rows = predicted(&bench, "rows.csv", ROWS, &[]);
    let inputs: Vec<Vec<String>> = rows.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(inputs, cells(ROWS));
    let values = last(&rows);
    assert_eq!((values.len(), values[0]), (4, "tm_predicted"));
    assert_eq!(values[1], values[3], "the same antibody, another prediction");
    assert_ne!(values[1], values[2]);
    let fasta = ">1\nEVQLVESGG\n>1\nDIQMTQ\n>2 both\nQVQLQQSGA|EIVLTQ\n>3\nEVQLVESGG|DIQMTQ\n";
    let fasta = predicted(&bench, "rows.fasta", fasta, &[]);
    assert_eq!(last(&fasta), values);
    assert_eq!(fasta[0], ["name", "light_name", "heavy", "light", "tm_predicted"]);
    assert_eq!(fasta[2][..4], ["2 both", "", "QVQLQQSGA", "EIVLTQ"]);

    // More rows than are held at a time, to a file that is not overwritten.
    let many: String = (0..2500).map(|i| format!("{i},EVQLVESGG{},DIQMTQ\n", "G".repeat(i % 7))).collect();
    let many = bench.write("many.csv", &format!("id,heavy,light\n{many}"));
    let output = bench.path("out.csv");
    let to_file = ["--client", "tm", "--output", output.to_str().unwrap()];
    let told = predict(&bench, &[&[many.to_str().unwrap()], &to_file[..]].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    let text = std::fs::read_to_string(&output).unwrap();
    let rows = cells(&text);
    assert!(rows.len() == 2501 && rows[1..].iter().enumerate().all(|(i, row)| row[0] == i.to_string()));
    assert_eq!(rows[1].last(), rows[1 + 7 * 200].last(), "a prediction depends on its place");
    assert_eq!(predict(&bench, &[&[bench.path("rows.csv").to_str().unwrap()], &to_file[..]].concat()).code, 2);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), text);
}

#[test]
fn fasta_records_are_paired_by_name() {
    let bench = trained();
    let record = |k: usize, chain: &str| match chain {
        "H" => format!(">ab{k}_H\nEVQLVESGG{}\n", "G".repeat(k)),
        _ => format!(">ab{k}_{chain}\nDIQMTQ{}\n", "T".repeat(2 * k)),
    };
    let pairs: String = (0..4).map(|k| record(k, "H") + &record(k, "L")).collect();
    let blocks: String = ["H", "kappa"].iter().flat_map(|chain| (0..4).map(|k| record(k, chain))).collect();
    let (pairs, blocks) = (predicted(&bench, "hl.fa", &pairs, &[]), predicted(&bench, "hhll.fa", &blocks, &[]));
    assert_eq!(last(&pairs), last(&blocks));
    assert_eq!(
        pairs.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(),
        ["name", "ab0_H", "ab1_H", "ab2_H", "ab3_H"]
    );
    assert_eq!(blocks[4][1], "ab3_kappa");
    let strangers: String = (0..4).map(|k| format!(">ab{k}\nEVQLVESGG\n")).collect();
    let strangers = bench.write("strangers.fa", &strangers);
    let told = predict(&bench, &[strangers.to_str().unwrap(), "--client", "tm"]);
    assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{}", told.stderr);
    insta::assert_snapshot!(told.stderr);
}

#[test]
fn columns_may_have_other_names() {
    let bench = trained();
    let usual = predicted(&bench, "rows.csv", ROWS, &[]);
    let mapped = ["--column", "heavy=V.H \"x\"", "--column", "light=VL"];
    let other = ROWS.replace("heavy,light", "\"V.H \"\"x\"\"\",VL");
    let other = predicted(&bench, "other.csv", &other, &mapped);
    assert_eq!((last(&other), &other[0][..3]), (last(&usual), &["id", "V.H \"x\"", "VL"].map(str::to_owned)[..]));
    let said = |arguments: &[&str]| {
        let told =
            predict(&bench, &[&[bench.path("other.csv").to_str().unwrap(), "--client", "tm"], arguments].concat());
        assert_ne!(told.code, 0, "{}", told.stdout);
        assert_eq!(told.stdout, "");
        told.stderr
    };
    insta::assert_snapshot!("columns are missing", said(&[]));
    insta::assert_snapshot!("no such other column", said(&["--column", "heavy=VH", "--column", "light=VL"]));
    insta::assert_snapshot!("no column that is read", said(&["--column", "hevy=VL"]));
    // What is predicted would stand beside a column of the same name.
    let taken = bench.write("taken.csv", &ROWS.replace("id", "tm_predicted"));
    let told = predict(&bench, &[taken.to_str().unwrap(), "--client", "tm"]);
    assert_eq!((told.code, told.stdout.as_str()), (2, ""));
    insta::assert_snapshot!("a column is there already", told.stderr);
}

#[test]
fn predictions_are_in_the_targets_own_unit() {
    let bench = trained();
    let scores = predicted(&bench, "rows.csv", ROWS, &[]);
    let path = bench.path("runs/linear/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(manifest["scales"], serde_json::json!({}));
    // As if the run's targets had been standardised.
    manifest["scales"]["tm"] = serde_json::json!({ "mean": 70.0, "deviation": 4.0 });
    std::fs::write(&path, manifest.to_string()).unwrap();
    let values = predicted(&bench, "rows.csv", ROWS, &[]);
    for (score, value) in last(&scores)[1..].iter().zip(&last(&values)[1..]) {
        let [score, value]: [f64; 2] = [score, value].map(|text| text.parse().unwrap());
        assert!((70.0 + 4.0 * score - value).abs() < 1e-4, "{score} is {value}");
    }
}

#[test]
fn any_dataset_with_one_column_of_text_reads_fasta() {
    let bench = Bench::new();
    let data: String = (0..40).map(|k| format!("{}EV,{}\n", "Q".repeat(k % 9), k % 9)).collect();
    bench.write("data.csv", &format!("sequence,y\n{data}"));
    let file = format!(
        "name = \"x\"\n[federation]\nrounds = 2\n[dataset]\nplugin = \"csv\"\nfiles = \"{}\"\ninputs = [\"sequence\"]\n\
         target = \"y\"\nclients = \"by-task\"\n[model]\nplugin = \"linear\"\n[aggregator]\nplugin = \"fedavg\"\n",
        bench.path("data.csv").display()
    );
    let file = bench.write("x.toml", &file);
    bench.run(&[file.to_str().unwrap()]);
    let fasta = bench.write("x.fasta", ">one more word\nQQ\nEV\n>two\nQEV\n");
    let csv = bench.write("x.csv", "sequence\nQQEV\nQEV\n");
    let of = |rows: &std::path::Path| {
        let told = bench.fedplug(&["predict", bench.path("runs/x").to_str().unwrap(), rows.to_str().unwrap()]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        cells(&told.stdout)
    };
    let (fasta, csv) = (of(&fasta), of(&csv));
    assert_eq!(last(&fasta), last(&csv));
    assert_eq!(fasta[0], ["name", "sequence", "y_predicted"]);
    assert_eq!(fasta[1][..2], ["one more word", "QQEV"]);
}

/// The RMSE of pairs of measured and predicted values.
fn rmse(pairs: &[(f64, f64)]) -> f64 {
    (pairs.iter().map(|(measured, predicted)| (measured - predicted).powi(2)).sum::<f64>() / pairs.len() as f64).sqrt()
}

#[test]
fn a_run_leaves_what_its_models_predict_of_the_test_rows() {
    let bench = trained();
    let text = bench.text("linear", "predictions.csv");
    let rows = cells(&text);
    assert_eq!(rows[0], ["client", "task", "row", "split", "measured", "global_predicted", "own_predicted"]);
    let manifest: serde_json::Value = serde_json::from_str(&bench.text("linear", "manifest.json")).unwrap();
    let summary = bench.summary("linear");
    let mut seen = 1;
    for client in manifest["clients"].as_array().unwrap() {
        let (name, task) = (client["name"].as_str().unwrap(), &client["tasks"][0]);
        let of = |split: &str| rows.iter().filter(|row| row[0] == name && row[3] == split).collect::<Vec<_>>();
        let (train, test) = (of("train"), of("test"));
        assert_eq!(
            (train.len() as u64, test.len() as u64),
            (task["train"].as_u64().unwrap(), task["test"].as_u64().unwrap())
        );
        assert!(train.iter().all(|row| !row[4].is_empty() && row[5].is_empty() && row[6].is_empty()));
        // The clients follow one another in their order.
        assert_eq!(rows[seen][0], name);
        seen += train.len() + test.len();
        for (place, column) in [("global_test", 5), ("local_test", 6)] {
            let number = |text: &String| text.parse::<f64>().unwrap();
            let pairs: Vec<(f64, f64)> = test.iter().map(|row| (number(&row[4]), number(&row[column]))).collect();
            let last = summary["clients"][name][0][place][0]["last"].as_f64().unwrap();
            assert!((rmse(&pairs) - last).abs() < 1e-5 * last, "{name}, {place}: {} and {last}", rmse(&pairs));
        }
    }
    assert_eq!(seen, rows.len());
}

#[test]
fn the_own_model_in_predictions_is_the_one_that_is_saved() {
    let bench = Bench::new();
    bench.run(&[
        "configs/linear.toml",
        "--set",
        "federation.rounds=2",
        "--set",
        "dataset.clients={ count = 2, alpha = 1.0 }",
    ]);
    let rows = cells(&bench.text("linear", "predictions.csv"));
    let prepared = bench.path("prepared");
    let arguments = ["prepare", "configs/linear.toml", "--output", prepared.to_str().unwrap()];
    let told = bench.fedplug(&[&arguments[..], &["--set", "dataset.clients={ count = 2, alpha = 1.0 }"]].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    for client in ["site-1", "site-2"] {
        let own: Vec<&str> = rows
            .iter()
            .filter(|row| row[0] == client && row[1] == "binding" && row[3] == "test")
            .map(|row| row[6].as_str())
            .collect();
        let file = prepared.join("binding/test_data.csv");
        let told = predict(&bench, &[file.to_str().unwrap(), "--client", client, "--task", "binding"]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        assert_eq!(last(&cells(&told.stdout))[1..], own);
    }
}

#[test]
fn a_client_that_cannot_predict_is_treated_as_the_experiment_says() {
    let bench = Bench::new();
    let file = |policy: &str, how: &str| {
        let text = std::fs::read_to_string(crate::support::root().join("configs/linear.toml")).unwrap();
        let model = format!("plugin = \"misbehaving\"\nhow = \"{how}\"\nclient = \"tm\"");
        let text = text.replace("plugin = \"linear\"", &model).replace("rounds = 20", "rounds = 1");
        // Its weights have no word `regressor` in their names.
        let text = text.split("[[filter]]").next().unwrap().to_owned();
        bench.write("x.toml", &text.replace("[dataset]", &format!("on-client-failure = \"{policy}\"\n[dataset]")))
    };
    let who = "client `tm`, model `misbehaving`:";
    for (how, what) in [("panic-in-predict", "`predict` panicked"), ("few-predictions", "task `tm`:")] {
        let sentence = format!("{who} {what}");
        let path = file("leave-out", how);
        let told = bench.run(&[path.to_str().unwrap(), "--name", how]);
        assert!(told.stderr.contains("left out: ") && told.stderr.contains(&sentence), "{}", told.stderr);
        let rows = cells(&bench.text(how, "predictions.csv"));
        assert!(rows.iter().all(|row| row[0] != "tm") && rows.iter().any(|row| row[0] == "polyreactivity"));
        let path = file("stop", how);
        let told = bench.fedplug(&["run", path.to_str().unwrap(), "--name", "stopped", "--force"]);
        assert_eq!(told.code, 1);
        assert!(told.stderr.contains("error: ") && told.stderr.contains(&sentence), "{}", told.stderr);
        let left = crate::support::files(&bench.path("runs/stopped"));
        assert!(left.iter().all(|path| !path.to_string_lossy().contains("predictions")), "{left:?}");
    }
}

#[test]
fn what_cannot_be_predicted_is_an_error() {
    let bench = trained();
    let csv = bench.write("rows.csv", ROWS);
    let csv = csv.to_str().unwrap();
    let said = |arguments: &[&str]| {
        let told = predict(&bench, arguments);
        assert_ne!(told.code, 0, "{}", told.stdout);
        told.stderr
    };
    insta::assert_snapshot!("private heads", said(&[csv]));
    insta::assert_snapshot!("no such client", said(&[csv, "--client", "tn"]));
    insta::assert_snapshot!("no such task", said(&[csv, "--client", "tm", "--task", "binding"]));
    insta::assert_snapshot!("no such file", said(&["nothing.csv", "--client", "tm"]));
    let ragged = bench.write("ragged.csv", "heavy,light\nEVQ,DIQ\nEVQ\n");
    insta::assert_snapshot!("a row without a chain", said(&[ragged.to_str().unwrap(), "--client", "tm"]));
    let missing = bench.write("missing.csv", "heavy,light\r\nEVQ,DIQ\r\n\r\nEVQ,NaN\r\n");
    insta::assert_snapshot!("a missing value", said(&[missing.to_str().unwrap(), "--client", "tm"]));
    let told = bench.fedplug(&["predict", "configs", csv]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("not a run", told.stderr);
}
