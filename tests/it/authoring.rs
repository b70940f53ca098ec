//! `fedplug plugin new`: the generated plugin builds, passes its own tests and runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{self, Bench, root, skip};

const KINDS: [&str; 4] = ["model", "dataset", "aggregator", "filter"];

/// Runs cargo in a crate of its own, with the crates that this repository has fetched.
fn cargo(crate_folder: &Path, target: &Path, arguments: &[&str]) {
    let told = support::cargo()
        .args(arguments)
        .args(["--quiet", "--offline"])
        .current_dir(crate_folder)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{arguments:?}\n{said}\n{}", String::from_utf8_lossy(&told.stderr));
    // The crate's own test, and that of the test kit.
    assert!(arguments != ["test"] || said.matches("1 passed").count() == 2, "{said}");
}

#[test]
fn a_new_plugin_of_each_kind_builds_passes_its_tests_and_runs() {
    // In cargo's folder, so that a second time plugin-api and what it needs are built already.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring");
    let (target, bench) = (folder.join("target"), Bench::new());
    for kind in KINDS {
        let made = folder.join(format!("{kind}-my-first"));
        if made.exists() {
            fs::remove_dir_all(&made).unwrap();
        }
        let output = folder.to_str().unwrap();
        let told =
            bench.fedplug(&["plugin", "new", kind, "my-first", "--output", output, "--plugin-api", "plugin-api"]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        for command in
            ["cargo test", "cargo build --release", "fedplug run experiment.toml --plugin-dir target/release"]
        {
            assert!(told.stdout.contains(command), "{}", told.stdout);
        }
        // The versions that are fetched already.
        fs::copy(root().join("Cargo.lock"), made.join("Cargo.lock")).unwrap();
        cargo(&made, &target, &["build"]);
        cargo(&made, &target, &["test"]);

        let plugins = target.join("debug");
        let name = format!("new-{kind}");
        let run = ["run", "experiment.toml", "--quiet", "--name", &name, "--plugin-dir", plugins.to_str().unwrap()];
        let told = bench.command(&run).current_dir(&made).output().unwrap();
        assert!(told.status.success(), "{kind}: {}", String::from_utf8_lossy(&told.stderr));
        assert_eq!(bench.summary(&name)["rounds"], 5);
        let manifest = bench.text(&name, "manifest.json");
        assert!(manifest.contains(&format!("{kind}_my_first")), "{manifest}");
        // Of two runs' models every bit is the same.
        let again =
            bench.command(&[&run[..4], &["again"], &run[5..]].concat()).arg("--force").current_dir(&made).output();
        assert!(again.unwrap().status.success());
        assert!(bench.results(&name) == bench.results("again"), "{kind}");
        if kind == "model" {
            a_plugin_has_to_unwind(&made, &target);
        }
        if kind == "aggregator" {
            the_guides_example_runs(&bench, &made, &target);
        }
    }
}

/// Of a profile with `panic = "abort"` the compiler says why a plugin cannot have it. What the plugin depends on is built
/// already, and unwinds; to the macro it is the plugin's own crate that counts.
fn a_plugin_has_to_unwind(made: &Path, target: &Path) {
    let mut cargo = support::cargo();
    cargo.args(["rustc", "--quiet", "--offline", "--lib", "--crate-type", "cdylib", "--", "-C", "panic=abort"]);
    cargo.current_dir(made).env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    let told = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    let sentence = "error: a plugin cannot be built with `panic = \"abort\"`: the host could not survive its panics";
    assert!(!told.status.success() && said.contains(sentence), "{said}");
    assert_eq!(said.matches("error: ").count(), 2, "one fault, and that the crate could not be compiled: {said}");
}

/// The example in `plugins/README.md`, put into the new aggregator: built and run.
fn the_guides_example_runs(bench: &Bench, made: &Path, target: &Path) {
    let guide = fs::read_to_string(root().join("plugins/README.md")).unwrap();
    let code = guide.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(made.join("src/lib.rs"), code.replace("my-median", "my-first")).unwrap();
    cargo(made, target, &["build"]);
    cargo(made, target, &["test", "--test", "conformance"]);
    let plugins = target.join("debug");
    let arguments =
        ["run", "experiment.toml", "--quiet", "--name", "median", "--plugin-dir", plugins.to_str().unwrap()];
    let told = bench.command(&arguments).current_dir(made).output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.code() == Some(2) && said.contains("unknown key `weight-by`"), "{said}");
    let experiment = fs::read_to_string(made.join("experiment.toml")).unwrap();
    fs::write(made.join("experiment.toml"), experiment.replace("weight-by = \"steps\"", "")).unwrap();
    let told = bench.command(&arguments).current_dir(made).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn a_new_plugin_has_the_layout_of_rustfmt() {
    let bench = Bench::new();
    for kind in KINDS {
        let told = bench.fedplug(&["plugin", "new", kind, "x", "--output", bench.path("new").to_str().unwrap()]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        let manifest = fs::read_to_string(bench.path(format!("new/{kind}-x/Cargo.toml"))).unwrap();
        // The checkout that this program was built in.
        let folder = root().join("plugin-api").canonicalize().unwrap();
        let found = [("fedplug-plugin-api", folder.clone()), ("fedplug-testkit", folder.join("testkit"))];
        for (package, folder) in found {
            let line = format!("{package} = {{ path = {:?} }}", folder.to_str().unwrap());
            assert!(manifest.contains(&line), "{manifest}");
        }
        let code = ["src/lib.rs", "tests/conformance.rs"].map(|file| bench.path(format!("new/{kind}-x/{file}")));
        let options = ["--check", "--edition", "2024", "--config", "max_width=100,use_small_heuristics=Default"];
        let Ok(told) = Command::new("rustfmt").args(options).args(code).output() else {
            return skip("rustfmt is not installed");
        };
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
    }
}

#[test]
fn nothing_is_overwritten_and_no_odd_name_is_taken() {
    let bench = Bench::new();
    let output = bench.path("new").to_str().unwrap().to_owned();
    let new = |name: &str, more: &[&str]| {
        bench.fedplug(&[&["plugin", "new", "filter", name, "--output", &output], more].concat())
    };
    bench.write("new/filter-mine/src/lib.rs", "my work");
    let told = new("mine", &[]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("is there already", told.stderr);
    assert_eq!(fs::read_to_string(bench.path("new/filter-mine/src/lib.rs")).unwrap(), "my work");
    for (name, snapshot) in [("My_Filter", "no name for a plugin"), ("filter-x", "the kind twice")] {
        let told = new(name, &[]);
        assert_eq!(told.code, 2);
        insta::assert_snapshot!(snapshot, told.stderr);
    }
    let told = new("other", &["--plugin-api", "host"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("not plugin-api", told.stderr);
    assert_eq!(fs::read_dir(bench.path("new")).unwrap().count(), 1);
}
