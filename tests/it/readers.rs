//! Other programs read a run's files.

use crate::support::{Bench, python};

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
