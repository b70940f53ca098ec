//! How a step is computed: keys that change its memory and its time, and what it computes by rounding errors at most.

use super::*;

/// Three steps with dropout on sequences of several lengths, with chains; those of masked language modelling have tokens to
/// restore. Gives what the steps report, and parameters and moments.
fn steps(mut trainer: Trainer, packed: bool) -> (Vec<StepStats>, Params) {
    let rows: Vec<Vec<u32>> = (2..6_u32)
        .map(|n| {
            let chain = |length: u32, salt: u32| (0..length).map(move |i| 6 + (i * i + salt + n) % 20);
            std::iter::once(3).chain(chain(3 * n, 1)).chain([5]).chain(chain(2 * n + 1, 7)).chain([4]).collect()
        })
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let bounds = ChainBounds { separator: 5, ends: vec![3, 4] };
    let targets = match trainer.network.layers().holds("tm") {
        true => Targets::Numbers(vec![1.0, -1.0, 0.5, 2.0]),
        false => Targets::Tokens { positions: vec![(0, 7), (0, 1), (2, 0), (3, 19)], tokens: vec![5, 9, 26, 11] },
    };
    let mut resources = Resources::new(2).unwrap();
    resources.track_gradient_norm = true;
    let stats = (0..3).map(|number| {
        let mut batch = Batch::new(&rows, 0, 2048, Device::Cpu).unwrap().with_chains(&bounds);
        if packed {
            batch = batch.with_packing().unwrap();
            assert!(batch.packing.is_some());
        }
        let dropout = DropoutRng::new(Seed::new(number));
        let batch = TrainBatch { task: "tm", batch: &batch, targets: &targets, dropout: &dropout };
        trainer.step(&[batch], SchedulePoint::default(), &mut resources).unwrap()
    });
    let stats = stats.collect();
    (stats, trainer.state().unwrap().tensors)
}

/// Small trunks: of the published arrangement, and of another one with dropout.
fn architectures() -> [Architecture; 2] {
    let published = Architecture {
        hidden_size: 16,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        intermediate_size: 24,
        embedding_init_range: 1.0,
        decoder_init_range: 0.4,
        ..Architecture::published()
    };
    let other = Architecture {
        rms_norm: false,
        att_bias: true,
        ffn_bias: true,
        layer_norm_after_embedding: true,
        dropout_prob: 0.1,
        hidden_act: crate::architecture::HiddenAct::Gelu,
        ..published.clone()
    };
    [published, other]
}

/// What a step may have to compute.
fn kinds_of_steps() -> [Value; 8] {
    [
        json!({ "dropout": 0.1 }),
        json!({ "lora": { "dropout": 0.1, "targets": ["q", "w3"] } }),
        json!({ "lora": { "fixed-a": true } }),
        json!({ "frozen-layers": 1, "pooling": "chains" }),
        json!({ "pooling": "attention", "task-weights": { "tm": 2.0 } }),
        json!({ "pooling": "bos", "clip-norm": 0.5 }),
        json!({ "frozen-trunk": true }),
        json!({ "objective": "masked-lm", "proximal-mu": 0.1 }),
    ]
}

fn with(changes: &Value, key: &str, value: Value) -> Value {
    let mut changes = changes.clone();
    changes[key] = value;
    changes
}

/// Steps in bfloat16, by libtorch's operators and by fused kernels.
fn steps_in_bf16() -> [Value; 6] {
    [
        json!({ "precision": "bf16" }),
        json!({ "precision": "bf16-residual" }),
        json!({ "precision": "fp32", "fused-kernels": true }),
        json!({ "precision": "bf16", "fused-kernels": true }),
        json!({ "precision": "bf16", "fused-kernels": true, "fused-qkv": true }),
        json!({ "precision": "bf16-residual", "fused-kernels": true, "fused-qkv": true }),
    ]
}

#[test]
fn activation_checkpointing_changes_no_bit() {
    for architecture in architectures() {
        for changes in kinds_of_steps().iter().chain(&steps_in_bf16()) {
            for context in [DeviceContext::cpu(), DeviceContext::simulated_gpu()] {
                let [plain, checkpointed] = [false, true].map(|on| {
                    let changes = with(changes, "activation-checkpointing", json!(on));
                    steps(trainer_with(context, &changes, &architecture), false)
                });
                for (a, b) in plain.0.iter().zip(&checkpointed.0) {
                    assert_eq!((a.loss, a.gradient_norm), (b.loss, b.gradient_norm), "{changes} {context:?}");
                }
                assert_eq!(max_difference(&plain.1, &checkpointed.1), 0.0, "{changes} {context:?}");
            }
        }
    }
}

