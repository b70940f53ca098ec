//! Classes in Python as plugins: the same bits however they share processes, and faults that stay where they are.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use test_support::python;

use crate::resume::{interrupt, same, signal};
use crate::support::{Bench, Told, root};

const ALL: &str = "configs/python/composition.toml";

/// An experiment with a model that fails.
fn faulty(bench: &Bench, keys: &str) -> String {
    let script = root().join("tests/it/faulty.py").display().to_string();
    let text = format!(
        "name = \"faulty\"\n[federation]\nrounds = 3\nthreads = 3\n\
         [dataset]\nplugin = \"python\"\nscript = \"configs/python/counts.py\"\nclass = \"Counts\"\n\
         [model]\nplugin = \"python\"\nscript = \"{script}\"\nclass = \"Faulty\"\n{keys}\n\
         [aggregator]\nplugin = \"fedavg\"\n"
    );
    bench.write("faulty.toml", &text).display().to_string()
}

/// The processes that were started with this variable, by what they run.
fn alive(mark: &str) -> Vec<String> {
    let marked = |process: &Path| {
        let environment = std::fs::read(process.join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()).then_some(())?;
        let command = std::fs::read(process.join("cmdline")).ok()?;
        (!command.is_empty()).then(|| String::from_utf8_lossy(&command).chars().take(60).collect())
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    processes.filter_map(|process| marked(&process)).collect()
}

fn none_is_left(mark: &str) {
    let begun = Instant::now();
    while !alive(mark).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "left: {:?}", alive(mark));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a run whose processes are marked, and waits until the model says that it hangs.
fn hanging(bench: &Bench, keys: &str) -> (Child, String, std::thread::JoinHandle<String>) {
    use std::io::{BufRead as _, BufReader, Read as _};
    let mark = format!("FEDPLUG_TEST_MARK={}", bench.path("").display());
    let mut command = bench.command(&["run", &faulty(bench, keys)]);
    let (name, value) = mark.split_once('=').unwrap();
    let mut child = command.env(name, value).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("hangs") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "it ended before it hung");
    }
    let rest = std::thread::spawn(move || {
        let mut rest = String::new();
        told.read_to_string(&mut rest).map(|_| rest).unwrap()
    });
    (child, mark, rest)
}

#[test]
fn the_bits_do_not_depend_on_who_shares_a_process_nor_on_how_tensors_travel_nor_on_an_interruption() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let run = |name: &str, keys: &[&str]| {
        let sets = keys.iter().flat_map(|key| ["--set", key]);
        bench.run(&[ALL, "--name", name, "--quiet"].into_iter().chain(sets).collect::<Vec<_>>());
    };
    run("alone", &["federation.threads=1", "model.workers=1"]);
    run("many", &["federation.threads=3", "model.workers=3"]);
    run("pipes", &["federation.threads=2", "model.shared-memory=false", "dataset.shared-memory=false"]);
    let cut = [ALL, "--name", "cut", "--set", "federation.rounds=10", "--set", "federation.checkpoint-every=1"];
    interrupt(&bench, &cut, "cut", "-KILL");
    bench.run(&[&cut[..], &["--resume"]].concat());
    for name in ["many", "pipes"] {
        assert!(bench.results(name) == bench.results("alone"), "{name} differs");
    }
    same(&bench, "cut", "alone");
    assert!(bench.text("alone", "predictions.csv").lines().count() > 20);
}

