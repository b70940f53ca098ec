//! The numbers of other implementations, from folders that hold a checkpoint, heads, and what was computed with them.
//!
//! Those in `parity/` are small and come from `parity/reference.py`, which follows the published description. Those in
//! `../shared` come from the published code itself and are compared where they are there; `FEDPLUG_PARITY_DIRS` names
//! others in their place, separated as in `PATH`. All heads are wide: where a group of their norms is one number, its
//! output is its bias, and what happens before it leaves no trace.
//!
//! A test of parity is worth what it would catch: `reference.py` also makes deliberate mistakes in training, and each of
//! them is farther from our numbers than the tolerance.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model_amplify::Amplify;
use model_amplify::batch::Batch;
use model_amplify::config::{Config, Pooling};
use model_amplify::network::Work;
use model_amplify::noise::Noise;
use model_amplify::optimizer::Rates;
use model_amplify::trainer::Lesson;
use plugin_api::context::Silent;
use plugin_api::{Context, Model, ModelSetup, TaskSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

/// By how much numbers may differ: those of training relative to themselves.
const TOLERANCE: f64 = 1e-3;
/// Those of an untrained model, absolute and relative.
const FORWARD: f64 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    layer_sizes: Vec<i64>,
    num_targets: usize,
    dropout: f64,
    #[serde(default = "default_decay")]
    weight_decay: f64,
    forward: Vec<Forward>,
    train: Vec<Step>,
    lr_decay_total_steps: u64,
    final_parameter_sums: BTreeMap<String, f64>,
    final_parameter_norms: BTreeMap<String, f64>,
    /// Of the first forward case, a row a sequence and a column a task.
    #[serde(default)]
    final_predictions: Vec<Vec<f64>>,
    #[serde(default)]
    mistakes: BTreeMap<String, Mistake>,
}

fn default_decay() -> f64 {
    0.01
}

#[derive(Deserialize)]
struct Forward {
    sequences: Vec<String>,
    input_ids: Vec<Vec<u32>>,
    logits_row0: Vec<Vec<f32>>,
    hidden_first_tokens: Vec<Vec<Vec<f32>>>,
    pooled_mean_over_all_positions: Vec<Vec<f32>>,
    pooled_mean_over_tokens: Vec<Vec<f32>>,
    prediction_mean_over_all_positions: Vec<Vec<f32>>,
    prediction_mean_over_tokens: Vec<Vec<f32>>,
}

#[derive(Clone, Deserialize)]
struct Step {
    round: u64,
    task: usize,
    sequences: Vec<String>,
    labels: Vec<f32>,
    loss: f64,
    grad_norm: f64,
    lr_trunk: f64,
    lr_regressor: f64,
}

/// What training with a mistake gives.
#[derive(Deserialize)]
struct Mistake {
    losses: Vec<f64>,
    grad_norms: Vec<f64>,
    final_predictions: Vec<Vec<f64>>,
}

fn ours() -> Vec<PathBuf> {
    let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
    ["swiglu", "relu"].map(|name| parity.join(name)).to_vec()
}

fn read(folder: &Path) -> Expected {
    serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap()
}