/// Where the results of two ways may differ by rounding errors.
fn assert_close(a: &(Vec<StepStats>, Params), b: &(Vec<StepStats>, Params), what: &str) {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs();
    for (a, b) in a.0.iter().zip(&b.0) {
        assert!(close(a.loss, b.loss) && close(a.gradient_norm, b.gradient_norm), "{what}: {a:?} and {b:?}");
    }
    // Parameters, whose steps AdamW divides by the gradients' size, however small, and moments, which are gradients' sums.
    let difference = max_difference(&a.1, &b.1);
    assert!(difference < 5e-5, "{what}: parameters and moments differ by {difference}");
}

/// With dropout too: packed tokens drop what padded ones do.
#[test]
fn packing_and_fused_products_and_kernels_compute_the_same() {
    for architecture in architectures() {
        for changes in kinds_of_steps() {
            let run = |key: &str| {
                let changes = with(&changes, key, json!(true));
                steps(trainer_with(DeviceContext::simulated_gpu(), &changes, &architecture), key == "packing")
            };
            let plain = steps(trainer_with(DeviceContext::simulated_gpu(), &changes, &architecture), false);
            for key in ["packing", "fused-qkv", "fused-kernels"] {
                assert_close(&run(key), &plain, &format!("{key} {changes} {}", architecture.dropout_prob));
            }
            // The kernels compute packed rows and packed products, too.
            let all = with(
                &with(&with(&changes, "packing", json!(true)), "fused-qkv", json!(true)),
                "fused-kernels",
                json!(true),
            );
            let all = steps(trainer_with(DeviceContext::simulated_gpu(), &all, &architecture), true);
            assert_close(&all, &plain, &format!("all of them, {changes} {}", architecture.dropout_prob));
        }
    }
}

/// Their numbers differ by roundings to bfloat16, which has 8 bits of precision.
#[test]
fn fused_kernels_in_bf16_are_close_to_the_plain_path() {
    for (architecture, precision) in architectures().iter().flat_map(|a| [(a, "bf16"), (a, "bf16-residual")]) {
        let run = |fused: bool| {
            let changes = json!({
                "precision": precision, "fused-kernels": fused, "fused-qkv": true, "trunk-lr": 0.0, "regressor-lr": 0.0,
            });
            steps(trainer_with(DeviceContext::simulated_gpu(), &changes, architecture), false).0
        };
        for (fused, plain) in run(true).iter().zip(run(false)) {
            let close = |a: f64, b: f64| (a - b).abs() < 0.02 * b.abs();
            assert!(close(fused.loss, plain.loss), "{precision}: {fused:?} and {plain:?}");
            assert!(close(fused.gradient_norm, plain.gradient_norm), "{precision}: {fused:?} and {plain:?}");
            // The other one has LayerNorm and GELU, and rotary embedding has the same bits.
            let differs = fused.gradient_norm != plain.gradient_norm;
            assert_eq!(differs, architecture.rms_norm, "{precision}: {fused:?} and {plain:?}");
        }
    }
}

/// Those of an evaluation, without a graph.
#[test]
fn fused_kernels_predict_the_same() {
    let rows: Vec<Vec<u32>> = (2..6_u32).map(|n| (0..3 * n).map(|i| 5 + (i * i + n) % 20).collect()).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    for (packed, fused_qkv) in [(false, false), (false, true), (true, false), (true, true)] {
        let [plain, fused] = [false, true].map(|fused| {
            let changes = json!({ "fused-kernels": fused, "fused-qkv": fused_qkv });
            let trainer = trainer_with(DeviceContext::simulated_gpu(), &changes, &architectures()[0]);
            let batch = Batch::new(&rows, 0, 2048, Device::Cpu).unwrap();
            let batch = if packed { batch.with_packing().unwrap() } else { batch };
            let mut resources = Resources::new(1).unwrap();
            tch::no_grad(|| trainer.network.predict("tm", &batch, &mut resources)).unwrap()
        });
        assert!(fused.allclose(&plain, 1e-5, 1e-6, false), "{fused} {plain}");
    }
}

/// The norm is another sum, and libtorch's AdamW on the CPU rounds the last elements of a tensor in its own way.
#[test]
fn flat_buffers_compute_the_same() {
    for architecture in architectures() {
        for changes in kinds_of_steps() {
            let [plain, flat] = [false, true].map(|flat| {
                let changes = with(&changes, "flat-buffers", json!(flat));
                steps(trainer_with(DeviceContext::simulated_gpu(), &changes, &architecture), false)
            });
            assert_close(&plain, &flat, &format!("{changes}"));
        }
    }
}

