//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [aggregator_fedopt::component(), testkit::load(testkit::built("aggregator-fedopt"), Kind::Aggregator).unwrap()]
    {
        for config in [
            json!({ "optimizer": "adam", "learning-rate": 0.01, "bias-correction": true }),
            json!({ "optimizer": "yogi", "learning-rate": 0.01 }),
            json!({ "optimizer": "adagrad", "learning-rate": 0.01, "beta1": 0.5 }),
            json!({ "optimizer": "momentum", "learning-rate": 1.0, "momentum": 0.9 }),
        ] {
            testkit::check_aggregator(&component, &config).assert();
        }
    }
}
