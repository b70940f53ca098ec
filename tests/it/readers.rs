//! Other programs read a run's files.

use crate::support::{Bench, python, root};

#[test]
fn tensorboard_reads_the_events_and_they_are_those_of_the_metrics() {
    let Some(mut python) = python() else { return };
    let bench = Bench::new();
    bench.run(&["configs/linear.toml", "--set", "federation.rounds=3"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/it/read_events.py");
    let told = python.arg(script).arg(bench.path("runs/linear")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    let count = bench.metrics("linear").len();
    assert_eq!(told.lines().last().unwrap(), format!("{count} scalars agree"));
    assert!(told.contains("tm/RMSE/local_test: 3"), "{told}");
}

#[test]
fn the_documents_python_reads_what_a_run_leaves() {
    let Some(mut python) = python() else { return };
    let page = std::fs::read_to_string(root().join("docs/src/python.md")).unwrap();
    let (_, code) = page.split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let bench = Bench::new();
    bench.run(&["configs/linear.toml", "--name", "quickstart", "--set", "federation.rounds=3"]);
    let told = python.args(["-c", code]).current_dir(bench.path("")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    // The RMSE of the predictions is that of the summary.
    let lines: Vec<String> = String::from_utf8(told.stdout).unwrap().lines().map(str::to_owned).collect();
    let summary = bench.summary("quickstart");
    let last = summary["clients"]["tm"][0]["local_test"][0]["last"].as_f64().unwrap();
    assert!((lines[1].parse::<f64>().unwrap() - last).abs() < 1e-5 * last, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("float32")), "{lines:?}");
}
