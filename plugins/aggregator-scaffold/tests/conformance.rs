//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::{Kind, Message, Params};
use plugin_testkit::{self as testkit, AggregatorCheck};
use serde_json::json;

/// A message with a control variate for each parameter.
fn with_controls(variant: u64) -> Message {
    let message = testkit::message(variant);
    let control = |(name, tensor): (&str, &plugin_api::Tensor)| (format!("scaffold.{name}"), tensor.clone());
    let extra: Params = message.params.iter().map(control).collect();
    Message { extra, ..message }
}

#[test]
fn conforms() {
    for component in [
        aggregator_scaffold::component(),
        testkit::load(testkit::built("aggregator-scaffold"), Kind::Aggregator).unwrap(),
    ] {
        let check = AggregatorCheck::new(&component, &json!({ "learning-rate": 0.5 }));
        check.with_messages(with_controls(0), (1..6).map(with_controls).collect()).check().assert();
    }
}
