//! Whole calls on a simulated GPU.

use std::sync::Mutex;

use plugin_api::context::{Host, Silent};
use plugin_api::{Column, Epoch, Message, Model, Params, State};
use serde_json::{Value, json};

use super::*;
use crate::memory::failures;

fn spec() -> TaskSpec {
    TaskSpec::new("tm", ["combined"], "fitness")
}

/// `rows` sequences of different lengths.
fn task(rows: usize) -> plugin_api::Task {
    let letters = ["L", "A", "G", "V", "S"];
    let sequence = |row: usize| (0..5 + row % 7).map(|i| letters[(i * i + row) % 5]).collect::<String>();
    let sequences: Vec<String> = (0..rows).map(sequence).collect();
    let targets: Vec<f32> = (0..rows).map(|row| (row % 5) as f32).collect();
    let table = Table::new().with("combined", Column::text(&sequences)).unwrap();
    let table = table.with("fitness", Column::f32(&targets)).unwrap();
    plugin_api::Task { spec: spec(), train: table.clone(), test: table }
}

fn simulated(changes: &Value) -> Amplify {
    let mut config = json!({
        "pretrained": { "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 },
        "layer-sizes": [32], "trunk-lr": 1e-3, "batch-size": 4,
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let setup = ModelSetup::new(vec![spec()], 3, 1);
    let ctx = Context::new(&Silent);
    Amplify::on(DeviceContext::simulated_gpu(), serde_json::from_value(config).unwrap(), &setup, &ctx).unwrap()
}

#[derive(Default)]
struct Recorder {
    losses: Mutex<Vec<(u64, f64)>>,
    /// The steps after which the run is cancelled.
    steps: Option<u64>,
    done: std::sync::atomic::AtomicU64,
}

impl Host for Recorder {
    fn enabled(&self, _: plugin_api::Level) -> bool {
        false
    }
    fn log(&self, _: plugin_api::Level, _: &str) {}
    fn scalar(&self, tag: &str, step: u64, value: f64) {
        if tag == "Loss/train" {
            self.losses.lock().unwrap().push((step, value));
        }
    }
    fn progress(&self, done: u64, _: u64) {
        self.done.store(done, std::sync::atomic::Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.steps.is_some_and(|steps| self.done.load(std::sync::atomic::Ordering::Relaxed) >= steps)
    }
}

/// Two rounds with the message of a server; what each call gave.
fn rounds(changes: &Value) -> (Vec<Params>, State, Vec<f64>, Vec<f64>) {
    let (mut model, recorder, data) = (simulated(changes), Recorder::default(), [task(9)]);
    let ctx = Context::new(&recorder).with_seed(Seed::new(42)).with_threads(1);
    let mut sent = vec![model.parameters(&ctx).unwrap()];
    for round in 0..2 {
        let extra = Params::new();
        model.receive(&Message { params: sent[0].clone(), extra, ..Message::default() }, &ctx).unwrap();
        model.train(&data, Epoch { round, epoch: 0 }, &ctx).unwrap();
        if changes.get("scaffold").is_some() {
            // The server's control variates are those of the client.
            let Message { params, extra, .. } = model.send(&ctx).unwrap();
            model
                .receive(&Message { params: params.clone(), extra: extra.clone(), ..Message::default() }, &ctx)
                .unwrap();
            model.train(&data, Epoch { round, epoch: 1 }, &ctx).unwrap();
            sent.extend([params, extra]);
            break;
        }
        sent.push(model.send(&ctx).unwrap().params);
    }
    let results = model.evaluate(&data, &ctx).unwrap().remove(0).loss;
    let state = model.state(&ctx).unwrap();
    let mut other = simulated(changes);
    other.restore(&state, &ctx).unwrap();
    let predicted = other.predict("tm", &data[0].test, &ctx).unwrap();
    let predicted = predicted.f32(plugin_api::PREDICTED).unwrap().iter().map(|&x| f64::from(x));
    let losses = recorder.losses.into_inner().unwrap().into_iter().map(|(_, loss)| loss).collect();
    (sent, state, losses, std::iter::once(results).chain(predicted).collect())
}

fn assert_same(a: &Params, b: &Params) {
    assert!(a.names().eq(b.names()));
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        assert_eq!(a.buffer().as_slice(), b.buffer().as_slice(), "{name}");
    }
}

/// Work that fails for want of memory is repeated, and leaves nothing behind.
#[test]
fn a_device_that_lacks_memory_everywhere_once_changes_no_bit() {
    for changes in [
        json!({}),
        json!({ "clip-norm": 0.5, "accumulate": 2, "batch-size": 2 }),
        json!({ "proximal-mu": 0.1 }),
        json!({ "scaffold": true }),
        json!({ "ditto-lambda": 0.5 }),
        json!({ "frozen-trunk": true }),
        json!({ "objective": "masked-lm" }),
    ] {
        if changes.get("objective").is_some() {
            let train = || {
                let mut model = simulated(&changes);
                let ctx = Context::new(&Silent);
                model.train(&[task(9)], Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
                (model.state(&ctx).unwrap().tensors, model.evaluate(&[task(5)], &ctx).unwrap()[0].loss)
            };
            let ((a, loss), ((b, again), count)) = (train(), failures::everywhere(train));
            assert_same(&a, &b);
            assert!(loss.to_bits() == again.to_bits() && count > 5, "{count}");
            continue;
        }
        let (a, (b, count)) = (rounds(&changes), failures::everywhere(|| rounds(&changes)));
        a.0.iter().zip(&b.0).for_each(|(a, b)| assert_same(a, b));
        assert_same(&a.1.tensors, &b.1.tensors);
        assert_eq!((&a.1.values, &a.2, &a.3), (&b.1.values, &b.2, &b.3), "{changes}");
        // Messages, batches, steps, moments, evaluations.
        assert!(count > 20, "{changes}: {count}");
    }
}

#[test]
fn each_step_is_reported_once_and_in_order_also_before_a_stop() {
    let losses = |steps: Option<u64>, context: DeviceContext| {
        let recorder = Recorder { steps, ..Recorder::default() };
        let mut model = simulated(&json!({ "batch-size": 1 }));
        if context.on_host {
            let ctx = Context::new(&Silent);
            let setup = ModelSetup::new(vec![spec()], 3, 1);
            model = Amplify::on(context, model.config.clone(), &setup, &ctx).unwrap();
        }
        let ctx = Context::new(&recorder).with_seed(Seed::new(42));
        let outcome = model.train(&[task(37)], Epoch { round: 0, epoch: 0 }, &ctx);
        assert_eq!(outcome.is_err(), steps.is_some());
        recorder.losses.into_inner().unwrap()
    };
    let all = losses(None, DeviceContext::simulated_gpu());
    assert!(all.iter().map(|(step, _)| *step).eq(0..37));
    assert_eq!(losses(Some(20), DeviceContext::simulated_gpu()), all[..20]);
    let on_host = losses(None, DeviceContext::cpu());
    for ((step, a), (_, b)) in all.iter().zip(&on_host) {
        assert!((a - b).abs() < 1e-3 * b.abs() + 1e-4, "step {step}: {a} and {b}");
    }
}
