//! Checkpoints and exports.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::checkpoints::{rewrite, shard};
use crate::common::{
    self, amplify, assert_same, changed, config, ctx, exported, failure, predicted, setup, table, tasks, train,
};
use model_amplify::Amplify;
use plugin_api::{Epoch, Message, Model, Params};
use serde_json::{Value, json};

#[test]
fn an_export_loads_as_a_checkpoint() {
    let mut model = amplify(json!({}));
    train(&mut model, 0..1);
    let folder = exported(&mut model);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    let expected = ["README.md", "config.json", "fedplug.json", "model.safetensors", "regressors.safetensors"];
    assert_eq!(files, [&expected[..], &["tokenizer.json", "tokenizer_config.json"]].concat());
    // Others may read all of them, as the umask allows.
    let mode = |file: &str| fs::metadata(folder.path().join(file)).unwrap().permissions();
    assert_eq!([mode("model.safetensors"), mode("regressors.safetensors")], [mode("README.md"), mode("README.md")]);
    let changes = json!({ "pretrained": folder.path(), "regressors": folder.path().join("regressors.safetensors") });
    let mut loaded = amplify(changes.clone());
    assert_same(&model.parameters(&ctx()).unwrap(), &loaded.parameters(&ctx()).unwrap());
    let [before, after] = [&mut model, &mut loaded].map(|model| predicted(model, "tm", &table(5, 1), &ctx()));
    assert_eq!(before, after);
    // A file may hold other tasks' heads as well.
    let mut one = Amplify::new(config(changes), &setup().holding(vec!["binding".into()]), &ctx()).unwrap();
    assert!(changed(&one.parameters(&ctx()).unwrap(), &loaded.parameters(&ctx()).unwrap()).is_empty());
}

/// The vector of attention is part of the head, and frozen layers part of the trunk.
#[test]
fn an_export_has_all_that_a_head_reads() {
    for changes in [json!({ "pooling": "attention" }), json!({ "frozen-layers": 1 }), json!({ "pooling": "bos" })] {
        let mut model = amplify(changes.clone());
        train(&mut model, 0..2);
        let folder = exported(&mut model);
        let mut of_export =
            json!({ "pretrained": folder.path(), "regressors": folder.path().join("regressors.safetensors") });
        if let Some(pooling) = changes.get("pooling") {
            of_export["pooling"] = pooling.clone();
        }
        let mut loaded = amplify(of_export);
        let [before, after] = [&mut model, &mut loaded].map(|model| predicted(model, "tm", &table(5, 1), &ctx()));
        assert_eq!(before, after, "{changes}");
        assert_ne!(before, predicted(&mut amplify(changes.clone()), "tm", &table(5, 1), &ctx()), "{changes}");
        let weights = loaded.parameters(&ctx()).unwrap();
        let attention = weights.get("regressors.0.attention.weight").map(|w| w.elements::<f32>().unwrap()[0] != 0.0);
        let attends = changes["pooling"] == "attention";
        assert_eq!(attention, attends.then_some(true), "{changes}");
    }
}

#[test]
fn a_bf16_checkpoint_is_converted_to_fp32() {
    let mut model = amplify(json!({}));
    let folder = exported(&mut model);
    rewrite(&folder.path().join("model.safetensors"), |_, _, shape, data| {
        // bfloat16 is the upper half of f32.
        let bf16 = data.chunks_exact(4).flat_map(|four| [four[2], four[3]]).collect();
        Some((safetensors::Dtype::BF16, shape, bf16))
    });
    let mut loaded = amplify(json!({ "pretrained": folder.path() }));
    let (wide, full) = (loaded.parameters(&ctx()).unwrap(), model.parameters(&ctx()).unwrap());
    let name = "trunk.transformer_encoder.1.ffn.w12.weight";
    let pairs = wide
        .get(name)
        .unwrap()
        .elements::<f32>()
        .unwrap()
        .iter()
        .zip(full.get(name).unwrap().elements::<f32>().unwrap());
    assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= b.abs() / 128.0) && pairs.clone().any(|(a, b)| a != b));
}

#[test]
fn all_mismatches_of_a_checkpoint_are_reported_together() {
    let mut model = amplify(json!({}));
    let folder = exported(&mut model);
    rewrite(&folder.path().join("model.safetensors"), |name, dtype, shape, data| match name {
        "decoder.bias" | "transformer_encoder.0.q.weight" => None,
        "encoder.weight" => Some((dtype, vec![16, 27], data)),
        _ => Some((dtype, shape, data)),
    });
    fs::write(folder.path().join("config.json"), {
        let text = fs::read_to_string(folder.path().join("config.json")).unwrap();
        text.replace("\"layer_norm_before_last_layer\": true", "\"layer_norm_before_last_layer\": false")
    })
    .unwrap();
    let error = failure(json!({ "pretrained": folder.path() }));
    assert!(error.to_string().contains("model.safetensors: 4 of its tensors do not fit"), "{error}");
    for part in [
        "`decoder.bias` is missing",
        "`transformer_encoder.0.q.weight` is missing",
        "`encoder.weight` has shape [16, 27], not [27, 16]",
        "`layer_norm_2.weight` is unexpected",
    ] {
        assert!(error.causes().iter().any(|cause| cause == part), "{part} in {:?}", error.causes());
    }
    assert!(error.hint().is_some());
}

