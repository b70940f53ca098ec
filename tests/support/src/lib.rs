//! Helpers for the tests of several crates: data that not every machine has, and a host that records.
//!
//! A test that cannot run calls [`skip`] and returns. The line reaches the terminal although the harness captures a
//! test's output. If `FEDPLUG_NO_SKIPS` is 1, as in CI, a skipped test fails.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod fuzz;
pub mod proxy;
mod recorder;
pub mod superlink;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;

use proptest::test_runner::{Config, RngSeed};

pub use recorder::Recorder;

/// A configuration for `proptest!` with this many cases, which are the same in every run; or with `FEDPLUG_FUZZ` times as
/// many, which are others in each run.
///
/// # Panics
/// If `FEDPLUG_FUZZ` is no number.
pub fn cases(cases: u32) -> proptest::test_runner::Config {
    let (cases, rng_seed) = match std::env::var("FEDPLUG_FUZZ") {
        Ok(times) => (cases * times.parse::<u32>().expect("FEDPLUG_FUZZ is a number"), RngSeed::Random),
        Err(_) => (cases, RngSeed::Fixed(0)),
    };
    Config { cases, rng_seed, failure_persistence: None, ..Default::default() }
}

/// Reports why the running test is skipped.
///
/// # Panics
/// If `FEDPLUG_NO_SKIPS` is 1.
#[track_caller]
pub fn skip(why: impl Display) {
    assert!(std::env::var_os("FEDPLUG_NO_SKIPS").is_none_or(|value| value != "1"), "skipped in CI: {why}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // The harness captures the output of `eprintln!`, but not direct writes to stderr.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// A file or folder below `../shared`, which holds data that the repository may not contain. `FEDPLUG_SHARED` overrides
/// the folder. If the path does not exist, the test is skipped.
///
/// # Panics
/// If it does not exist and `FEDPLUG_NO_SKIPS` is 1.
#[track_caller]
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = std::env::var_os("FEDPLUG_SHARED").map(|folder| PathBuf::from(folder).join(path));
    let found = found.filter(|found| found.exists());
    if found.is_none() {
        skip(format_args!("FEDPLUG_SHARED names no folder with `{path}`"));
    }
    found
}

/// As [`interpreter`]. Without it, the test is skipped.
///
/// # Panics
/// If there is none and `FEDPLUG_NO_SKIPS` is 1, or as `interpreter`.
#[track_caller]
pub fn python() -> Option<String> {
    let found = interpreter();
    if found.is_none() {
        skip("the Python packages of tests/requirements.txt are not in .python; `make test` installs them");
    }
    found
}

/// A program that starts Python with the packages of `tests/requirements.txt`, if `make test` has installed them.
///
/// # Panics
/// If the program cannot be written.
pub fn interpreter() -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let packages = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.python")).canonicalize().ok()?;
    if !packages.join("numpy").is_dir() {
        return None;
    }
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let text = format!("#!/bin/sh\nexport PYTHONPATH='{}'\nexec '{python}' \"$@\"\n", packages.display());
    // Beside the test. Tests that run at the same time write the same, each a file of its own and then in one step.
    let folder = std::env::current_exe().ok()?.parent()?.join("python");
    let thread = format!("{:?}", std::thread::current().id());
    let (path, own) = (folder.join("python"), folder.join(format!("python.{}.{thread}", std::process::id())));
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&own, text))
        .and_then(|()| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::rename(&own, &path));
    written.expect("a program in the folder of temporary files");
    Some(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    /// Runs the test below in a separate process.
    fn run(variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "tests::one_that_needs_a_file"]);
        command.env_remove("FEDPLUG_NO_SKIPS").env_remove("FEDPLUG_SHARED").envs(variables.iter().copied());
        command.output().unwrap()
    }

    #[test]
    #[ignore = "for the test below"]
    fn one_that_needs_a_file() {
        if super::shared("src/lib.rs").is_some() {
            panic!("found");
        }
    }

    #[test]
    fn a_skip_is_seen_and_fails_where_none_may_be() {
        let text =
            |output: &Output| String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        for shared in [&[][..], &[("FEDPLUG_SHARED", "no/such/folder")]] {
            let skipped = run(shared);
            let line = "skipped: tests::one_that_needs_a_file: FEDPLUG_SHARED names no folder with `src/lib.rs`\n";
            assert!(skipped.status.success() && text(&skipped).contains(line), "{}", text(&skipped));
            let failed = run(&[shared, &[("FEDPLUG_NO_SKIPS", "1")]].concat());
            assert!(!failed.status.success() && text(&failed).contains("skipped in CI: "), "{}", text(&failed));
        }
        let here = ("FEDPLUG_SHARED", env!("CARGO_MANIFEST_DIR"));
        let found = run(&[here, ("FEDPLUG_NO_SKIPS", "1")]);
        assert!(!found.status.success() && text(&found).contains("\nfound\n"), "{}", text(&found));
    }
}
