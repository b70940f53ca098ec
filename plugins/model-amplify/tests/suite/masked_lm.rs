//! Masked language modelling: continued pre-training of the trunk, with the decoder and without heads.

use crate::common::{assert_same, changed, config, ctx, exported, failure, on_gpu, published, table, tasks, train};
use model_amplify::Amplify;
use plugin_api::{Context, Epoch, ErrorKind, Evaluation, Model, ModelSetup, Seed, Table, Task, TaskSpec};
use serde_json::{Value, json};

/// Tasks of sequences alone: repeats of one of three motifs, each begun anywhere.
fn unlabelled() -> Vec<Task> {
    let motifs = ["LAGV", "SERT", "IDPKQ"];
    let sequence = |row: usize| -> String {
        let letters = motifs[row % 3].chars().cycle().skip(row % 4);
        letters.take(12 + row % 9).collect()
    };
    let table = |rows: std::ops::Range<usize>| {
        let texts: Vec<String> = rows.map(sequence).collect();
        Table::new().with("combined", plugin_api::Column::text(&texts)).unwrap()
    };
    let spec = |name: &str| TaskSpec::without_target(name, ["combined"]);
    vec![
        Task { spec: spec("heavy"), train: table(0..24), test: table(24..36) },
        Task { spec: spec("light"), train: table(5..11), test: table(40..44) },
    ]
}

