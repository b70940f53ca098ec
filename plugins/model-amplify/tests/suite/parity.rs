//! Comparison with other implementations, from folders with a checkpoint, heads, and what was computed with them.
//!
//! The small folders in `parity/` come from `parity/reference.py`, which follows the published description. Those in
//! `../shared` come from the published code, and are compared if they exist; `FEDPLUG_PARITY_DIRS` names others instead,
//! separated as in `PATH`. All heads are wide: a norm whose groups have one feature outputs its bias, and hides what precedes
//! it.
//!
//! To show what the tests catch, `reference.py` also trains with deliberate mistakes. The results of each must differ from ours
//! by more than the tolerance.

mod expected;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::expected::{Expected, Mistake, Step, read};
use model_amplify::Amplify;
use model_amplify::batch::Batch;
use model_amplify::config::{Config, Pooling};
use model_amplify::network::Resources;
use model_amplify::optimizer::LearningRates;
use model_amplify::random::DropoutRng;
use model_amplify::targets::Targets;
use model_amplify::trainer::{SchedulePoint, TrainBatch};
use plugin_api::context::Silent;
use plugin_api::{Context, Model, ModelSetup, TaskSpec};
use serde_json::{Value, json};
use tch::Tensor;

/// The largest relative difference in training.
const TOLERANCE: f64 = 1e-3;
/// The largest difference of an untrained model, absolute plus relative.
const FORWARD: f64 = 1e-4;

fn ours() -> Vec<PathBuf> {
    // Not where it was built, if this binary was copied to another machine.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let parity = Path::new(&package).join("tests/parity");
    ["swiglu", "relu"].map(|name| parity.join(name)).to_vec()
}

