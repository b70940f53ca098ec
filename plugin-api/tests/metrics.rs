//! The metrics against those of scipy and scikit-learn, as `metrics/reference.py` stored them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use plugin_api::{Column, Evaluation, Table, TargetKind, Task, TaskSpec, metrics};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    numbers: Vec<Numbers>,
    classes: Vec<Classes>,
}

#[derive(Deserialize)]
struct Numbers {
    name: String,
    predictions: Vec<f32>,
    targets: Vec<f32>,
    training: Vec<f32>,
    metrics: BTreeMap<String, Option<f64>>,
}

#[derive(Deserialize)]
struct Classes {
    name: String,
    /// For each class.
    probabilities: Vec<Vec<f32>>,
    targets: Vec<i64>,
    metrics: BTreeMap<String, Option<f64>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("metrics/reference.json")).unwrap()
}

fn compare(name: &str, found: &Evaluation, wanted: &BTreeMap<String, Option<f64>>) {
    assert_eq!(found.metrics.len(), wanted.len(), "{name}: {found:?}");
    for metric in &found.metrics {
        match wanted[&metric.name] {
            None => assert!(metric.value.is_nan(), "{name}, {}: {}", metric.name, metric.value),
            Some(wanted) => {
                let off = (metric.value - wanted).abs();
                assert!(off <= 1e-9 * (1.0 + wanted.abs()), "{name}, {}: {}, not {wanted}", metric.name, metric.value);
            }
        }
    }
}

#[test]
fn metrics_of_numbers_are_those_of_scipy_and_scikit_learn() {
    let cases = reference().numbers;
    assert_eq!(cases.len(), 12);
    for case in cases {
        let table = |targets: &[f32]| Table::new().with("y", Column::f32(targets)).unwrap();
        let spec = TaskSpec::new("t", ["x"], "y");
        let task = Task { spec, train: table(&case.training), test: table(&case.targets) };
        let found = metrics::evaluate(&task, &Table::predicted(&case.predictions)).unwrap();
        compare(&case.name, &found, &case.metrics);
    }
}

#[test]
fn metrics_of_classes_are_those_of_scikit_learn() {
    let cases = reference().classes;
    assert_eq!(cases.len(), 11);
    for case in cases {
        let names: Vec<String> = (0..case.probabilities.len()).map(|class| format!("class {class}")).collect();
        let spec = TaskSpec { target_kind: TargetKind::Class(names.clone()), ..TaskSpec::new("t", ["x"], "y") };
        let table = Table::new().with("y", Column::i64(&case.targets)).unwrap();
        let task = Task { spec, train: table.clone(), test: table };
        let with = |table: Table, (name, p): (&String, &Vec<f32>)| table.with(name, Column::f32(p)).unwrap();
        let predictions = names.iter().zip(&case.probabilities).fold(Table::new(), with);
        let found = metrics::evaluate(&task, &predictions).unwrap();
        compare(&case.name, &found, &case.metrics);
    }
}
