//! LoRA: what is trained, sent, kept and exported. Its arithmetic is compared with libtorch's beside the code.

use crate::common::{self, amplify, assert_same, changed, config, ctx, predicted, published, setup, tasks, train};
use model_amplify::Amplify;
use plugin_api::Model;
use serde_json::{Value, json};

/// A trunk that libtorch computes, and one that `cpu` computes.
const MAKERS: [fn(Value) -> Amplify; 2] = [amplify, published];

fn is_of_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

#[test]
fn with_lora_only_adapters_and_heads_are_trained_and_sent() {
    for ((keys, names), make) in [
        (json!({}), ["q.lora_A", "q.lora_B", "v.lora_A", "v.lora_B"].as_slice()),
        (json!({ "targets": ["w3"], "rank": 2 }), &["ffn.w3.lora_A", "ffn.w3.lora_B"]),
        (json!({ "fixed-a": true, "targets": ["k"] }), &["k.lora_B"]),
        (json!({ "dropout": 0.2, "targets": ["wo"] }), &["wo.lora_A", "wo.lora_B"]),
    ]
    .into_iter()
    .flat_map(|case| MAKERS.map(|make| (case.clone(), make)))
    {
        let mut model = make(json!({ "lora": keys, "trunk-lr": 1e-2 }));
        let before = model.parameters(&ctx()).unwrap();
        let wanted =
            |block: usize| names.iter().map(move |name| format!("trunk.transformer_encoder.{block}.{name}.weight"));
        let mut wanted: Vec<String> = (0..2).flat_map(wanted).collect();
        let mut found: Vec<String> =
            before.names().filter(|name| name.starts_with("trunk.")).map(str::to_owned).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted);
        // At the start nothing is added.
        let rows = &tasks(&["tm"])[0].test;
        let (plain, adapted) =
            (predicted(&mut make(json!({})), "tm", rows, &ctx()), predicted(&mut model, "tm", rows, &ctx()));
        let off = plain.iter().zip(&adapted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{keys}: {off}");
        train(&mut model, 0..2);
        let changed = changed(&before, &model.parameters(&ctx()).unwrap());
        assert!(wanted.iter().all(|name| changed.contains(name)), "{keys}: {changed:?}");
        // Another client that gets the message predicts the same.
        let sent = model.send(&ctx()).unwrap();
        assert_eq!(sent.params.names().collect::<Vec<_>>(), before.names().collect::<Vec<_>>());
        let mut other = make(json!({ "lora": keys, "trunk-lr": 1e-2 }));
        let received = other.receive(&sent, &ctx()).unwrap();
        assert_eq!((received.missing.len(), received.unexpected.len()), (0, 0));
        assert_eq!(predicted(&mut model, "tm", rows, &ctx()), predicted(&mut other, "tm", rows, &ctx()));
    }
}

#[test]
fn with_lora_a_resumed_run_gives_the_same_bits() {
    let make = published;
    for changes in
        [json!({}), json!({ "ditto-lambda": 0.5 }), json!({ "scaffold": true }), json!({ "proximal-mu": 0.1 })]
    {
        let mut changes = changes.clone();
        changes["lora"] = json!({ "rank": 4 });
        let mut straight = make(changes.clone());
        train(&mut straight, 0..3);
        let mut first = make(changes.clone());
        train(&mut first, 0..2);
        let state = first.state(&ctx()).unwrap();
        assert!(state.tensors.names().all(|name| !name.contains("trunk.") || is_of_adapter(name)), "{changes}");
        let mut second = make(changes.clone());
        second.restore(&state, &ctx()).unwrap();
        train(&mut second, 2..3);
        assert_same(&straight.parameters(&ctx()).unwrap(), &second.parameters(&ctx()).unwrap());
        assert_same(&straight.state(&ctx()).unwrap().tensors, &second.state(&ctx()).unwrap().tensors);
    }
}

