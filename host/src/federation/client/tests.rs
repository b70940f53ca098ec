//! What crosses between the server and a client comes back from JSON to the bit.

use plugin_api::{Error, ErrorKind, Goal, Metric, Tensor};
use serde::de::DeserializeOwned;

use super::*;

/// To JSON and back.
fn back<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// With a NaN that is not the usual one, which `{:?}` does not show, and a fraction that JSON may miss by a bit.
fn evaluations() -> Vec<Evaluation> {
    let metric = Metric { name: "RMSE".to_owned(), value: f64::from_bits(0x7ff8_0000_0000_1234), goal: Goal::Lower };
    let (task, loss, score) = ("tm".to_owned(), 0.456_943_763_567_021_9, f64::NEG_INFINITY);
    vec![Evaluation { task, examples: 3, loss, score, metrics: vec![metric] }]
}

fn bits(evaluations: &[Evaluation]) -> Vec<u64> {
    let numbers = |e: &Evaluation| [e.loss, e.score].into_iter().chain(e.metrics.iter().map(|m| m.value)).collect();
    evaluations.iter().flat_map(|e| -> Vec<f64> { numbers(e) }).map(f64::to_bits).collect()
}

fn message() -> Message {
    let params = [("w", Tensor::from_slice(&[2], &[f32::NAN, 0.1]).unwrap())].into_iter().collect();
    let values = [("scale".to_owned(), 0.1.into())].into_iter().collect();
    Message { params, values, ..Message::default() }
}

#[test]
fn an_order_and_its_outcome_travel_without_their_tensors() {
    let order = Order { round: 7, epochs: 2, global: message() };
    let order = back(&order);
    assert_eq!((order.round, order.epochs), (7, 2));
    assert!(order.global.params.is_empty());
    assert_eq!(order.global.values, message().values);

    let traffic = Traffic { received: u64::MAX, sent: 1 };
    let spent = Spent { training: 0.456_943_763_567_021_9, evaluation: 1e-300 };
    let both = ModelEvaluation { test: evaluations(), validation: evaluations() };
    let (global, local) = (both, vec![evaluations().into(), ModelEvaluation::default()]);
    let withheld = vec!["head".to_owned()];
    let outcome =
        Outcome { message: message(), withheld, steps: 4, examples: 5, global, local, traffic, spent, place: None };
    let mut there = back(&outcome);
    assert_eq!(bits(&there.global.test), bits(&evaluations()));
    assert_eq!(bits(&there.global.validation), bits(&evaluations()));
    assert_eq!(bits(&there.local[0].test), bits(&evaluations()));
    there.message.params = outcome.message.params.clone();
    assert_eq!(format!("{there:?}"), format!("{outcome:?}"));
    let evaluated = EvaluationOutcome { global: evaluations().into(), traffic, spent };
    assert_eq!(format!("{:?}", back(&evaluated)), format!("{evaluated:?}"));
    let cross = CrossEvaluation { evaluations: evaluations(), own: vec!["head".to_owned()] };
    assert_eq!(bits(&back(&cross).evaluations), bits(&evaluations()));
    assert_eq!(format!("{:?}", back(&cross)), format!("{cross:?}"));
}

#[test]
fn progress_comes_back_with_its_trace() {
    let mut trace = Trace::default();
    for (tag, value) in [("a", 1.5), ("b", f64::NAN), ("a", f64::INFINITY)] {
        trace.push(tag, u64::MAX, value, 12.25);
    }
    let trained = Trained { steps: 3, examples: 9 };
    let (global, local) = (Some(evaluations().into()), vec![evaluations().into()]);
    let progress = Progress { global, local, trace, trained, epochs: 1, ..Progress::new(7) };
    let mut there = back(&progress);
    assert_eq!(format!("{there:?}"), format!("{progress:?}"));
    let scalars: Vec<_> = there.trace.iter().map(|(tag, step, value, _)| (tag, step, value.to_bits())).collect();
    assert_eq!(scalars[1], ("b", u64::MAX, f64::NAN.to_bits()));
    assert_eq!(scalars.len(), 3);
    // Tags keep their numbers.
    there.trace.push("b", 0, 0.0, 0.0);
    assert_eq!(there.trace.iter().last().map(|(tag, ..)| tag), Some("b"));
    // A checkpoint's index has the progress without the trace.
    let text = serde_json::to_string(&Progress::new(7)).unwrap();
    let wanted = r#"{"round":7,"epochs":0,"steps":0,"examples":0,"global":null,"local":[],"spent":{"training":0.0,"evaluation":0.0}}"#;
    assert_eq!(text, wanted);
}

#[test]
fn a_failure_comes_back_with_its_place() {
    let error = Error::new(ErrorKind::Panic, "`train` panicked").because_of("at lib.rs:3").help("mend it");
    let own = Error::new(ErrorKind::from("of-the-plugin"), "odd").at_tensor("w");
    for error in [error.clone(), error.at_key("a.b"), own, Error::data("x").in_file("a.csv", Some(3))] {
        let table = ["filter", "0"].map(str::to_owned);
        let fault = ComponentError::new("model `x`".to_owned(), error).of_table(&table);
        let failed = Failed { round: Some(3), permanent: true, fault };
        let there = back(&failed);
        assert_eq!(there.fault.is_panic(), failed.fault.is_panic());
        assert_eq!(there.fault.table(), failed.fault.table());
        assert_eq!(there.fault.error(), failed.fault.error());
        assert_eq!(there.fault.report("here").line(), failed.fault.report("here").line());
        assert_eq!((there.round, there.permanent), (Some(3), true));
    }
}
