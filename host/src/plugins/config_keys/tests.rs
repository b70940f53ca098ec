//! Keys of a made-up table.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

/// A table with one key of every sort.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is read")]
struct Config {
    /// What it is called,
    /// in letters.
    ///
    /// And more.
    name: String,
    #[serde(default)]
    method: Method,
    layers: Vec<Layer>,
    #[schemars(range(min = 0.0, max = 1.0))]
    share: Option<f64>,
    weights: BTreeMap<String, f32>,
    from: Source,
    #[serde(default)]
    on: bool,
}

#[derive(Default, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// Quick.
    #[default]
    Fast,
    /// Sure.
    Exact,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "as above")]
struct Layer {
    /// How wide.
    size: NonZeroUsize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "as above")]
enum Source {
    Path(String),
    New { seed: u32 },
}

#[test]
fn every_sort_of_key_is_told() {
    let keys = keys(&schemars::schema_for!(Config).to_value());
    let told: Vec<String> = keys
        .iter()
        .map(|key| {
            let default = key.default.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
            format!("{}{}{default}: {}", key.name, if key.required { "!" } else { "" }, key.takes)
        })
        .collect();
    let wanted = [
        "name!: text",
        "method = \"fast\": \"fast\" or \"exact\"",
        "layers!: list of table",
        "layers[].size!: whole number from 1",
        "share: number from 0.0 to 1.0",
        "weights!: table of number",
        "from!: text or table",
        "from.seed!: whole number from 0",
        "on = false: true or false",
    ];
    assert_eq!(told, wanted);
    assert_eq!(keys[0].about, "What it is called, in letters.\nAnd more.");
    assert_eq!(
        keys[1].words,
        [("\"fast\"", "Quick."), ("\"exact\"", "Sure.")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
}

#[test]
fn a_schema_that_contains_itself_comes_to_an_end() {
    let tree = serde_json::json!({ "type": "object", "properties": { "left": { "$ref": "#" } } });
    let names: Vec<String> = keys(&tree).into_iter().map(|key| key.name).collect();
    assert_eq!(names[..2], ["left", "left.left"]);
    assert_eq!(names.len(), DEPTH + 1, "{names:?}");
    let circle = serde_json::json!({ "properties": { "a": { "$ref": "#/$defs/A" } }, "$defs": { "A": { "$ref": "#/$defs/A" } } });
    assert_eq!(keys(&circle)[0].takes, "anything");
}
