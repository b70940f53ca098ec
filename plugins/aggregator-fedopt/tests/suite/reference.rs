//! The server optimisers against Flower's and NVFlare's own code, and where they differ. `reference.py` made the numbers.

use crate::common::{aggregated, model, numbers, reference, server, updates};
use aggregator_fedopt::FedOpt;
use plugin_api::Params;
use serde_json::{Value, json};

/// The largest differences over six rounds, of what is f32 and of what is f64.
fn differences(reference: &Value, case: &Value) -> (f64, f64) {
    let mut server = server(case["config"].clone());
    let mut global = model(&reference["start"]);
    let (mut worst_f32, mut worst_f64) = (0.0_f64, 0.0_f64);
    for (t, expected) in case["global"].as_array().unwrap().iter().enumerate() {
        global = aggregated(&mut server, &global, updates(reference, t)).unwrap();
        let far = |(a, b): (f64, f64)| (a - b).abs();
        let w = global.elements::<f32>("w", &[2, 3]).unwrap().iter().map(|&x| f64::from(x));
        worst_f32 = w.zip(numbers(&expected["w"])).map(far).fold(worst_f32, f64::max);
        worst_f64 = b(&global).into_iter().zip(numbers(&expected["b"])).map(far).fold(worst_f64, f64::max);
    }
    (worst_f32, worst_f64)
}

fn b(model: &Params) -> Vec<f64> {
    model.elements::<f64>("b", &[4]).unwrap().to_vec()
}

/// Fails unless all cases of a library agree with the plugin. Values are about 1; there are six rounds of f32 moments and
/// values on one side, and none of it on the other.
fn all_agree(library: &str, optimizers: &[&str]) {
    let reference = reference();
    let cases = reference[library].as_array().unwrap();
    let mut seen: Vec<_> = cases.iter().map(|case| case["config"]["optimizer"].as_str().unwrap()).collect();
    seen.dedup();
    assert_eq!(seen, optimizers);
    for case in cases {
        let (f32, f64) = differences(&reference, case);
        assert!(f32 < 1e-6 && f64 < 1e-14, "{}: f32 {f32:e}, f64 {f64:e}", case["config"]);
    }
}

#[test]
fn fedavgm_fedyogi_and_fedadagrad_are_flowers_where_the_second_moment_begins_at_0() {
    all_agree("flower", &["momentum", "yogi", "adagrad"]);
}

#[test]
fn fedavgm_corrected_fedadam_and_fedadagrad_are_nvflares() {
    all_agree("nvflare", &["momentum", "adam", "adagrad"]);
}

/// The first round of a case of another rule, for each element of `b`: the pseudo-gradient, and the steps of both sides in
/// units of the learning rate.
fn first_round(case: &str) -> Vec<[f64; 3]> {
    let reference = reference();
    let case = &reference["differences"][case];
    let start = model(&reference["start"]);
    let rate = case["config"]["learning-rate"].as_f64().unwrap();
    let weight = case["config"]["weight-by"].clone();
    let mean = json!({ "optimizer": "momentum", "learning-rate": 1.0, "momentum": 0.0, "weight-by": weight });
    let mean = aggregated(&mut server(mean), &start, updates(&reference, 0)).unwrap();
    let ours = aggregated(&mut server(case["config"].clone()), &start, updates(&reference, 0)).unwrap();
    let theirs = numbers(&case["global"][0]["b"]);
    let steps = b(&start).into_iter().zip(b(&mean)).zip(b(&ours).into_iter().zip(theirs));
    let steps = steps.map(|((x, mean), (ours, theirs))| [mean - x, (ours - x) / rate, (theirs - x) / rate]);
    steps.collect()
}

/// Checks the first steps of both sides against these formulas of the pseudo-gradient.
fn first_steps_are(case: &str, ours: impl Fn(f64) -> f64, theirs: impl Fn(f64) -> f64) {
    for [delta, here, there] in first_round(case) {
        assert!((here - ours(delta)).abs() < 1e-12, "{case}: {here} is not {}", ours(delta));
        assert!((there - theirs(delta)).abs() < 1e-12, "{case}: {there} is not {}", theirs(delta));
        assert!((here - there).abs() > 1e-4, "{case}: {here} and {there} should differ");
    }
}