#[test]
fn keys_of_the_class_are_checked_before_a_run_with_their_line_and_shown() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let told = bench.fedplug(&["check", &faulty(&bench, "hwo = \"not\"\nround = 1.5\nworkers = 0")]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("keys", told.stderr);
    let told = bench.fedplug(&["check", &faulty(&bench, "how = \"key\"")]);
    insta::assert_snapshot!("key refused by the constructor", told.stderr);
    let told = bench.fedplug(&["check", &faulty(&bench, "round = 100")]);
    insta::assert_snapshot!("key refused by the configuration", told.stderr);
    let told = bench.fedplug(&["check", ALL, "--set", "model.class=Composite"]);
    insta::assert_snapshot!("no such class", told.stderr);
    let told = bench.fedplug(&["check", ALL, "--set", "model.python=/no/such/python"]);
    insta::assert_snapshot!("no such interpreter", told.stderr);
    let told = bench.fedplug(&["check", ALL, "--set", "model.python=/bin/true"]);
    assert!(told.stderr.contains("/bin/true is no Python that can run plugins"), "{}", told.stderr);

    let schema: serde_json::Value = serde_json::from_str(&bench.fedplug(&["schema", ALL]).stdout).unwrap();
    let rate = &schema["$defs"]["model-python"]["properties"]["learning-rate"];
    assert_eq!((&rate["default"], &rate["description"]), (&0.1.into(), &"The size of a step.".into()));
    assert_eq!(schema["$defs"]["filter-python"]["properties"]["most"]["type"], "number");
    let set = ["--set", "script=configs/python/composition.py", "--set", "class=Composition"];
    let told = bench.fedplug(&[&["plugin", "inspect", "python", "--kind", "model"], &set[..]].concat());
    let keys = told.stdout.split("learning-rate").nth(1).map(|rest| format!("learning-rate{rest}")).unwrap();
    insta::assert_snapshot!("keys of a class", keys);
}

#[test]
fn a_fault_names_the_line_and_ends_one_client() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let run = |name: &str, keys: &str, set: &str| -> Told {
        bench.fedplug(&["run", &faulty(&bench, keys), "--name", name, "--set", set])
    };
    for how in ["raise", "exit", "shape"] {
        let told = run(how, &format!("how = \"{how}\""), "federation.threads=1");
        assert_eq!(told.code, 1, "{}", told.stderr);
        let lines = told.stderr.lines().filter(|line| !line.starts_with("round ")).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(format!("fault {how}"), lines);
    }
    // The others have processes of their own, and go on.
    let told = run("segfault", "how = \"segfault\"\nworkers = 4", "federation.on-client-failure=leave-out");
    assert_eq!(told.code, 0, "{}", told.stderr);
    for part in ["client `east`", "was killed by signal 11", "faulty.py\", line", "in fail"] {
        assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
    }
    assert!(!told.stderr.contains("client `north`") && !told.stderr.contains("client `south`"), "{}", told.stderr);
    assert_eq!(bench.summary("segfault")["rounds"], 3);
}

#[test]
fn a_stop_is_heard_at_once_and_who_does_not_hear_is_killed() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    // Before the first round, an interrupt stops calls.
    for (client, least, most) in [("asks", 0.0, 2.0), ("never-asks", 0.7, 4.0)] {
        let (child, mark, rest) = hanging(&bench, &format!("how = \"start\"\nclient = \"{client}\"\ngrace = 0.7"));
        assert!(!alive(&mark).is_empty());
        let begun = Instant::now();
        let told = signal(&bench, child, "-INT");
        let took = begun.elapsed().as_secs_f64();
        assert!(told.code == 130 && took > least && took < most, "{client}: {took} s, {}", rest.join().unwrap());
        none_is_left(&mark);
    }
    // In a round, a call is stopped when it makes no progress. With a process of its own, it alone fails.
    for how in ["ask", "hang"] {
        let keys = format!("how = \"{how}\"\ngrace = 0.2\nworkers = 4");
        let sets = ["on-client-failure=leave-out", "progress-timeout=3"].map(|set| format!("federation.{set}"));
        let told = bench.fedplug(&["run", &faulty(&bench, &keys), "--force", "--set", &sets[0], "--set", &sets[1]]);
        assert_eq!(told.code, 0, "{how}: {}", told.stderr);
        assert!(told.stderr.contains("client `east`") && !told.stderr.contains("client `north`"), "{}", told.stderr);
        assert_eq!(bench.summary("faulty")["rounds"], 3);
    }
}

#[test]
fn no_process_is_left_when_the_program_is_killed() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let (child, mark, _rest) = hanging(&bench, "how = \"hang\"");
    assert!(alive(&mark).len() >= 2);
    signal(&bench, child, "-KILL");
    none_is_left(&mark);
}

