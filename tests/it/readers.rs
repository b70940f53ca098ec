//! Other programs read a run's files.

use std::process::Command;

use crate::support::{Bench, binary, python, root};

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
    let mut blocks = page.split("```python\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    // What copies a run to trackers is tested with the package, since they are large.
    let (with_package, _, code) = (blocks.next().unwrap(), blocks.next().unwrap(), blocks.next().unwrap());
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
    // The other block, in a folder where `configs` is what it is here and `runs` is not.
    let mut python = package().unwrap();
    let told = python.args(["-c", with_package]).current_dir(bench.path("")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("higher_is_better") && told.contains("own_predicted"), "{told}");
}

/// Python with the package `fedplug` over the built binary.
fn package() -> Option<Command> {
    let mut python = python()?;
    let packages = std::env::join_paths([root().join("python"), root().join(".python")]).unwrap();
    python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").env("FEDPLUG_PROGRAM", binary());
    Some(python)
}

#[test]
fn the_python_package_runs_experiments_and_reads_them() {
    let Some(mut python) = package() else { return };
    let tests = ["-m", "unittest", "discover", "-s", "python/tests"];
    let tested = python.args(tests).current_dir(root()).output().unwrap();
    let text = String::from_utf8_lossy(&tested.stderr);
    assert!(tested.status.success() && text.contains("\nOK"), "{text}");
}
