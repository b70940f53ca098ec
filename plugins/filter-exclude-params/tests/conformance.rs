//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in [
        filter_exclude_params::component(),
        testkit::load(testkit::built("filter-exclude-params"), Kind::Filter).unwrap(),
    ] {
        testkit::check_filter(&component, &json!({ "containing": "head" })).assert();
    }
}
