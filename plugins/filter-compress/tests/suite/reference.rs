//! Against NumPy and bitsandbytes, which NVFlare's quantiser calls: `reference.py` made `reference.json`.

use crate::common::{self, apply, at_client, at_server, config, floats, model, tensor, there};
use filter_compress::{Config, Method, Quantity};
use plugin_api::{Filter as _, Message};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("../reference.json")).unwrap()
}

#[allow(clippy::cast_possible_truncation)]
fn array(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn message(value: &Value) -> Message {
    model(vec![("w", tensor(&array(value)))])
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn what_is_restored_is_what_numpy_restores_and_of_nf4_bitsandbytes() {
    let reference = reference();
    let (base, x) = (message(&reference["base"]), message(&reference["x"]));
    for method in common::QUANTIZERS {
        for (key, of) in [("update", Quantity::Update), ("values", Quantity::Values)] {
            let block_size = matches!(method, Method::Int8 | Method::Nf4).then_some(64);
            let restored = there(&Config { of: Some(of), block_size, ..config(method) }, &x, &base);
            let difference = largest_difference(floats(&restored, "w"), &array(&reference[key][method.as_str()]));
            // Bit for bit; but for nf4, where bitsandbytes multiplies by what others divide by.
            let tolerance = if method == Method::Nf4 { 1e-6 } else { 0.0 };
            assert!(difference <= tolerance, "{method:?} of {key}: {difference:e}");
        }
    }
}

/// The levels of bitsandbytes are dense near 0 and wide at the ends; those here are equally far apart.
#[test]
fn eight_bits_have_other_levels_than_nvflares() {
    let reference = reference();
    let (base, x) = (message(&reference["base"]), array(&reference["x"]));
    let of_values = Config { of: Some(Quantity::Values), block_size: Some(64), ..config(Method::Int8) };
    let ours = there(&of_values, &message(&reference["x"]), &base);
    let errors = [floats(&ours, "w").to_vec(), array(&reference["blockwise8"])].map(|y| largest_difference(&x, &y));
    assert!((errors[0] - 0.0109).abs() < 1e-4 && (errors[1] - 0.0198).abs() < 1e-4, "{errors:?}");
}

#[test]
fn top_k_with_error_feedback_is_numpys_over_five_rounds() {
    let reference = reference();
    let keep = reference["top-k"]["keep"].as_f64();
    let config = Config { keep, ..config(Method::TopK) };
    let (mut client, mut server) = (at_client(&config), at_server(&config));
    let ctx = plugin_api::Context::new(&plugin_api::context::Silent);
    for round in reference["top-k"]["rounds"].as_array().unwrap() {
        let (base, x) = (message(&round["base"]), message(&round["x"]));
        let sent = apply(&mut client, &x, &base).unwrap();
        // Six of 40, with an index and a value each, and the guard's one float.
        assert_eq!(sent.bytes(), 6 * 8 + 4);
        let restored = apply(&mut server, &sent, &base).unwrap();
        assert_eq!(floats(&restored, "w"), array(&round["restored"]));
        let state = client.state(&ctx).unwrap();
        assert_eq!(state.tensors.elements::<f32>("w", &[40]).unwrap(), array(&round["owed"]));
    }
}