#[test]
fn errors_name_the_damaged_or_missing_file() {
    let mut model = amplify(json!({}));
    for (file, content) in [
        ("model.safetensors", Some("not a tensor in sight")),
        ("config.json", Some("{ \"hidden_size\": 16")),
        (
            "config.json",
            Some(r#"{ "hidden_size": 15, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8 }"#),
        ),
        ("tokenizer.json", Some("{}")),
        ("tokenizer.json", None),
        ("model.safetensors", None),
    ] {
        let folder = exported(&mut model);
        match content {
            Some(content) => fs::write(folder.path().join(file), content).unwrap(),
            None => fs::remove_file(folder.path().join(file)).unwrap(),
        }
        let error = failure(json!({ "pretrained": folder.path() }));
        assert!(error.to_string().contains(file), "{file}: {error}");
    }
    for name in ["nowhere", "/no/such/folder", "./owner/name", "owner/name@"] {
        let error = failure(json!({ "pretrained": name }));
        assert_eq!(
            error.to_string(),
            format!("`pretrained`: `{name}` is neither a folder nor the name of a model on the hub")
        );
        assert!(error.hint().unwrap().contains("`owner/name@revision`"));
    }
}

#[test]
fn lfs_pointers_and_web_pages_are_recognised_as_such() {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 123\n";
    const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n";
    let mut model = amplify(json!({}));
    train(&mut model, 0..1);
    let folder = exported(&mut model);
    let path = |file: &str| folder.path().join(file);
    let changes = json!({ "pretrained": folder.path(), "regressors": path("regressors.safetensors") });
    for file in ["model.safetensors", "config.json", "tokenizer.json", "regressors.safetensors"] {
        let whole = fs::read(path(file)).unwrap();
        for (content, what, hint) in [
            (POINTER, "is a Git LFS pointer, not the file itself", "git lfs pull"),
            (PAGE, "is a web page, not the file itself", "download the file itself"),
        ] {
            fs::write(path(file), content).unwrap();
            let error = failure(changes.clone());
            assert_eq!(error.to_string(), format!("{}: {what}", path(file).display()));
            assert!(error.hint().unwrap().contains(hint), "{error:?}");
        }
        fs::write(path(file), whole).unwrap();
    }
    shard(folder.path());
    for file in ["model-00002-of-00002.safetensors", "model.safetensors.index.json"] {
        fs::write(path(file), POINTER).unwrap();
        assert!(failure(changes.clone()).to_string().ends_with("is a Git LFS pointer, not the file itself"));
    }
}

#[test]
fn heads_of_another_shape_are_refused() {
    let mut model = amplify(json!({}));
    train(&mut model, 0..1);
    let folder = exported(&mut model);
    let file = folder.path().join("regressors.safetensors");
    let error = failure(json!({ "regressors": file, "layer-sizes": [] }));
    assert!(
        error.causes().iter().any(|cause| cause == "`regressors.0.0.weight` has shape [32, 16], not [1, 16]"),
        "{:?}",
        error.causes()
    );
    assert!(error.causes().iter().any(|cause| cause == "`regressors.1.4.bias` is unexpected"));
}

#[test]
fn a_sharded_checkpoint_is_loaded() {
    let mut model = amplify(json!({}));
    let folder = exported(&mut model);
    shard(folder.path());
    let changes = json!({ "pretrained": folder.path() });
    assert_same(&model.parameters(&ctx()).unwrap(), &amplify(changes.clone()).parameters(&ctx()).unwrap());

    let second = folder.path().join("model-00002-of-00002.safetensors");
    fs::copy(folder.path().join("model-00001-of-00002.safetensors"), &second).unwrap();
    let error = failure(changes.clone());
    assert!(error.to_string().contains("model.safetensors.index.json"), "{error}");
    assert!(error.causes().iter().any(|cause| cause.ends_with("is in two files")), "{:?}", error.causes());
    assert!(error.causes().iter().any(|cause| cause.ends_with("is missing")), "{:?}", error.causes());
    fs::remove_file(&second).unwrap();
    assert!(failure(changes).to_string().contains("model-00002-of-00002.safetensors"));
}

#[test]
fn an_export_has_tokenizer_settings_and_a_readme_that_fits_it() {
    let mut model = amplify(json!({}));
    let folder = exported(&mut model);
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    let settings: Value = serde_json::from_str(&read("tokenizer_config.json")).unwrap();
    assert_eq!((&settings["pad_token"], &settings["model_max_length"]), (&json!("<pad>"), &json!(2048)));
    let readme = read("README.md");
    assert!(readme.contains("no regression heads") && !readme.contains("fedplug.json"), "{readme}");
    assert!(readme.contains("copy the `.py` files") && readme.contains("trust_remote_code=True"), "{readme}");

    // Code and settings of the checkpoint are kept.
    let config = read("config.json").replacen('{', r#"{ "auto_map": { "AutoModel": "amplify.AMPLIFY" },"#, 1);
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join("amplify.py"), "# code").unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    let mut model = amplify(json!({ "pretrained": folder.path() }));
    train(&mut model, 0..1);
    let again = exported(&mut model);
    assert_eq!(fs::read_to_string(again.path().join("tokenizer_config.json")).unwrap(), "{}");
    let readme = fs::read_to_string(again.path().join("README.md")).unwrap();
    assert!(
        readme.contains("The modelling code of the pretrained trunk") && readme.contains("`fedplug.json`"),
        "{readme}"
    );
}

/// The tasks whose heads an export holds, after checking that its two files agree.
fn heads(model: &mut Amplify) -> Vec<String> {
    let folder = exported(model);
    let Ok(bytes) = fs::read(folder.path().join("regressors.safetensors")) else {
        assert!(!folder.path().join("fedplug.json").exists());
        return Vec::new();
    };
    let said: Value = serde_json::from_slice(&fs::read(folder.path().join("fedplug.json")).unwrap()).unwrap();
    let said = said["tasks"].as_array().unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), said.len() * 6);
    let named = |task: &Value| file.tensor(&format!("regressors.{}.0.weight", task["regressor"])).is_ok();
    assert!(said.iter().all(named));
    said.iter().map(|task| task["name"].as_str().unwrap().to_owned()).collect()
}

