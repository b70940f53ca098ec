//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [aggregator_lora::component(), testkit::load(testkit::built("aggregator-lora"), Kind::Aggregator).unwrap()]
    {
        for method in ["residual", "stack"] {
            testkit::check_aggregator(&component, &json!({ "method": method })).assert();
        }
    }
}
