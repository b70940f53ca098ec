//! The stability guarantee of interface 1: a plugin built once loads and runs in every later host.
//!
//! The later host is `fixture-later`, built in a copy of its crates and the interface's, in which plugin-api has the
//! next major version, and the crate of the wire types has the next minor version with one more interface.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Bench, cargo, files, library, root};

/// What a later interface brings: another root module beside the first.
const MORE: &str = "
pub use second::{PluginV2, PluginV2_Ref};

mod second {
    use crate::abi_stable::StableAbi;

    #[repr(C)]
    #[derive(StableAbi)]
    #[sabi(kind(Prefix(prefix_ref = PluginV2_Ref)))]
    pub struct PluginV2 {
        #[sabi(last_prefix_field)]
        pub tell: extern \"C\" fn(u32) -> crate::Wired<u64>,
    }
}
";

/// Where the copies and what is built of them lie: in cargo's folder, so that a second time all is built already. The crates
/// that all depend on are the same as those of new plugins.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("promise")
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("authoring/target")
}

/// Copies files that differ, so that what was built of the others stays.
fn copy(from: &Path, to: &Path, change: impl Fn(&Path, String) -> String) {
    for file in files(from) {
        let inside = file.strip_prefix(from).unwrap();
        let (text, to) = (change(inside, fs::read_to_string(&file).unwrap()), to.join(inside));
        if fs::read_to_string(&to).ok().as_ref() != Some(&text) {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, text).unwrap();
        }
    }
}

