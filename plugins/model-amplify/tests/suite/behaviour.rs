//! The model's behaviour, on trunks small enough to train in milliseconds.

use crate::common::{
    Recorder, amplify, assert_same, changed, config, ctx, failure, on_gpu, predicted, published, setup, spec, table,
    tasks, train,
};
use model_amplify::Amplify;
use plugin_api::context::Silent;
use plugin_api::{Column, Context, Epoch, ErrorKind, Message, Model, Params, Seed, Table, Task, Tensor, metrics};
use serde_json::{Value, json};

#[test]
fn a_resumed_run_gives_the_same_bits() {
    let mut straight = amplify(json!({}));
    train(&mut straight, 0..3);
    let mut first = amplify(json!({}));
    train(&mut first, 0..2);
    let state = first.state(&ctx()).unwrap();
    train(&mut first, 2..3); // the saved state must not change
    let mut second = Amplify::new(config(json!({})), &setup(), &ctx().with_seed(Seed::new(7))).unwrap();
    second.restore(&state, &ctx()).unwrap();
    train(&mut second, 2..3);
    assert_same(&straight.parameters(&ctx()).unwrap(), &second.parameters(&ctx()).unwrap());
    assert_same(&straight.state(&ctx()).unwrap().tensors, &second.state(&ctx()).unwrap().tensors);
}

/// Runs rounds with a server that always sends the first round's model. Returns the client's last message.
fn rounds(model: &mut Amplify, rounds: std::ops::Range<u64>, extra: &Params) -> Message {
    let global = amplify(json!({})).parameters(&ctx()).unwrap();
    let mut sent = Message::default();
    for round in rounds {
        let extra = if round == 0 { Params::new() } else { extra.clone() };
        model.receive(&Message { params: global.clone(), extra, ..Message::default() }, &ctx()).unwrap();
        train(model, round..round + 1);
        sent = model.send(&ctx()).unwrap();
    }
    sent
}

#[test]
fn a_resumed_run_gives_the_same_bits_with_each_choice() {
    for changes in [
        json!({ "proximal-mu": 0.1 }),
        json!({ "scaffold": true }),
        json!({ "ditto-lambda": 0.5 }),
        json!({ "task-weights": { "tm": 3.0 } }),
        json!({ "layer-decay": 0.7, "warm-up": 15 }),
        json!({ "clip-norm": 0.5, "accumulate": 2, "batch-size": 2 }),
        json!({ "frozen-layers": 1 }),
        json!({ "pooling": "attention" }),
    ] {
        let mut straight = amplify(changes.clone());
        let control = rounds(&mut straight, 0..1, &Params::new()).extra;
        rounds(&mut straight, 1..3, &control);
        let mut first = amplify(changes.clone());
        rounds(&mut first, 0..1, &Params::new());
        rounds(&mut first, 1..2, &control);
        let state = first.state(&ctx()).unwrap();
        let mut second = amplify(changes.clone());
        second.restore(&state, &ctx()).unwrap();
        assert_same(&first.parameters(&ctx()).unwrap(), &second.parameters(&ctx()).unwrap());
        rounds(&mut second, 2..3, &control);
        assert_same(&straight.state(&ctx()).unwrap().tensors, &second.state(&ctx()).unwrap().tensors);
        if changes.get("pooling").is_some() {
            continue;
        }
        let mut plain = amplify(json!({}));
        let plain = rounds(&mut plain, 0..3, &control).params;
        let sent = second.send(&ctx()).unwrap().params;
        // Ditto does not change the shared model; the others do.
        let is_ditto = changes.get("ditto-lambda").is_some();
        assert!(on_gpu() || changed(&plain, &sent).is_empty() == is_ditto, "{changes}");
    }
}

