//! The model through the contract: it learns, it repeats itself, and it goes on from a state.

use std::sync::Mutex;

use model_linear::{Config, Linear};
use plugin_api::context::{Host, Silent};
use plugin_api::{
    Column, Context, Epoch, Level, Message, Model, ModelSetup, PREDICTED, Params, Seed, Table, Task, TaskSpec, Tensor,
    metrics,
};
use serde_json::json;

const LETTERS: &[u8] = b"ACDEFGHIKLMNPQRSTVWY";

fn spec(name: &str) -> TaskSpec {
    TaskSpec { name: name.into(), inputs: vec!["combined".into()], target: "fitness".into(), ..TaskSpec::default() }
}

/// Random texts whose target is `offset + scale` times the share of W less that of A.
fn task(name: &str, rows: u64, scale: f32, offset: f32) -> Task {
    let seed = Seed::new(1).of(name);
    let text = |row: u64| {
        let letter = |i| LETTERS[(seed.at(row).at(i).value() % 20) as usize] as char;
        (0..60).map(letter).collect::<String>() + &["W", "A", "L"][(row % 3) as usize].repeat(20)
    };
    let texts: Vec<String> = (0..rows).map(text).collect();
    let share = |text: &str, letter| text.matches(letter).count() as f32 / text.len() as f32;
    let fitness: Vec<f32> = texts.iter().map(|t| offset + scale * (share(t, 'W') - share(t, 'A'))).collect();
    let table = |rows: std::ops::Range<usize>| {
        let texts = Column::text(&texts[rows.clone()]);
        Table::new().with("combined", texts).unwrap().with("fitness", Column::f32(&fitness[rows])).unwrap()
    };
    let cut = texts.len() * 4 / 5;
    Task { spec: spec(name), train: table(0..cut), test: table(cut..texts.len()) }
}

fn setup() -> ModelSetup {
    ModelSetup::new(vec![spec("small"), spec("large")], 1, 30)
}

fn trained(epochs: u64) -> (Linear, Vec<Task>) {
    let ctx = Context::new(&Silent).with_seed(Seed::new(42));
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let tasks = vec![task("small", 200, 0.05, 0.01), task("large", 200, 900.0, -2000.0)];
    for epoch in 0..epochs {
        let done = model.train(&tasks, Epoch { round: 0, epoch }, &ctx).unwrap();
        assert_eq!((done.steps, done.examples), (20, 320));
    }
    (model, tasks)
}

fn bits(model: &mut Linear) -> Vec<u8> {
    let params = model.parameters(&Context::new(&Silent)).unwrap();
    params.iter().flat_map(|(_, tensor)| tensor.buffer().as_slice().to_vec()).collect()
}

#[test]
fn it_learns_targets_of_any_scale() {
    let (mut model, tasks) = trained(30);
    for (evaluation, task) in model.evaluate(&tasks, &Context::new(&Silent)).unwrap().iter().zip(&tasks) {
        assert_eq!(evaluation.examples, 40);
        assert_eq!(
            (evaluation.metrics[0].name.as_str(), evaluation.metrics[0].value),
            ("RMSE", evaluation.loss.sqrt())
        );
        assert!(evaluation.metrics[1].value > 0.99, "{evaluation:?}");
        // On the scale of the training targets the two units are one.
        let sd = metrics::standard_deviation(task.train.f32("fitness").unwrap());
        assert_eq!(evaluation.score, -evaluation.loss.sqrt() / sd);
        assert!((-0.2..0.0).contains(&evaluation.score), "{evaluation:?}");
    }
    assert_eq!(model_linear::component().profile().score.as_deref(), Some(metrics::SCORE));
}

#[test]
fn it_repeats_itself_bit_for_bit_and_goes_on_from_a_state() {
    let ctx = Context::new(&Silent).with_seed(Seed::new(42));
    let (mut whole, tasks) = trained(3);
    assert_eq!(bits(&mut whole), bits(&mut trained(3).0));
    let state = trained(2).0.state(&ctx).unwrap();
    let mut resumed = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    resumed.restore(&state, &ctx).unwrap();
    resumed.train(&tasks, Epoch { round: 0, epoch: 2 }, &ctx).unwrap();
    assert_eq!(bits(&mut whole), bits(&mut resumed));
}