/// A workspace with the later contract, the later host, and a plugin that is built with it.
fn later() -> PathBuf {
    let later = folder().join("later");
    let members = ["plugin-api", "tests/fixtures/later", "tests/fixtures/newer", "plugins/aggregator-fedavg"];
    for member in members {
        copy(&root().join(member), &later.join(member), |file, text| match file.to_str() {
            Some("abi/src/lib.rs") => text + MORE,
            Some("Cargo.toml") if member == "plugin-api" => bumped(&text, "2.0.0"),
            Some("testkit/Cargo.toml") => bumped(&text, "2.0.0"),
            Some("abi/Cargo.toml") => bumped(&text, "1.1.0"),
            _ => text,
        });
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (start, rest) = manifest.split_once("members = [").unwrap();
    let (_, rest) = rest.split_once(']').unwrap();
    let (_, shared) = rest.split_once("[workspace.package]").unwrap();
    let (shared, _) = shared.split_once("# No profile sets").unwrap();
    let members = [&members[..], &["plugin-api/abi", "plugin-api/testkit"]].concat();
    let shared: Vec<String> =
        shared.lines().map(|line| later_version(line).unwrap_or_else(|| line.to_owned())).collect();
    let text = format!("{start}members = {members:?}\n\n[workspace.package]{}\n", shared.join("\n"));
    fs::write(later.join("Cargo.toml"), text).unwrap();
    if !later.join("Cargo.lock").exists() {
        fs::copy(root().join("Cargo.lock"), later.join("Cargo.lock")).unwrap();
    }
    later
}

/// A dependency on the contract, by its path, of the copy's version.
fn later_version(line: &str) -> Option<String> {
    let version = if line.starts_with("fedplug-abi") { "1.1.0" } else { "2.0.0" };
    (line.contains("path = \"plugin-api"))
        .then(|| line.replace("version = \"1.0.0\"", &format!("version = \"{version}\"")))
}

fn bumped(manifest: &str, version: &str) -> String {
    let found = manifest.lines().filter(|line| line.starts_with("version = ")).count();
    assert_eq!(found, 1, "{manifest}");
    let line =
        |line: &str| if line.starts_with("version = ") { format!("version = \"{version}\"") } else { line.to_owned() };
    manifest.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// Builds packages of a copy, and gives the folder of what comes out.
fn build(copy: &Path, packages: &[&str]) -> PathBuf {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--offline"]).current_dir(copy);
    for package in packages {
        cargo.args(["--package", package]);
    }
    let built = cargo.env("CARGO_TARGET_DIR", target()).env("CARGO_PROFILE_DEV_DEBUG", "0").output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target().join("debug")
}

#[test]
fn todays_plugins_load_and_run_in_a_later_host_and_a_later_plugin_in_todays() {
    let built = build(&later(), &["fixture-later", "aggregator-fedavg"]);
    let plugins = ["aggregator-fedavg", "filter-suite", "model-linear"].map(library);
    let told = Command::new(built.join(format!("fixture-later{EXE_SUFFIX}"))).args(plugins).output().unwrap();
    let (out, err) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
    assert!(told.status.success(), "{err}");
    let wanted = "interface 1: aggregator-fedavg makes 2 of 1 and 3\n\
                  interface 1: fixture-suite makes 0.5 of 1 and 3\ninterface 1: model-linear\n";
    assert_eq!(out, wanted);

    // What the later contract built is found before what lies beside the program.
    let bench = Bench::new();
    let plugin = bench.path("plugins").join(format!("{DLL_PREFIX}aggregator_fedavg{DLL_SUFFIX}"));
    fs::create_dir_all(plugin.parent().unwrap()).unwrap();
    fs::copy(built.join(plugin.file_name().unwrap()), &plugin).unwrap();
    let folder = plugin.parent().unwrap().to_str().unwrap().to_owned();
    let told = bench.fedplug(&["plugin", "inspect", "fedavg", "--kind", "aggregator", "--plugin-dir", &folder]);
    assert!(told.stdout.contains("plugin-api 2.0.0; this host has 1.0.0"), "{}{}", told.stdout, told.stderr);
    bench.run(&[
        "configs/quickstart.toml",
        "--quiet",
        "--plugin-dir",
        &folder,
        "--name",
        "later",
        "--set",
        "federation.rounds=2",
    ]);
    bench.run(&["configs/quickstart.toml", "--quiet", "--name", "now", "--set", "federation.rounds=2"]);
    assert!(bench.results("later") == bench.results("now"), "the later contract changed the result");
}

#[test]
fn a_plugin_that_asks_for_an_extension_runs_in_a_host_that_lacks_it() {
    let bench = Bench::new();
    let path = bench.write(
        "suite.toml",
        "name = \"suite\"\n[federation]\nrounds = 1\n[dataset]\nplugin = \"flab\"\nroot = \"configs/sample\"\n\
         [model]\nplugin = \"linear\"\n[aggregator]\nplugin = \"suite\"\n",
    );
    let told = bench.run(&[path.to_str().unwrap(), "-v"]);
    assert_eq!(bench.summary("suite")["rounds"], 1);
    // What it says of it, and what it says by `log`, arrive under its name.
    let lines = ["suite: the host does not know the extension `fixture.double`", "suite: filter_suite: "];
    assert!(lines.iter().all(|line| told.stderr.contains(line)), "{}", told.stderr);
}

/// `FEDPLUG_FREEZE` names a commit from which interface 1 is frozen: a plugin is built of the repository as it was then.
#[test]
#[ignore = "takes minutes; `make load-matrix` runs it"]
fn plugins_load_and_run_however_old_they_are() {
    let Some(freeze) = std::env::var_os("FEDPLUG_FREEZE").filter(|name| !name.is_empty()) else {
        return crate::support::skip("no commit is named: make load-matrix FREEZE=COMMIT");
    };
    let then = folder().join("then");
    let _ = fs::remove_dir_all(&then);
    fs::create_dir_all(&then).unwrap();
    let archive = Command::new("git").arg("archive").arg(&freeze).current_dir(root()).output().unwrap();
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    let bench = Bench::new();
    let file = bench.path("then.tar");
    fs::write(&file, archive.stdout).unwrap();
    assert!(Command::new("tar").arg("-xf").arg(&file).current_dir(&then).status().unwrap().success());
    let built = build(&then, &["aggregator-fedavg", "model-linear", "dataset-flab"]);
    let plugins = built.to_str().unwrap();
    bench.run(&["configs/quickstart.toml", "--quiet", "--plugin-dir", plugins, "--name", "then"]);
    let manifest = bench.text("then", "manifest.json");
    assert!(manifest.contains(plugins), "{manifest}");
    bench.run(&["configs/quickstart.toml", "--quiet", "--name", "now"]);
    assert_eq!(bench.summary("then")["rounds"], bench.summary("now")["rounds"]);
    // And in a host of the contract to come.
    let later = build(&later(), &["fixture-later"]).join(format!("fixture-later{EXE_SUFFIX}"));
    let told =
        Command::new(later).arg(built.join(format!("{DLL_PREFIX}aggregator_fedavg{DLL_SUFFIX}"))).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
