//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [aggregator_fedavg::component(), testkit::load(testkit::built("aggregator-fedavg"), Kind::Aggregator).unwrap()]
    {
        testkit::check_aggregator(&component, &json!({ "weight-by": "examples" })).assert();
    }
}
