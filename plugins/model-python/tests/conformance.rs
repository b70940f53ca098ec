//! Classes in Python keep the contract, driven through the boundary as the host does it.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use plugin_testkit as testkit;
use serde_json::{Value, json};
use test_support::python;

/// The examples that come with the project.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/python");

fn config(script: &str, class: &str, keys: Value) -> Value {
    let mut config = json!({ "script": format!("{EXAMPLES}/{script}"), "class": class });
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    config
}

/// Runs a test of this file with an interpreter that has NumPy.
fn with_python(test: &str) {
    let Some(python) = python() else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    let told = command.args(["--exact", "--ignored", test]).env("FEDPLUG_PYTHON", python).output().unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success() && said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn classes_of_all_kinds_conform() {
    with_python("model");
    with_python("others");
}

#[test]
#[ignore = "for the test above"]
fn model() {
    for keys in [json!({ "learning-rate": 0.5, "hidden-size": 3 }), json!({ "shared-memory": false })] {
        let config = config("composition.py", "Composition", keys);
        testkit::check_model(&model_python::model(), &config, &testkit::tasks(&["tm", "binding"])).assert();
    }
}

#[test]
#[ignore = "for the test above"]
fn others() {
    let counts = config("counts.py", "Counts", json!({ "rows": 10 }));
    testkit::check_dataset(&model_python::dataset(), &counts).assert();
    let median = config("methods.py", "Median", json!({}));
    testkit::check_aggregator(&model_python::aggregator(), &median).assert();
    let clip = config("methods.py", "Clip", json!({ "most": 0.5 }));
    testkit::check_filter(&model_python::filter(), &clip).assert();
}
