//! Plugins of this interface in a host with a later one, and the reverse.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::Path;
use std::process::Command;

use crate::support::{Bench, libraries, root};

#[test]
fn a_later_host_loads_plugins_of_its_interface_and_of_this_one() {
    let folder = libraries();
    let library = |name: &str| folder.join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"));
    let mut later = Command::new(folder.join(format!("fixture-later{}", std::env::consts::EXE_SUFFIX)));
    let told =
        later.args(["model_newer", "aggregator_fedavg", "filter_suite", "model_linear"].map(library)).output().unwrap();
    let (out, err) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
    assert!(told.status.success(), "{err}");
    assert_eq!(
        out,
        "interface 9: 41 is told as 41\ninterface 1: aggregator-fedavg makes 2 of 1 and 3\n\
         interface 1: fixture-suite makes 0.5 of 1 and 3\ninterface 1: model-linear\n"
    );
    // The text of what this host says of the later plugin is a snapshot in `faults`.
    let bench = Bench::new();
    let path = bench.write(
        "x.toml",
        "name = \"x\"\n[federation]\nrounds = 1\n[dataset]\nplugin = \"flab\"\nroot = \"configs/sample\"\n\
         [model]\nplugin = \"newer\"\n[aggregator]\nplugin = \"fedavg\"\n",
    );
    let told = bench.fedplug(&["check", path.to_str().unwrap()]);
    assert_eq!(told.code, 2);
    let both = [format!("plugin-api {}", plugin_api::boundary::root::INTERFACE), "plugin-api 9.0.0".to_owned()];
    assert!(both.iter().all(|version| told.stderr.contains(version)), "{}", told.stderr);
}

/// How a plugin is built: what the row is called, what is done to the new crate, with which compiler and profile.
struct Build {
    name: &'static str,
    toolchain: Option<String>,
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    downgrades: &'static [(&'static str, &'static str)],
}

/// `FEDPLUG_LOAD_MATRIX` names the toolchains that rustup has besides the one in use, with commas between them.
#[test]
#[ignore = "takes minutes; `make load-matrix` runs it"]
fn plugins_load_and_run_however_they_were_built() {
    let wanted = std::env::var("FEDPLUG_LOAD_MATRIX").unwrap_or_default();
    let build =
        |name, arguments, variables, downgrades| Build { name, toolchain: None, arguments, variables, downgrades };
    let older = &[("serde_json", "1.0.140"), ("indexmap", "2.9.0"), ("half", "2.5.0")];
    let mut builds = vec![
        build("debug", &[][..], &[][..], &[][..]),
        build("release", &["--release"], &[], &[]),
        build("release for size, one codegen unit", &["--release"], SMALL, &[]),
        build("other versions of serde_json, indexmap, half", &[], &[], older),
    ];
    for toolchain in wanted.split(',').filter(|name| !name.is_empty()) {
        builds.push(Build {
            toolchain: Some(toolchain.to_owned()),
            ..build("another compiler", &["--release"], &[], &[])
        });
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix");
    let bench = Bench::new();
    let mut results = Vec::new();
    for (index, build) in builds.iter().enumerate() {
        let made = folder.join("aggregator-matrix");
        let _ = std::fs::remove_dir_all(&made);
        let output = folder.to_str().unwrap();
        let told =
            bench.fedplug(&["plugin", "new", "aggregator", "matrix", "--output", output, "--plugin-api", "plugin-api"]);
        assert_eq!(told.code, 0, "{}", told.stderr);
        std::fs::copy(root().join("Cargo.lock"), made.join("Cargo.lock")).unwrap();
        // Compilers share no output, and neither do other versions.
        let target = folder.join(format!("target-{index}"));
        let cargo = |arguments: &[&str]| {
            let mut command = Command::new("cargo");
            command
                .args(arguments)
                .current_dir(&made)
                .env("CARGO_TARGET_DIR", &target)
                .envs(build.variables.iter().copied());
            command.env_remove("RUSTC").env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
            if let Some(toolchain) = &build.toolchain {
                command.env("RUSTUP_TOOLCHAIN", toolchain);
            }
            let told = command.output().unwrap();
            assert!(told.status.success(), "{}: {}", build.name, String::from_utf8_lossy(&told.stderr));
        };
        for (name, version) in build.downgrades {
            cargo(&["update", "--quiet", "--package", name, "--precise", version]);
        }
        cargo(&[&["build", "--quiet"], build.arguments].concat());
        let plugins = target.join(if build.arguments.contains(&"--release") { "release" } else { "debug" });
        let name = format!("matrix-{index}");
        let run = ["run", "experiment.toml", "--quiet", "--name", &name, "--plugin-dir", plugins.to_str().unwrap()];
        let told = bench.command(&run).current_dir(&made).output().unwrap();
        assert!(told.status.success(), "{}: {}", build.name, String::from_utf8_lossy(&told.stderr));
        let toolchain = build.toolchain.as_deref().unwrap_or("the same compiler");
        eprintln!("{}, {toolchain}: loads and runs", build.name);
        results.push(bench.results(&name));
    }
    assert!(results.iter().all(|result| *result == results[0]), "a build changed the result");
}

const SMALL: &[(&str, &str)] =
    &[("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")];
