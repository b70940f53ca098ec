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

/// What a limit of the idle clients' memory must not change: the models, the metrics, a run that goes on.
pub fn the_limit_changes_nothing(arguments: &[&str], limits: &[&str]) {
    let bench = Bench::new();
    bench.run(&[arguments, &["--name", "whole"]].concat());
    let wanted = bench.results("whole");
    for limit in limits {
        let limit = format!("federation.idle-memory=\"{limit}\"");
        for threads in ["1", "3"] {
            let all = [arguments, &["--set", &limit, "--threads", threads, "--name", "limited"]].concat();
            bench.run(&[&all[..], &["--force"]].concat());
            assert!(bench.results("limited") == wanted, "{limit} with {threads} threads differs");
            assert!(!bench.path("runs/limited/idle").exists());
            std::fs::remove_dir_all(bench.path("runs/limited")).unwrap();
            interrupt(&bench, &all, "limited", "-KILL");
            bench.run(&[&all[..], &["--resume"]].concat());
            assert!(bench.results("limited") == wanted, "{limit} with {threads} threads differs after an interruption");
        }
    }
}

#[test]
#[cfg(unix)]
fn where_a_model_waits_changes_no_bit() {
    // Of six clients a model's state has 908 bytes: none, two, and all of them find room.
    let rounds = ["--set", "federation.rounds=40", "--set", "federation.checkpoint-every=3"];
    the_limit_changes_nothing(&[&[LINEAR], &rounds[..]].concat(), &["0 B", "2 kB", "1 MiB"]);
    // Some clients have not worked yet when the checkpoint is written.
    let few = ["--set", "federation.fraction=0.2", "--set", "federation.cross-site=true"];
    the_limit_changes_nothing(&[&[LINEAR], &rounds[..], &few[..]].concat(), &["0 B", "2 kB"]);
}
