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

#[test]
fn each_row_gets_its_prediction_in_order() {
    let bench = trained();
    let csv = bench.write("rows.csv", ROWS);
    let fasta = bench.write("rows.fasta", ">1\nEVQLVESGG\n>1\nDIQMTQ\n>2\nQVQLQQSGA|EIVLTQ\n>3\nEVQLVESGG|DIQMTQ\n");
    let told = predict(&bench, &[csv.to_str().unwrap(), "--client", "tm"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "combined,tm"));
    assert!(lines[1].starts_with("EVQLVESGG|DIQMTQ,") && lines[2].starts_with("QVQLQQSGA|EIVLTQ,"));
    assert_eq!(lines[1], lines[3], "the same antibody, another prediction");
    assert_eq!(predict(&bench, &[fasta.to_str().unwrap(), "--client", "tm"]).stdout, told.stdout);

    // More rows than are held at a time, to a file that is not overwritten.
    let many: String = (0..2500).map(|i| format!("{i},EVQLVESGG{},DIQMTQ\n", "G".repeat(i % 7))).collect();
    let many = bench.write("many.csv", &format!("id,heavy,light\n{many}"));
    let output = bench.path("out.csv");
    let to_file = ["--client", "tm", "--output", output.to_str().unwrap()];
    let told = predict(&bench, &[&[many.to_str().unwrap()], &to_file[..]].concat());
    assert_eq!(told.code, 0, "{}", told.stderr);
    let text = std::fs::read_to_string(&output).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2501);
    assert_eq!(lines[1], lines[1 + 7 * 200], "a prediction depends on its place");
    assert_eq!(predict(&bench, &[&[csv.to_str().unwrap()], &to_file[..]].concat()).code, 2);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), text);
}

#[test]
fn what_cannot_be_predicted_is_told() {
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
    let told = bench.fedplug(&["predict", "configs", csv]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("not a run", told.stderr);
}