fn device() -> String {
    std::env::var("FEDPLUG_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// The model of a folder, with its training configuration and some changes.
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

/// The largest difference of each comparison.
#[derive(Default)]
struct Differences(BTreeMap<&'static str, f64>);

impl Differences {
    fn note(&mut self, what: &'static str, difference: f64, allowed: f64) {
        let largest = self.0.entry(what).or_default();
        *largest = largest.max(difference);
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
    let (expected, mut differences) = (read(folder), Differences::default());
    forward(folder, &expected, &mut differences);
    train(folder, &expected, &mut differences);
    println!("{}: largest differences", folder.display());
    differences.0.iter().for_each(|(what, difference)| println!("  {what}: {difference:.1e}"));
}

fn forward(folder: &Path, expected: &Expected, differences: &mut Differences) {
    let [mut all, mut tokens] =
        ["all-positions", "tokens"].map(|pooling| model(folder, expected, &json!({ "pooling": pooling })));
    let _guard = tch::no_grad_guard();
    for case in &expected.forward {
        let batch = batch(&tokens, &case.sequences);
        let ids: Vec<i64> = case.input_ids.iter().flatten().map(|&id| i64::from(id)).collect();
        let found = batch.ids.to_device(tch::Device::Cpu);
        assert_eq!(found, Tensor::from_slice(&ids).view_as(&found), "token ids and padding");

        let resources = &mut Resources::new(2).unwrap();
        let network = &tokens.trainer().unwrap().network;
        let published = std::fs::read_to_string(folder.join("config.json")).unwrap().contains("SwiGLU");
        assert_eq!(network.layers().uses_cpu_encoder(), published && device() == "cpu");
        let hidden = network.layers().trunk().forward(&batch, &mut DropoutRng::disabled()).unwrap();
        let trained = network.hidden(&batch, resources).unwrap();
        let first = |hidden: &Tensor| hidden.narrow(1, 0, case.hidden_first_tokens[0].len() as i64);
        let expected_hidden = || case.hidden_first_tokens.iter().flatten().flatten().copied();
        differences.elements("hidden states of libtorch's trunk", &first(&hidden), expected_hidden());
        differences.elements("hidden states of the trunk that trains", &first(&trained), expected_hidden());
        let logits = network.layers().trunk().logits(&trained).unwrap().get(0);
        differences.elements("logits", &logits, case.logits_row0.iter().flatten().copied());
        // The same of single tokens, and their cross entropy; padding is none of them.
        let ids: Vec<i64> = case.input_ids[0].iter().filter(|&&id| id != 0).map(|&id| id.into()).collect();
        let positions: Vec<(usize, usize)> = (1..ids.len()).step_by(2).map(|position| (0, position)).collect();
        let logits = network.logits(&batch, &positions, resources).unwrap();
        let picked = || positions.iter().map(|&(_, position)| (&case.logits_row0[position], ids[position]));
        differences.elements("logits of tokens", &logits, picked().flat_map(|(logits, _)| logits).copied());
        let entropy = |(logits, token): (&Vec<f32>, i64)| {
            logits.iter().map(|&z| f64::from(z).exp()).sum::<f64>().ln() - f64::from(logits[token as usize])
        };
        let expected_loss = picked().map(entropy).sum::<f64>() / positions.len() as f64;
        let targets =
            Targets::Tokens { tokens: picked().map(|(_, token)| token).collect(), positions: positions.clone() };
        differences.relative("masked loss", targets.loss(&logits).unwrap().double_value(&[]), expected_loss);
        for (pooling, pooled) in [
            (Pooling::AllPositions, &case.pooled_mean_over_all_positions),
            (Pooling::Tokens, &case.pooled_mean_over_tokens),
        ] {
            let found = network.pooled(&batch, pooling, resources).unwrap();
            differences.elements("pooled", &found, pooled.iter().flatten().copied());
        }
        for (model, predictions) in
            [(&mut all, &case.prediction_mean_over_all_positions), (&mut tokens, &case.prediction_mean_over_tokens)]
        {
            for task in 0..expected.num_targets {
                let found = model.trainer().unwrap().network.predict(&task.to_string(), &batch, resources).unwrap();
                differences.elements("prediction", &found, predictions.iter().map(|row| row[task]));
            }
        }
    }
}

/// Deliberate mistakes that no configuration key makes.
#[derive(Default)]
struct MistakeFlags {
    decay: Option<u64>,
    resets: bool,
    reverse: bool,
    one_head: bool,
}

/// A training run.
struct Training {
    model: Amplify,
    losses: Vec<f64>,
    norms: Vec<f64>,
    rates: Vec<LearningRates>,
    predictions: Vec<Vec<f64>>,
}

impl Training {
    fn new(folder: &Path, expected: &Expected, changes: &Value, wrong: &MistakeFlags) -> Self {
        let mut model = model(folder, expected, changes);
        let (mut resources, ctx) = (Resources::new(2).unwrap(), Context::new(&Silent));
        resources.track_gradient_norm = true;
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
            let targets = Targets::Numbers(step.labels.clone());
            let dropout = DropoutRng::disabled();
            let batch = TrainBatch { task: &head(step.task), batch: &batch, targets: &targets, dropout: &dropout };
            let decay_steps = wrong.decay.unwrap_or(expected.lr_decay_total_steps);
            let point = SchedulePoint { round: step.round, decay_steps };
            let trainer = model.trainer().unwrap();
            let stats = trainer.step(&[batch], point, &mut resources).unwrap();
            losses.push(stats.loss);
            norms.push(stats.gradient_norm);
            rates.push(stats.rates);
        }
        let probe = batch(&model, &expected.forward[0].sequences);
        let mut predictions = vec![Vec::new(); probe.rows()];
        let _guard = tch::no_grad_guard();
        for task in 0..expected.num_targets {
            let found = model.trainer().unwrap().network.predict(&head(task), &probe, &mut resources).unwrap();
            values(&found).into_iter().zip(&mut predictions).for_each(|(x, row)| row.push(f64::from(x)));
        }
        Self { model, losses, norms, rates, predictions }
    }

    /// The largest relative difference from the results of a mistake.
    fn apart(&self, mistake: &Mistake) -> f64 {
        let found = self.losses.iter().chain(&self.norms).chain(self.predictions.iter().flatten());
        let theirs = mistake.losses.iter().chain(&mistake.grad_norms).chain(mistake.final_predictions.iter().flatten());
        assert_eq!(found.clone().count(), theirs.clone().count());
        found.zip(theirs).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
    }
}

fn train(folder: &Path, expected: &Expected, differences: &mut Differences) {
    let Training { mut model, losses, norms, rates, predictions } =
        Training::new(folder, expected, &json!({}), &MistakeFlags::default());
    for (step, ((loss, norm), LearningRates { trunk, regressor })) in
        expected.train.iter().zip(losses.into_iter().zip(norms).zip(rates))
    {
        differences.relative("loss", loss, step.loss);
        differences.relative("gradient norm", norm, step.grad_norm);
        differences.relative("learning rate", trunk, step.lr_trunk);
        differences.relative("learning rate", regressor, step.lr_regressor);
    }
    for (found, expected) in predictions.iter().zip(&expected.final_predictions) {
        found.iter().zip(expected).for_each(|(a, b)| differences.relative("final prediction", *a, *b));
    }
    let params = model.parameters(&Context::new(&Silent)).unwrap();
    assert_eq!(params.len(), expected.final_parameter_norms.len());
    for (name, &norm) in &expected.final_parameter_norms {
        let values = params.get(name).unwrap_or_else(|| panic!("no parameter `{name}`")).elements::<f32>().unwrap();
        let found = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        differences.relative("final norm", found, norm);
        // The sum of values of both signs is compared on the scale of its terms.
        let sum = values.iter().map(|&x| f64::from(x)).sum::<f64>() - expected.final_parameter_sums[name];
        differences.note("final sum", sum.abs() / (norm * (values.len() as f64).sqrt()), TOLERANCE);
    }
}

#[test]
fn results_agree_with_the_independent_implementation() {
    ours().iter().for_each(|folder| compare(folder));
}

#[test]
fn results_agree_with_the_published_code() {
    let named = std::env::var_os("FEDPLUG_PARITY_DIRS");
    let folders: Vec<_> = match &named {
        Some(named) => std::env::split_paths(named).map(Some).collect(),
        None => ["swiglu-std", "relu-std"].map(|name| test_support::shared(&format!("parity/{name}"))).to_vec(),
    };
    folders.iter().flatten().for_each(|folder| compare(folder));
}

#[test]
fn every_mistake_exceeds_the_tolerance() {
    for folder in ours() {
        let expected = read(&folder);
        let right = Training::new(&folder, &expected, &json!({}), &MistakeFlags::default());
        assert_eq!(expected.mistakes.len(), 28);
        for (name, mistake) in &expected.mistakes {
            let apart = right.apart(mistake);
            assert!(apart > TOLERANCE, "{}: {name}: shows by {apart:e} only", folder.display());
        }
    }
}

/// MistakeFlags that can be made with this program too. They give the reference's wrong results, so a plugin that made one would
/// fail.
#[test]
fn the_same_mistake_gives_the_reference_results_of_that_mistake() {
    for folder in ours() {
        let expected = read(&folder);
        let step = |rate: fn(&Step) -> f64| expected.train.iter().map(rate).fold(0.0, f64::max);
        let (trunk, heads) = (step(|step| step.lr_trunk), step(|step| step.lr_regressor));
        let first_task = expected.train.iter().filter(|step| step.round > 0 && step.task == 0).count() as u64;
        let right = MistakeFlags::default;
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
                MistakeFlags { decay: Some(first_task), ..MistakeFlags::default() },
            ),
            ("the optimiser is reset each round", json!({}), MistakeFlags { resets: true, ..MistakeFlags::default() }),
            ("batches in another order", json!({}), MistakeFlags { reverse: true, ..MistakeFlags::default() }),
            ("one head for all tasks", json!({}), MistakeFlags { one_head: true, ..MistakeFlags::default() }),
        ] {
            let apart = Training::new(&folder, &expected, &changes, &wrong).apart(&expected.mistakes[name]);
            assert!(apart <= TOLERANCE, "{}: {name}: differs by {apart:e}", folder.display());
        }
    }
}