#[test]
fn dittos_personal_model_gives_the_results_and_is_closer_to_the_global_one_with_a_larger_lambda() {
    let distance = |lambda: f64| {
        let mut model = amplify(json!({ "ditto-lambda": lambda, "dropout": 0.0 }));
        let global = model.parameters(&ctx()).unwrap();
        let sent = rounds(&mut model, 0..3, &Params::new()).params;
        let own = model.parameters(&ctx()).unwrap();
        assert!(!changed(&sent, &own).is_empty(), "{lambda}");
        let far = |(name, tensor): (&str, &Tensor)| -> f64 {
            let start = global.get(name).unwrap().elements::<f32>().unwrap();
            let squares = tensor.elements::<f32>().unwrap().iter().zip(start).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum()
        };
        // After training, the personal model is evaluated; after a message, the global one.
        let after_training = model.evaluate(&tasks(&["tm"]), &ctx()).unwrap().remove(0).loss;
        model.receive(&global.clone().into(), &ctx()).unwrap();
        let after_message = model.evaluate(&tasks(&["tm"]), &ctx()).unwrap().remove(0).loss;
        let fresh = amplify(json!({ "dropout": 0.0 })).evaluate(&tasks(&["tm"]), &ctx()).unwrap().remove(0).loss;
        assert_eq!(after_message.to_bits(), fresh.to_bits());
        assert_ne!(after_training.to_bits(), fresh.to_bits());
        own.iter().map(far).sum::<f64>().sqrt()
    };
    let distances = [0.1, 10.0, 1000.0].map(distance);
    assert!(distances[0] > distances[1] && distances[1] > distances[2], "{distances:?}");
}

#[test]
fn a_state_that_does_not_fit_changes_nothing() {
    let mut model = amplify(json!({}));
    train(&mut model, 0..1);
    let before = model.state(&ctx()).unwrap();
    let mut other = amplify(json!({}));
    train(&mut other, 0..2);
    let mut lacking = other.state(&ctx()).unwrap();
    lacking.tensors.remove("optimizer.second.regressors.1.0.weight").unwrap();
    let error = model.restore(&lacking, &ctx()).unwrap_err();
    assert!(error.to_string().contains("optimizer.second.regressors.1.0.weight"), "{error}");
    assert_same(&before.tensors, &model.state(&ctx()).unwrap().tensors);
}

#[test]
fn server_and_client_start_with_the_same_values_and_the_client_ignores_other_heads() {
    let mut server =
        Amplify::new(config(json!({})), &setup(), &Context::new(&Silent).with_seed(Seed::new(42))).unwrap();
    let mut client = Amplify::new(config(json!({})), &setup().holding(vec!["binding".into()]), &ctx()).unwrap();
    let (all, held) = (server.parameters(&ctx()).unwrap(), client.parameters(&ctx()).unwrap());
    assert_eq!(changed(&held, &all), [""; 0]);
    assert!(held.names().all(|name| !name.starts_with("regressors.0.")) && held.get("regressors.1.0.weight").is_some());

    let received = client.receive(&Message::from(all), &ctx()).unwrap();
    assert!(received.missing.is_empty());
    assert_eq!(received.unexpected.len(), 6);
    assert!(received.unexpected.iter().all(|name| name.starts_with("regressors.0.")));
    assert!(
        client.train(&tasks(&["tm"]), Epoch { round: 0, epoch: 0 }, &ctx()).unwrap_err().message().contains("`tm`")
    );
}

#[test]
fn a_message_that_does_not_fit_changes_nothing() {
    let mut model = amplify(json!({}));
    let before = model.parameters(&ctx()).unwrap();
    let mut message = before.clone();
    message.insert("trunk.encoder.weight", Tensor::from_slice(&[27, 16], &[0.0_f32; 27 * 16]).unwrap());
    message.insert("trunk.decoder.bias", Tensor::from_slice(&[26], &[0.0_f32; 26]).unwrap());
    let error = model.receive(&message.clone().into(), &ctx()).unwrap_err();
    assert_eq!(error.to_string(), "tensor `trunk.decoder.bias`: has shape [26], not [27]");
    message.insert("trunk.decoder.bias", Tensor::from_slice(&[27], &[0_i64; 27]).unwrap());
    assert!(model.receive(&message.into(), &ctx()).unwrap_err().message().contains("holds i64"));
    assert_same(&before, &model.parameters(&ctx()).unwrap());
}

#[test]
fn a_sent_message_does_not_change_with_further_training() {
    let mut model = amplify(json!({}));
    let sent = model.send(&ctx()).unwrap().params;
    let copy: Vec<Vec<u8>> = sent.iter().map(|(_, tensor)| tensor.buffer().as_slice().to_vec()).collect();
    train(&mut model, 0..1);
    assert!(sent.iter().zip(copy).all(|((_, tensor), copy)| tensor.buffer().as_slice() == copy));
    assert!(!changed(&sent, &model.parameters(&ctx()).unwrap()).is_empty());
}

