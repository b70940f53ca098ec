//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
    for component in [model_linear::component(), testkit::load(testkit::built("model-linear"), Kind::Model).unwrap()] {
        for config in [
            json!({}),
            json!({ "learning-rate": 0.1, "batch-size": 5, "hidden-size": 3 }),
            json!({ "method": "ridge", "features": "one-hot", "positions": [200, 200] }),
            json!({ "method": "pooled-ridge" }),
            json!({ "method": "mean" }),
        ] {
            testkit::check_model(&component, &config, &testkit::tasks(&["tm", "binding"])).assert();
        }
    }
}
