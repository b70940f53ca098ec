//! The robust methods against Flower's own code, and where the two differ. `reference.py` made the numbers.

use crate::common::{aggregated, params, tensor, w};
use plugin_api::{Params, Tensor};
use serde_json::{Value, json};

fn reference() -> Value {
    serde_json::from_str(include_str!("../reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// A model of the reference: `w` in f32, `b` in f64, and an integer tensor that is equal everywhere.
fn model(value: &Value) -> Params {
    let w: Vec<f32> = numbers(&value["w"]).into_iter().map(|x| x as f32).collect();
    params(vec![
        ("w", Tensor::from_slice(&[5, 3], &w).unwrap()),
        ("ids", tensor(&[1_i64, 2])),
        ("b", tensor(&numbers(&value["b"]))),
    ])
}

/// The largest differences over all cases and rounds, of what is f32 and of what is f64.
fn differences(cases: &str) -> (usize, f64, f64) {
    let reference = reference();
    let (mut worst_f32, mut worst_f64) = (0.0_f64, 0.0_f64);
    let cases = reference[cases].as_array().unwrap();
    for case in cases {
        let rounds = reference["rounds"].as_array().unwrap().iter().zip(case["global"].as_array().unwrap());
        for (clients, expected) in rounds {
            let clients = clients.as_array().unwrap().iter().map(model).collect();
            let next = aggregated(case["config"].clone(), clients).unwrap();
            assert_eq!(next.names().collect::<Vec<_>>(), ["w", "ids", "b"]);
            assert_eq!(next.elements::<i64>("ids", &[2]).unwrap(), [1, 2]);
            let far = |(a, b): (f64, f64)| (a - b).abs();
            let got = next.elements::<f32>("w", &[5, 3]).unwrap().iter().map(|&x| f64::from(x));
            worst_f32 = got.zip(numbers(&expected["w"])).map(far).fold(worst_f32, f64::max);
            let got = next.elements::<f64>("b", &[4]).unwrap().iter().copied();
            worst_f64 = got.zip(numbers(&expected["b"])).map(far).fold(worst_f64, f64::max);
        }
    }
    (cases.len(), worst_f32, worst_f64)
}

#[test]
fn median_trimmed_mean_krum_and_multi_krum_are_flowers() {
    let (cases, worst_f32, worst_f64) = differences("flower");
    assert_eq!(cases, 8);
    // Values are about 1. Flower adds f32 in f32, and the plugin in f64, rounded once.
    assert!(worst_f32 < 5e-7, "f32: {worst_f32:e}");
    assert!(worst_f64 < 1e-15, "f64: {worst_f64:e}");
}

#[test]
fn the_geometric_median_is_that_of_numpy() {
    let (cases, worst_f32, worst_f64) = differences("by-numpy");
    assert_eq!(cases, 4);
    // In f64 only the order of sums differs, and 300 iterations' rest.
    assert!(worst_f32 < 2e-7, "f32: {worst_f32:e}");
    assert!(worst_f64 < 1e-12, "f64: {worst_f64:e}");
}

/// One number a client, and what Flower makes of them.
fn difference(name: &str) -> (Vec<f64>, f64) {
    let case = &reference()["differences"][name];
    (numbers(&case["clients"]), case["global"].as_f64().unwrap())
}

fn scalars(values: &[f64]) -> Vec<Params> {
    values.iter().map(|&x| params(vec![("w", tensor(&[x]))])).collect()
}

fn ours(config: Value, clients: &[f64]) -> f64 {
    aggregated(config, scalars(clients)).unwrap().elements::<f64>("w", &[1]).unwrap()[0]
}

#[test]
fn flower_weighs_the_updates_that_multi_krum_keeps_by_their_examples() {
    let (clients, flowers) = difference("weights");
    let here = ours(json!({ "method": "multi-krum", "byzantine": 1, "keep": 2 }), &clients);
    // Both keep 1 and 2; the second says that it has five times as many examples.
    assert!((here - 1.5).abs() < 1e-15, "{here}");
    assert!((flowers - 11.0 / 6.0).abs() < 1e-15, "{flowers}");
}

#[test]
fn flower_trims_one_value_less_where_the_product_is_just_below_a_whole_number() {
    let (mut clients, flowers) = difference("rounding");
    let here = ours(json!({ "method": "trimmed-mean", "trim": 0.29 }), &clients);
    clients.sort_unstable_by(f64::total_cmp);
    let mean = |cut: usize| clients[cut..100 - cut].iter().sum::<f64>() / (100 - 2 * cut) as f64;
    assert!((here - mean(29)).abs() < 1e-15, "{here}");
    assert!((flowers - mean(28)).abs() < 1e-15, "{flowers}");
    assert!((here - flowers).abs() > 1e-4);
}

#[test]
fn flowers_distances_cancel_where_parameters_are_large() {
    let (clients, flowers) = difference("cancellation");
    let sent = clients.iter().map(|&x| w(&[x as f32])).collect();
    let next = aggregated(json!({ "method": "krum", "byzantine": 1 }), sent).unwrap();
    // Three are within 0.002 of one another: the one in the middle is the nearest.
    assert_eq!(f64::from(next.elements::<f32>("w", &[1]).unwrap()[0]), f64::from(clients[3] as f32));
    assert_eq!(flowers, 8193.5);
}

#[test]
fn what_guarantees_nothing_flower_computes_and_this_refuses() {
    let refused = |config: Value, clients: &[f64]| aggregated(config, scalars(clients)).unwrap_err().to_string();
    // Two that agree are chosen as soon as they are nearer to each other than the others are.
    let (clients, flowers) = difference("few");
    let error = refused(json!({ "method": "krum", "byzantine": 1 }), &clients);
    assert_eq!(error, "`byzantine`: Krum with 1 byzantine of 4 clients guarantees nothing");
    assert_eq!(flowers, 5.1);
    // A tenth of five is none, and the outlier counts in full.
    let (clients, flowers) = difference("none");
    let error = refused(json!({ "method": "trimmed-mean", "trim": 0.1 }), &clients);
    assert_eq!(error, "`trim`: 0.1 of 5 clients rounds to none, which would be the plain mean");
    assert!((flowers - 9.2).abs() < 1e-15, "{flowers}");
}