#[test]
fn a_frozen_trunk_does_not_change_and_its_heads_do() {
    for (frozen, expected) in [(true, false), (false, true)] {
        let mut model = amplify(json!({ "frozen-trunk": frozen }));
        let before = model.parameters(&ctx()).unwrap();
        train(&mut model, 0..1);
        let changed = changed(&before, &model.parameters(&ctx()).unwrap());
        assert_eq!(changed.iter().any(|name| name.starts_with("trunk.")), expected);
        assert!(changed.contains(&"regressors.0.0.weight".to_owned()));
        // Parameters that the loss does not depend on get no weight decay either.
        assert!(
            !changed.iter().any(|name| name.starts_with("trunk.decoder") || name.starts_with("trunk.layer_norm_2"))
        );
    }
}

/// Whether vectors are kept or computed in each epoch, also by the personal model.
#[test]
fn kept_vectors_change_no_bit() {
    for changes in [
        json!({}),
        json!({ "ditto-lambda": 0.5 }),
        json!({ "proximal-mu": 0.1 }),
        json!({ "pooling": "bos" }),
        json!({ "pooling": "chains", "chains": 1 }),
    ] {
        let run = |memory: &str| {
            let mut changes = changes.clone();
            changes["frozen-trunk"] = true.into();
            changes["embedding-memory"] = memory.into();
            let mut model = amplify(changes);
            let sent = rounds(&mut model, 0..3, &Params::new()).params;
            let results = model.evaluate(&tasks(&["tm"]), &ctx()).unwrap().remove(0).loss;
            (sent, model.parameters(&ctx()).unwrap(), results.to_bits())
        };
        let (none, kept) = (run("0 B"), run("1 GiB"));
        assert!(on_gpu() || changed(&none.0, &kept.0).is_empty() && changed(&none.1, &kept.1).is_empty(), "{changes}");
        assert!(on_gpu() || none.2 == kept.2, "{changes}");
        // Some fit, the others do not.
        assert!(on_gpu() || changed(&none.0, &run("2 KiB").0).is_empty(), "{changes}");
    }
}

#[test]
fn frozen_trunks_with_the_same_values_share_their_memory() {
    let mut models = [(); 3].map(|()| amplify(json!({ "frozen-trunk": true })));
    for model in &mut models {
        train(model, 0..1);
    }
    let [first, second, third] = models.map(|mut model| {
        model.evaluate(&tasks(&["tm"]), &ctx()).unwrap();
        model.parameters(&ctx()).unwrap()
    });
    for (name, tensor) in first.iter() {
        let same = |other: &Params| other.get(name).unwrap().buffer().is_same(tensor.buffer());
        let shared = name.starts_with("trunk.") && !on_gpu();
        assert_eq!((same(&second), same(&third)), (shared, shared), "{name}");
    }
}

#[test]
fn training_halves_the_loss() {
    let mut model = amplify(json!({ "schedule": "constant", "dropout": 0.0 }));
    let mut data = tasks(&["tm"]);
    data[0].test = data[0].train.clone();
    let before = model.evaluate(&data, &ctx()).unwrap().remove(0);
    for epoch in 0..40 {
        model.train(&data, Epoch { round: 0, epoch }, &ctx()).unwrap();
    }
    let after = model.evaluate(&data, &ctx()).unwrap().remove(0);
    assert!(after.loss < before.loss / 2.0, "{} to {}", before.loss, after.loss);
    let sd = metrics::standard_deviation(data[0].train.f32("fitness").unwrap());
    assert_eq!((after.score, after.examples), (-after.loss.sqrt() / sd, 9));
    assert!(after.metrics[1].value > 0.8, "Pearson {}", after.metrics[1].value);
}

