//! On the CPU, bits do not depend on threads or on other clients. The order of batches depends on the seed alone.

use crate::common::{
    Recorder, amplify, assert_same, changed, config, ctx, on_gpu, predicted, published, setup, spec, table, tasks,
    train,
};
use model_amplify::Amplify;
use plugin_api::{Column, Context, Epoch, Model, Params, Seed, Table, Task};
use serde_json::{Value, json};

#[test]
fn clients_in_parallel_give_the_same_bits_as_alone() {
    if on_gpu() {
        return test_support::skip("sums on a GPU have no fixed order");
    }
    let alone = |seed| {
        let mut model = Amplify::new(config(json!({})), &setup(), &ctx().with_seed(Seed::new(seed))).unwrap();
        train(&mut model, 0..2);
        model.parameters(&ctx()).unwrap()
    };
    let expected = alone(1);
    let together: Vec<Params> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| alone(1))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    together.iter().for_each(|params| assert_same(&expected, params));
    assert!(!changed(&expected, &alone(2)).is_empty());
}

/// Trunks without the key have a test of their own on the CPU, so one with it is enough there.
#[test]
fn deterministic_runs_give_the_same_bits() {
    let (data, trunks) = (long_tasks(), if on_gpu() { trunks() } else { vec![with_layer_norm()] });
    for changes in trunks.into_iter().chain([
        json!({ "pooling": "attention" }),
        json!({ "lora": {} }),
        json!({ "clip-norm": 0.5, "accumulate": 2 }),
        json!({ "objective": "masked-lm" }),
    ]) {
        let run = || {
            let mut changes = changes.clone();
            changes["deterministic"] = true.into();
            changes["batch-size"] = 8.into();
            let mut model = amplify(changes);
            for round in 0..2 {
                model.train(&data, Epoch { round, epoch: 0 }, &ctx()).unwrap();
            }
            (model.state(&ctx()).unwrap().tensors, model.evaluate(&data, &ctx()).unwrap()[0].loss.to_bits())
        };
        let (first, second) = (run(), run());
        assert_eq!(changed(&first.0, &second.0), [""; 0], "{changes}");
        assert_eq!(first.1, second.1, "{changes}");
    }
}

/// A small trunk with these changes.
fn with(changes: Value) -> Value {
    let mut trunk = json!({ "hidden-size": 32, "layers": 2, "heads": 2, "intermediate-size": 48 });
    trunk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({ "pretrained": trunk })
}

/// A trunk that libtorch computes on the CPU too.
fn with_layer_norm() -> Value {
    with(json!({ "hidden-act": "gelu", "rms-norm": false, "layer-norm-after-embedding": true }))
}

/// Trunks of several arrangements and precisions, of `cpu` and of libtorch.
fn trunks() -> Vec<Value> {
    let mut trunks = vec![
        with(json!({})),
        with(json!({ "hidden-act": "relu", "att-bias": true, "ffn-bias": true })),
        with_layer_norm(),
        with(json!({ "dropout-prob": 0.1 })),
    ];
    for trunk in trunks.clone() {
        trunks.push(json!({ "pretrained": trunk["pretrained"], "precision": "bf16" }));
    }
    trunks.push(json!({ "pretrained": trunks[1]["pretrained"], "frozen-trunk": true }));
    trunks
}

/// Enough long sequences for libtorch to use several threads, if it may.
fn long_tasks() -> Vec<Task> {
    let table = |rows: usize| {
        let rows = table(rows, 3);
        let sequences: Vec<String> = rows.text("combined").unwrap().iter().map(|s| s.repeat(12)).collect();
        let table = Table::new().with("combined", Column::text(&sequences)).unwrap();
        table.with("fitness", rows.column("fitness").unwrap().clone()).unwrap()
    };
    vec![Task { spec: spec("tm"), train: table(16), test: table(8) }]
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    if on_gpu() {
        return test_support::skip("sums on a GPU have no fixed order");
    }
    let data = long_tasks();
    let run = |changes: &Value, threads: usize| {
        let ctx = ctx().with_threads(threads);
        let mut changes = changes.clone();
        changes["batch-size"] = json!(16);
        let mut model = amplify(changes);
        model.train(&data, Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
        (model.state(&ctx).unwrap().tensors, predicted(&mut model, "tm", &data[0].test, &ctx))
    };
    for changes in trunks() {
        let (alone, predicted) = run(&changes, 1);
        // Clients with different numbers of threads at the same time, since they share libtorch.
        let others = std::thread::scope(|scope| {
            let clients = [2, 3, 8].map(|threads| {
                scope.spawn({
                    let (run, changes) = (&run, &changes);
                    move || run(changes, threads)
                })
            });
            clients.map(|client| client.join().unwrap())
        });
        for ((together, also), threads) in others.into_iter().zip([2, 3, 8]) {
            assert_eq!(changed(&alone, &together), [""; 0], "{threads} threads: {changes}");
            assert_eq!(predicted, also, "{threads} threads: {changes}");
        }
    }
}

#[test]
fn every_epoch_has_its_own_order_of_batches() {
    let data = tasks(&["tm"]);
    let losses = |round, epoch| {
        let host = Recorder { stop_after: u64::MAX, ..Recorder::default() };
        let mut model = published(json!({ "dropout": 0.0, "trunk-lr": 0.0, "regressor-lr": 0.0 }));
        let ctx = Context::new(&host).with_seed(Seed::new(42)).with_round(round);
        model.train(&data, Epoch { round, epoch }, &ctx).unwrap();
        let scalars = host.scalars.into_inner().unwrap();
        scalars.into_iter().filter(|s| s.0.starts_with("Loss/train")).map(|s| s.2).collect::<Vec<_>>()
    };
    let in_order = {
        let mut model = published(json!({ "dropout": 0.0 }));
        let rows: Vec<usize> = (0..9).collect();
        let loss = |rows: &[usize]| {
            let test = data[0].train.select(rows);
            model.evaluate(&[Task { test, ..data[0].clone() }], &ctx()).unwrap()[0].loss
        };
        rows.chunks(4).map(loss).collect::<Vec<_>>()
    };
    let epochs = [(0, 0), (0, 1), (1, 0)].map(|(round, epoch)| losses(round, epoch));
    let mean = |losses: &[f64]| (4.0 * losses[0] + 4.0 * losses[1] + losses[2]) / 9.0;
    for (number, epoch) in epochs.iter().enumerate() {
        // Every row once, in an order that differs from the file's and from other epochs'.
        assert!((mean(epoch) - mean(&in_order)).abs() < 1e-5, "{epoch:?} {in_order:?}");
        let others = epochs[..number].iter().chain([&in_order]);
        for other in others {
            assert!(epoch.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-4), "{epoch:?} {other:?}");
        }
    }
}
