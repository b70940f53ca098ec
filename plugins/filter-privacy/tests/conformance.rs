//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, FilterCheck};
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [filter_privacy::component(), testkit::load(testkit::built("filter-privacy"), Kind::Filter).unwrap()]
    {
        // Of noise from the system no two runs are the same, so what is checked is the reproducible one.
        for config in [
            json!({ "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5, "reproducible": true }),
            json!({ "mechanism": "percentile", "percentile": 10, "gamma": 0.01 }),
        ] {
            FilterCheck::new(&component, &config).check().assert();
        }
    }
}