/// The first step is as usual, the second recorded and the third launched, which a simulated GPU computes from the same memory.
#[test]
fn recorded_steps_compute_the_same() {
    for architecture in architectures() {
        for changes in [
            json!({ "dropout": 0.1, "warm-up": 5 }),
            json!({ "lora": { "dropout": 0.1, "targets": ["q", "w3"] } }),
            json!({ "frozen-layers": 1, "task-weights": { "tm": 2.0 }, "layer-decay": 0.5 }),
            json!({ "clip-norm": 0.5, "flat-buffers": false, "precision": "bf16" }),
        ] {
            let [plain, recorded] = [false, true].map(|on| {
                let changes = with(&changes, "cuda-graphs", json!(on));
                steps(trainer_with(DeviceContext::simulated_gpu(), &changes, &architecture), false)
            });
            assert_close(&recorded, &plain, &format!("{changes} {}", architecture.dropout_prob));
        }
    }
}

#[test]
fn a_restored_trainer_records_its_steps_anew() {
    let changes = json!({ "cuda-graphs": true, "dropout": 0.1 });
    let new = || trainer_of(DeviceContext::simulated_gpu(), &changes);
    let (mut one, mut other) = (new(), new());
    for salt in [1, 2, 3] {
        step(&mut one, salt);
    }
    assert_eq!(one.recorded_steps(), 1);
    let state = one.state().unwrap();
    for trainer in [&mut one, &mut other] {
        trainer.restore(&state).unwrap();
    }
    assert_eq!((step(&mut one, 4), one.recorded_steps()), (step(&mut other, 4), 0));
    assert_eq!((step(&mut one, 5), one.recorded_steps()), (step(&mut other, 5), 1));
    assert_eq!(max_difference(&one.state().unwrap().tensors, &other.state().unwrap().tensors), 0.0);
}

#[test]
fn what_is_trained_lies_in_one_buffer_each() {
    let mut trainer = trainer(DeviceContext::simulated_gpu());
    let count = |all: Vec<&Tensor>| crate::flat::join_all(&all).unwrap().len();
    for restored in [false, true] {
        step(&mut trainer, 1);
        if restored {
            let state = trainer.state().unwrap();
            trainer.restore(&state).unwrap();
        }
        let slots = trainer.optimizer.trainable();
        assert_eq!(count(slots.map(|index| &trainer.network.parameters.at(index).tensor).collect()), 1);
        let [gradients, first, second] = trainer.optimizer.buffers();
        assert_eq!([count(gradients), count(first), count(second)], [1, 1, 1]);
    }
}

/// bfloat16 has 8 bits of precision. The published trunks' residual stream is a sum of 48 numbers, this one's of 6.
#[test]
fn a_residual_stream_in_bf16_is_close_to_fp32() {
    for architecture in architectures() {
        let run = |precision: &str| {
            let changes = json!({ "precision": precision, "trunk-lr": 0.0, "regressor-lr": 0.0 });
            steps(trainer_with(DeviceContext::simulated_gpu(), &changes, &architecture), false).0
        };
        let (exact, products, all) = (run("fp32"), run("bf16"), run("bf16-residual"));
        for ((exact, products), all) in exact.iter().zip(&products).zip(&all) {
            let close = |a: f64, b: f64| (a - b).abs() < 0.05 * b.abs();
            assert!(close(all.loss, exact.loss), "{all:?} and {exact:?}");
            assert!(close(all.gradient_norm, exact.gradient_norm), "{all:?} and {exact:?}");
            assert_ne!((all.loss, products.loss), (products.loss, exact.loss), "bf16 changes nothing");
        }
    }
}

/// Weights in bf16 are kept for the batches of a step, each with a derivative of its own, and made anew for the next step.
#[test]
fn weights_are_kept_for_a_step_and_no_longer() {
    let changes = json!({ "precision": "bf16", "fused-qkv": true, "activation-checkpointing": true });
    let targets = Targets::Numbers(vec![1.0, -1.0, 0.5, 2.0]);
    let new = || trainer_with(DeviceContext::simulated_gpu(), &changes, &architectures()[0]);
    let (mut parts, mut whole) = (new(), new());
    let (a, b) = (choices::accumulated(&mut parts, &targets, 2), choices::accumulated(&mut whole, &targets, 4));
    let close = |a: f64, b: f64| (a - b).abs() < 0.02 * b.abs();
    assert!(close(a.loss, b.loss) && close(a.gradient_norm, b.gradient_norm), "{a:?} and {b:?}");
    let mut fresh = new();
    fresh.restore(&parts.state().unwrap()).unwrap();
    let (next, expected) =
        (choices::accumulated(&mut parts, &targets, 2), choices::accumulated(&mut fresh, &targets, 2));
    assert_eq!((next.loss, next.gradient_norm), (expected.loss, expected.gradient_norm));
    assert_ne!(next.loss, a.loss);
}