#[test]
fn training_in_bf16_converges_as_in_fp32_and_repeats_its_bits() {
    let mut data = tasks(&["tm"]);
    data[0].test = data[0].train.clone();
    let losses = |precision: &str| -> Vec<f64> {
        let mut model = published(json!({ "schedule": "constant", "dropout": 0.0, "precision": precision }));
        let mut loss = |epoch| {
            model.train(&data, Epoch { round: 0, epoch }, &ctx()).unwrap();
            model.evaluate(&data, &ctx()).unwrap().remove(0).loss
        };
        (0..60).map(&mut loss).collect()
    };
    let (fp32, bf16) = (losses("fp32"), losses("bf16"));
    assert_ne!(fp32, bf16);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    for all in [&fp32, &bf16] {
        assert!(mean(&all[50..]) < all[0] / 4.0, "{all:?}");
    }
    // The mean loss of ten epochs, early, halfway and at the end.
    for epochs in [0..10, 20..30, 50..60] {
        let (fp32, bf16) = (mean(&fp32[epochs.clone()]), mean(&bf16[epochs.clone()]));
        assert!((fp32 - bf16).abs() < 0.25 * fp32 + 0.02, "{epochs:?}: {fp32} in fp32, {bf16} in bf16");
    }
    assert!(on_gpu() || bf16 == losses("bf16"), "other losses in a second run");
}

/// Rows of two chains.
fn chains(rows: usize) -> Table {
    let one = table(rows, 3);
    let sequences: Vec<String> = one.text("combined").unwrap().iter().map(|s| format!("{s}|{}", &s[1..])).collect();
    let two = Table::new().with("combined", Column::text(&sequences)).unwrap();
    two.with("fitness", one.column("fitness").unwrap().clone()).unwrap()
}

#[test]
fn predictions_of_each_pooling_do_not_depend_on_the_batch() {
    let data = [Task { spec: spec("tm"), train: chains(9), test: chains(11) }];
    for pooling in ["bos", "chains", "attention"] {
        for frozen in [false, true] {
            let run = |size: usize| {
                let changes = json!({ "pooling": pooling, "frozen-trunk": frozen, "evaluation-batch-size": size });
                let mut model = published(changes);
                model.train(&data, Epoch { round: 0, epoch: 0 }, &ctx()).unwrap();
                predicted(&mut model, "tm", &data[0].test, &ctx())
            };
            let (small, large) = (run(1), run(64));
            let close = small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{pooling}, {frozen}: {small:?} {large:?}");
            assert!(small.iter().any(|a| (a - small[0]).abs() > 1e-4), "{pooling}, {frozen}: {small:?}");
        }
    }
}

/// Of libtorch's trunk, on a GPU by kernels that the CPU does not have.
/// On a GPU. The CPU records nothing.
#[test]
fn recorded_steps_train_as_others_do() {
    let trained = |on: bool| {
        let mut model = amplify(json!({ "cuda-graphs": on, "batch-size": 4 }));
        train(&mut model, 0..3);
        predicted(&mut model, "tm", &table(9, 3), &ctx())
    };
    let (plain, recorded) = (trained(false), trained(true));
    assert!(plain.iter().any(|x| (x - plain[0]).abs() > 1e-3), "{plain:?}");
    assert!(recorded.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-2), "{recorded:?}, not {plain:?}");
}

#[test]
fn keys_of_speed_and_memory_change_rounding_errors_alone() {
    let trained = |changes: &Value, rounds| {
        let trunk = json!({
            "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24, "layer-norm-after-embedding": true,
        });
        let mut all = json!({ "pretrained": trunk });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let mut model = amplify(all);
        train(&mut model, rounds);
        predicted(&mut model, "tm", &table(9, 3), &ctx())
    };
    let keys = ["packing", "fused-qkv", "fused-kernels", "activation-checkpointing", "flat-buffers"];
    for (precision, rounds, tolerance) in [("fp32", 0..1, 1e-3), ("bf16", 0..0, 0.02), ("bf16-residual", 0..0, 0.02)] {
        let plain = trained(&json!({ "precision": precision }), rounds.clone());
        assert!(plain.iter().any(|x| (x - plain[0]).abs() > 1e-3), "{plain:?}");
        for key in keys {
            let changes = json!({ "precision": precision, key: true });
            let found = trained(&changes, rounds.clone());
            let is_close = found.iter().zip(&plain).all(|(a, b)| (a - b).abs() < tolerance);
            assert!(is_close, "{changes}: {found:?}, not {plain:?}");
        }
        // All of them, with a frozen trunk and continued pre-training too.
        for changes in [json!({}), json!({ "frozen-trunk": true }), json!({ "objective": "masked-lm" })] {
            let mut all = json!({ "precision": precision });
            all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            keys.iter().for_each(|key| all[*key] = json!(true));
            let mut model = amplify(all);
            train(&mut model, 0..1);
            assert!(model.evaluate(&tasks(&["tm"]), &ctx()).unwrap()[0].loss.is_finite(), "{changes}");
        }
    }
    let error = failure(json!({ "packing": true, "pooling": "all-positions" }));
    assert_eq!(error.to_string(), "`packing`: leaves out the padding that `pooling = \"all-positions\"` counts");
    let error = failure(json!({ "cuda-graphs": true, "scaffold": true }));
    let wanted = "`cuda-graphs`: records steps that are all alike, which those with `scaffold` are not";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn a_prediction_does_not_depend_on_the_batch() {
    let rows = table(11, 3);
    let mut small = amplify(json!({ "evaluation-batch-size": 1 }));
    let mut large = amplify(json!({ "evaluation-batch-size": 64 }));
    let [small, large] = [&mut small, &mut large].map(|model| predicted(model, "tm", &rows, &ctx()));
    assert_eq!(small.len(), 11);
    assert!(small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-5), "{small:?} {large:?}");
    assert!(small.iter().any(|a| (a - small[0]).abs() > 1e-4));
}

