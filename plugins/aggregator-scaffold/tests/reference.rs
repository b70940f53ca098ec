//! The server's side of SCAFFOLD against NVFlare's own code, and where the two differ. `reference.py` made the numbers; the
//! client's side is compared in `model-amplify`.
#![allow(clippy::unwrap_used, missing_docs)]

use aggregator_scaffold::{Config, Scaffold};
use plugin_api::context::Silent;
use plugin_api::{Aggregator, Cohort, Context, Message, Params, Tensor, Update};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn named(name: &str, values: &[f32]) -> Params {
    [(name, Tensor::from_slice(&[3], values).unwrap())].into_iter().collect()
}

fn message(w: &[f32], control: &[f32]) -> Message {
    Message { params: named("w", w), extra: named("scaffold.w", control), ..Message::default() }
}

/// What the plugin makes of the updates of one of NVFlare's runs: the global model and the control variate of each round.
fn ours(run: &str) -> Vec<[Vec<f32>; 2]> {
    let (reference, ctx) = (reference(), Context::new(&Silent));
    let steps = &reference[run]["steps"];
    let mut server = Scaffold::new(Config { learning_rate: 1.0 }, &ctx).unwrap();
    let mut global = Message { params: named("w", &numbers(&reference["start"])), ..Message::default() };
    let round = |round: &Value| {
        let sent = round["sent"].as_array().unwrap();
        let updates = sent.iter().map(|sent| {
            let steps = steps[sent["client"].as_u64().unwrap() as usize].as_u64().unwrap();
            let message = message(&numbers(&sent["w"]), &numbers(&sent["change"]));
            Update { client: format!("c{}", sent["client"]), message, steps, examples: steps }
        });
        let updates: Vec<_> = updates.collect();
        let cohort = Cohort::new(updates.iter().map(|update| update.client.clone()).collect(), 3);
        server.begin(&global, &cohort, &ctx).unwrap();
        updates.into_iter().for_each(|update| server.add(update, &ctx).unwrap());
        global = server.finish(&ctx).unwrap();
        let values = |params: &Params, name: &str| params.elements::<f32>(name, &[3]).unwrap().to_vec();
        [values(&global.params, "w"), values(&global.extra, "scaffold.w")]
    };
    reference[run]["rounds"].as_array().unwrap().iter().map(round).collect()
}

fn nvflares(run: &str) -> Vec<[Vec<f32>; 2]> {
    let rounds = reference()[run]["rounds"].as_array().unwrap().clone();
    rounds.iter().map(|round| [numbers(&round["w"]), numbers(&round["control"])]).collect()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn with_all_clients_and_equal_steps_it_is_nvflares() {
    let (ours, nvflares) = (ours("equal"), nvflares("equal"));
    assert_eq!(ours.len(), 4);
    for ([w, control], [their_w, their_control]) in ours.iter().zip(&nvflares) {
        // Both add f32; values are about 1.
        assert!(far(w, their_w) < 3e-7 && far(control, their_control) < 3e-7);
    }
}

#[test]
fn nvflare_weighs_clients_by_their_steps() {
    let (ours, nvflares) = (ours("steps"), nvflares("steps"));
    let reference = reference();
    let sent = &reference["steps"]["rounds"][0]["sent"];
    for (key, ours, theirs) in [("w", &ours[0][0], &nvflares[0][0]), ("change", &ours[0][1], &nvflares[0][1])] {
        let clients: Vec<Vec<f32>> = (0..3).map(|k| numbers(&sent[k][key])).collect();
        let mean = |weights: [f32; 3]| -> Vec<f32> {
            let total: f32 = weights.iter().sum();
            (0..3).map(|i| (0..3).map(|k| weights[k] * clients[k][i]).sum::<f32>() / total).collect()
        };
        assert!(far(ours, &mean([1.0, 1.0, 1.0])) < 3e-7, "{key}");
        assert!(far(theirs, &mean([2.0, 5.0, 9.0])) < 3e-7, "{key}");
    }
    // Of the global model, in the first round.
    assert!((far(&ours[0][0], &nvflares[0][0]) - 0.4247).abs() < 1e-4);
}

#[test]
fn nvflares_control_variate_moves_by_the_mean_of_the_cohort_and_not_by_its_share_of_all() {
    let (ours, nvflares) = (ours("partial"), nvflares("partial"));
    for ([w, control], [their_w, their_control]) in ours.iter().zip(&nvflares) {
        assert!(far(w, their_w) < 3e-7);
        // Two of three clients in every round.
        let scaled: Vec<f32> = their_control.iter().map(|c| c * 2.0 / 3.0).collect();
        assert!(far(control, &scaled) < 1e-6, "{control:?} {scaled:?}");
        assert!(far(control, their_control) > 0.01);
    }
}
