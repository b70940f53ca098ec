//! The main job with the AMPLIFY model, on the sample and the real data.

use crate::support::{Bench, has_libtorch, shared, skip};

/// A trunk small enough for a test.
const SMALL: &str = "model.pretrained={ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 32 }";

#[test]
fn the_quickstart_learns_and_learns_more_together_than_alone() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    // A quarter of what the files say shows it.
    for (name, quarter) in [("quickstart", "federation.rounds=8"), ("quickstart-local", "federation.local-epochs=8")] {
        bench.run(&[&format!("configs/{name}.toml"), "--set", quarter]);
    }
    let mean = |run: &str, metric: &str| {
        let summary = bench.summary(run);
        let clients = summary["clients"].as_object().unwrap();
        let last = |client: &serde_json::Value| {
            let courses = client[0]["local_test"].as_array().unwrap();
            courses.iter().find(|course| course["name"] == metric).unwrap()["last"].as_f64().unwrap()
        };
        assert_eq!(clients.len(), 6);
        clients.values().map(last).sum::<f64>() / 6.0
    };
    assert!(mean("quickstart", "Pearson") > 0.6);
    assert!(mean("quickstart", "RMSE") < mean("quickstart-local", "RMSE"));
}

#[test]
fn two_runs_and_any_number_of_threads_give_the_same_bits() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let short = ["configs/quickstart.toml", "--set", "federation.rounds=2", "--set", "dataset.max-samples=20"];
    for (name, threads) in [("one", "1"), ("again", "1"), ("three", "3")] {
        bench.run(&[&short[..], &["--name", name, "--threads", threads]].concat());
    }
    let wanted = bench.results("one");
    for name in ["again", "three"] {
        assert!(bench.results(name) == wanted, "{name} differs");
    }
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let arguments = [
        "configs/quickstart.toml",
        "--set",
        "federation.rounds=4",
        "--set",
        "federation.checkpoint-every=2",
        "--set",
        "dataset.max-samples=20",
    ];
    bench.run(&[&arguments[..], &["--name", "whole"]].concat());
    // What a process killed after the last checkpoint leaves: no models, no summary, metrics beyond the checkpoint.
    crate::resume::interrupt(&bench, &[&arguments[..], &["--name", "cut"]].concat(), "cut", "-KILL");
    bench.run(&[&arguments[..], &["--name", "cut", "--resume"]].concat());
    assert!(bench.results("cut") == bench.results("whole"));
}

#[test]
#[cfg(unix)]
fn where_a_model_waits_changes_no_bit() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let arguments = [
        "configs/quickstart.toml",
        "--set",
        SMALL,
        "--set",
        "federation.rounds=6",
        "--set",
        "federation.checkpoint-every=1",
        "--set",
        "dataset.max-samples=10",
        "--set",
        "model.ditto-lambda=0.1",
    ];
    crate::resume::the_limit_changes_nothing(&arguments, &[("0 B", "3"), ("400 kB", "1")]);
}

#[test]
fn the_real_data_runs_with_six_unequal_clients() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let Some(data) = shared("flab/data") else { return };
    let bench = Bench::new();
    let root = format!("dataset.root={}", data.display());
    let told = bench.run(&[
        "configs/fedavg_multitask.toml",
        "--set",
        &root,
        "--set",
        SMALL,
        "--set",
        "federation.rounds=2",
        "--set",
        "federation.devices=[\"cpu\"]",
        // 110 training rows leave a last batch of one sample.
        "--set",
        "model.batch-size=109",
    ]);
    assert!(told.stderr.contains("1097"), "rows without a value are told:\n{}", told.stderr);
    let manifest: serde_json::Value = serde_json::from_str(&bench.text("fedavg_multitask", "manifest.json")).unwrap();
    let rows: Vec<u64> = manifest["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|client| client["tasks"][0]["train"].as_u64().unwrap())
        .collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().any(|&n| n % 109 == 1), "no client has a last batch of one: {rows:?}");
    assert_ne!(rows.iter().min(), rows.iter().max());
    let values = bench.metrics("fedavg_multitask");
    assert!(values.iter().all(|line| !line.contains("\"Loss/") || !line.contains("null")), "a loss is not a number");
}

