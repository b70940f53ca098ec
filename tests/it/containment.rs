//! What misbehaving plugins can and cannot do to a run: a fault is reported with name, call, client and round, ends the
//! run with code 1, and leaves the files written before it.

use crate::support::{Bench, Told};

/// An experiment of which each component can be replaced by one that misbehaves.
const FILE: &str = r#"name = "run"

[federation]
rounds = 3
checkpoint-every = 1

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"
"#;

const DATASET: &str = "plugin = \"flab\"\nroot = \"configs/sample\"";
const MODEL: &str = "plugin = \"linear\"";
const AGGREGATOR: &str = "plugin = \"fedavg\"";

/// Runs the experiment with a component replaced.
fn run(bench: &Bench, component: &str, how: &str) -> Told {
    let other = format!("plugin = \"misbehaving\"\nhow = {how}");
    let file = match component {
        "filter" => format!("{FILE}\n[[filter]]\n{other}\nat = \"client-output\"\n"),
        component => {
            assert!(FILE.contains(component));
            FILE.replace(component, &other)
        }
    };
    let path = bench.write("run.toml", &file);
    bench.fedplug(&["run", path.to_str().unwrap(), "--threads", "1"])
}

/// Asserts that a fault from the third round on ends the run with this sentence, and that the first round is kept. The
/// rounds before are rehearsed.
fn ends(component: &str, how: &str, sentence: &str) {
    let bench = Bench::new();
    let told = run(&bench, component, &format!("\"{how}\"\nround = 2"));
    assert_eq!(told.code, 1, "{how}: {}", told.stderr);
    assert!(told.stderr.contains(&format!("error: round 3, {sentence}")), "{how}: {}", told.stderr);
    assert!(bench.metrics("run").iter().any(|line| line.contains("\"round\":0")), "{how}");
    assert!(bench.path("runs/run/checkpoint").is_dir(), "{how}");
}

#[test]
fn a_model_that_misbehaves_is_named_in_the_error() {
    let at = |how: &str, sentence: &str| ends(MODEL, &format!("{how}\"\nclient = \"expression"), sentence);
    let told = |sentence: &str| format!("client `expression`, model `misbehaving`: {sentence}");
    at("panic-in-receive", &told("`receive` panicked: lost my way"));
    at("panic-twice-in-train", &told("`train` panicked: without a message"));
    at("panic-in-thread", &told("`train` panicked: a scoped thread panicked"));
    at("absurd-steps", &told("`train` reported 18446744073709551615 steps on"));
    at("duplicate-names", &told("`evaluate` returned the metric `Weight` of task `expression` twice"));
    at("nan", "client `expression`, update: tensor `weight`: it contains a value that is not finite");
    at("other-shapes", "client `expression`, update: tensor `weight`: is f32[2], but f32[1] in the model");
}

#[test]
fn a_panic_tells_its_calls_where_they_are_asked_for() {
    let bench = Bench::new();
    let other = "plugin = \"misbehaving\"\nhow = \"panic-in-receive\"\nround = 2\nclient = \"expression\"";
    let path = bench.write("run.toml", &FILE.replace(MODEL, other));
    let run = |asked: &str| {
        let mut command = bench.command(&["run", path.to_str().unwrap(), "--threads", "1", "--force"]);
        let told = command.env("RUST_BACKTRACE", asked).output().unwrap();
        assert_eq!(told.status.code(), Some(1));
        String::from_utf8(told.stderr).unwrap()
    };
    let told = run("1");
    assert!(
        told.contains("`receive` panicked: lost my way") && told.contains("its calls, most recent first"),
        "{told}"
    );
    // The plugin's own, and neither the machinery of panics before them nor the boundary behind them.
    assert!(told.contains("model_misbehaving::"), "{told}");
    assert!(!told.contains("std::panicking") && !told.contains("boundary::guard"), "{told}");
    assert!(!run("0").contains("its calls"));
}

#[test]
fn a_filter_that_misbehaves_is_named_in_the_error() {
    let at = |how: &str, sentence: &str| {
        let who = "client `expression`, filter `misbehaving`";
        ends("filter", &format!("{how}\"\nclient = \"expression"), &format!("{who}: {sentence}"));
    };
    at("panic-in-apply", "`apply` panicked: lost my way");
    at("nothing", "the message is empty");
    ends(
        "filter",
        "nan\"\nclient = \"expression",
        "client `expression`, update: tensor `trunk.weight`: it contains a value that is not finite",
    );
}

#[test]
fn an_aggregator_that_misbehaves_is_named_in_the_error() {
    let at = |how: &str, sentence: &str| ends(AGGREGATOR, how, &format!("aggregator `misbehaving`: {sentence}"));
    at("panic-in-add", "`add` panicked: lost my way");
    at("ask-strangers", "it queries client `nobody`, which is unknown or out of order");
    at("nan", "tensor `trunk.weight`: `finish` returned a value that is not finite");
    at("nothing", "`finish` returned a global model without parameters");
    at("other-shapes", "tensor `trunk.weight`: is f32[217], but f32[8, 27] in the model");
}