#[test]
fn a_client_holds_the_trunk_and_its_own_heads() {
    let ctx = Context::new(&Silent);
    let mut server = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let mut client = Linear::new(Config::default(), &setup().holding(vec!["large".into()]), &ctx).unwrap();
    let names = ["trunk.weight", "regressors.1.weight", "regressors.1.bias", "regressors.1.scale"];
    assert_eq!(client.parameters(&ctx).unwrap().names().collect::<Vec<_>>(), names);
    let mut global = server.parameters(&ctx).unwrap();
    global.remove("regressors.1.bias");
    let received = client.receive(&global.into(), &ctx).unwrap();
    assert_eq!(received.missing, ["regressors.1.bias"]);
    assert_eq!(received.unexpected, ["regressors.0.weight", "regressors.0.bias", "regressors.0.scale"]);
    assert!(client.predict("small", &task("small", 5, 1.0, 0.0).test, &ctx).is_err());
}

#[test]
fn a_message_that_does_not_fit_changes_nothing() {
    let ctx = Context::new(&Silent);
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let before = bits(&mut model);
    let good = Tensor::from_slice(&[1], &[5.0_f32]).unwrap();
    let bad = [("regressors.0.bias", good), ("trunk.weight", Tensor::from_slice(&[2], &[1.0_f32, 2.0]).unwrap())];
    let error = model.receive(&Message::from(Params::from_iter(bad)), &ctx).unwrap_err();
    assert_eq!(error.to_string(), "tensor `trunk.weight`: has shape [2], not [8, 27]");
    assert_eq!(bits(&mut model), before);
}

#[test]
fn without_rows_nothing_is_trained_and_metrics_are_not_defined() {
    let ctx = Context::new(&Silent);
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let empty = [task("small", 0, 1.0, 0.0)];
    assert_eq!(model.train(&empty, Epoch { round: 0, epoch: 0 }, &ctx).unwrap(), Default::default());
    let evaluation = model.evaluate(&empty, &ctx).unwrap().remove(0);
    let values = [evaluation.loss, evaluation.score, evaluation.metrics[0].value, evaluation.metrics[1].value];
    assert!(evaluation.examples == 0 && values.iter().all(|value| value.is_nan()), "{evaluation:?}");
}

#[test]
fn equal_targets_are_learnt_without_nan() {
    let ctx = Context::new(&Silent);
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let tasks = [task("small", 10, 0.0, 7.0)];
    model.train(&tasks, Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
    assert_eq!(model.predict("small", &tasks[0].test, &ctx).unwrap().f32(PREDICTED).unwrap(), [7.0, 7.0]);
    let evaluation = model.evaluate(&tasks, &ctx).unwrap().remove(0);
    assert_eq!((evaluation.loss, evaluation.metrics[0].value), (0.0, 0.0));
    assert!(evaluation.metrics[1].value.is_nan() && evaluation.score.is_nan(), "{evaluation:?}");
}

#[test]
fn a_learning_rate_that_could_diverge_is_refused() {
    for rate in [0, 2, -1] {
        let problems = plugin_api::config::problems::<Config>(&json!({ "learning-rate": rate }));
        assert_eq!(problems[0].message, format!("must be more than 0 and less than 2, not {rate}"));
    }
}

/// Keeps the scalars, and cancels from the fifth on.
#[derive(Default)]
struct Recorder(Mutex<Vec<(String, u64, f64)>>);

impl Host for Recorder {
    fn enabled(&self, _: Level) -> bool {
        false
    }
    fn log(&self, _: Level, _: &str) {}
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        self.0.lock().unwrap().push((tag.into(), step, value));
    }
    fn progress(&self, _: u64, _: u64) {}
    fn cancelled(&self) -> bool {
        self.0.lock().unwrap().len() >= 5
    }
}

#[test]
fn each_step_is_recorded_and_cancellation_is_heard() {
    let host = Recorder::default();
    let ctx = Context::new(&host);
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let error = model.train(&[task("small", 200, 1.0, 0.0)], Epoch { round: 0, epoch: 0 }, &ctx).unwrap_err();
    assert_eq!(error.kind(), &plugin_api::ErrorKind::Cancelled);
    let scalars = host.0.into_inner().unwrap();
    let steps: Vec<_> = scalars.iter().map(|(tag, step, _)| (tag.as_str(), *step)).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4].map(|step| ("Loss/train", step)));
}