/// With a moving base the weights of the targets are part of what is received and kept, and not of what is sent.
#[test]
fn a_moving_base_is_received_and_kept_but_not_sent() {
    let is_base = |name: &str| name.ends_with(".q.weight") || name.ends_with(".v.weight");
    for make in MAKERS {
        let keys = json!({ "lora": { "moving-base": true, "rank": 4 }, "trunk-lr": 1e-2 });
        let mut model = make(keys.clone());
        let before = model.parameters(&ctx()).unwrap();
        assert_eq!(before.names().filter(|name| is_base(name)).count(), 4);
        train(&mut model, 0..1);
        let changed = changed(&before, &model.parameters(&ctx()).unwrap());
        assert!(
            !changed.iter().any(|name| is_base(name)) && changed.iter().any(|name| is_of_adapter(name)),
            "{changed:?}"
        );
        let sent = model.send(&ctx()).unwrap();
        let names: Vec<&str> = before.names().filter(|name| !is_base(name)).collect();
        assert_eq!(sent.params.names().collect::<Vec<_>>(), names);
        assert_eq!(sent.values["lora.scale"], json!(4.0));
        // The next global model has other weights, and they count.
        let doubled = before.iter().filter(|(name, _)| is_base(name)).map(|(name, tensor)| {
            let values: Vec<f32> = tensor.elements::<f32>().unwrap().iter().map(|x| 2.0 * x).collect();
            (name.to_owned(), plugin_api::Tensor::from_slice(tensor.shape(), &values).unwrap())
        });
        let mut global: plugin_api::Params = doubled.collect();
        sent.params.iter().for_each(|(name, tensor)| drop(global.insert(name, tensor.clone())));
        let rows = &tasks(&["tm"])[0].test;
        let old = predicted(&mut model, "tm", rows, &ctx());
        let received = model.receive(&global.clone().into(), &ctx()).unwrap();
        assert_eq!((received.missing.len(), received.unexpected.len()), (0, 0));
        let new = predicted(&mut model, "tm", rows, &ctx());
        assert_ne!(old, new);
        let mut other = make(keys);
        other.restore(&model.state(&ctx()).unwrap(), &ctx()).unwrap();
        assert_eq!(predicted(&mut other, "tm", rows, &ctx()), new);
        let folder = common::exported(&mut model);
        assert!(folder.path().join("model.safetensors").is_file() && !folder.path().join("adapter").exists());
    }
}

/// What an export adds to the trunk's weights is what the adapters compute.
#[test]
fn an_export_with_lora_is_a_trunk_that_predicts_the_same() {
    let make = published;
    let mut model = make(json!({ "lora": { "targets": ["q", "k", "v", "wo", "w12", "w3"] }, "trunk-lr": 1e-2 }));
    train(&mut model, 0..3);
    let folder = tempfile::tempdir().unwrap();
    let files = model.export(folder.path(), &ctx()).unwrap();
    for file in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "model.safetensors"] {
        assert!(files.iter().any(|written| written == file) && folder.path().join(file).is_file(), "{files:?}");
    }
    let heads = folder.path().join("regressors.safetensors");
    let mut merged = make(json!({ "pretrained": folder.path(), "regressors": heads }));
    let rows = &tasks(&["tm"])[0].test;
    let (a, b) = (predicted(&mut model, "tm", rows, &ctx()), predicted(&mut merged, "tm", rows, &ctx()));
    let off = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{off}");
    let plain = predicted(&mut make(json!({ "regressors": heads })), "tm", rows, &ctx());
    assert!(a.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-3), "the adapters add nothing");
}

#[test]
fn clients_hold_the_trunks_weights_once() {
    let mut models = [(); 3].map(|()| published(json!({ "lora": {} })));
    for model in &mut models {
        train(model, 0..1);
    }
    let memory = models.map(|mut model| {
        let trainer = model.trainer().unwrap();
        let trunk = trainer.network.parameters.iter().filter(|parameter| parameter.name.starts_with("trunk."));
        trunk.map(|parameter| (parameter.name.clone(), parameter.memory())).collect::<Vec<_>>()
    });
    for ((name, first), (_, second)) in memory[0].iter().zip(&memory[1]) {
        assert_eq!(first == second, !is_of_adapter(name) && !common::on_gpu(), "{name}");
    }
}

