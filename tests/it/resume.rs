//! Interrupted runs go on with the same bits.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Bench, Told};

const LINEAR: &str = "configs/linear.toml";

/// Kills a run with `signal` once it has a checkpoint.
pub fn interrupt(bench: &Bench, arguments: &[&str], name: &str, signal: &str) -> Told {
    let mut child =
        bench.command(&[&["run"], arguments].concat()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let index = bench.path("runs").join(name).join("checkpoint/index.json");
    let begun = Instant::now();
    while !index.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
    let killed = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    Told::new(bench, child.wait_with_output().unwrap())
}

#[test]
#[cfg(unix)]
fn a_killed_run_goes_on_to_the_same_bits() {
    let bench = Bench::new();
    let arguments = [LINEAR, "--set", "federation.rounds=200", "--set", "federation.checkpoint-every=3"];
    let named = |name: &'static str| [&arguments[..], &["--name", name]].concat();
    bench.run(&named("whole"));
    for (name, signal) in [("killed", "-KILL"), ("asked", "-INT")] {
        let told = interrupt(&bench, &named(name), name, signal);
        assert_ne!(told.code, 0, "{}", told.stderr);
        assert!(!bench.path("runs").join(name).join("summary.json").exists());
        let told = bench.run(&[&named(name)[..], &["--resume"]].concat());
        assert!(told.stderr.contains("going on after round"), "{}", told.stderr);
        assert!(bench.results(name) == bench.results("whole"), "{name} differs");
    }
}

#[test]
fn going_on_asks_for_the_same_experiment() {
    let bench = Bench::new();
    let told = bench.fedplug(&["run", LINEAR, "--resume"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("nothing to go on with", told.stderr);
    bench.run(&[LINEAR, "--set", "federation.rounds=1"]);
    let told = bench.fedplug(&["run", LINEAR, "--set", "federation.rounds=1", "--resume"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("already done", told.stderr);
    std::fs::remove_file(bench.path("runs/linear/summary.json")).unwrap();
    let told = bench.fedplug(&["run", LINEAR, "--set", "federation.rounds=2", "--resume"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("another experiment", told.stderr);
}
