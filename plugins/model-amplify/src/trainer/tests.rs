//! Steps of small trainers.

mod choices;
mod execution;

use super::*;
use crate::architecture::Architecture;
use crate::config::is_of_adapter;
use crate::device::DeviceContext;
use crate::segments::ChainBounds;
use fedplug_amplify_cpu::ThreadPool;
use plugin_api::{Seed, TaskSpec};
use serde_json::{Value, json};
use tch::{Device, Tensor};

fn trainer(context: DeviceContext) -> Trainer {
    trainer_of(context, &json!({}))
}

fn trainer_of(context: DeviceContext, changes: &Value) -> Trainer {
    let architecture = Architecture {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 24,
        ..Architecture::published()
    };
    trainer_with(context, changes, &architecture)
}

fn trainer_with(context: DeviceContext, changes: &Value, architecture: &Architecture) -> Trainer {
    let mut config = json!({
        "pretrained": { "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 },
        "layer-sizes": [32], "trunk-lr": 1e-3, "dropout": 0.0,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(config).unwrap();
    let task = TaskSpec {
        name: "tm".into(),
        inputs: vec!["combined".into()],
        target: "fitness".into(),
        ..TaskSpec::default()
    };
    let setup = ModelSetup::new(vec![task], 2, 1);
    let mut network = Network::new(architecture, &config, &setup, context).unwrap();
    network.parameters.initialise("", Seed::new(1)).unwrap();
    Trainer::new(network, &config)
}

/// A step with sequences of the vocabulary's amino acids.
fn step(trainer: &mut Trainer, salt: u32) -> f64 {
    let rows: Vec<Vec<u32>> = (2..6).map(|n| (0..4 * n).map(|i| 5 + (i * i + salt + n) % 20).collect()).collect();
    try_step(trainer, &rows).unwrap().loss
}

/// The same, with the norm of the gradient.
fn tracked_step(trainer: &mut Trainer, salt: u32) -> StepStats {
    let rows: Vec<Vec<u32>> = (2..6).map(|n| (0..4 * n).map(|i| 5 + (i * i + salt + n) % 20).collect()).collect();
    let mut resources = Resources::new(2).unwrap();
    resources.track_gradient_norm = true;
    step_with(trainer, &rows, &mut resources).unwrap()
}

fn try_step(trainer: &mut Trainer, rows: &[Vec<u32>]) -> Result<StepStats> {
    step_with(trainer, rows, &mut Resources::new(1).unwrap())
}

fn step_with(trainer: &mut Trainer, rows: &[Vec<u32>], resources: &mut Resources) -> Result<StepStats> {
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let bounds = ChainBounds { separator: 5, ends: vec![3, 4] };
    let batch = Batch::new(&rows, 0, 2048, Device::Cpu).unwrap().with_chains(&bounds);
    let targets = Targets::Numbers([1.0, -1.0, 0.5, 2.0][..rows.len()].to_vec());
    let dropout = DropoutRng::disabled();
    let batch = TrainBatch { task: "tm", batch: &batch, targets: &targets, dropout: &dropout };
    trainer.step(&[batch], SchedulePoint::default(), resources)
}

fn max_difference(a: &Params, b: &Params) -> f32 {
    assert!(a.names().eq(b.names()));
    let pairs = a.iter().zip(b.iter()).flat_map(|((_, a), (_, b))| {
        a.elements::<f32>().unwrap().iter().zip(b.elements::<f32>().unwrap()).map(|(a, b)| (a - b).abs())
    });
    pairs.fold(0.0, f32::max)
}

/// A step of masked language modelling. The rows have different lengths, and positions of a row are restored in any order.
fn masked_step(trainer: &mut Trainer, salt: u32) -> StepStats {
    let rows: Vec<Vec<u32>> = (2..6).map(|n| (0..4 * n).map(|i| 5 + (i * i + salt + n) % 20).collect()).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let batch = Batch::new(&rows, 0, 2048, Device::Cpu).unwrap();
    let targets = Targets::Tokens { positions: vec![(0, 7), (0, 1), (2, 0), (3, 19)], tokens: vec![5, 9, 26, 11] };
    let dropout = DropoutRng::disabled();
    let batch = TrainBatch { task: "tm", batch: &batch, targets: &targets, dropout: &dropout };
    let mut resources = Resources::new(2).unwrap();
    resources.track_gradient_norm = true;
    trainer.step(&[batch], SchedulePoint::default(), &mut resources).unwrap()
}

/// The hand-written derivative from hidden states against libtorch's autograd.
#[test]
fn masked_language_modelling_computes_what_libtorch_does() {
    for changes in [json!({}), json!({ "lora": { "targets": ["q", "w3"] } }), json!({ "proximal-mu": 0.1 })] {
        let mut changes = changes.clone();
        changes["objective"] = json!("masked-lm");
        let [mut here, mut there] =
            [DeviceContext::cpu(), DeviceContext::simulated_gpu()].map(|context| trainer_of(context, &changes));
        assert!(here.network.layers().uses_cpu_encoder() && !there.network.layers().uses_cpu_encoder());
        let before = here.network.parameters.snapshot().unwrap();
        for salt in 0..5 {
            let (a, b) = (masked_step(&mut here, salt), masked_step(&mut there, salt));
            assert!((a.loss - b.loss).abs() < 1e-4 * b.loss, "{changes}: {a:?} and {b:?}");
            let off = (a.gradient_norm - b.gradient_norm).abs();
            assert!(off < 1e-4 * b.gradient_norm && b.gradient_norm > 0.0, "{changes}: {a:?} and {b:?}");
        }
        let [after, other] = [&mut here, &mut there].map(|trainer| trainer.state().unwrap().tensors);
        let difference = max_difference(&after, &other);
        assert!(difference < 1e-4, "{changes}: parameters and moments differ by {difference}");
        for (name, tensor) in before.iter() {
            let changed = after.get(name).unwrap().buffer().as_slice() != tensor.buffer().as_slice();
            assert!(changed, "{changes}: `{name}` is not trained");
        }
        let adapters_only = before.names().all(is_of_adapter);
        assert_eq!(adapters_only, changes.get("lora").is_some());
    }
}

/// Hand-written trunk with libtorch's pooling against libtorch alone, for any number of threads; with a frozen trunk too.
#[test]
fn poolings_of_positions_compute_what_libtorch_does() {
    const ATTENTION: &str = "regressors.0.attention.weight";
    let rows: Vec<Vec<u32>> = (2..6_u32)
        .map(|n| {
            let chain = |length: u32, salt: u32| (0..length).map(move |i| 6 + (i * i + salt + n) % 20);
            std::iter::once(3).chain(chain(3 * n, 1)).chain([5]).chain(chain(2 * n + 1, 7)).chain([4]).collect()
        })
        .collect();
    let run = |context: DeviceContext, changes: &Value, threads: usize| {
        let mut trainer = trainer_of(context, changes);
        let mut resources = Resources::new(threads).unwrap();
        resources.track_gradient_norm = true;
        let stats: Vec<StepStats> = (0..5).map(|_| step_with(&mut trainer, &rows, &mut resources).unwrap()).collect();
        (stats, trainer.state().unwrap().tensors)
    };
    let tokens = run(DeviceContext::cpu(), &json!({}), 1).0[0].loss;
    for pooling in ["bos", "chains", "attention"] {
        for frozen in [false, true] {
            let changes = json!({ "pooling": pooling, "frozen-trunk": frozen });
            let (stats, state) = run(DeviceContext::cpu(), &changes, 1);
            let (others, other) = run(DeviceContext::simulated_gpu(), &changes, 1);
            for (a, b) in stats.iter().zip(&others) {
                assert!((a.loss - b.loss).abs() < 1e-4 * b.loss, "{changes}: {a:?} and {b:?}");
                let off = (a.gradient_norm - b.gradient_norm).abs();
                assert!(off < 1e-4 * b.gradient_norm && b.gradient_norm > 0.0, "{changes}: {a:?} and {b:?}");
            }
            let difference = max_difference(&state, &other);
            assert!(difference < 1e-4, "{changes}: parameters and moments differ by {difference}");
            assert_eq!(max_difference(&state, &run(DeviceContext::cpu(), &changes, 3).1), 0.0, "{changes}");
            // Attention starts as the mean over tokens, and learns.
            let is_mean = (stats[0].loss - tokens).abs() < 1e-5 * tokens;
            assert_eq!(is_mean, pooling == "attention", "{changes}: {} and {tokens}", stats[0].loss);
            let learned = state.get(ATTENTION).map(|w| w.elements::<f32>().unwrap().iter().all(|&w| w != 0.0));
            assert_eq!(learned, (pooling == "attention").then_some(true), "{changes}");
            let inputs = if pooling == "chains" { 32 } else { 16 };
            assert_eq!(state.get("regressors.0.0.weight").unwrap().shape(), [32, inputs]);
        }
    }
}

/// A message is one allocation, so a single tensor of it would keep all of it.
#[test]
fn end_epoch_releases_a_received_message() {
    let mut trainer = trainer(DeviceContext::cpu());
    let mut arena = plugin_api::Arena::of([1 << 20]);
    let message: Params = trainer
        .network
        .parameters
        .iter()
        .map(|p| {
            let shape = p.shape();
            (p.name.clone(), arena.alloc::<f32>(shape.iter().product()).freeze(&shape).unwrap())
        })
        .collect();
    trainer.receive(&message.into(), None).unwrap();
    let empty = [plugin_api::Arena::bytes::<f32>(1)];
    assert!(!arena.reset(empty));
    step(&mut trainer, 1);
    trainer.end_epoch().unwrap();
    assert!(arena.reset(empty), "the trainer still holds a tensor");
}

/// A GPU's code on the CPU: libtorch's derivative, its fused AdamW, copies to the device and back.
#[test]
fn a_simulated_gpu_computes_what_the_cpu_does() {
    let (mut here, mut there) = (trainer(DeviceContext::cpu()), trainer(DeviceContext::simulated_gpu()));
    for salt in 0..5 {
        let (a, b) = (step(&mut here, salt), step(&mut there, salt));
        assert!((a - b).abs() < 1e-4 * a.abs(), "step {salt}: the losses are {a} and {b}");
    }
    let [before, after] = [&mut here, &mut there].map(|trainer| trainer.state().unwrap());
    let difference = max_difference(&before.tensors, &after.tensors);
    assert!(difference < 1e-4, "parameters and moments differ by {difference}");
    // A state moves to another trainer, and a snapshot does not change.
    let mut other = trainer(DeviceContext::simulated_gpu());
    other.restore(&after).unwrap();
    assert_eq!(max_difference(&other.state().unwrap().tensors, &after.tensors), 0.0);
    let sent = there.network.parameters.snapshot().unwrap();
    assert_eq!((step(&mut there, 9), there.bytes()), (step(&mut other, 9), here.bytes()));
    assert_eq!(max_difference(&there.state().unwrap().tensors, &other.state().unwrap().tensors), 0.0);
    assert!(max_difference(&sent, &there.network.parameters.snapshot().unwrap()) > 0.0);
    there.receive(&sent.clone().into(), None).unwrap();
    assert_eq!(max_difference(&sent, &there.network.parameters.snapshot().unwrap()), 0.0);
}

#[test]
fn a_failed_step_is_an_error_and_changes_nothing() {
    let (mut failing, mut other) = (trainer(DeviceContext::simulated_gpu()), trainer(DeviceContext::simulated_gpu()));
    for trainer in [&mut failing, &mut other] {
        step(trainer, 1);
    }
    // The embedding has 27 rows.
    let error = try_step(&mut failing, &[vec![3, 99, 4]]).unwrap_err();
    assert_eq!(error.message(), "libtorch failed");
    assert!(error.causes()[0].contains("index out of range"), "{error:?}");
    assert_eq!((failing.steps(), step(&mut failing, 2)), (1, step(&mut other, 2)));
    assert_eq!(max_difference(&failing.state().unwrap().tensors, &other.state().unwrap().tensors), 0.0);
}

#[test]
fn gradients_of_a_failed_step_are_discarded() {
    let (mut failing, mut other) = (trainer(DeviceContext::simulated_gpu()), trainer(DeviceContext::simulated_gpu()));
    // A gradient waits for the end of a step that does not come.
    let gradient = Tensor::ones([27, 16], (tch::Kind::Float, Device::Cpu));
    let (rates, pool) = (failing.base_rates, ThreadPool::new(1).unwrap());
    failing.optimizer.update(&mut failing.network.parameters, 0, &gradient, rates, &pool).unwrap();
    try_step(&mut failing, &[vec![3, 99, 4]]).unwrap_err();
    assert_eq!(step(&mut failing, 2), step(&mut other, 2));
    assert_eq!(max_difference(&failing.state().unwrap().tensors, &other.state().unwrap().tensors), 0.0);
}
