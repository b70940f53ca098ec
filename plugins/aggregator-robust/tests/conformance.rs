//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [aggregator_robust::component(), testkit::load(testkit::built("aggregator-robust"), Kind::Aggregator).unwrap()]
    {
        for config in [
            json!({ "method": "median" }),
            json!({ "method": "trimmed-mean", "trim": 0.2 }),
            json!({ "method": "krum", "byzantine": 1 }),
            json!({ "method": "multi-krum", "byzantine": 1, "keep": 3 }),
            json!({ "method": "geometric-median" }),
        ] {
            testkit::check_aggregator(&component, &config).assert();
        }
    }
}