#[test]
fn every_experiment_of_the_example_runs_on_the_real_data() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let Some(data) = shared("flab/data") else { return };
    let bench = Bench::new();
    let root = format!("dataset.root={}", data.display());
    for (name, rounds, epochs, suffix) in [
        ("local_singletask", 1, 2, ""),
        ("fedavg_multitask", 2, 1, ""),
        ("local_alltasks", 1, 2, "_expression"),
        ("fedavg_alltasks", 2, 1, "_expression"),
        ("fedavg_alltasks_private_regressors", 2, 1, "_expression"),
    ] {
        let (rounds_key, epochs_key) =
            (format!("federation.rounds={rounds}"), format!("federation.local-epochs={epochs}"));
        let mut arguments = vec![format!("configs/{name}.toml")];
        let keys = [&root, SMALL, &rounds_key, &epochs_key, "federation.devices=[\"cpu\"]", "dataset.max-samples=6"];
        for key in keys {
            arguments.extend(["--set".to_owned(), key.to_owned()]);
        }
        // Parts as unequal as this leave clients without a row for a task.
        if suffix == "_expression" {
            arguments.extend(["--set".to_owned(), "dataset.clients={ count = 6, alpha = 0.1 }".to_owned()]);
        }
        bench.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let client = if suffix.is_empty() { "expression" } else { "site-1" };
        let tag = format!("{{\"client\":\"{client}\",\"round\":0,");
        let found = bench
            .metrics(name)
            .into_iter()
            .filter(|line| line.starts_with(&tag) && line.contains(&format!("\"tag\":\"RMSE/local_test{suffix}\"")));
        assert_eq!(found.count(), epochs, "{name}");
        // Shared heads are in the global model, private ones are not.
        let bytes = bench.bytes(name, "global/model.safetensors");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let shared_heads = tensors.names().iter().any(|tensor| tensor.starts_with("regressors."));
        assert_eq!(shared_heads, name == "fedavg_alltasks", "{name}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_told_tensor_by_tensor() {
    if !has_libtorch() {
        return skip("libtorch is not installed");
    }
    let bench = Bench::new();
    let short = ["configs/quickstart.toml", "--set", "federation.rounds=1", "--set", "dataset.max-samples=4"];
    bench.run(&short);
    let export = bench.path("runs/quickstart/clients/tm/export");
    let pretrained = format!("model.pretrained={:?}", export.to_str().unwrap());
    let check = || bench.fedplug(&["check", "configs/quickstart.toml", "--set", &pretrained]);
    let told = check();
    assert_eq!(told.code, 0, "what a run exports can be loaded again: {}", told.stderr);

    // One tensor is renamed, another has its sides exchanged.
    let path = export.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let broken = whole.tensors().into_iter().map(|(name, view)| {
        let mut shape = view.shape().to_vec();
        if name == "transformer_encoder.0.ffn.w12.weight" {
            shape.reverse();
        }
        let name = name.replace("transformer_encoder.1.q.weight", "transformer_encoder.1.query.weight");
        (name, safetensors::tensor::TensorView::new(view.dtype(), shape, view.data()).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(broken.collect::<Vec<_>>(), None).unwrap()).unwrap();
    let told = check();
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("a checkpoint that does not fit", told.stderr);

    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let told = check();
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("half a checkpoint", told.stderr);
    let told = bench.fedplug(&["check", "configs/quickstart.toml", "--set", "model.pretrained=no-such-folder"]);
    assert_eq!(told.code, 2);
    insta::assert_snapshot!("no checkpoint", told.stderr);
}
