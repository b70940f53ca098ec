//! The plugin keeps the contract, in process and as a built library.
#![allow(clippy::unwrap_used)]

use plugin_api::Kind;
use plugin_testkit as testkit;
use serde_json::json;

#[test]
fn conforms() {
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
        ] {
            let mut config = base.clone();
            config[key] = value;
            testkit::check_model(&component, &config, &testkit::tasks(&["tm", "binding"])).assert();
        }
    }
}
