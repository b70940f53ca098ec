//! The same bits, whatever the threads and whoever computes beside, and batches in an order that the seed alone says.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Recorder, amplify, assert_same, changed, config, ctx, predicted, published, setup, spec, table, tasks, train,
};
use model_amplify::Amplify;
use plugin_api::{Column, Context, Epoch, Model, Params, Seed, Table, Task};
use serde_json::{Value, json};

#[test]
fn clients_in_parallel_compute_what_they_compute_alone() {
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

/// Trunks of every arrangement, computed by hand and by libtorch.
fn trunks() -> Vec<Value> {
    let with = |changes: Value| {
        let mut trunk = json!({ "hidden-size": 32, "layers": 2, "heads": 2, "intermediate-size": 48 });
        trunk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({ "pretrained": trunk })
    };
    let mut trunks = vec![
        with(json!({})),
        with(json!({ "hidden-act": "relu", "att-bias": true, "ffn-bias": true })),
        with(json!({ "hidden-act": "gelu", "rms-norm": false, "layer-norm-after-embedding": true })),
        with(json!({ "dropout-prob": 0.1 })),
    ];
    for trunk in trunks.clone() {
        trunks.push(json!({ "pretrained": trunk["pretrained"], "precision": "bf16" }));
    }
    trunks.push(json!({ "pretrained": trunks[1]["pretrained"], "frozen-trunk": true }));
    trunks
}

/// Sequences long enough, and so many, that libtorch would share its work out.
fn long_tasks() -> Vec<Task> {
    let table = |rows: usize| {
        let rows = table(rows, 3);
        let sequences: Vec<String> = rows.text("combined").unwrap().iter().map(|s| s.repeat(12)).collect();
        let table = Table::new().with("combined", Column::text(&sequences)).unwrap();
        table.with("fitness", rows.column("fitness").unwrap().clone()).unwrap()
    };
    vec![Task { spec: spec("tm"), train: table(32), test: table(8) }]
}

#[test]
fn the_threads_of_a_client_change_no_bit() {
    let data = long_tasks();
    let course = |changes: &Value, threads: usize| {
        let ctx = ctx().with_threads(threads);
        let mut changes = changes.clone();
        changes["batch-size"] = json!(16);
        let mut model = amplify(changes);
        model.train(&data, Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
        (model.state(&ctx).unwrap().tensors, predicted(&mut model, "tm", &data[0].test, &ctx))
    };
    for changes in trunks() {
        let (alone, predicted) = course(&changes, 1);
        // Several clients with other numbers of threads, one beside the other: libtorch is the process's.
        let others = std::thread::scope(|scope| {
            let clients = [2, 3, 8].map(|threads| {
                scope.spawn({
                    let (course, changes) = (&course, &changes);
                    move || course(changes, threads)
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
fn an_epoch_takes_batches_in_an_order_of_its_own() {
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
        // Every row once, in another order than the file's and than another epoch's.
        assert!((mean(epoch) - mean(&in_order)).abs() < 1e-5, "{epoch:?} {in_order:?}");
        let others = epochs[..number].iter().chain([&in_order]);
        for other in others {
            assert!(epoch.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-4), "{epoch:?} {other:?}");
        }
    }
}
