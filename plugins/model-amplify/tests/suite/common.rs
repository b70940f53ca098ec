//! Small models and data for the tests.

pub(crate) mod checkpoints;
pub(crate) mod hub;

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use model_amplify::Amplify;
use model_amplify::config::Config;
use plugin_api::context::{Host, Silent};
use plugin_api::{
    Column, Context, Epoch, Error, Level, Model, ModelSetup, PREDICTED, Params, Seed, Table, Task, TaskSpec, Tensor,
};
use serde_json::{Value, json};

const LETTERS: &[u8] = b"LAGVSERTIDPKQNFYMHWC";

pub(crate) fn spec(name: &str) -> TaskSpec {
    TaskSpec { name: name.into(), inputs: vec!["combined".into()], target: "fitness".into(), ..TaskSpec::default() }
}

/// Sequences of different lengths whose target is the share of one letter.
pub(crate) fn table(rows: usize, salt: usize) -> Table {
    let sequence = |row: usize| -> String {
        let length = 3 + (row * 7 + salt) % 20;
        (0..length).map(|i| char::from(LETTERS[(i * i + row * 3 + salt) % LETTERS.len()])).collect()
    };
    let sequences: Vec<String> = (0..rows).map(sequence).collect();
    let targets: Vec<f32> = sequences.iter().map(|s| s.matches('A').count() as f32 / s.len() as f32 * 10.0).collect();
    Table::new().with("combined", Column::text(&sequences)).unwrap().with("fitness", Column::f32(&targets)).unwrap()
}

/// The numbers that a model predicts of a table.
pub(crate) fn predicted(model: &mut Amplify, task: &str, rows: &Table, ctx: &Context<'_>) -> Vec<f32> {
    model.predict(task, rows, ctx).unwrap().f32(PREDICTED).unwrap().to_vec()
}

pub(crate) fn tasks(names: &[&str]) -> Vec<Task> {
    names
        .iter()
        .enumerate()
        .map(|(i, name)| Task { spec: spec(name), train: table(9, i), test: table(5, i + 50) })
        .collect()
}

pub(crate) fn setup() -> ModelSetup {
    ModelSetup::new(vec![spec("tm"), spec("binding")], 3, 1)
}

pub(crate) fn config(changes: Value) -> Config {
    let mut config = json!({
        "pretrained": { "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24, "dropout-prob": 0.1 },
        "layer-sizes": [32], "batch-size": 4, "trunk-lr": 1e-3,
        // Otherwise two trainings on a GPU differ, and more with each step.
        "deterministic": on_gpu(),
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

pub(crate) fn ctx<'a>() -> Context<'a> {
    Context::new(&Silent).with_seed(Seed::new(42)).with_client("site-1").with_device(device())
}

pub(crate) fn amplify(changes: Value) -> Amplify {
    Amplify::new(config(changes), &setup(), &ctx()).unwrap()
}

pub(crate) fn failure(changes: Value) -> Error {
    Amplify::new(config(changes), &setup(), &ctx()).unwrap_err()
}

pub(crate) fn train(model: &mut Amplify, rounds: std::ops::Range<u64>) {
    for round in rounds {
        let trained =
            model.train(&tasks(&["tm", "binding"]), Epoch { round, epoch: 0 }, &ctx().with_round(round)).unwrap();
        // Nine rows in batches of four: the last batch of each task is a single row.
        assert_eq!((trained.steps, trained.examples), (6, 18));
    }
}

/// Compares bits. On a GPU, where sums have no fixed order, compares values.
pub(crate) fn assert_same(a: &Params, b: &Params) {
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        if on_gpu() {
            let mut pairs = a.elements::<f32>().unwrap().iter().zip(b.elements::<f32>().unwrap());
            assert!(pairs.all(|(a, b)| (a - b).abs() < 1e-3 + 1e-3 * b.abs()), "{name}");
        } else {
            assert_eq!(a.buffer().as_slice(), b.buffer().as_slice(), "{name}");
        }
    }
}

pub(crate) fn changed(a: &Params, b: &Params) -> Vec<String> {
    let differs = |name: &str, tensor: &Tensor| {
        b.get(name).is_none_or(|other| other.buffer().as_slice() != tensor.buffer().as_slice())
    };
    a.iter().filter(|(name, tensor)| differs(name, tensor)).map(|(name, _)| name.to_owned()).collect()
}

/// The model's export, in a temporary folder.
pub(crate) fn exported(model: &mut Amplify) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = model.export(folder.path(), &ctx()).unwrap();
    assert!(files.iter().all(|file| folder.path().join(file).is_file()));
    folder
}

/// The interpreters with `safetensors` and NumPy: `python3` or `$PYTHON` with what `make` installs for the tests, and one with
/// PyTorch.
pub(crate) fn interpreters() -> Vec<Command> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(".python");
    let mut usual = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    if packages.is_dir() {
        usual.env("PYTHONPATH", packages);
    }
    let with_torch = std::env::var_os("FEDPLUG_TORCH_PYTHON").map(Command::new);
    let able = |python: &Command| {
        let able = Command::new(python.get_program())
            .envs(python.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .args(["-c", "import safetensors.numpy"])
            .output();
        let able = able.is_ok_and(|output| output.status.success());
        if !able {
            test_support::skip(format_args!("{} has no `safetensors` with `numpy`", python.get_program().display()));
        }
        able
    };
    std::iter::once(usual).chain(with_torch).filter(able).collect()
}

/// A trunk of the published arrangement, which `cpu` computes on the CPU.
pub(crate) fn published(changes: Value) -> Amplify {
    let trunk = json!({ "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 });
    let mut all = json!({ "pretrained": trunk });
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    amplify(all)
}

/// Keeps scalars and warnings, and cancels after some steps.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) scalars: Mutex<Vec<(String, u64, f64)>>,
    pub(crate) warnings: Mutex<Vec<String>>,
    pub(crate) stop_after: u64,
    pub(crate) steps: AtomicU64,
}

impl Host for Recorder {
    fn enabled(&self, level: Level) -> bool {
        level <= Level::Warn
    }
    fn log(&self, _: Level, line: &str) {
        self.warnings.lock().unwrap().push(line.to_owned());
    }
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.scalars.lock().unwrap().push((tag.to_owned(), step, value));
    }
    fn progress(&self, done: u64, total: u64) {
        assert!(done <= total);
        self.steps.store(done, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.steps.load(Ordering::Relaxed) >= self.stop_after
    }
}

/// The device of the tests: `FEDPLUG_TEST_DEVICE`, such as `cuda:0`, or the CPU.
pub(crate) fn device() -> &'static str {
    static DEVICE: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("FEDPLUG_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned()));
    &DEVICE
}

pub(crate) fn on_gpu() -> bool {
    device() != "cpu"
}
