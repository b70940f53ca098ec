//! Classes: a step against NumPy's formulas, and the end of training against scikit-learn, as `classes.py` stored them.

use std::collections::BTreeMap;

use model_linear::{Config, Linear};
use plugin_api::context::Silent;
use plugin_api::{ClassWeights, Column, Context, Epoch, Model, ModelSetup, Table, TargetKind, Task, TaskSpec};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<String>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    classes: Vec<i64>,
    first_loss: f64,
    bias_gradient: Vec<f64>,
    probabilities: Vec<Vec<f64>>,
    log_loss: f64,
    accuracy: f64,
}

fn spec(classes: usize) -> TaskSpec {
    let names = ["a", "b", "c"][..classes].iter().map(|&name| name.to_owned()).collect();
    TaskSpec { target_kind: TargetKind::Class(names), ..TaskSpec::new("t", ["text"], "class") }
}

fn task(texts: &[String], classes: &[i64]) -> Task {
    let table = Table::new().with("text", Column::text(texts)).unwrap();
    let table = table.with("class", Column::i64(classes)).unwrap();
    Task { spec: spec(*classes.iter().max().unwrap() as usize + 1), train: table.clone(), test: table }
}

/// A model that takes all rows in a step.
fn model(spec: &TaskSpec, balanced: bool) -> Linear {
    let class_weights = balanced.then_some(ClassWeights::Balanced);
    let config =
        Config { learning_rate: 1.9, batch_size: 1000.try_into().unwrap(), class_weights, ..Config::default() };
    Linear::new(config, &ModelSetup::new(vec![spec.clone()], 1, 1), &Context::new(&Silent)).unwrap()
}

#[test]
fn a_step_is_that_of_numpy() {
    let reference: Reference = serde_json::from_str(include_str!("../classes.json")).unwrap();
    for (name, case) in &reference.cases {
        let task = task(&reference.texts, &case.classes);
        let mut model = model(&task.spec, name.ends_with("balanced"));
        let ctx = Context::new(&Silent);
        let shapes: Vec<_> = model.parameters(&ctx).unwrap().iter().map(|(_, t)| t.shape().to_vec()).collect();
        let classes = case.bias_gradient.len();
        assert_eq!(shapes, [vec![8, 27], vec![classes, 8], vec![classes]]);
        let loss = model.evaluate(std::slice::from_ref(&task), &ctx).unwrap()[0].loss;
        assert!((loss - case.first_loss).abs() < 1e-6, "{name}: {loss}");
        model.train(std::slice::from_ref(&task), Epoch { round: 0, epoch: 0 }, &ctx).unwrap();
        let after = model.parameters(&ctx).unwrap();
        let bias = after.get("regressors.0.bias").unwrap().elements::<f32>().unwrap().to_vec();
        // The rate is the same for all classes, so steps are proportional to the gradient.
        let scale = bias.iter().zip(&case.bias_gradient).map(|(b, g)| -f64::from(*b) * g).sum::<f64>()
            / case.bias_gradient.iter().map(|g| g * g).sum::<f64>().max(1e-12);
        for (b, g) in bias.iter().zip(&case.bias_gradient) {
            assert!((f64::from(*b) + scale * g).abs() < 1e-6, "{name}: {bias:?}");
        }
    }
}

#[test]
fn the_end_of_training_is_that_of_scikit_learn() {
    let reference: Reference = serde_json::from_str(include_str!("../classes.json")).unwrap();
    for (name, case) in &reference.cases {
        let task = task(&reference.texts, &case.classes);
        let mut model = model(&task.spec, name.ends_with("balanced"));
        let ctx = Context::new(&Silent);
        for epoch in 0..3000 {
            model.train(std::slice::from_ref(&task), Epoch { round: 0, epoch }, &ctx).unwrap();
        }
        let predicted = model.predict("t", &task.test, &ctx).unwrap();
        let names: Vec<&str> = predicted.columns().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c"][..names.len()]);
        for (class, name) in names.iter().enumerate() {
            let found = predicted.f32(name).unwrap();
            let off = found.iter().zip(&case.probabilities).map(|(p, wanted)| (f64::from(*p) - wanted[class]).abs());
            let off = off.fold(0.0, f64::max);
            assert!(off < 0.01, "{name}: a probability is off by {off}");
        }
        let chosen = |row: usize| {
            let p = |class: &usize| predicted.f32(names[*class]).unwrap()[row];
            (0..names.len()).max_by(|a, b| p(a).total_cmp(&p(b))).unwrap() as i64
        };
        let right = case.classes.iter().enumerate().filter(|(row, class)| chosen(*row) == **class).count();
        let accuracy = right as f64 / case.classes.len() as f64;
        assert!((accuracy - case.accuracy).abs() < 0.012, "{name}: {accuracy}, not {}", case.accuracy);
        let evaluation = model.evaluate(std::slice::from_ref(&task), &ctx).unwrap().remove(0);
        assert!((evaluation.loss - case.log_loss).abs() < 1e-3, "{name}: {}, not {}", evaluation.loss, case.log_loss);
    }
}

#[test]
fn weights_of_unknown_classes_and_several_numbers_are_errors() {
    let new = |weights: serde_json::Value, kind: TargetKind| {
        let config = serde_json::from_value(json!({ "class-weights": weights })).unwrap();
        let spec = TaskSpec { target_kind: kind, ..TaskSpec::new("t", ["text"], "y") };
        Linear::new(config, &ModelSetup::new(vec![spec], 1, 1), &Context::new(&Silent)).unwrap_err().to_string()
    };
    assert!(new(json!({ "x": 2.0 }), spec(2).target_kind).contains("there is no class `x`"));
    assert!(new(json!("balanced"), TargetKind::Number).contains("the targets are numbers, not classes"));
    assert!(new(json!(null), TargetKind::Numbers(3)).contains("is several numbers"));
}
