//! Interrupted runs continue with the same bits, and only if they are unchanged.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Bench, Told, files};

pub const LINEAR: &str = "configs/linear.toml";

/// Starts `fedplug run ARGUMENTS`.
pub fn start(bench: &Bench, arguments: &[&str]) -> Child {
    let mut command = bench.command(&[&["run"], arguments].concat());
    // Below `nohup`, all programs inherit that SIGHUP is ignored.
    // SAFETY: between fork and exec, a function that POSIX allows there.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until something is so while a run goes on.
pub fn wait(child: &mut Child, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not come to it");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a run and waits for its end.
pub fn signal(bench: &Bench, child: Child, signal: &str) -> Told {
    let killed = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    Told::new(bench, child.wait_with_output().unwrap())
}

/// How many rounds the last whole checkpoint of a run has, if there is one.
pub fn checkpointed(bench: &Bench, name: &str) -> Option<u64> {
    let folder = bench.path("runs").join(name).join("checkpoint");
    let mut whole: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
    whole.retain(|folder| folder.join("SHA256SUMS").is_file());
    let text = std::fs::read_to_string(whole.into_iter().max()?.join("index.json")).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["run"]["done"].as_u64()
}

/// Kills a run with a signal once it has a checkpoint.
pub fn interrupt(bench: &Bench, arguments: &[&str], name: &str, with: &str) -> Told {
    let mut child = start(bench, arguments);
    wait(&mut child, || checkpointed(bench, name).is_some());
    signal(bench, child, with)
}

/// Every scalar in a run's event files, one file after the other, so that one that stands there twice is seen.
fn events(bench: &Bench, name: &str) -> BTreeMap<String, Vec<(i64, u64)>> {
    let mut scalars = BTreeMap::<_, Vec<_>>::new();
    for file in files(&bench.path("runs").join(name).join("events")) {
        let mut warnings = Vec::new();
        for (tag, points) in fedplug_plot::events::read_files(&[file], &mut warnings).unwrap() {
            scalars.entry(tag).or_default().extend(points.iter().map(|point| (point.step, point.value.to_bits())));
        }
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    scalars
}

/// The summary without what differs from one process to another.
fn summary(bench: &Bench, name: &str) -> serde_json::Value {
    let mut summary = bench.summary(name);
    for key in ["name", "seconds", "time", "peak-memory-bytes"] {
        summary[key].take();
    }
    summary
}

/// Asserts that a run left what another left, to the bit.
pub fn same(bench: &Bench, name: &str, wanted: &str) {
    for ((path, bytes), (other, others)) in bench.results(name).iter().zip(&bench.results(wanted)) {
        assert!(path == other && bytes == others, "{name}: {} is not that of {wanted}", path.display());
    }
    assert_eq!(bench.results(name).len(), bench.results(wanted).len());
    assert_eq!(events(bench, name), events(bench, wanted), "events of {name}");
    assert_eq!(summary(bench, name), summary(bench, wanted), "summary of {name}");
    for left in ["checkpoint", "idle", "run.lock"] {
        assert!(!bench.path("runs").join(name).join(left).exists(), "{name} leaves {left}");
    }
}

#[test]
#[cfg(unix)]
fn a_killed_run_goes_on_to_the_same_bits() {
    let bench = Bench::new();
    let arguments = [LINEAR, "--set", "federation.rounds=60", "--set", "federation.checkpoint-every=3"];
    let named = |name: &'static str| [&arguments[..], &["--name", name]].concat();
    bench.run(&named("whole"));
    for (name, with) in [
        ("killed", "-KILL"),
        ("asked", "-INT"),
        ("terminated", "-TERM"),
        ("hung", "-HUP"),
        // What schedulers can be told to send before a time limit, or send at one.
        ("warned", "-USR1"),
        ("warned-again", "-USR2"),
        ("out-of-time", "-XCPU"),
    ] {
        let told = interrupt(&bench, &named(name), name, with);
        assert_eq!(told.code, if with == "-KILL" { -1 } else { 130 }, "{}", told.stderr);
        assert!(!bench.path("runs").join(name).join("summary.json").exists());
        if with != "-KILL" {
            assert!(told.stderr.contains("stopped on request"), "{}", told.stderr);
            assert!(told.stderr.contains("hint: resume it with --resume"), "{}", told.stderr);
        }
        let told = bench.run(&[&named(name)[..], &["--resume"]].concat());
        assert!(told.stderr.contains("resuming"), "{}", told.stderr);
        same(&bench, name, "whole");
    }
}

/// A scheduler repeats its SIGTERM until the job is gone or its patience is: that is no second Ctrl-C.
#[test]
#[cfg(unix)]
fn a_signal_that_comes_again_and_again_leaves_time_for_the_checkpoint() {
    let bench = Bench::new();
    let model =
        |how: &str| format!("model={{ plugin = \"misbehaving\", how = \"{how}\", client = \"tm\", round = 2 }}");
    let (slow, quick) = (model("slow"), model("behave"));
    let arguments = [LINEAR, "--set", "federation.rounds=4", "--set", "filter=[]"];
    bench.run(&[&arguments[..], &["--set", &quick, "--name", "whole"]].concat());
    let arguments = [&arguments[..], &["--set", &slow, "--name", "slow"]].concat();
    let mut child = start(&bench, &arguments);
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"slow\n") {
        assert_eq!(child.stderr.as_mut().unwrap().read(&mut byte).unwrap(), 1, "it ended before its slow epoch");
        said.extend(byte);
    }
    // Two signals within a second count as one.
    for _ in 0..4 {
        let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        std::thread::sleep(Duration::from_millis(500));
    }
    let told = signal(&bench, child, "-TERM");
    assert_eq!(told.code, 130, "{}", told.stderr);
    assert_eq!(told.stderr.matches("stopping after this epoch").count(), 1, "{}", told.stderr);
    assert!(told.stderr.contains("stopped on request"), "{}", told.stderr);
    assert!(checkpointed(&bench, "slow").is_some());
    let told = bench.run(&[&arguments[..], &["--resume"]].concat());
    assert!(told.stderr.contains("resuming"), "{}", told.stderr);
    same(&bench, "slow", "whole");
}

/// The number of a run's last checkpoint.
fn last(bench: &Bench, name: &str) -> u64 {
    let entries = std::fs::read_dir(bench.path("runs").join(name).join("checkpoint"));
    let numbers = entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.max().unwrap_or_default()
}

/// Interrupts a run after so many checkpoints, again and again, and lets it come to its end. Returns what the processes
/// said that were interrupted within a round, and the last one.
fn interrupt_often(bench: &Bench, arguments: &[&str], name: &str, with: &str, after: &[u64]) -> Vec<Told> {
    let mut all = Vec::new();
    for (time, after) in after.iter().enumerate() {
        let resume: &[&str] = if time == 0 { &[] } else { &["--resume"] };
        let mut child = start(bench, &[arguments, resume].concat());
        let before = last(bench, name);
        wait(&mut child, || last(bench, name) > before + after);
        let told = signal(bench, child, with);
        assert_eq!(told.code, if with == "-KILL" { -1 } else { 130 }, "{}", told.stderr);
        all.push(told);
    }
    all.push(bench.run(&[arguments, &["--resume"]].concat()));
    all
}

/// One round of many epochs, as a client alone has it, whose checkpoints all stand within the round.
#[test]
#[cfg(unix)]
fn a_round_of_many_epochs_goes_on_at_its_epoch() {
    let bench = Bench::new();
    let round = ["--set", "federation.rounds=1", "--set", "federation.local-epochs=40"];
    let arguments = [&[LINEAR, "--set", "federation.checkpoint-after=0"], &round[..]].concat();
    let named = |name: &'static str| [&arguments[..], &["--name", name]].concat();
    bench.run(&[&[LINEAR, "--name", "whole"], &round[..]].concat());
    // Of several clients at a time few pause, since they wait for one another.
    let cases: [(_, _, &[u64]); 2] = [("killed", "-KILL", &[2, 9, 30]), ("stopped", "-TERM", &[5, 20])];
    for (name, with, after) in cases {
        let all = [&named(name)[..], &["--threads", "1"]].concat();
        let told = interrupt_often(&bench, &all, name, with, after);
        assert!(told[1..].iter().all(|told| told.stderr.contains("resuming in round 1 with")), "{told:?}");
        same(&bench, name, "whole");
    }
    // Pauses alone change nothing.
    bench.run(&named("paused"));
    same(&bench, "paused", "whole");
}

/// Secure aggregation agrees on masks before the clients' work and takes them off after it: an interrupted round agrees
/// on others, and what clients did is not lost.
#[test]
#[cfg(unix)]
fn methods_that_query_within_a_round_resume_as_well() {
    let bench = Bench::new();
    let filters = "[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n";
    let top_k = "[[filter]]\nplugin = \"compress\"\nmethod = \"top-k\"\nkeep = 0.1\nat = [\"client-output\", \"server-input\"]\n";
    let moments = "plugin = \"fedopt\"\noptimizer = \"adam\"\nlearning-rate = 0.01\n";
    let secure = "plugin = \"secure\"\nclip = 2.0\n";
    for (method, aggregator, filters) in [("secure", secure, filters), ("memory", moments, top_k)] {
        let text = std::fs::read_to_string(crate::support::root().join(LINEAR)).unwrap();
        let text = text.replace("plugin = \"fedavg\"\n", aggregator) + filters;
        let text = text.replace("rounds = 20", "rounds = 3\nlocal-epochs = 8\ncheckpoint-after = 0");
        let file = bench.write(&format!("{method}.toml"), &text).display().to_string();
        let named = |name: &str| [&file[..], "--name", name, "--threads", "1"].map(str::to_owned);
        let (whole, cut) = (format!("{method}-whole"), format!("{method}-cut"));
        bench.run(&named(&whole).each_ref().map(String::as_str));
        let told = interrupt_often(&bench, &named(&cut).each_ref().map(String::as_str), &cut, "-TERM", &[3, 17, 10]);
        assert!(told.iter().any(|told| told.stderr.contains("resuming in round")), "{told:?}");
        same(&bench, &cut, &whole);
    }
}

#[test]
#[cfg(unix)]
fn a_client_that_is_lost_stays_lost() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(crate::support::root().join(LINEAR)).unwrap();
    let text = text.replace(
        "plugin = \"linear\"",
        "plugin = \"misbehaving\"\nhow = \"panic-in-train\"\nclient = \"tm\"\nround = 1",
    );
    let text = text.replace("rounds = 20", "rounds = 40\non-client-failure = \"leave-out\"\ncheckpoint-every = 5");
    let text = text.split("[[filter]]").next().unwrap();
    let file = bench.write("lost.toml", text).display().to_string();
    bench.run(&[&file, "--name", "whole"]);
    let arguments = [&file[..], "--name", "cut"];
    interrupt(&bench, &arguments, "cut", "-KILL");
    let told = bench.run(&[&arguments[..], &["--resume"]].concat());
    assert!(told.stderr.contains("left out: round 7, client `tm`"), "{}", told.stderr);
    same(&bench, "cut", "whole");
}

#[test]
#[cfg(unix)]
fn a_run_that_is_killed_before_its_first_checkpoint_leaves_nothing_twice() {
    let bench = Bench::new();
    let arguments = [LINEAR, "--set", "federation.rounds=100", "--set", "federation.checkpoint-every=1000"];
    bench.run(&[&arguments[..], &["--name", "whole"]].concat());
    let all = [&arguments[..], &["--name", "cut"]].concat();
    for resume in [&[][..], &["--resume"]] {
        let mut child = start(&bench, &[&all[..], resume].concat());
        let events = bench.path("runs/cut/events/tm");
        wait(&mut child, || {
            events.is_dir() && std::fs::metadata(bench.path("runs/cut/metrics.jsonl")).is_ok_and(|m| m.len() > 0)
        });
        signal(&bench, child, "-KILL");
    }
    let told = bench.run(&[&all[..], &["--resume"]].concat());
    assert!(told.stderr.contains("no checkpoint yet; starting over"), "{}", told.stderr);
    same(&bench, "cut", "whole");
}

#[test]
#[cfg(unix)]
fn a_damaged_checkpoint_is_passed_over() {
    let bench = Bench::new();
    let arguments = [LINEAR, "--set", "federation.rounds=60", "--set", "federation.checkpoint-every=3"];
    bench.run(&[&arguments[..], &["--name", "whole"]].concat());
    let all = [&arguments[..], &["--name", "cut"]].concat();
    let mut child = start(&bench, &all);
    wait(&mut child, || checkpointed(&bench, "cut").is_some_and(|done| done >= 6));
    signal(&bench, child, "-KILL");
    let folders = || {
        let folders = std::fs::read_dir(bench.path("runs/cut/checkpoint")).unwrap();
        let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
        folders.retain(|folder| folder.join("SHA256SUMS").is_file());
        folders.sort();
        folders
    };
    // One bit of one model.
    let file = folders().last().unwrap().join("2.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let told = bench.run(&[&all[..], &["--resume"]].concat());
    assert!(told.stderr.contains("damaged checkpoint: 2.safetensors: changed since it was written"), "{}", told.stderr);
    same(&bench, "cut", "whole");
}

/// Metrics that a checkpoint counts on are there, or the run is not resumed: no hole is filled with anything.
#[test]
#[cfg(unix)]
fn a_run_without_its_metrics_is_not_resumed() {
    let bench = Bench::new();
    let arguments =
        [LINEAR, "--set", "federation.rounds=60", "--set", "federation.checkpoint-every=3", "--name", "cut"];
    interrupt(&bench, &arguments, "cut", "-KILL");
    let metrics = bench.path("runs/cut/metrics.jsonl");
    let kept = std::fs::read(&metrics).unwrap();
    for short in [Some(10), None] {
        match short {
            Some(length) => std::fs::write(&metrics, &kept[..length]).unwrap(),
            None => std::fs::remove_file(&metrics).unwrap(),
        }
        let told = bench.fedplug(&[&["run"], &arguments[..], &["--resume"]].concat());
        assert_eq!(told.code, 1, "{}", told.stderr);
        assert!(told.stderr.contains("cut/metrics.jsonl: cannot write the metrics"), "{}", told.stderr);
        assert!(told.stderr.contains("hint: restore the file from a copy"), "{}", told.stderr);
    }
    std::fs::write(&metrics, &kept).unwrap();
    bench.run(&[&arguments[..], &["--resume"]].concat());
    bench.run(&[&arguments[..5], &["--name", "whole"]].concat());
    same(&bench, "cut", "whole");
}

#[test]
#[cfg(unix)]
fn time_and_bytes_add_up_over_interruptions() {
    let bench = Bench::new();
    let arguments =
        [LINEAR, "--set", "federation.rounds=100", "--set", "federation.checkpoint-every=1", "--name", "cut"];
    bench.run(&[&arguments[..5], &["--name", "whole"]].concat());
    let begun = Instant::now();
    let mut child = start(&bench, &arguments);
    wait(&mut child, || checkpointed(&bench, "cut").is_some_and(|done| done >= 20));
    assert_eq!(signal(&bench, child, "-TERM").code, 130);
    let first = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    bench.run(&[&arguments[..], &["--resume"]].concat());
    let (summary, second) = (bench.summary("cut"), begun.elapsed().as_secs_f64());
    let seconds = summary["seconds"].as_f64().unwrap();
    assert!(seconds <= first + second && seconds > second.max(first * 0.2), "{first} + {second}, not {seconds}");
    let rounds = summary["time"]["rounds"].as_f64().unwrap();
    assert!(rounds > 0.0 && rounds < seconds, "{summary}");
    assert_eq!(summary["traffic"], bench.summary("whole")["traffic"]);
}

/// What a limit of the idle clients' memory must not change with some number of threads: the models, the metrics, a run that
/// goes on.
pub fn the_limit_changes_nothing(arguments: &[&str], cases: &[(&str, &str)]) {
    let bench = Bench::new();
    bench.run(&[arguments, &["--name", "whole"]].concat());
    let wanted = bench.results("whole");
    for (limit, threads) in cases {
        let limit = format!("federation.idle-memory=\"{limit}\"");
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

#[test]
#[cfg(unix)]
fn where_a_model_waits_changes_no_bit() {
    // Of six clients a model's state has 908 bytes: none, two, and all of them find room.
    let rounds = ["--set", "federation.rounds=40", "--set", "federation.checkpoint-every=3"];
    let cases = [("0 B", "1"), ("0 B", "3"), ("2 kB", "3"), ("1 MiB", "1")];
    the_limit_changes_nothing(&[&[LINEAR], &rounds[..]].concat(), &cases);
    // Some clients have not worked yet when the checkpoint is written.
    let few = ["--set", "federation.fraction=0.2", "--set", "federation.cross-site=true"];
    the_limit_changes_nothing(&[&[LINEAR], &rounds[..], &few[..]].concat(), &[("0 B", "3"), ("2 kB", "1")]);
}
