//! The table's keys.

use plugin_api::config::{problems, read};
use serde_json::json;

use super::*;

#[test]
fn every_bad_value_is_named_with_its_key() {
    let found = problems::<Config>(&json!({
        "mechanism": "gaussian", "clip": 0, "noise-multiplier": -1, "delta": 1, "fraction": 0,
        "epsilon": "much", "noise-var": 0, "gamma": -1, "tau": -1, "percentile": 101, "reproducible": 1, "sigma": 2,
    }));
    let found: Vec<(String, String)> =
        found.into_iter().map(|problem| (problem.path.join("."), problem.message)).collect();
    for (key, part) in [
        ("clip", "must be more than 0, not 0"),
        ("noise-multiplier", "must be at least 0, not -1"),
        ("delta", "must be more than 0 and less than 1, not 1"),
        ("fraction", "must be more than 0 and at most 1, not 0"),
        ("epsilon", "must be a number, not the text `much`"),
        ("noise-var", "must be more than 0, not 0"),
        ("gamma", "must be more than 0, not -1"),
        ("tau", "must be at least 0, not -1"),
        ("percentile", "must be at least 0 and at most 100, not 101"),
        ("reproducible", "must be true or false"),
        ("sigma", "unknown key"),
    ] {
        assert!(found.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {found:#?}");
    }
    let unknown = read::<Config>(&json!({ "mechanism": "laplace" })).unwrap_err();
    assert_eq!(unknown[0].known, ["gaussian", "sparse-vector", "percentile"]);
    assert_eq!(read::<Config>(&json!({})).unwrap_err()[0].message, "`mechanism` is missing");
}

#[test]
fn a_missing_key_and_one_of_another_mechanism_are_told() {
    let told = |config: Value| privacy(config).err().unwrap();
    assert_eq!(
        told(json!({ "mechanism": "gaussian", "clip": 1.0, "delta": 1e-5 })).to_string(),
        "`mechanism`: `gaussian` needs the key `noise-multiplier`"
    );
    let error = told(json!({ "mechanism": "percentile", "percentile": 90, "gamma": 1.0, "clip": 1.0 }));
    assert_eq!(error.to_string(), "`clip`: is not a key of the mechanism `percentile`");
    assert_eq!(error.hint(), Some("`percentile` uses `percentile`, `gamma`"));
    let error = told(json!({ "mechanism": "percentile", "percentile": 90, "gamma": 1.0, "reproducible": true }));
    assert_eq!(error.to_string(), "`reproducible`: is not a key of the mechanism `percentile`");
    for (mechanism, first) in [("gaussian", "clip"), ("sparse-vector", "fraction"), ("percentile", "percentile")] {
        let told = told(json!({ "mechanism": mechanism })).to_string();
        assert_eq!(told, format!("`mechanism`: `{mechanism}` needs the key `{first}`"));
    }
}

#[test]
fn every_key_has_a_description_in_the_schema() {
    let schema = schemars::schema_for!(Config).to_value();
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 15);
    for (key, property) in properties {
        assert!(property["description"].is_string(), "{key}");
    }
}

#[test]
fn a_position_that_no_update_passes_is_refused() {
    let config = json!({ "mechanism": "gaussian", "clip": 1.0, "noise-multiplier": 1.0, "delta": 1e-5 });
    for (position, refused) in
        [("client-output", false), ("server-input", false), ("server-output", true), ("client-input", true)]
    {
        let host = Recorder { position: Some(position), ..Recorder::default() };
        let made = Privacy::new(read(&config).unwrap(), &Context::new(&host));
        assert_eq!(made.is_err(), refused, "{position}");
        if let Err(error) = made {
            let told = format!("`at`: protects nothing at `{position}`, where no client's update passes");
            assert_eq!(error.to_string(), told);
        }
    }
}