#[test]
fn kmers_are_learnt_as_an_independent_computation_learns_them() {
    let expected: serde_json::Value = serde_json::from_str(include_str!("../kmers.json")).unwrap();
    let floats = |value: &serde_json::Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let texts: Vec<&str> = expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let table = Table::new().with("combined", Column::text(&texts)).unwrap();
    let table = table.with("fitness", Column::f32(&floats(&expected["targets"]))).unwrap();
    let task = Task { spec: spec("small"), train: table.clone(), test: table.clone() };
    let ctx = Context::new(&Silent).with_seed(Seed::new(expected["seed"].as_u64().unwrap()));
    for kmer in 1..=3 {
        let hidden_size = usize::try_from(expected["hidden"].as_u64().unwrap()).unwrap().try_into().unwrap();
        let learning_rate = expected["rate"].as_f64().unwrap() as f32;
        let config = Config { kmer, hidden_size, learning_rate, ..Config::default() };
        let mut model = Linear::new(config, &setup(), &ctx).unwrap();
        for epoch in 0..expected["epochs"].as_u64().unwrap() {
            model.train(std::slice::from_ref(&task), Epoch { round: 0, epoch }, &ctx).unwrap();
        }
        let shape = model.parameters(&ctx).unwrap().get("trunk.weight").unwrap().shape().to_vec();
        assert_eq!(shape, [3, 27_usize.pow(kmer as u32)]);
        let predicted = model.predict("small", &table, &ctx).unwrap();
        for (mine, theirs) in
            predicted.f32(PREDICTED).unwrap().iter().zip(floats(&expected["predictions"][kmer.to_string()]))
        {
            assert!((mine - theirs).abs() < 1e-6, "kmer {kmer}: {mine}, not {theirs}");
        }
    }
}

#[test]
fn kmers_learn_what_the_order_of_letters_says() {
    // All texts have the same letters: only their order tells them apart.
    let texts: Vec<String> = (0..80).map(|i| ["ACAC", "AACC"][i % 2].repeat(3) + &"GT".repeat(i / 8)).collect();
    let fitness: Vec<f32> = (0..80).map(|i| (i % 2) as f32).collect();
    let table = Table::new().with("combined", Column::text(&texts)).unwrap();
    let table = table.with("fitness", Column::f32(&fitness)).unwrap();
    let tasks = [Task { spec: spec("small"), train: table.clone(), test: table }];
    let ctx = Context::new(&Silent).with_seed(Seed::new(42));
    let rmse = [1, 2, 3, 4].map(|kmer| {
        let mut model = Linear::new(Config { kmer, ..Config::default() }, &setup(), &ctx).unwrap();
        for epoch in 0..10 {
            model.train(&tasks, Epoch { round: 0, epoch }, &ctx).unwrap();
        }
        model.evaluate(&tasks, &ctx).unwrap()[0].metrics[0].value
    });
    assert!(rmse[0] > 0.49 && rmse[1..].iter().all(|rmse| *rmse < 0.2), "{rmse:?}");
}

#[test]
fn kmers_of_another_length_are_refused_and_a_column_of_numbers_is_named() {
    let ctx = Context::new(&Silent);
    for kmer in [0, 5] {
        let problems = plugin_api::config::problems::<Config>(&json!({ "kmer": kmer }));
        assert_eq!(problems[0].message, format!("must be at least 1 and at most 4, not {kmer}"));
    }
    let mut model = Linear::new(Config::default(), &setup(), &ctx).unwrap();
    let table =
        Table::new().with("combined", Column::f32(&[1.0])).unwrap().with("fitness", Column::f32(&[1.0])).unwrap();
    let task = Task { spec: spec("small"), train: table.clone(), test: table };
    let error = model.train(&[task], Epoch { round: 0, epoch: 0 }, &ctx).unwrap_err();
    assert_eq!(error.to_string(), "column `combined` holds f32, not text");
}

