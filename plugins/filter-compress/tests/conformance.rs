//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, FilterCheck};
use serde_json::json;

#[test]
fn conforms() {
    for component in
        [filter_compress::component(), testkit::load(testkit::built("filter-compress"), Kind::Filter).unwrap()]
    {
        // Parameters are between -1 and 1, and updates at most 0.1. What top-k does not send, it owes.
        for (config, tolerance) in [
            (json!({ "method": "fp16" }), 5e-4),
            (json!({ "method": "bf16" }), 4e-3),
            (json!({ "method": "int8", "block-size": 16 }), 1e-3),
            (json!({ "method": "nf4" }), 2e-2),
            (json!({ "method": "top-k", "keep": 0.25 }), 0.1),
        ] {
            FilterCheck::new(&component, &config).restored_by(&component, &config, tolerance).check().assert();
        }
    }
}

#[test]
fn conforms_on_the_way_to_the_clients() {
    let (component, config) = (filter_compress::component(), json!({ "method": "int8", "of": "values" }));
    let check = FilterCheck::new(&component, &config).at_server();
    check.restored_by(&component, &config, 1e-2).check().assert();
}
