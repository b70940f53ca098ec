//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, DatasetCheck};
use serde_json::json;

#[test]
fn conforms() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/sample");
    for component in [dataset_flab::component(), testkit::load(testkit::built("dataset-flab"), Kind::Dataset).unwrap()]
    {
        for config in [
            json!({ "root": root }),
            json!({ "root": root, "clients": { "count": 3, "alpha": 0.5 }, "max-samples": 20 }),
            json!({ "root": root, "split": "reference", "test-fraction": 0.3, "tasks": ["tm", "binding"] }),
        ] {
            DatasetCheck::new(&component, &config).with_rows(format!("{root}/tm/synthetic.csv")).check().assert();
        }
    }
}