#[test]
fn a_dataset_that_misbehaves_is_named_in_the_error() {
    let bench = Bench::new();
    // Both clients have the same task, and the first one's data is rehearsed.
    let told = run(&bench, DATASET, "\"other-shapes\"\nclient = \"two\"");
    assert_eq!(told.code, 1, "{}", told.stderr);
    let sentence =
        "error: client `two`, dataset `misbehaving`: `load` returned `task` 3+2, but `describe` reported `task` 4+2";
    assert!(told.stderr.contains(sentence), "{}", told.stderr);
    let told = run(&Bench::new(), DATASET, "\"panic-in-load\"");
    assert!(told.code == 2 && told.stderr.contains("`load` panicked: lost my way"), "{}", told.stderr);
    let told = run(&Bench::new(), DATASET, "\"duplicate-names\"");
    assert!(told.code == 2 && told.stderr.contains("two clients are named `one`"), "{}", told.stderr);
}

#[test]
fn long_lines_are_cut_and_odd_tags_are_cleaned() {
    let bench = Bench::new();
    let told = run(&bench, MODEL, "\"babble\"\nclient = \"tm\"");
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(told.stderr.contains("client tm, misbehaving: bla bla"), "{}", &told.stderr[..500]);
    assert!(told.stderr.contains("… (1038576 more bytes)") && told.stderr.len() < 50_000, "{}", told.stderr.len());
    let bench = Bench::new();
    assert_eq!(run(&bench, MODEL, "\"odd-tag\"\nclient = \"tm\"").code, 0);
    assert_eq!(bench.metrics("run").iter().filter(|line| line.contains("\"tag\":\"a_b\"")).count(), 3);
}

#[test]
fn panics_on_drop_own_threads_and_many_scalars_end_no_run() {
    let told = run(&Bench::new(), MODEL, "\"own-thread\"\nclient = \"tm\"");
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(told.stderr.contains("client tm, misbehaving: hello from a thread"), "{}", told.stderr);
    for (how, payload) in [("panic-in-drop", "not even dying well"), ("panic-twice-in-drop", "without a message")] {
        let bench = Bench::new();
        let told = run(&bench, MODEL, &format!("{how:?}"));
        assert_eq!(told.code, 0, "{}", told.stderr);
        let sentence = format!("warning: model `misbehaving`: `drop` panicked: {payload}, at ");
        assert!(told.stderr.contains(&sentence), "{}", told.stderr);
        assert!(bench.path("runs/run/summary.json").is_file());
    }
    let bench = Bench::new();
    assert_eq!(run(&bench, MODEL, "\"many-scalars\"\nclient = \"tm\"").code, 0);
    assert_eq!(bench.metrics("run").iter().filter(|line| line.contains("\"tag\":\"a\"")).count(), 600_000);
    assert_eq!(run(&Bench::new(), MODEL, "\"leak\"").code, 0);
}

#[test]
fn invalid_predictions_are_not_written() {
    for (how, code, sentence) in [
        ("few-predictions", 1, "model `misbehaving`: task `tm`: 1 predictions for 2 rows"),
        ("nan-predictions", 0, "model `misbehaving`: task `tm`: a prediction is NaN"),
    ] {
        let bench = Bench::new();
        let told = run(&bench, MODEL, &format!("{how:?}"));
        // A run that lacks predictions has failed, and has lost nothing else.
        assert_eq!(told.code, code, "{}", told.stderr);
        assert!(bench.path("runs/run/summary.json").is_file() && bench.path("runs/run/best").is_dir());
        let rows = bench.write("rows.csv", "heavy,light\nEVQ,DIQ\nQVQ,EIV\n");
        let output = bench.path("out.csv");
        let [run, rows, out] = [&bench.path("runs/run"), &rows, &output].map(|path| path.to_str().unwrap().to_owned());
        let told = bench.fedplug(&["predict", &run, &rows, "--client", "tm", "--output", &out]);
        assert_eq!(told.code, 1, "{}", told.stderr);
        assert!(told.stderr.contains(sentence), "{}", told.stderr);
        assert!(!output.exists());
    }
}

/// Stdout is for the answers of commands: what a plugin prints goes to stderr.
#[test]
#[cfg(unix)]
fn what_a_plugin_prints_goes_to_stderr() {
    let bench = Bench::new();
    let told = run(&bench, MODEL, "\"print\"");
    assert_eq!((told.code, told.stdout.as_str()), (0, ""), "{}", told.stderr);
    assert!(told.stderr.contains("printed by a plugin\n"), "{}", told.stderr);
}