fn device() -> String {
    std::env::var("FEDPLUG_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// The model of a folder, with its parameters of training but for some changes.
fn model(folder: &Path, expected: &Expected, changes: &Value) -> Amplify {
    let spec = |task: usize| TaskSpec {
        name: task.to_string(),
        inputs: vec!["s".into()],
        target: "y".into(),
        ..TaskSpec::default()
    };
    let rounds = 1 + expected.train.iter().map(|step| step.round).max().unwrap();
    let base = |rate: fn(&Step) -> f64| expected.train.iter().map(rate).fold(0.0, f64::max);
    let mut config = json!({
        "pretrained": folder, "regressors": folder.join("regressors.safetensors"), "pooling": "all-positions",
        "layer-sizes": expected.layer_sizes, "dropout": expected.dropout, "weight-decay": expected.weight_decay,
        "trunk-lr": base(|step| step.lr_trunk), "regressor-lr": base(|step| step.lr_regressor),
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(config).unwrap();
    let setup = ModelSetup::new((0..expected.num_targets).map(spec).collect(), rounds, 1);
    let device = device();
    Amplify::new(config, &setup, &Context::new(&Silent).with_threads(2).with_device(&device)).unwrap()
}

fn batch(model: &Amplify, sequences: &[String]) -> Batch {
    let rows: Vec<_> = sequences.iter().map(|s| model.tokens(s).unwrap()).collect();
    model.batch(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1).contiguous().to_device(tch::Device::Cpu)).unwrap()
}

/// The largest differences found, by what was compared.
#[derive(Default)]
struct Worst(BTreeMap<&'static str, f64>);

impl Worst {
    fn note(&mut self, what: &'static str, difference: f64, allowed: f64) {
        let worst = self.0.entry(what).or_default();
        *worst = worst.max(difference);
        assert!(difference <= allowed, "{what}: differs by {difference:e}, allowed is {allowed:e}");
    }

    fn elements(&mut self, what: &'static str, found: &Tensor, expected: impl Iterator<Item = f32>) {
        let (found, expected) = (values(found), expected.collect::<Vec<_>>());
        assert_eq!(found.len(), expected.len(), "{what}");
        for (a, b) in found.into_iter().zip(expected) {
            self.note(what, f64::from((a - b).abs()), FORWARD + FORWARD * f64::from(b.abs()));
        }
    }

    fn relative(&mut self, what: &'static str, found: f64, expected: f64) {
        self.note(what, (found - expected).abs() / expected.abs(), TOLERANCE);
    }
}

fn compare(folder: &Path) {
    let (expected, mut worst) = (read(folder), Worst::default());
    forward(folder, &expected, &mut worst);
    train(folder, &expected, &mut worst);
    println!("{}: largest differences", folder.display());
    worst.0.iter().for_each(|(what, difference)| println!("  {what}: {difference:.1e}"));
}

fn forward(folder: &Path, expected: &Expected, worst: &mut Worst) {
    let [mut all, mut tokens] =
        ["all-positions", "tokens"].map(|pooling| model(folder, expected, &json!({ "pooling": pooling })));
    let _guard = tch::no_grad_guard();
    for case in &expected.forward {
        let batch = batch(&tokens, &case.sequences);
        let ids: Vec<i64> = case.input_ids.iter().flatten().map(|&id| i64::from(id)).collect();
        assert_eq!(batch.ids, Tensor::from_slice(&ids).view_as(&batch.ids), "token ids and padding");

        let work = &mut Work::new(2).unwrap();
        let network = &tokens.trainer().unwrap().network;
        let published = std::fs::read_to_string(folder.join("config.json")).unwrap().contains("SwiGLU");
        assert_eq!(network.layers().are_by_hand(), published && device() == "cpu");
        let hidden = network.layers().trunk().forward(&batch, &mut Noise::none());
        let trained = network.hidden(&batch, work).unwrap();
        let first = |hidden: &Tensor| hidden.narrow(1, 0, case.hidden_first_tokens[0].len() as i64);
        let expected_hidden = || case.hidden_first_tokens.iter().flatten().flatten().copied();
        worst.elements("hidden states of libtorch's trunk", &first(&hidden), expected_hidden());
        worst.elements("hidden states of the trunk that trains", &first(&trained), expected_hidden());
        let logits = network.layers().trunk().logits(&trained).get(0);
        worst.elements("logits", &logits, case.logits_row0.iter().flatten().copied());
        for (pooling, pooled) in [
            (Pooling::AllPositions, &case.pooled_mean_over_all_positions),
            (Pooling::Tokens, &case.pooled_mean_over_tokens),
        ] {
            let found = network.pooled(&batch, pooling, work).unwrap();
            worst.elements("pooled", &found, pooled.iter().flatten().copied());
        }
        for (model, predictions) in
            [(&mut all, &case.prediction_mean_over_all_positions), (&mut tokens, &case.prediction_mean_over_tokens)]
        {
            for task in 0..expected.num_targets {
                let found = model.trainer().unwrap().network.predict(&task.to_string(), &batch, work).unwrap();
                worst.elements("prediction", &found, predictions.iter().map(|row| row[task]));
            }
        }
    }
}

/// What may go wrong in training that no key of the configuration brings about.
#[derive(Default)]
struct Wrong {
    decay: Option<u64>,
    resets: bool,
    reverse: bool,
    one_head: bool,
}

/// A training run.
struct Course {
    model: Amplify,
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<Rates>,
    predictions: Vec<Vec<f64>>,
}

impl Course {
    fn new(folder: &Path, expected: &Expected, changes: &Value, wrong: &Wrong) -> Self {
        let mut model = model(folder, expected, changes);
        let (mut work, ctx) = (Work::new(2).unwrap(), Context::new(&Silent));
        work.norms = true;
        let head = |task: usize| if wrong.one_head { "0".to_owned() } else { task.to_string() };
        let mut steps = expected.train.clone();
        if wrong.reverse {
            steps.reverse();
            steps.sort_by_key(|step| step.round);
        }
        let (mut losses, mut norms, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            if wrong.resets && number > 0 && steps[number - 1].round != step.round {
                let mut state = model.state(&ctx).unwrap();
                state.values.insert("optimizer-steps".to_owned(), json!({}));
                model.restore(&state, &ctx).unwrap();
            }
            let batch = batch(&model, &step.sequences);
            let lesson = Lesson { task: &head(step.task), batch: &batch, targets: &step.labels };
            let place = (step.round, wrong.decay.unwrap_or(expected.lr_decay_total_steps));
            let stepped = model.trainer().unwrap().step(lesson, place, &mut Noise::none(), &mut work).unwrap();
            losses.push(stepped.loss);
            norms.push(stepped.norm);
            rates.push(stepped.rates);
        }
        let probe = batch(&model, &expected.forward[0].sequences);
        let mut predictions = vec![Vec::new(); probe.rows()];
        let _guard = tch::no_grad_guard();
        for task in 0..expected.num_targets {
            let found = model.trainer().unwrap().network.predict(&head(task), &probe, &mut work).unwrap();
            values(&found).into_iter().zip(&mut predictions).for_each(|(x, row)| row.push(f64::from(x)));
        }
        Self { model, losses, norms, rates, predictions }
    }

    /// The largest relative difference from what a mistake gives.
    fn apart(&self, mistake: &Mistake) -> f64 {
        let found = self.losses.iter().chain(&self.norms).chain(self.predictions.iter().flatten());
        let theirs = mistake.losses.iter().chain(&mistake.grad_norms).chain(mistake.final_predictions.iter().flatten());
        assert_eq!(found.clone().count(), theirs.clone().count());
        found.zip(theirs).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
    }
}

fn train(folder: &Path, expected: &Expected, worst: &mut Worst) {
    let Course { mut model, losses, norms, rates, predictions } =
        Course::new(folder, expected, &json!({}), &Wrong::default());
    for (step, ((loss, norm), Rates { trunk, regressor })) in
        expected.train.iter().zip(losses.into_iter().zip(norms).zip(rates))
    {
        worst.relative("loss", loss, step.loss);
        worst.relative("gradient norm", norm, step.grad_norm);
        worst.relative("learning rate", trunk, step.lr_trunk);
        worst.relative("learning rate", regressor, step.lr_regressor);
    }
    for (found, expected) in predictions.iter().zip(&expected.final_predictions) {
        found.iter().zip(expected).for_each(|(a, b)| worst.relative("final prediction", *a, *b));
    }
    let params = model.parameters(&Context::new(&Silent)).unwrap();
    assert_eq!(params.len(), expected.final_parameter_norms.len());
    for (name, &norm) in &expected.final_parameter_norms {
        let values = params.get(name).unwrap_or_else(|| panic!("no parameter `{name}`")).elements::<f32>().unwrap();
        let found = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        worst.relative("final norm", found, norm);
        // A sum of values of either sign is compared on the scale of what is summed.
        let sum = values.iter().map(|&x| f64::from(x)).sum::<f64>() - expected.final_parameter_sums[name];
        worst.note("final sum", sum.abs() / (norm * (values.len() as f64).sqrt()), TOLERANCE);
    }
}

#[test]
fn an_independent_implementation_computes_the_same() {
    ours().iter().for_each(|folder| compare(folder));
}

#[test]
fn the_published_code_computes_the_same() {
    let named = std::env::var_os("FEDPLUG_PARITY_DIRS");
    let folders: Vec<_> = match &named {
        Some(named) => std::env::split_paths(named).map(Some).collect(),
        None => ["swiglu-std", "relu-std"].map(|name| test_support::shared(&format!("parity/{name}"))).to_vec(),
    };
    folders.iter().flatten().for_each(|folder| compare(folder));
}

#[test]
fn every_mistake_would_be_seen() {
    for folder in ours() {
        let expected = read(&folder);
        let right = Course::new(&folder, &expected, &json!({}), &Wrong::default());
        assert_eq!(expected.mistakes.len(), 28);
        for (name, mistake) in &expected.mistakes {
            let apart = right.apart(mistake);
            assert!(apart > TOLERANCE, "{}: {name}: shows by {apart:e} only", folder.display());
        }
    }
}

/// Those mistakes that can be made without another program, made with this one: the reference's wrong numbers are what it
/// says, and a plugin that made one would be caught.
#[test]
fn a_mistake_made_here_gives_the_mistaken_numbers() {
    for folder in ours() {
        let expected = read(&folder);
        let step = |rate: fn(&Step) -> f64| expected.train.iter().map(rate).fold(0.0, f64::max);
        let (trunk, heads) = (step(|step| step.lr_trunk), step(|step| step.lr_regressor));
        let first_task = expected.train.iter().filter(|step| step.round > 0 && step.task == 0).count() as u64;
        let right = Wrong::default;
        for (name, changes, wrong) in [
            ("the trunk is not trained", json!({ "frozen-trunk": true }), right()),
            ("no weight decay", json!({ "weight-decay": 0.0 }), right()),
            ("the heads' rate for the trunk", json!({ "trunk-lr": heads }), right()),
            ("the trunk's rate for the heads", json!({ "regressor-lr": trunk }), right()),
            ("no schedule", json!({ "schedule": "constant" }), right()),
            ("the mean over tokens", json!({ "pooling": "tokens" }), right()),
            (
                "a schedule over the first task's batches",
                json!({}),
                Wrong { decay: Some(first_task), ..Wrong::default() },
            ),
            ("the optimiser is reset each round", json!({}), Wrong { resets: true, ..Wrong::default() }),
            ("batches in another order", json!({}), Wrong { reverse: true, ..Wrong::default() }),
            ("one head for all tasks", json!({}), Wrong { one_head: true, ..Wrong::default() }),
        ] {
            let apart = Course::new(&folder, &expected, &changes, &wrong).apart(&expected.mistakes[name]);
            assert!(apart <= TOLERANCE, "{}: {name}: differs by {apart:e}", folder.display());
        }
    }
}
