//! Builds the plugins once, creates folders, runs the binary.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

pub use test_support::{shared, skip};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Cargo, without the variables in which it names a test's package. A build script that reads them (`ring` has one) would run
/// again, and with it all that depends on its crate would be built again: here, and in the next build outside.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The binary, built together with the plugins beside it.
pub fn binary() -> &'static Path {
    static BUILT: LazyLock<()> = LazyLock::new(|| {
        // Builds the whole workspace with its tests, like `make test`. Selected packages, or packages without their
        // tests' dependencies, would be built with other features, and half of everything would be built again.
        let without_libtorch: &[&str] = if has_libtorch() { &[] } else { &["--exclude", "model-amplify"] };
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let built = cargo()
            .args(["build", "--quiet", "--workspace", "--all-targets", "--profile", profile])
            .args(without_libtorch)
            .current_dir(root())
            .status()
            .unwrap();
        assert!(built.success(), "the plugins do not build");
    });
    LazyLock::force(&BUILT);
    Path::new(env!("CARGO_BIN_EXE_fedplug"))
}

/// The folder with the built plugins and fixtures.
pub fn libraries() -> &'static Path {
    binary().parent().unwrap()
}

/// The built library of `<kind>-<name>`.
pub fn library(name: &str) -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    binary().with_file_name(format!("{DLL_PREFIX}{}{DLL_SUFFIX}", name.replace('-', "_")))
}

/// Whether model-amplify can be built here.
pub fn has_libtorch() -> bool {
    root().join(".libtorch/stamp.json").is_file()
}

/// Python with the packages of `tests/requirements.txt`, as installed by `make test`.
pub fn python() -> Option<Command> {
    let packages = root().join(".python");
    if !["tensorboard", "jsonschema"].iter().all(|package| packages.join(package).is_dir()) {
        skip("the Python packages of tests/requirements.txt are not in .python; `make test` installs them");
        return None;
    }
    let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    command.env("PYTHONPATH", packages);
    Some(command)
}

/// A test's own folder, with its runs and files.
pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Paths in experiments are relative to them, and most read the sample, as copies of those in `configs` do.
        #[cfg(unix)]
        for (name, target) in [("configs", "configs"), ("sample", "configs/sample")] {
            std::os::unix::fs::symlink(root().join(target), folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `fedplug ARGUMENTS`, run from the repository's root; runs go into this bench.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(root());
        if arguments.first().is_some_and(|first| first.as_ref() == "run") {
            command.arg("--output").arg(self.path("runs"));
        }
        command.env_remove("FEDPLUG_PLUGIN_PATH").env_remove("RUST_BACKTRACE");
        if let Some(python) = test_support::interpreter() {
            command.env("FEDPLUG_PYTHON", python);
        }
        command
    }

    /// Runs `fedplug ARGUMENTS` to completion.
    pub fn fedplug(&self, arguments: &[impl AsRef<OsStr>]) -> Told {
        Told::new(self, self.command(arguments).output().unwrap())
    }

    /// Runs `fedplug run` and asserts that it succeeds.
    pub fn run(&self, arguments: &[&str]) -> Told {
        let told = self.fedplug(&[&["run"], arguments].concat());
        assert_eq!(told.code, 0, "{}", told.stderr);
        told
    }

    /// The text of a run's file.
    pub fn text(&self, run: &str, file: &str) -> String {
        std::fs::read_to_string(self.path("runs").join(run).join(file)).unwrap()
    }

    /// The bytes of a run's file.
    pub fn bytes(&self, run: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.path("runs").join(run).join(file)).unwrap()
    }

    /// The files of a run that must not change: every model, the predictions, and the metrics without their times.
    pub fn results(&self, run: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = self.path("runs").join(run);
        let mut results: Vec<(PathBuf, Vec<u8>)> = files(&folder)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .map(|path| (path.strip_prefix(&folder).unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect();
        assert!(results.len() > 2, "{results:?}");
        results.push(("predictions.csv".into(), self.bytes(run, "predictions.csv")));
        results.push(("metrics.jsonl".into(), self.metrics(run).join("\n").into_bytes()));
        results
    }

    /// [`results`](Self::results) without epsilon, which may be larger after a kill: it counts what may have left before.
    pub fn results_but_the_account(&self, run: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut results = self.results(run);
        results.pop();
        let metrics = self.metrics(run).into_iter().filter(|line| !line.contains("/epsilon\""));
        results.push(("metrics.jsonl".into(), metrics.collect::<Vec<_>>().join("\n").into_bytes()));
        results
    }

    /// The lines of `metrics.jsonl` without their times.
    pub fn metrics(&self, run: &str) -> Vec<String> {
        let text = self.text(run, "metrics.jsonl");
        text.lines().map(|line| line.split_once(",\"time\"").unwrap().0.to_owned()).collect()
    }

    /// The run's `summary.json`.
    pub fn summary(&self, run: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(run, "summary.json")).unwrap()
    }
}

/// All files below a folder, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The output of a command.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub stdout: String,
    /// With paths of this machine replaced, so that it can be compared.
    pub stderr: String,
}

impl Told {
    pub fn new(bench: &Bench, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let stderr = text(output.stderr)
            .replace(&bench.folder.path().canonicalize().unwrap().display().to_string(), "BENCH")
            .replace(&bench.folder.path().display().to_string(), "BENCH")
            .replace(&binary().parent().unwrap().display().to_string(), "TARGET")
            .replace(&root().display().to_string(), "ROOT");
        // The line of a panic in a fixture changes with every line added above it.
        let placed = |line: &str| match line.split_once("caused by: at tests/fixtures/") {
            Some((before, _)) => format!("{before}caused by: at FIXTURE of the plugin's source"),
            None => line.to_owned(),
        };
        let end = if stderr.ends_with('\n') { "\n" } else { "" };
        let stderr = stderr.lines().map(placed).collect::<Vec<_>>().join("\n") + end;
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr }
    }
}