#[test]
fn a_proximal_term_holds_what_was_received_and_nothing_else() {
    let ctx = Context::new(&Silent).with_seed(Seed::new(42));
    let tasks = [task("small", 200, 0.05, 0.01)];
    let moved = |proximal_mu: f32| {
        let mut model = Linear::new(Config { proximal_mu, ..Config::default() }, &setup(), &ctx).unwrap();
        let before = model.parameters(&ctx).unwrap();
        let mut shared = before.clone();
        shared.retain(|name, _| name.starts_with("trunk."));
        model.receive(&shared.into(), &ctx).unwrap();
        model.train(&tasks, Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
        let after = model.parameters(&ctx).unwrap();
        let far = |name: &str| {
            let values = |params: &Params| params.get(name).unwrap().elements::<f32>().unwrap().to_vec();
            let squares = values(&before).into_iter().zip(values(&after)).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt()
        };
        [far("trunk.weight"), far("regressors.0.weight")]
    };
    let [free, some, much] = [0.0, 1.0, 1e6].map(moved);
    assert!(free[0] > some[0] && some[0] > much[0] && much[0] < free[0] * 1e-3, "{free:?} {some:?} {much:?}");
    // The private head learns on.
    assert!(much[1] > 0.01, "{much:?}");
}

/// A single row, whose standardised target is 0: FedProx' objective `e² / 2 + μ/2 ‖v − v₀‖²` with the error
/// `e = w · W x + b` is least where `e = −μ (b − b₀)`, `e h = −μ (w − w₀)` with `h = W x`, and `e w xᵀ = −μ (W − W₀)`.
#[test]
fn fedprox_comes_to_rest_at_the_minimum_of_its_objective_whatever_the_features_norm() {
    let ctx = Context::new(&Silent).with_seed(Seed::new(42));
    // Squared norms of the features: 27 · 26, and 27 / 26.
    for text in ["A".repeat(30), ('A'..='Z').collect()] {
        let table = Table::new().with("combined", Column::text([&text])).unwrap();
        let table = table.with("fitness", Column::f32(&[5.0])).unwrap();
        let tasks = [Task { spec: spec("small"), train: table.clone(), test: table.clone() }];
        for (proximal_mu, learning_rate) in [(0.5_f32, 0.5_f32), (0.5, 0.1), (4.0, 0.5)] {
            let config = Config { proximal_mu, learning_rate, ..Config::default() };
            let mut model = Linear::new(config, &setup(), &ctx).unwrap();
            let mut global = model.parameters(&ctx).unwrap();
            let weight: Vec<f32> = (0..8).map(|i| 0.25 - 0.1 * i as f32).collect();
            global.insert("regressors.0.weight", Tensor::from_slice(&[8], &weight).unwrap());
            model.receive(&global.clone().into(), &ctx).unwrap();
            for epoch in 0..20_000 {
                model.train(&tasks, Epoch { round: 0, epoch }, &ctx).unwrap();
            }
            let error = f64::from(model.predict("small", &table, &ctx).unwrap().f32(PREDICTED).unwrap()[0]) - 5.0;
            let after = model.parameters(&ctx).unwrap();
            let moved = |name: &str| -> Vec<f64> {
                let of = |params: &Params| params.get(name).unwrap().elements::<f32>().unwrap().to_vec();
                of(&after).into_iter().zip(of(&global)).map(|(a, b)| f64::from(a) - f64::from(b)).collect()
            };
            let mu = f64::from(proximal_mu);
            let bias = moved("regressors.0.bias")[0];
            assert!(error.abs() > 1e-4, "the case shows nothing: {error}");
            let close = |a: f64, b: f64| (a - b).abs() < 5e-3 * error.abs() + 2e-6;
            assert!(close(error, -mu * bias), "μ = {mu}: the error is {error}, and the bias moved by {bias}");
            // Pulls of less than half a unit in the last place of a weight are lost, so these are less exact.
            let near = |a: f64, b: f64| (a - b).abs() < 0.05 * b.abs() + 1e-5;
            let of = |name: &str| after.get(name).unwrap().elements::<f32>().unwrap().to_vec();
            let (trunk, heads) = (of("trunk.weight"), of("regressors.0.weight"));
            let share = |letter: u8| text.bytes().filter(|byte| *byte == letter).count() as f64 / text.len() as f64;
            let x: Vec<f64> = (b'A'..=b'Z').map(share).chain([0.0]).map(|share| 27.0 * share - 1.0).collect();
            let moved_heads = moved("regressors.0.weight");
            let moved_trunk = moved("trunk.weight");
            for (row, weights) in trunk.chunks(27).enumerate() {
                let hidden: f64 = weights.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum();
                assert!(near(mu * moved_heads[row], -error * hidden), "w: {} {hidden} {error}", moved_heads[row]);
                let (first, wanted) = (moved_trunk[27 * row], -error * f64::from(heads[row]) * x[0]);
                assert!(near(mu * first, wanted), "W: {first} {wanted}");
            }
        }
    }
}
