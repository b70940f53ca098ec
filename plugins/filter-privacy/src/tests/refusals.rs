//! What is refused, and that a refusal has no side effects.

use plugin_api::half::f16;
use plugin_api::{Error, ErrorKind};
use serde_json::json;

use super::*;

fn filters() -> [Privacy; 3] {
    let sparse_vector = json!({
        "mechanism": "sparse-vector", "fraction": 0.5, "epsilon": 1.0, "noise-var": 1.0, "gamma": 1.0, "tau": 0.1,
    });
    let percentile = json!({ "mechanism": "percentile", "percentile": 50, "gamma": 1.0 });
    [gaussian(1.0, 1.0), privacy(sparse_vector).unwrap(), privacy(percentile).unwrap()]
}

/// The error of every mechanism for this message; afterwards a filter is unchanged.
fn refused(sent: &Message, base: &Message) -> Error {
    let errors = filters().map(|mut filter| {
        let host = Recorder::default();
        let error = filter.apply(sent.clone(), base, &host.ctx("tm", 0)).unwrap_err();
        assert!(host.is_untouched());
        assert!(filter.state(&host.ctx("tm", 0)).unwrap().is_empty());
        error
    });
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    errors.into_iter().next().unwrap()
}

#[test]
fn what_would_pass_unprotected_is_refused() {
    let base = message([("w", tensor(&[1.0_f32, 2.0])), ("ids", tensor(&[1_i64, 2]))]);
    let mut extra = base.clone();
    extra.extra.insert("control.w", tensor(&[1.0_f32]));
    assert_eq!(
        refused(&extra, &base).to_string(),
        "tensor `control.w`: is not a parameter and would be sent unprotected"
    );
    let mut values = base.clone();
    values.values.insert("loss".to_owned(), json!(0.3));
    assert_eq!(refused(&values, &base).to_string(), "the message's value `loss` would be sent unprotected");
    let changed = message([("w", tensor(&[1.0_f32, 2.0])), ("ids", tensor(&[1_i64, 3]))]);
    assert_eq!(refused(&changed, &base).to_string(), "tensor `ids`: holds i64 values that the client has changed");
    // Unchanged integers reveal nothing.
    for mut filter in filters() {
        let sent = applied(&mut filter, &base, &base).unwrap();
        assert_eq!(sent.params.elements::<i64>("ids", &[2]).unwrap(), [1, 2]);
    }
}

#[test]
fn a_parameter_without_its_global_value_is_refused() {
    let base = message([("w", tensor(&[1.0_f32, 2.0])), ("unsent", tensor(&[1.0_f32]))]);
    let head = message([("w", tensor(&[1.0_f32, 2.0])), ("regressors.0.weight", tensor(&[1.0_f32]))]);
    let error = refused(&head, &base);
    assert_eq!(
        error.to_string(),
        "tensor `regressors.0.weight`: has no global value, so there is no update to protect"
    );
    assert_eq!(
        error.hint(),
        Some("keep a private parameter from being sent: a filter `exclude-params` before this one")
    );
    let told = |tensor: Tensor| refused(&message([("w", tensor)]), &base).to_string();
    assert_eq!(told(tensor(&[1.0_f32])), "tensor `w`: is f32[1], but its global value is f32[2]");
    assert_eq!(told(tensor(&[1.0_f64, 2.0])), "tensor `w`: is f64[2], but its global value is f32[2]");
}

#[test]
fn numbers_that_are_none_are_refused_on_both_sides() {
    let good = message([("w", tensor(&[1.0_f32, 2.0]))]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let bad = message([("w", tensor(&[1.0, bad]))]);
        assert_eq!(refused(&bad, &good).to_string(), "tensor `w`: holds a value that is not finite");
        assert_eq!(refused(&good, &bad).to_string(), "tensor `w`: holds a global value that is not finite");
    }
}

#[test]
fn an_empty_message_is_refused() {
    let error = refused(&Message::default(), &Message::default());
    assert_eq!(error.to_string(), "the message contains no floating-point parameter, so there is nothing to protect");
    let integers = message([("ids", tensor(&[1_i64]))]);
    assert_eq!(refused(&integers, &integers), error);
    let nothing = message([("w", tensor::<f32>(&[]))]);
    assert_eq!(refused(&nothing, &nothing), error);
}

#[test]
fn an_overflow_is_told_and_does_not_count() {
    let host = Recorder::default();
    let (base, mut filter) = (message([("w", tensor(&[f16::ZERO; 4]))]), gaussian(1e6, 1.0));
    let error = filter.apply(base.clone(), &base, &host.ctx("tm", 0)).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w`: no longer fits f16 after the change");
    assert!(host.is_untouched() && filter.state(&host.ctx("tm", 0)).unwrap().is_empty());
    let far = |x: f64| message([("w", tensor(&[x]))]);
    let error = applied(&mut gaussian(1.0, 1.0), &far(1e300), &far(-1e300)).unwrap_err();
    assert_eq!(error.to_string(), "the norm of the update overflows");
}

#[test]
fn a_call_that_shall_stop_stops_and_does_not_count() {
    let base = message([("w", tensor(&[1.0_f32, 2.0]))]);
    for mut filter in filters() {
        let host = Recorder::default();
        host.stop.store(true, Ordering::Relaxed);
        let error = filter.apply(base.clone(), &base, &host.ctx("tm", 0)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Cancelled);
        assert!(host.is_untouched() && filter.state(&host.ctx("tm", 0)).unwrap().is_empty());
    }
}

#[test]
fn without_client_or_round_there_is_no_update() {
    let (host, base) = (Recorder::default(), message([("w", tensor(&[1.0_f32]))]));
    for ctx in [Context::new(&host).with_round(1), Context::new(&host).with_client("tm")] {
        for mut filter in filters() {
            let error = filter.apply(base.clone(), &base, &ctx).unwrap_err();
            assert_eq!(error.to_string(), "protects the update of a client in a round, but there is none");
        }
    }
}