fn model(changes: Value, context: &Context<'_>) -> Amplify {
    let mut all = json!({
        "pretrained": { "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 },
        "objective": "masked-lm", "trunk-lr": 1e-2, "schedule": "constant",
    });
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let specs = unlabelled().into_iter().map(|task| task.spec).collect();
    Amplify::new(config(all), &ModelSetup::new(specs, 20, 1), context).unwrap()
}

fn rounds(model: &mut Amplify, rounds: std::ops::Range<u64>, ctx: &Context<'_>) {
    for round in rounds {
        let trained = model.train(&unlabelled(), Epoch { round, epoch: 0 }, ctx).unwrap();
        assert_eq!((trained.steps, trained.examples), (6 + 2, 24 + 6));
    }
}

fn metric(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.metrics.iter().find(|metric| metric.name == name).unwrap().value
}

/// The published arrangement, and one that libtorch computes.
fn trunks() -> [Value; 2] {
    let gelu = json!({ "hidden-size": 16, "layers": 1, "heads": 2, "intermediate-size": 24, "hidden-act": "gelu" });
    [json!({}), json!({ "pretrained": gelu })]
}

#[test]
fn perplexity_starts_at_the_size_of_the_vocabulary_and_falls() {
    for changes in trunks() {
        let mut model = model(changes.clone(), &ctx());
        let before = model.evaluate(&unlabelled(), &ctx()).unwrap();
        for evaluation in &before {
            let perplexity = metric(evaluation, "Perplexity");
            assert!((perplexity - 27.0).abs() < 1.0, "{changes}: {perplexity}");
            assert_eq!(evaluation.score, -evaluation.loss);
        }
        assert_eq!(before.iter().map(|evaluation| evaluation.examples).collect::<Vec<_>>(), [12, 4]);
        rounds(&mut model, 0..20, &ctx());
        let after = model.evaluate(&unlabelled(), &ctx()).unwrap();
        for evaluation in &after {
            let perplexity = metric(evaluation, "Perplexity");
            assert!(perplexity < 12.0, "{changes}: {evaluation:?}");
            assert!((perplexity - evaluation.loss.exp()).abs() < 1e-9, "{evaluation:?}");
        }
        // More than by chance, and than before.
        let accuracy = |all: &[Evaluation]| metric(&all[0], "Accuracy");
        assert!(accuracy(&after) > 0.1 && accuracy(&after) > accuracy(&before), "{changes}: {before:?} {after:?}");
    }
}

#[test]
fn the_masks_of_an_evaluation_depend_on_the_sequence_alone() {
    let mut model = model(json!({}), &ctx());
    rounds(&mut model, 0..3, &ctx());
    let [heavy, light] = unlabelled().try_into().unwrap();
    let found = model.evaluate(std::slice::from_ref(&heavy), &ctx()).unwrap();
    // Another round, client and seed; other tasks beside it; the rows in another order.
    let other = ctx().with_seed(Seed::new(9)).with_client("site-2").with_round(7);
    let mut reversed = heavy.clone();
    reversed.test = heavy.test.select(&(0..heavy.test.rows()).rev().collect::<Vec<_>>());
    let again = model.evaluate(&[light, heavy, reversed], &other).unwrap();
    assert_eq!(again[1], found[0]);
    assert!((again[2].loss - found[0].loss).abs() < 1e-6 * found[0].loss, "{again:?}");
}

#[test]
fn masks_of_training_depend_on_seed_round_and_epoch() {
    let trained = |seed: u64, round: u64, epoch: u64| {
        let mut model = model(json!({}), &ctx());
        model.train(&unlabelled()[..1], Epoch { round, epoch }, &ctx().with_seed(Seed::new(seed))).unwrap();
        model.parameters(&ctx()).unwrap()
    };
    let first = trained(42, 0, 0);
    if !on_gpu() {
        assert_same(&first, &trained(42, 0, 0));
    }
    for other in [trained(43, 0, 0), trained(42, 1, 0), trained(42, 0, 1)] {
        assert!(!changed(&first, &other).is_empty());
    }
}

#[test]
fn a_resumed_run_and_any_number_of_threads_give_the_same_bits() {
    for changes in trunks().into_iter().chain([json!({ "lora": {} }), json!({ "ditto-lambda": 0.5 })]) {
        let mut straight = model(changes.clone(), &ctx());
        rounds(&mut straight, 0..3, &ctx());
        let mut first = model(changes.clone(), &ctx());
        rounds(&mut first, 0..2, &ctx().with_threads(3));
        let state = first.state(&ctx()).unwrap();
        let mut second = model(changes, &ctx());
        second.restore(&state, &ctx()).unwrap();
        rounds(&mut second, 2..3, &ctx());
        assert_same(&straight.state(&ctx()).unwrap().tensors, &second.state(&ctx()).unwrap().tensors);
    }
}

#[test]
fn the_whole_trunk_or_its_adapters_are_trained_and_sent() {
    for (changes, adapters) in [(json!({}), false), (json!({ "lora": { "targets": ["q", "w12"] } }), true)] {
        let mut model = model(changes, &ctx());
        let before = model.parameters(&ctx()).unwrap();
        assert!(before.names().all(|name| name.starts_with("trunk.") && name.contains(".lora_") == adapters));
        rounds(&mut model, 0..2, &ctx());
        let sent = model.send(&ctx()).unwrap().params;
        assert_eq!(changed(&before, &sent).len(), before.len());
    }
}

/// Targets are ignored: labelled tasks give the same bits as the same sequences alone.
#[test]
fn targets_are_ignored() {
    let run = |labelled: bool| {
        let mut tasks = unlabelled();
        if labelled {
            for task in &mut tasks {
                task.spec = TaskSpec::new(task.spec.name.clone(), ["combined"], "fitness");
                for table in [&mut task.train, &mut task.test] {
                    let column = plugin_api::Column::f32(&vec![1.5; table.rows()]);
                    *table = table.clone().with("fitness", column).unwrap();
                }
            }
        }
        let specs = tasks.iter().map(|task| task.spec.clone()).collect();
        let config = config(json!({ "objective": "masked-lm" }));
        let mut model = Amplify::new(config, &ModelSetup::new(specs, 1, 1), &ctx()).unwrap();
        model.train(&tasks, Epoch { round: 0, epoch: 0 }, &ctx()).unwrap();
        (model.evaluate(&tasks, &ctx()).unwrap(), model.parameters(&ctx()).unwrap())
    };
    let (with, without) = (run(true), run(false));
    assert_same(&with.1, &without.1);
    if !on_gpu() {
        assert_eq!(with.0, without.0);
    }
}

#[test]
fn an_export_is_the_trunk_of_a_supervised_run() {
    for lora in [json!(null), json!({ "rank": 2 })] {
        let mut model = model(json!({ "lora": lora }), &ctx());
        rounds(&mut model, 0..2, &ctx());
        let folder = exported(&mut model);
        assert!(!folder.path().join("regressors.safetensors").exists());
        let pretrained = json!({ "pretrained": folder.path() });
        let mut next = published(pretrained.clone());
        let mut again = Amplify::new(
            config(json!({ "pretrained": folder.path(), "objective": "masked-lm" })),
            &ModelSetup::new(unlabelled().into_iter().map(|task| task.spec).collect(), 1, 1),
            &ctx(),
        )
        .unwrap();
        let (next_params, again_params) = (next.parameters(&ctx()).unwrap(), again.parameters(&ctx()).unwrap());
        for (name, tensor) in again_params.iter() {
            assert_eq!(next_params.get(name).unwrap().buffer().as_slice(), tensor.buffer().as_slice(), "{name}");
        }
        if lora.is_null() {
            assert!(changed(&model.parameters(&ctx()).unwrap(), &again_params).is_empty());
        }
        // It evaluates as the model that was exported, and learns targets.
        let found = |model: &mut Amplify| model.evaluate(&unlabelled(), &ctx()).unwrap()[0].loss;
        assert!((found(&mut model) - found(&mut again)).abs() < 1e-4);
        train(&mut next, 0..1);
        assert!(!changed(&next_params, &next.parameters(&ctx()).unwrap()).is_empty());
        assert!(next.evaluate(&tasks(&["tm"]), &ctx()).unwrap()[0].loss.is_finite());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    for (key, value) in [
        ("frozen-trunk", json!(true)),
        ("regressors", json!("heads.safetensors")),
        ("class-weights", json!({ "yes": 2.0 })),
    ] {
        let mut changes = json!({ "objective": "masked-lm" });
        changes[key] = value;
        let error = failure(changes);
        assert!(error.to_string().contains(key), "{error}");
    }
    let setup = ModelSetup::new(vec![TaskSpec::without_target("tm", ["combined"])], 1, 1);
    let error = Amplify::new(config(json!({})), &setup, &ctx()).unwrap_err();
    assert_eq!(error.message(), "task `tm` has no target to predict");
    let error = model(json!({}), &ctx()).predict("heavy", &table(2, 0), &ctx()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
}

/// Rows without a letter that the vocabulary knows have nothing to restore.
#[test]
fn sequences_of_unknown_letters_are_no_step_and_no_number() {
    let unknown = Table::new().with("combined", plugin_api::Column::text(["XXX", "xx"])).unwrap();
    let task = Task { spec: unlabelled()[0].spec.clone(), train: unknown.clone(), test: unknown };
    let mut model = model(json!({}), &ctx());
    let trained = model.train(std::slice::from_ref(&task), Epoch { round: 0, epoch: 0 }, &ctx()).unwrap();
    assert_eq!((trained.steps, trained.examples), (0, 0));
    let found = model.evaluate(&[task], &ctx()).unwrap();
    assert!(found[0].loss.is_nan() && found[0].score.is_nan());
}
