//! The table's keys.

use plugin_api::config::{problems, read};

use super::*;

#[test]
fn every_bad_value_is_named_with_its_key() {
    let found = |config: Value| -> Vec<(String, String)> {
        let found = problems::<CentralConfig>(&config);
        found.into_iter().map(|problem| (problem.path.join("."), problem.message)).collect()
    };
    let all = found(json!({
        "clip": 0, "noise-multiplier": 1e4, "delta": 0, "noise": "laplace", "learning-rate": 0, "reproducible": 1, "sigma": 2,
    }));
    for (key, part) in [
        ("clip", "must be more than 0, not 0"),
        ("noise-multiplier", "must be at least 0 and at most 1000, not 10000"),
        ("delta", "must be more than 0 and less than 1, not 0"),
        ("noise", "laplace"),
        ("learning-rate", "must be more than 0, not 0"),
        ("reproducible", "must be true or false"),
        ("sigma", "unknown key"),
    ] {
        assert!(all.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {all:#?}");
    }
    let table = |clip: Value| found(json!({ "clip": clip, "noise-multiplier": 1.0, "delta": 1e-5 }));
    let all = table(json!({ "initial": 0, "quantile": 2, "count-noise": "much", "learning-rate": 0, "norm": 1 }));
    for (key, part) in [
        ("clip.initial", "must be more than 0, not 0"),
        ("clip.quantile", "must be at least 0 and at most 1, not 2"),
        ("clip.count-noise", "must be a number, not the text `much`"),
        ("clip.learning-rate", "must be more than 0, not 0"),
        ("clip.norm", "unknown key"),
    ] {
        assert!(all.iter().any(|(k, m)| k == key && m.contains(part)), "{key}: {part} in {all:#?}");
    }
    assert_eq!(table(json!({ "initial": 1.0 })), [("clip".to_owned(), "`count-noise` is missing".to_owned())]);
    assert_eq!(table(json!("much"))[0].0, "clip");
}

#[test]
fn a_norm_is_a_number_or_a_table() {
    let clip = |clip: Value| {
        read::<CentralConfig>(&json!({ "clip": clip, "noise-multiplier": 1, "delta": 1e-5 })).unwrap().clip
    };
    assert!(matches!(clip(json!(2)), Clip::Fixed(2.0)) && matches!(clip(json!(0.5)), Clip::Fixed(0.5)));
    let Clip::Adaptive(adapt) = clip(json!({ "initial": 0.1, "count-noise": 5 })) else { panic!("no table") };
    assert_eq!((adapt.initial, adapt.quantile, adapt.learning_rate, adapt.count_noise), (0.1, 0.5, 0.2, 5.0));
}

#[test]
fn noise_that_does_not_fit_together_is_refused() {
    let clip = json!({ "initial": 1.0, "count-noise": 0.5 });
    let error = central(json!({ "clip": clip })).err().unwrap();
    assert_eq!(error.to_string(), "`clip.count-noise`: the count of clients takes all of the noise multiplier of 1");
    let clip = json!({ "initial": 1.0, "count-noise": 1e7 });
    let error = central(json!({ "clip": clip })).err().unwrap();
    assert_eq!(error.to_string(), "`clip.count-noise`: noise of 20000000 times the clipping norm is too much");
}

#[test]
fn every_key_has_a_description_in_the_schema() {
    let schema = schemars::schema_for!(CentralConfig).to_value();
    let described = |properties: &Value, count: usize| {
        let properties = properties.as_object().unwrap();
        assert_eq!(properties.len(), count);
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{key}");
        }
    };
    described(&schema["properties"], 6);
    described(&schema["$defs"]["AdaptiveClip"]["properties"], 4);
}
