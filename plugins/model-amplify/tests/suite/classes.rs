//! Heads with a logit for each class, beside heads of numbers.

use crate::common::{assert_same, config, ctx, spec, table};
use model_amplify::Amplify;
use plugin_api::{Column, Epoch, Model, ModelSetup, Table, TargetKind, Task, TaskSpec, metrics};
use serde_json::{Value, json};

const CLASSES: [&str; 3] = ["few", "some", "many"];

fn specs() -> Vec<TaskSpec> {
    let target_kind = TargetKind::Class(CLASSES.map(str::to_owned).to_vec());
    vec![spec("tm"), TaskSpec { target_kind, target: "count".into(), ..spec("count") }]
}

/// The table of numbers, with how many `A` a sequence has as one of three classes.
fn classes(rows: usize, salt: usize) -> Table {
    let table = table(rows, salt);
    let class = |number: &f32| match number {
        x if *x < 0.4 => CLASSES[0],
        x if *x < 1.2 => CLASSES[1],
        _ => CLASSES[2],
    };
    let names: Vec<&str> = table.f32("fitness").unwrap().iter().map(class).collect();
    let inputs = Table::new().with("combined", table.column("combined").unwrap().clone()).unwrap();
    inputs.with("count", Column::text(&names)).unwrap()
}

fn tasks() -> Vec<Task> {
    let [numbers, count] = specs().try_into().unwrap();
    let (train, test) = (classes(24, 1), classes(24, 1));
    vec![Task { spec: numbers, train: table(9, 0), test: table(5, 50) }, Task { spec: count, train, test }]
}

fn amplify(changes: Value) -> Amplify {
    Amplify::new(config(changes), &ModelSetup::new(specs(), 20, 1), &ctx()).unwrap()
}

#[test]
fn classes_are_learnt_beside_numbers_and_predicted_as_probabilities() {
    for changes in [
        json!({ "dropout": 0.0 }),
        json!({ "class-weights": "balanced", "dropout": 0.0 }),
        json!({ "class-weights": { "few": 3.0 }, "frozen-trunk": true, "dropout": 0.0 }),
    ] {
        let (mut model, tasks) = (amplify(changes.clone()), tasks());
        let shape =
            |model: &mut Amplify, name: &str| model.parameters(&ctx()).unwrap().get(name).unwrap().shape().to_vec();
        assert_eq!(shape(&mut model, "regressors.0.4.weight"), [1, 32]);
        assert_eq!(shape(&mut model, "regressors.1.4.weight"), [3, 32]);
        let before = model.evaluate(&tasks, &ctx()).unwrap();
        for round in 0..20 {
            model.train(&tasks, Epoch { round, epoch: 0 }, &ctx()).unwrap();
        }
        let after = model.evaluate(&tasks, &ctx()).unwrap();
        assert!(after[1].loss < before[1].loss * 0.9, "{changes}: {} {}", before[1].loss, after[1].loss);
        let predicted = model.predict("count", &tasks[1].test, &ctx()).unwrap();
        assert_eq!(predicted.columns().map(|(name, _)| name).collect::<Vec<_>>(), CLASSES);
        for row in 0..predicted.rows() {
            let sum: f32 = CLASSES.iter().map(|class| predicted.f32(class).unwrap()[row]).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
        assert_eq!(metrics::evaluate(&tasks[1], &predicted).unwrap(), after[1]);

        // A state restores the same bits.
        let state = model.state(&ctx()).unwrap();
        let mut resumed = amplify(changes);
        resumed.restore(&state, &ctx()).unwrap();
        assert_same(&model.parameters(&ctx()).unwrap(), &resumed.parameters(&ctx()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        model.export(folder.path(), &ctx()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("fedplug.json")).unwrap();
        let entry: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(entry["tasks"][1]["classes"], json!(CLASSES));
        assert!(entry["tasks"][0].get("classes").is_none());
    }
}

#[test]
fn targets_that_have_no_head_are_errors() {
    let new = |specs: Vec<TaskSpec>, changes: Value| {
        Amplify::new(config(changes), &ModelSetup::new(specs, 1, 1), &ctx()).unwrap_err().to_string()
    };
    let several = vec![TaskSpec { target_kind: TargetKind::Numbers(2), ..spec("tm") }];
    assert!(new(several, json!({})).contains("is several numbers"));
    assert!(new(specs(), json!({ "class-weights": { "none": 2.0 } })).contains("there is no class `none`"));
    assert!(new(vec![spec("tm")], json!({ "class-weights": "balanced" })).contains("numbers, not classes"));
}