/// What a plugin says through `log`, and through `tracing` with its feature `log`, is in the host's log under its name.
#[test]
fn lines_of_log_and_tracing_arrive_under_the_plugins_name() {
    let bench = Bench::new();
    let path = bench.write("run.toml", &FILE.replace(AGGREGATOR, "plugin = \"suite\""));
    let told = bench.fedplug(&["run", path.to_str().unwrap(), "-v"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    for line in ["19 tensors stay as they are", "and so does the rest updates=6"] {
        let line = format!("debug: suite: filter_suite: {line}");
        assert!(told.stderr.contains(&line), "{line}: {}", told.stderr);
    }
}

/// A call that does not come back: if its plugin stops when it is asked to, its client has failed; if not, the run ends.
#[test]
fn a_client_without_progress_is_reported_and_has_failed() {
    let file = FILE.replace(MODEL, "plugin = \"misbehaving\"\nhow = \"HOW\"\nround = 1\nclient = \"tm\"");
    let file = file.replace("rounds = 3", "rounds = 3\nprogress-timeout = 2\non-client-failure = \"POLICY\"");
    for (how, policy, code) in [("dawdle", "leave-out", 0), ("dawdle", "stop", 1), ("hang", "leave-out", 1)] {
        let bench = Bench::new();
        let path = bench.write("run.toml", &file.replace("HOW", how).replace("POLICY", policy));
        let told = bench.fedplug(&["run", path.to_str().unwrap()]);
        assert_eq!(told.code, code, "{how}, {policy}: {}", told.stderr);
        let place = "round 2, client `tm`, `train` of `misbehaving`";
        assert!(told.stderr.contains(&format!("warning: {place}: no progress for 1 s\n")), "{}", told.stderr);
        let end = match (how, policy) {
            ("hang", _) => format!("error: {place}: no progress for 4 s, and it does not stop\nhint: resume it"),
            (_, "stop") => {
                "error: round 2, client `tm`, model `misbehaving`: no progress for 2 s, so it was".to_owned()
            }
            _ => "left out: round 2, client `tm`, model `misbehaving`: no progress for 2 s, so it was".to_owned(),
        };
        assert!(told.stderr.contains(&end), "{how}, {policy}: {}", told.stderr);
    }
}

/// Results stay where the run began, whatever a plugin does to the process's current directory.
#[test]
fn a_plugin_that_changes_the_current_directory_sends_no_result_elsewhere() {
    let bench = Bench::new();
    let root = crate::support::root();
    let data = DATASET.replace("configs/sample", root.join("configs/sample").to_str().unwrap());
    let file = FILE.replace(DATASET, &data).replace(MODEL, "plugin = \"misbehaving\"\nhow = \"change-directory\"");
    let path = bench.write("run.toml", &file);
    let mut command = std::process::Command::new(crate::support::libraries().join("fedplug"));
    let told = command.arg("run").arg(&path).args(["--output", "here"]).current_dir(bench.path("")).output().unwrap();
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.success(), "{stderr}");
    assert!(stderr.contains("models: here/run/global"), "{stderr}");
    for file in ["summary.json", "predictions.csv", "global/model.safetensors", "clients/tm/model.safetensors"] {
        assert!(bench.path("here/run").join(file).is_file(), "{file}");
    }
}

/// Native code can end the process. What can be done is to say who was called, and not to call it a success.
#[test]
#[cfg(unix)]
fn a_plugin_that_ends_the_process_is_named() {
    for (how, code, sentence) in [
        ("exit", 1, "ended by a call to `exit`"),
        ("abort", -1, "killed by signal 6"),
        ("segfault", -1, "killed by signal 11"),
        ("overflow-stack", -1, "killed by signal"),
    ] {
        let bench = Bench::new();
        let told = run(&bench, MODEL, &format!("\"{how}\"\nround = 1\nclient = \"tm\""));
        assert_eq!(told.code, code, "{how}: {}", told.stderr);
        let wanted =
            format!("{sentence}; the last component called on this thread: `misbehaving` for client `tm` in round 2");
        let told = &told.stderr;
        assert!(told.contains("error: the process was ") && told.contains(sentence), "{how}: {told}");
        assert!(how == "overflow-stack" || told.contains(&wanted), "{how}: {told}");
        assert!(told.contains("`misbehaving` for client `tm` in round 2"), "{how}: {told}");
    }
}

/// An argument may be any bytes: a path is taken as it is, anything else is an error.
#[test]
#[cfg(unix)]
fn an_argument_that_is_not_unicode_is_a_path_or_an_error() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let bench = Bench::new();
    let odd = OsStr::from_bytes(b"od\xffd");
    for arguments in
        [&[odd][..], &[OsStr::new("run"), odd], &[OsStr::new("run"), OsStr::new("x.toml"), OsStr::new("--name"), odd]]
    {
        assert_eq!(bench.fedplug(arguments).code, 2, "{arguments:?}");
    }
    let file = bench.path(odd);
    std::fs::write(&file, FILE).unwrap();
    let told = bench.fedplug(&[OsStr::new("run"), file.as_os_str()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
}