#[test]
fn a_script_that_has_changed_is_not_resumed() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let script = bench.path("composition.py");
    let text = std::fs::read_to_string(root().join("configs/python/composition.py")).unwrap();
    std::fs::write(&script, &text).unwrap();
    let set = format!("model.script={}", script.display());
    let arguments = [ALL, "--name", "changed", "--set", &set, "--set", "federation.checkpoint-every=1"];
    interrupt(&bench, &arguments, "changed", "-KILL");
    std::fs::write(&script, text + "# changed\n").unwrap();
    let told = bench.fedplug(&[&["run"], &arguments[..], &["--resume"]].concat());
    assert!(told.code != 0 && told.stderr.contains("has changed since the checkpoint"), "{}", told.stderr);
}

#[test]
fn a_new_plugin_in_python_of_each_kind_is_checked_and_runs() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    for kind in ["model", "dataset", "aggregator", "filter"] {
        let folder = bench.path("new").display().to_string();
        let told = bench.fedplug(&["plugin", "new", "--python", kind, "my-first", "--output", &folder]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        assert!(told.stdout.contains("fedplug check experiment.toml"), "{}", told.stdout);
        let folder = bench.path(format!("new/{kind}-my-first"));
        for command in ["check", "run"] {
            let told = bench.command(&[command, "experiment.toml", "--quiet"]).current_dir(&folder).output().unwrap();
            assert!(told.status.success(), "{kind}: {}", String::from_utf8_lossy(&told.stderr));
        }
        assert_eq!(bench.summary("my-first")["rounds"], 5);
        std::fs::remove_dir_all(bench.path("runs")).unwrap();
    }
}

/// Blocks of Python on the page are parts of files that tests run.
#[test]
fn the_pages_classes_are_those_of_the_examples() {
    let page = std::fs::read_to_string(root().join("docs/src/plugins/python.md")).unwrap();
    let scripts = ["composition.py", "methods.py"].map(|name| root().join("configs/python").join(name));
    let scripts = scripts.map(|script| std::fs::read_to_string(script).unwrap());
    let blocks: Vec<&str> = page.split("```python\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        assert!(scripts.iter().any(|script| script.contains(block)), "in no example:\n{block}");
    }
    let transformer = std::fs::read_to_string(root().join("configs/python/transformer.py")).unwrap();
    assert!(transformer.lines().count() < 60);
}

/// PyTorch and transformers are too large for each run of the tests.
#[test]
#[ignore = "needs torch and transformers: make test-torch"]
fn a_transformer_with_private_heads_trains_to_the_same_bits() {
    let bench = Bench::new();
    let packages = root().join(".bench-python");
    let python = std::env::var("FEDPLUG_TORCH_PYTHON").unwrap_or_else(|_| {
        let text = format!("#!/bin/sh\nPYTHONPATH='{}' exec python3 \"$@\"\n", packages.display());
        let path = bench.write("python", &text);
        assert!(std::process::Command::new("chmod").arg("+x").arg(&path).status().unwrap().success());
        path.display().to_string()
    });
    let python = format!("model.python={python}");
    let run = |name: &str, more: &[&str]| -> Vec<String> {
        let fixed =
            ["configs/python/transformer.toml", "--set", &python, "--set", "federation.rounds=3", "--name", name];
        fixed.iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    for (name, workers) in [("shared", "model.workers=1"), ("apart", "model.workers=4")] {
        let arguments = run(name, &["--set", workers]);
        bench.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // One process, since each imports torch.
    let cut = run("cut", &["--set", "model.workers=1", "--set", "federation.checkpoint-every=1"]);
    let cut: Vec<&str> = cut.iter().map(String::as_str).collect();
    interrupt(&bench, &cut, "cut", "-KILL");
    bench.run(&[&cut[..], &["--resume"]].concat());
    for name in ["apart", "cut"] {
        assert!(bench.results(name) == bench.results("shared"), "{name} differs");
    }
    // It learns, and no head has left its client.
    let summary = bench.summary("shared");
    assert!(summary["best"]["score"].as_f64().unwrap() > -1.1, "{summary}");
    let global = bench.bytes("shared", "global/model.safetensors");
    let header = String::from_utf8_lossy(&global[8..2000]).into_owned();
    assert!(header.contains("trunk.") && !header.contains("\"heads."), "{header}");
}
