//! Classes as targets: from CSV files to probabilities.

use crate::participation::lines;
use crate::support::Bench;

const FILE: &str = r#"name = "classes"
seed = 42

[federation]
rounds = 12
devices = ["cpu"]

[dataset]
plugin = "csv"
inputs = ["heavy"]
target = "binds"
files = "ROOT/*.csv"
clients = { column = "site" }
classes = ["no", "yes"]

[model]
plugin = "linear"
kmer = 2

[aggregator]
plugin = "fedavg"
"#;

/// Sequences that bind if `AC` occurs in them often, at three sites.
fn experiment(bench: &Bench, more_rows: &str) -> String {
    let row = |i: usize| {
        let (motif, class) = if i.is_multiple_of(3) { ("ACAC", "yes") } else { ("CCAA", "no") };
        format!("{}{}{},{class},s{}\n", motif.repeat(1 + i % 4), "GT".repeat(i % 7), "Q".repeat(i % 11), i % 3 + i / 90)
    };
    let rows: String = (0..180).map(row).collect();
    bench.write("data.csv", &format!("heavy,binds,site\n{rows}{more_rows}"));
    FILE.replace("ROOT", &bench.path("").display().to_string())
}

fn checked(bench: &Bench, text: &str) -> String {
    let file = bench.write("classes.toml", text).display().to_string();
    let told = bench.fedplug(&["check", &file]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    told.stderr
}

#[test]
fn classes_are_learnt_and_predicted_as_probabilities() {
    let bench = Bench::new();
    let text = experiment(&bench, "");
    let file = bench.write("classes.toml", &text).display().to_string();
    let told = bench.run(&[&file]);
    assert!(told.stderr.contains("last AUROC") && told.stderr.contains("score: -log loss/entropy"), "{}", told.stderr);
    let summary = bench.summary("classes");
    let task = &summary["clients"]["s1"][0];
    let names: Vec<&str> =
        task["global_test"].as_array().unwrap().iter().map(|history| history["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["AUROC", "AP", "Balanced_accuracy", "Log_loss", "MCC"]);
    assert!(task["local_test"][0]["last"].as_f64().unwrap() > 0.95, "{task}");
    // The loss of a client is its log loss.
    let value = |tag: &str| {
        let tag = format!("{tag}/global_test");
        let all = lines(&bench, "classes");
        let line = all.iter().rfind(|line| line["client"] == "s1" && line["tag"] == *tag).unwrap();
        line["value"].as_f64().unwrap()
    };
    assert_eq!(value("Loss"), value("Log_loss"));

    let predictions = bench.text("classes", "predictions.csv");
    let header = "client,task,row,split,measured,global_no,own_no,global_yes,own_yes";
    assert_eq!(predictions.lines().next(), Some(header));
    let tests: Vec<Vec<&str>> =
        predictions.lines().map(|line| line.split(',').collect::<Vec<_>>()).filter(|row| row[3] == "test").collect();
    assert!(tests.iter().all(|row| row[4] == "yes" || row[4] == "no"), "{predictions}");
    let p = |text: &str| text.parse::<f64>().unwrap();
    assert!(tests.iter().all(|row| (p(row[5]) + p(row[7]) - 1.0).abs() < 1e-6), "{predictions}");

    let rows = bench.write("rows/rows.csv", "heavy\nACACACAC\nCCAACCAA\n").display().to_string();
    let told = bench.fedplug(&["predict", bench.path("runs/classes").to_str().unwrap(), &rows]);
    let rows: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(rows[0], "heavy,binds_no,binds_yes", "{}", told.stderr);
    let yes = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
    assert!(yes(rows[1]) > 0.5 && yes(rows[2]) < 0.5, "{rows:?}");

    // Classes that are found are sorted: the same run.
    let found = text.replace("[\"no\", \"yes\"]", "true").replace("name = \"classes\"", "name = \"found\"");
    bench.run(&[&bench.write("found.toml", &found).display().to_string()]);
    assert_eq!(bench.text("found", "predictions.csv"), predictions);
}

#[test]
fn what_cannot_be_a_class_is_an_error() {
    let bench = Bench::new();
    let text = experiment(&bench, "ACAC,maybe,s1\n");
    insta::assert_snapshot!("a class that is not listed", checked(&bench, &text));
    let text = experiment(&bench, "");
    let other = text.replace("\"linear\"\nkmer = 2", "\"misbehaving\"\nhow = \"behave\"");
    insta::assert_snapshot!("a model that cannot learn classes", checked(&bench, &other));
    let one = text.replace("[\"no\", \"yes\"]", "[\"yes\"]");
    insta::assert_snapshot!("one class", checked(&bench, &one));
    let weights = text.replace("kmer = 2", "class-weights = { ja = 2.0 }");
    insta::assert_snapshot!("the weight of an unknown class", checked(&bench, &weights));
    let scaled = text.replace("classes =", "standardise = true\nclasses =");
    insta::assert_snapshot!("classes cannot be standardised", checked(&bench, &scaled));
}