/// With the same `A` everywhere, the mean of the clients' models is the model with the mean of their `B`. With different ones
/// it is not.
#[test]
fn the_mean_of_models_is_that_of_adapters_only_with_a_fixed_a() {
    for (fixed, equal) in [(true, true), (false, false)] {
        let keys = json!({ "lora": { "fixed-a": fixed, "rank": 2, "targets": ["q"] }, "trunk-lr": 0.1 });
        let clients = ["tm", "binding"].map(|task| {
            let mut model = published(keys.clone());
            for epoch in 0..4 {
                model.train(&tasks(&[task]), plugin_api::Epoch { round: 0, epoch }, &ctx()).unwrap();
            }
            model
        });
        let name = "trunk.transformer_encoder.0.q.weight";
        let merged = |model: &mut Amplify| -> Vec<f32> {
            let folder = common::exported(model);
            let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let data = file.tensor(name.strip_prefix("trunk.").unwrap()).unwrap().data().to_vec();
            data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
        };
        let mut mean = plugin_api::WeightedMean::new();
        let mut models = Vec::new();
        for (mut client, number) in clients.into_iter().zip(["1", "2"]) {
            mean.add(&client.send(&ctx()).unwrap().params, 1.0, number).unwrap();
            models.push(merged(&mut client));
        }
        let mut server = published(keys);
        server.receive(&mean.finish().unwrap().into(), &ctx()).unwrap();
        let start = merged(&mut published(json!({})));
        let found = merged(&mut server);
        let added = found.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let wanted = models[0].iter().zip(&models[1]).map(|(a, b)| (a + b) / 2.0);
        let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(added > 1e-3, "{added}");
        assert_eq!(off < 1e-6, equal, "fixed: {fixed}: {off} of {added}");
    }
}

/// With NumPy and, where it is, PEFT.
#[test]
fn adapters_are_loaded_by_python() {
    let gelu = json!({ "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24, "hidden-act": "gelu" });
    for changes in [
        json!({ "lora": { "targets": ["q", "k", "v", "wo", "w12", "w3"], "rank": 3, "alpha": 5.0 } }),
        json!({ "lora": { "targets": ["w3", "v"] }, "pretrained": gelu }),
        json!({ "lora": { "fixed-a": true } }),
    ] {
        let mut plain = changes.clone();
        plain.as_object_mut().unwrap().remove("lora");
        let plain = common::exported(&mut published(plain));
        let mut changes = changes;
        changes["trunk-lr"] = json!(1e-2);
        let mut model = published(changes);
        train(&mut model, 0..2);
        let folder = common::exported(&mut model);
        for mut python in common::interpreters() {
            let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load_adapter.py");
            let output = python.arg(script).args([plain.path(), folder.path()]).output().unwrap();
            let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{said}{failed}");
        }
    }
}

#[test]
fn lora_and_a_frozen_trunk_exclude_each_other() {
    let config = config(json!({ "lora": {}, "frozen-trunk": true }));
    let error = Amplify::new(config, &setup(), &ctx()).unwrap_err();
    assert!(error.to_string().contains("`lora`"), "{error}");
}

#[test]
fn a_moving_base_goes_with_neither_a_fixed_factor_nor_a_personal_model() {
    for (keys, part) in [
        (json!({ "lora": { "moving-base": true, "fixed-a": true } }), "`fixed-a`"),
        (json!({ "lora": { "moving-base": true }, "ditto-lambda": 0.5 }), "`ditto-lambda`"),
    ] {
        let error = Amplify::new(config(keys), &setup(), &ctx()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("`lora.moving-base`"), "{error}");
    }
}
