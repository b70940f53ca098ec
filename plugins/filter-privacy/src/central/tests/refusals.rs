//! What is refused, and that a refusal has no side effects.

use super::*;

/// The error for an update of client `a`; afterwards a good update gives the same result as without it.
fn refused(bad: Sent) -> String {
    let server = Server::default();
    let global = message([("w", tensor(&[0.0, 0.0])), ("ids", tensor(&[1_i64]))]);
    let good = || sent("b", message([("w", tensor(&[0.3, 0.4]))]));
    let go = |bad: Option<Sent>| {
        let mut aggregator = central(json!({ "clip": { "initial": 1.0, "count-noise": 9.0 } })).unwrap();
        let error = RefCell::new(String::new());
        aggregator.begin(&global, &cohort(&["a", "b"], 3), &server.ctx(0)).unwrap();
        if let Some(bad) = bad {
            *error.borrow_mut() = aggregator.add(bad, &server.ctx(0)).unwrap_err().to_string();
        }
        aggregator.add(good(), &server.ctx(0)).unwrap();
        let next = aggregator.finish(&server.ctx(0)).unwrap();
        (elements(&next, "w"), aggregator.clipping.norm, error.into_inner())
    };
    let (with, without) = (go(Some(bad)), go(None));
    assert_eq!((with.0, with.1), (without.0, without.1));
    with.2
}

#[test]
fn what_cannot_be_protected_is_refused() {
    let w = || message([("w", tensor(&[3.0, 4.0]))]);
    let mut extra = w();
    extra.extra.insert("scaffold.w", tensor(&[1.0]));
    assert_eq!(refused(sent("a", extra)), "tensor `scaffold.w`: is not a parameter and would be sent unprotected");
    let mut values = w();
    values.values.insert("loss".to_owned(), json!(0.3));
    assert_eq!(refused(sent("a", values)), "the message's value `loss` would be sent unprotected");
    let changed = message([("w", tensor(&[3.0, 4.0])), ("ids", tensor(&[2_i64]))]);
    assert_eq!(refused(sent("a", changed)), "tensor `ids`: holds i64 values that the client has changed");
    let unknown = message([("w", tensor(&[3.0, 4.0])), ("v", tensor(&[1.0]))]);
    assert_eq!(refused(sent("a", unknown)), "tensor `v`: has no global value, so there is no update to protect");
    let far = message([("w", tensor(&[1e200, 1e200]))]);
    assert_eq!(refused(sent("a", far)), "the norm of the update overflows");
    assert_eq!(refused(sent("c", w())), "client `c` has sent an update, or was not selected");
}

#[test]
fn a_client_counts_once() {
    let server = Server::default();
    let mut aggregator = central(json!({})).unwrap();
    aggregator.begin(&message([("w", tensor(&[0.0]))]), &cohort(&["a"], 1), &server.ctx(0)).unwrap();
    let update = || sent("a", message([("w", tensor(&[0.5]))]));
    aggregator.add(update(), &server.ctx(0)).unwrap();
    let error = aggregator.add(update(), &server.ctx(0)).unwrap_err();
    assert_eq!(error.to_string(), "client `a` has sent an update, or was not selected");
}

#[test]
fn a_global_model_that_cannot_be_protected_is_refused() {
    let server = Server::default();
    let refused = |global: &Message, population: usize| {
        let cohort = Cohort::new(vec!["a".to_owned()], population);
        central(json!({})).unwrap().begin(global, &cohort, &server.ctx(0)).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&message([]), 1),
        "the message contains no floating-point parameter, so there is nothing to protect"
    );
    let mut extra = message([("w", tensor(&[0.0]))]);
    extra.extra.insert("x", tensor(&[0.0]));
    assert_eq!(refused(&extra, 1), "tensor `x`: is not a parameter and would be sent unprotected");
    let poisson = Server::poisson(0.5);
    let many = Cohort::new(Vec::new(), usize::MAX);
    let error =
        central(json!({})).unwrap().begin(&message([("w", tensor(&[0.0]))]), &many, &poisson.ctx(0)).unwrap_err();
    assert!(error.to_string().starts_with("`noise-multiplier`: the sum over 1844"), "{error}");
    assert!(central(json!({})).unwrap().finish(&server.ctx(0)).is_err());
}
