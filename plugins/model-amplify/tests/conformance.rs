//! The contract's checks, in process and on the built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn the_component_and_its_library_pass_check_model() {
    let trunk = json!({ "hidden-size": 16, "layers": 2, "heads": 2, "intermediate-size": 24 });
    let base = json!({ "pretrained": trunk, "layer-sizes": [8], "batch-size": 4 });
    for component in [model_amplify::component(), testkit::load(testkit::built("model-amplify"), Kind::Model).unwrap()]
    {
        for (key, value) in [
            ("dropout", json!(0.1)),
            ("scaffold", json!(true)),
            ("ditto-lambda", json!(0.5)),
            ("proximal-mu", json!(0.1)),
            ("frozen-trunk", json!(true)),
            ("lora", json!({})),
            ("objective", json!("masked-lm")),
        ] {
            let mut config = base.clone();
            config[key] = value;
            testkit::check_model(&component, &config, &testkit::tasks(&["tm", "binding"])).assert();
        }
    }
}

/// So that a copy of the plugin beside libtorch's libraries runs on another machine.
#[cfg(target_os = "linux")]
#[test]
fn the_library_looks_for_libtorch_beside_itself() {
    let library = std::fs::read(testkit::built("model-amplify")).unwrap();
    // The run path is stored as text, and the folder of the build comes after it.
    assert!(library.windows(9).any(|text| text == b"$ORIGIN:/"), "no `$ORIGIN` at the start of the run path");
}