fn without(params: &Params, part: &str) -> Message {
    let mut params = params.clone();
    params.retain(|name, _| !name.contains(part));
    params.into()
}

#[test]
fn only_heads_that_were_trained_or_came_last_are_exported() {
    let mut model = amplify(json!({}));
    assert_eq!(heads(&mut model), [""; 0], "random heads");
    let all = model.parameters(&ctx()).unwrap();
    model.receive(&all.clone().into(), &ctx()).unwrap();
    assert_eq!(heads(&mut model), ["tm", "binding"], "received heads");
    model.receive(&without(&all, "regressors.0.4.bias"), &ctx()).unwrap();
    assert_eq!(heads(&mut model), ["binding"], "one that came in part");
    model.receive(&without(&all, "regressors"), &ctx()).unwrap();
    assert_eq!(heads(&mut model), [""; 0], "heads of an earlier message");

    model.train(&tasks(&["tm"]), Epoch { round: 0, epoch: 0 }, &ctx()).unwrap();
    model.receive(&without(&all, "regressors"), &ctx()).unwrap();
    assert_eq!(heads(&mut model), ["tm"], "a private head");
    let mut resumed = amplify(json!({}));
    resumed.restore(&model.state(&ctx()).unwrap(), &ctx()).unwrap();
    assert_eq!(heads(&mut resumed), ["tm"], "after a restart");

    let folder = exported(&mut model);
    let file = folder.path().join("regressors.safetensors");
    let mut loaded =
        Amplify::new(config(json!({ "regressors": file })), &setup().holding(vec!["tm".into()]), &ctx()).unwrap();
    assert_eq!(heads(&mut loaded), ["tm"], "a head from a file");
}

#[test]
fn an_export_is_loaded_by_python() {
    let other = json!({
        "hidden-size": 24, "layers": 2, "heads": 3, "intermediate-size": 40, "hidden-act": "gelu", "rms-norm": false,
        "layer-norm-after-embedding": true, "att-bias": true, "ffn-bias": true,
    });
    let variants = [json!({}), json!({ "pretrained": other, "layer-sizes": [24, 16] }), json!({ "layer-sizes": [] })];
    for changes in variants {
        let mut model = amplify(changes);
        train(&mut model, 0..2);
        let folder = exported(&mut model);
        let rows = table(6, 2);
        let sequences = rows.text("combined").unwrap();
        let sequences: Vec<&str> = (0..sequences.len()).map(|row| sequences.get(row)).collect();
        let mut predictions = serde_json::Map::new();
        for task in ["tm", "binding"] {
            let predicted = predicted(&mut model, task, &rows, &ctx());
            predictions.insert(task.to_owned(), json!({ "sequences": sequences, "predictions": predicted }));
        }
        let expected: PathBuf = folder.path().join("predictions.json");
        fs::write(&expected, Value::from(predictions).to_string()).unwrap();
        for mut python in common::interpreters() {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/load_export.py");
            let output = python.arg(script).arg(folder.path()).arg(&expected).output().unwrap();
            let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{said}{failed}");
            println!("{said}");
        }
    }
}
