//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit::{self as testkit, DatasetCheck};
use serde_json::json;

#[test]
fn conforms() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/sample");
    let rows = format!("{root}/tm/synthetic.csv");
    for component in [dataset_csv::component(), testkit::load(testkit::built("dataset-csv"), Kind::Dataset).unwrap()] {
        for clients in [json!({ "pattern": format!("{root}/{{client}}/*.csv") }), json!({ "count": 3, "alpha": 0.5 })] {
            let mut config = json!({ "inputs": ["heavy", "light"], "target": "fitness", "clients": clients });
            if clients.get("count").is_some() {
                config["files"] = json!([rows]);
            }
            DatasetCheck::new(&component, &config).with_rows(&rows).check().assert();
            config.as_object_mut().unwrap().remove("target");
            config["name"] = json!("antibodies");
            DatasetCheck::new(&component, &config).with_rows(&rows).check().assert();
        }
    }
}