#[test]
fn empty_tables_take_no_steps_and_evaluate_to_nan() {
    let empty = [Task { spec: spec("tm"), train: table(0, 0), test: table(0, 0) }];
    let mut model = amplify(json!({}));
    assert_eq!(model.train(&empty, Epoch { round: 0, epoch: 0 }, &ctx()).unwrap().steps, 0);
    let evaluation = model.evaluate(&empty, &ctx()).unwrap().remove(0);
    assert!(evaluation.examples == 0 && evaluation.loss.is_nan() && evaluation.score.is_nan());
    assert!(predicted(&mut model, "tm", &table(0, 0), &ctx()).is_empty());
}

#[test]
fn equal_targets_give_no_correlation_and_no_score() {
    let rows = table(6, 1);
    let constant = Table::new().with("combined", rows.column("combined").unwrap().clone()).unwrap();
    let constant = constant.with("fitness", Column::f32(&[0.1; 6])).unwrap();
    let mut model = amplify(json!({}));
    let found = model
        .evaluate(&[Task { spec: spec("tm"), train: constant.clone(), test: constant }], &ctx())
        .unwrap()
        .remove(0);
    assert!(found.loss > 0.0 && found.score.is_nan() && found.metrics[1].value.is_nan(), "{found:?}");
    assert_eq!(model_amplify::component().profile().score.as_deref(), Some("-RMSE/SD"));
}

#[test]
fn every_step_is_recorded_with_its_learning_rate() {
    let host = Recorder { stop_after: u64::MAX, ..Recorder::default() };
    let mut model = amplify(json!({}));
    for round in 0..3 {
        model.train(&tasks(&["tm", "binding"]), Epoch { round, epoch: 0 }, &Context::new(&host)).unwrap();
    }
    let scalars = host.scalars.into_inner().unwrap();
    let of = |tag: &str| -> Vec<(u64, f64)> { scalars.iter().filter(|s| s.0 == tag).map(|s| (s.1, s.2)).collect() };
    assert_eq!(of("Loss/train_tm").iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 2, 6, 7, 8, 12, 13, 14]);
    assert_eq!((of("Loss/train_binding").len(), of("Epoch").len()), (9, 18));
    // Constant in the first round, then to 0 over the twelve steps of the other two.
    for (step, rate) in of("LR/trunk") {
        let left = 1.0 - step.saturating_sub(6) as f64 / 12.0;
        assert!((rate - 1e-3 * left).abs() < 1e-15, "step {step}: {rate}");
    }
    assert_eq!(of("Round")[17], (17, 2.0));
}

#[test]
fn training_stops_between_steps_when_cancelled() {
    let host = Recorder { stop_after: 2, ..Recorder::default() };
    let mut model = amplify(json!({}));
    let error = model.train(&tasks(&["tm"]), Epoch { round: 0, epoch: 0 }, &Context::new(&host)).unwrap_err();
    assert_eq!((error.kind(), host.steps.into_inner()), (&ErrorKind::Cancelled, 2));
}
