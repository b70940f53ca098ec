//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, AggregatorCheck, FilterCheck};
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [filter_privacy::component(), testkit::load(testkit::built("filter-privacy"), Kind::Filter).unwrap()]
    {
        // Of noise from the system no two runs are the same, so what is checked is the reproducible one.
        for config in [
            json!({ "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "reproducible": true }),
            json!({
                "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "noise": "discrete",
                "reproducible": true,
            }),
            json!({ "mechanism": "percentile", "percentile": 10, "gamma": 0.01 }),
        ] {
            FilterCheck::new(&component, &config).check().assert();
        }
    }
}

#[test]
fn the_aggregator_conforms() {
    for component in
        [filter_privacy::aggregator(), testkit::load(testkit::built("filter-privacy"), Kind::Aggregator).unwrap()]
    {
        let adaptive = json!({ "initial": 1.0, "count-noise": 4.0 });
        for config in [
            json!({ "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "reproducible": true }),
            json!({ "clip": adaptive, "noise-multiplier": 0.5, "delta": 1e-5, "noise": "gaussian", "reproducible": true }),
        ] {
            AggregatorCheck::new(&component, &config).check().assert();
        }
    }
}