#[test]
fn the_first_steps_show_where_the_rules_differ() {
    let tau = 1e-3_f64;
    // With β₁ = 0.9 and β₂ = 0.99 and no correction.
    let paper = |d: f64| 0.1 * d / ((0.99 * tau * tau + 0.01 * d * d).sqrt() + tau);
    // Flower's second moment begins at 0, its factor counts one round more, and τ stands beside the uncorrected root.
    let factor = (1.0 - 0.99_f64.powi(2)).sqrt() / (1.0 - 0.9_f64.powi(2));
    first_steps_are("flower-adam", paper, |d| factor * 0.1 * d / (0.1 * d.abs() + tau));
    first_steps_are("nvflare-adam", paper, |d| d / (d.abs() + tau));
    let yogi = |d: f64| 0.1 * d / ((tau * tau + 0.01 * d * d).sqrt() + tau);
    first_steps_are("flower-yogi", yogi, |d| 0.1 * d / (0.1 * d.abs() + tau));
    let tau = 0.1_f64;
    first_steps_are("flower-adagrad", |d| d / ((tau * tau + d * d).sqrt() + tau), |d| d / (d.abs() + tau));
}

#[test]
fn flowers_fedadam_is_the_papers_times_a_correction_that_counts_one_round_more() {
    let reference = reference();
    let case = &reference["differences"]["flower-adam-factor"];
    let mut server = server(case["config"].clone());
    let mut global = model(&reference["start"]);
    let mut factors = Vec::new();
    for (t, theirs) in case["global"].as_array().unwrap().iter().enumerate() {
        let ours = aggregated(&mut server, &global, updates(&reference, t)).unwrap();
        let factor = (1.0 - 0.99_f64.powi(t as i32 + 2)).sqrt() / (1.0 - 0.9_f64.powi(t as i32 + 2));
        for ((x, ours), theirs) in b(&global).into_iter().zip(b(&ours)).zip(numbers(&theirs["b"])) {
            assert!((x + factor * (ours - x) - theirs).abs() < 1e-12, "round {t}");
        }
        factors.push(factor);
        global = model(theirs);
    }
    assert!((factors[0] - 0.7425).abs() < 1e-4 && (factors[5] - 0.4997).abs() < 1e-3, "{factors:?}");
}

#[test]
fn after_six_rounds_the_rules_differ_by_so_much() {
    let reference = reference();
    for (case, expected) in
        [("flower-adam", 0.0353), ("nvflare-adam", 0.0284), ("flower-yogi", 0.0002), ("flower-adagrad", 0.0133)]
    {
        let (_, far) = differences(&reference, &reference["differences"][case]);
        assert!((far - expected).abs() < 5e-5, "{case}: {far}");
    }
}

#[test]
fn what_nvflares_model_does_not_train_is_averaged_and_here_it_is_optimised() {
    let reference = reference();
    let case = &reference["differences"]["nvflare-buffer"];
    for [delta, here, there] in first_round("nvflare-buffer") {
        assert!((here - delta).abs() < 1e-13, "a step of 0.3 Δ");
        assert!((0.3 * there - delta).abs() < 1e-13, "a step of Δ");
    }
    // What it trains is the same as ever.
    let (worst, _) = differences(&reference, case);
    assert!(worst < 1e-6, "{worst:e}");
}

#[test]
fn flower_weighs_by_examples_and_nvflare_by_steps() {
    let reference = reference();
    for (library, other) in [("flower", "steps"), ("nvflare", "examples")] {
        let case = &reference[library][0];
        let mut config = case["config"].clone();
        config["weight-by"] = json!(other);
        let start = model(&reference["start"]);
        let run = |mut server: FedOpt| b(&aggregated(&mut server, &start, updates(&reference, 0)).unwrap());
        let theirs = numbers(&case["global"][0]["b"]);
        let far = |ours: Vec<f64>| ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far(run(server(case["config"].clone()))) < 1e-14);
        assert!((far(run(server(config))) - 0.1498).abs() < 1e-4, "{library}");
    }
}
