//! The messages for a faulty file, plugin, data or client. The texts are snapshots.

use std::fs;

use crate::support::{Bench, Told};

/// A whole experiment on the sample with the linear model, to break in one place.
const GOOD: &str = r#"name = "good"

[federation]
rounds = 2

[dataset]
plugin = "flab"
root = "configs/sample"

[model]
plugin = "linear"

[aggregator]
plugin = "fedavg"

[[filter]]
plugin = "exclude-params"
at = "client-output"
containing = "regressor"
"#;

/// The experiment with one text in the place of another.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from} is not in the experiment");
    GOOD.replace(from, to)
}

/// Checks an experiment that is at fault, and gives what is said of it.
fn check(text: &str) -> Told {
    let bench = Bench::new();
    let path = bench.write("broken.toml", text);
    let told = bench.fedplug(&["check", path.to_str().unwrap()]);
    assert_eq!(told.code, 2, "{}", told.stderr);
    told
}

macro_rules! check_snapshot {
    ($name:literal, $text:expr) => {
        insta::assert_snapshot!($name, check($text).stderr)
    };
}

#[test]
fn an_error_in_the_file_has_its_line() {
    let bench = Bench::new();
    let told = bench.fedplug(&["run", "no-such-file.toml"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("no file", told.stderr);
    check_snapshot!("broken toml", &broken("rounds = 2", "rounds = = 2\nname = 'x"));
    check_snapshot!("unknown key of the host", &broken("rounds = 2", "round = 2\nlocal-epoch = 1"));
    check_snapshot!("unknown key of a plugin", &broken("containing =", "containin ="));
    check_snapshot!(
        "wrong type in a plugin's table",
        &broken("plugin = \"linear\"", "plugin = \"linear\"\nbatch-size = \"many\"")
    );
    check_snapshot!("missing table", &broken("[model]\nplugin = \"linear\"\n", ""));
    check_snapshot!("bad values", &broken("rounds = 2", "rounds = 0\ndevices = []"));
    check_snapshot!("unknown place of a filter", &broken("client-output", "client-outputs"));
    let path = bench.write("good.toml", GOOD);
    let told = bench.fedplug(&["check", path.to_str().unwrap(), "--set", "federation.rounds=many"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("wrong override", told.stderr);
}

#[test]
fn all_errors_are_reported_together() {
    let text = broken("rounds = 2", "rounds = \"two\"\nseed = 1")
        .replace("\"client-output\"", "7")
        .replace("plugin = \"linear\"", "");
    check_snapshot!("all problems of the host", &text);
    let text = broken("\"linear\"", "\"linea\"")
        .replace("plugin = \"fedavg\"", "plugin = \"fedavg\"\nweigh-by = 1")
        .replace("containing = \"regressor\"", "");
    check_snapshot!("all problems of the plugins", &text);
    let text =
        broken("configs/sample", "no/such/folder").replace("rounds = 2", "rounds = 2\ndevices = [\"cuda:7\", \"cpu\"]");
    check_snapshot!("all problems of data and devices", &text);
}

#[test]
fn plugins_that_cannot_be_used_are_errors() {
    check_snapshot!("plugin not found", &broken("\"linear\"", "\"quadratic\""));
    check_snapshot!("no such library", &broken("\"linear\"", "\"./libnothing.so\""));
    check_snapshot!("not a plugin", &broken("\"linear\"", "\"foreign\""));
    check_snapshot!("another interface", &broken("\"linear\"", "\"newer\""));
    check_snapshot!("panics at the start", &broken("\"linear\"", "\"unstartable\""));
    let misbehaving = |how: &str| broken("\"linear\"", &format!("\"misbehaving\"\nhow = \"{how}\""));
    check_snapshot!("panics when it is made", &misbehaving("panic-in-new"));
    check_snapshot!("fails when it is made", &misbehaving("fail-in-new"));
    let bench = Bench::new();
    let junk = bench.write("libmodel_junk.so", "not an ELF file");
    let text = broken("\"linear\"", &format!("{:?}", junk.to_str().unwrap()));
    let told = bench.fedplug(&["check", bench.write("junk.toml", &text).to_str().unwrap()]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("not a library", told.stderr);
}

#[test]
fn data_without_usable_rows_is_an_error() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("data/tm")).unwrap();
    let said = |text: &str| {
        let path = bench.write("data.toml", &text.replace("configs/sample", bench.path("data").to_str().unwrap()));
        let told = bench.fedplug(&["check", path.to_str().unwrap()]);
        assert_eq!(told.code, 2, "{}", told.stderr);
        told.stderr
    };
    let one_task = GOOD.replace("plugin = \"flab\"", "plugin = \"flab\"\ntasks = [\"tm\"]");
    insta::assert_snapshot!("folder without a file", said(&one_task));
    bench.write("data/tm/a.csv", "heavy,light,score\nEVQ,DIQ,1\n");
    bench.write("data/tm/b.csv", "heavy,light,fitness\nEVQ,DIQ,\nEVQ,,3\n");
    insta::assert_snapshot!("no usable file", said(&one_task));
    insta::assert_snapshot!("missing tasks", said(GOOD));
}

/// Runs the misbehaving model, at one client only, and gives code and text.
fn misbehave(how: &str, extra: &[&str]) -> Told {
    let bench = Bench::new();
    let model = format!("\"misbehaving\"\nhow = \"{how}\"\nclient = \"expression\"");
    let text = broken("\"linear\"", &model)
        .replace("\"regressor\"", "\"nothing\"")
        .replace("[[filter]]\nplugin = \"exclude-params\"\nat = \"client-output\"\ncontaining = \"nothing\"\n", "");
    let path = bench.write("run.toml", &text);
    bench.fedplug(&[&["run", path.to_str().unwrap(), "--quiet", "--threads", "1"], extra].concat())
}

#[test]
fn a_client_that_fails_ends_the_run_or_is_left_out() {
    for (how, name) in [
        ("panic-in-train", "a client panics"),
        ("fail-in-train", "a client fails"),
        ("answer-for-other-tasks", "a client answers nonsense"),
    ] {
        // Later than what is rehearsed.
        let told = misbehave(how, &["--set", "federation.rounds=3", "--set", "model.round=2"]);
        assert_eq!(told.code, 1, "{}", told.stderr);
        insta::assert_snapshot!(name, told.stderr);
    }
    let told = misbehave("panic-in-train", &["--set", "federation.on-client-failure=leave-out"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    insta::assert_snapshot!("a client is left out", told.stderr);
    assert_eq!(misbehave("panic-in-drop", &[]).code, 0);
}

#[test]
fn an_invalid_update_is_left_out_with_every_aggregator() {
    let mask = "\n[[filter]]\nplugin = \"secure\"\nat = \"client-output\"\n";
    let robust = |keys: &str| format!("\"robust\"\n{keys}");
    for (aggregator, filters) in [
        ("\"fedavg\"".to_owned(), ""),
        ("\"fedopt\"\noptimizer = \"momentum\"\nlearning-rate = 1.0\nmomentum = 0.0".to_owned(), ""),
        (robust("method = \"median\""), ""),
        (robust("method = \"trimmed-mean\"\ntrim = 0.2"), ""),
        (robust("method = \"krum\"\nbyzantine = 1"), ""),
        (robust("method = \"multi-krum\"\nbyzantine = 1\nkeep = 2"), ""),
        (robust("method = \"geometric-median\""), ""),
        ("\"secure\"\nclip = 2.0".to_owned(), mask),
    ] {
        for how in ["nan", "other-shapes"] {
            let bench = Bench::new();
            let model = format!("\"misbehaving\"\nhow = \"{how}\"\nclient = \"expression\"\nround = 2");
            let text = broken("\"linear\"", &model).replace("rounds = 2", "rounds = 3");
            let text = text.replace("\"fedavg\"", &aggregator);
            let text = text.split("\n[[filter]]").next().unwrap().to_owned() + filters;
            let path = bench.write("run.toml", &text);
            let run = ["run", path.to_str().unwrap(), "--quiet", "--threads", "1"];
            let stopped = bench.fedplug(&run);
            assert_eq!(stopped.code, 1, "{aggregator}, {how}: {}", stopped.stderr);
            assert!(stopped.stderr.starts_with("error: round 3, client `expression`, "), "{}", stopped.stderr);
            let extra = ["--force", "--set", "federation.on-client-failure=leave-out"];
            let told = bench.fedplug(&[&run[..], &extra].concat());
            assert_eq!(told.code, 0, "{aggregator}, {how}: {}", told.stderr);
            let lines: Vec<&str> = told.stderr.lines().filter(|line| line.contains("left out")).collect();
            assert_eq!(lines.len(), 1, "{aggregator}, {how}: {}", told.stderr);
            assert!(lines[0].starts_with("warning: left out: round 3, client `expression`, "), "{}", lines[0]);
            // It begins with 1, and each of the others adds 1 in each of three rounds.
            let global = bench.bytes("good", "global/model.safetensors");
            let tensors = safetensors::SafeTensors::deserialize(&global).unwrap();
            assert_eq!(tensors.tensor("weight").unwrap().data(), 4.0_f32.to_le_bytes(), "{aggregator}, {how}");
        }
    }
}

/// A client is not left out because the disk is full while its model is written: the run ends, and can be resumed.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_no_clients_failure() {
    let bench = Bench::new();
    let arguments =
        ["configs/linear.toml", "--set", "federation.rounds=1", "--set", "federation.on-client-failure=leave-out"];
    bench.run(&[&arguments[..], &["--name", "whole"]].concat());
    let named = [&arguments[..], &["--name", "full"]].concat();
    bench.run(&named);
    fs::remove_file(bench.path("runs/full/summary.json")).unwrap();
    std::os::unix::fs::symlink("/dev/full", bench.path("runs/full/clients/tm/model.safetensors.part")).unwrap();
    // Besides, a killed process left half an export.
    let half =
        ["clients/tm/export/.tmp0", "global/export/half.bin"].map(|path| bench.write(&format!("runs/full/{path}"), ""));
    let told = bench.fedplug(&[&["run"], &named[..], &["--resume"]].concat());
    assert_eq!(told.code, 1, "{}", told.stderr);
    let sentence = "clients/tm/model.safetensors: cannot write the parameters: No space left on device";
    assert!(told.stderr.contains("error: saving client `tm`") && told.stderr.contains(sentence), "{}", told.stderr);
    assert!(!bench.path("runs/full/summary.json").exists());
    bench.run(&[&named[..], &["--resume"]].concat());
    crate::resume::same(&bench, "full", "whole");
    assert!(half.iter().all(|path| !path.exists()), "{half:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_the_run_with_a_sentence() {
    let bench = Bench::new();
    bench.run(&["configs/linear.toml", "--set", "federation.rounds=1", "--name", "full"]);
    // A file that can be opened and never written stands for a full disk.
    let metrics = bench.path("runs/full/metrics.jsonl");
    fs::remove_file(&metrics).unwrap();
    fs::remove_file(bench.path("runs/full/summary.json")).unwrap();
    std::os::unix::fs::symlink("/dev/full", &metrics).unwrap();
    let told = bench.fedplug(&[
        "run",
        "configs/linear.toml",
        "--set",
        "federation.rounds=1",
        "--name",
        "full",
        "--resume",
        "--quiet",
    ]);
    assert_eq!(told.code, 1, "{}", told.stderr);
    insta::assert_snapshot!(told.stderr);
}

#[test]
fn invalid_arguments_are_errors_and_help_is_shown() {
    let bench = Bench::new();
    for arguments in
        [&["runn"][..], &["run"], &["run", "x.toml", "--threads", "many"], &["run", "x.toml", "--force", "--resume"]]
    {
        let told = bench.command(arguments).output().unwrap();
        assert_eq!(told.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&told.stderr).starts_with("error: "), "{arguments:?}");
    }
    let told = bench.fedplug(&["--help"]);
    assert_eq!(told.code, 0);
    insta::assert_snapshot!("help", told.stdout);
}
