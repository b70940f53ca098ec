//! What a plugin says about itself and its components.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A description of a plugin's library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The package name.
    pub package: String,
    /// The package version.
    pub version: String,
    /// The package's authors.
    pub authors: String,
    /// The package's licence.
    pub license: String,
    /// The version of plugin-api that it was built with.
    pub interface: String,
    /// How it was built: `debug` or `release`, and the target machine.
    pub build: String,
}

/// The kind of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A [`Model`](crate::Model).
    Model,
    /// A [`Dataset`](crate::Dataset).
    Dataset,
    /// An [`Aggregator`](crate::Aggregator).
    Aggregator,
    /// A [`Filter`](crate::Filter).
    Filter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Aggregator => "aggregator",
            Self::Filter => "filter",
        })
    }
}

/// When a model learns from the inputs alone, whether tasks have targets or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithoutTargets {
    /// The keys and values of the model's table under which it does.
    pub when: Map<String, Value>,
    /// What the score of its evaluations measures then.
    pub score: String,
}

/// A component's description, available without creating one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its kind.
    pub kind: Kind,
    /// The name that experiments use for it.
    pub name: String,
    /// A one-line description.
    pub about: String,
    /// The JSON Schema of its configuration.
    pub schema: Value,
    /// The key of its table, if any, whose value decides which other keys exist. See
    /// [`Component::schema_by`](crate::Component::schema_by).
    #[serde(default)]
    pub schema_by: Option<String>,
    /// For a model: what the [score](crate::Evaluation::score) of its evaluations measures, as tables and logs name it.
    #[serde(default)]
    pub score: Option<String>,
    /// For a model that learns classes: what the score of their evaluations measures. Absent if it cannot learn them.
    #[serde(default)]
    pub class_score: Option<String>,
    /// For a model that can learn from the inputs alone: when it does, and what the score of its evaluations measures then.
    #[serde(default)]
    pub without_targets: Option<WithoutTargets>,
    /// For a model: the keys and values of its table under which what it has learnt after a round does not depend on
    /// the number of [rounds](crate::ModelSetup::rounds) in the run. Then an interrupted run may be resumed with more rounds.
    /// Empty if this always holds; `None` if it never does.
    #[serde(default)]
    pub extendable: Option<Map<String, Value>>,
    /// For an aggregator: whether a round without updates counts, for example because noise is added whoever takes
    /// part. If so, the host begins and finishes a round even if the draw selects no client. If not, such a round
    /// leaves the global model unchanged.
    #[serde(default)]
    pub empty_rounds: bool,
}

impl Profile {
    /// For a model: what the score measures if the model learns from the inputs alone with this table.
    pub fn score_without_targets(&self, table: &Value) -> Option<&str> {
        let WithoutTargets { when, score } = self.without_targets.as_ref()?;
        self.first_unmet(when, table).is_none().then_some(score)
    }

    /// The first of these keys whose value in a table, or by default in the schema, is another one, and that value.
    pub fn first_unmet<'a>(
        &'a self,
        conditions: &'a Map<String, Value>,
        table: &'a Value,
    ) -> Option<(&'a str, &'a Value, &'a Value)> {
        let default = |key: &str| self.schema.get("properties")?.get(key)?.get("default");
        let given = |key: &str| table.get(key).or_else(|| default(key)).unwrap_or(&Value::Null);
        let mut unmet = conditions.iter().filter(|(key, wanted)| given(key) != *wanted);
        unmet.next().map(|(key, wanted)| (key.as_str(), wanted, given(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plugin that was built before the flag existed does not send it.
    #[test]
    fn a_round_without_updates_counts_only_where_the_aggregator_says_so() {
        let told = |profile: Value| serde_json::from_value::<Profile>(profile).unwrap().empty_rounds;
        let mut profile = serde_json::json!({"kind": "aggregator", "name": "a", "about": "", "schema": {}});
        assert!(!told(profile.clone()));
        profile["empty_rounds"] = true.into();
        assert!(told(profile));
    }

    #[test]
    fn a_model_learns_without_targets_if_its_table_says_so() {
        let profile = |default: &str| -> Profile {
            let schema = serde_json::json!({ "properties": { "objective": { "default": default } } });
            serde_json::from_value(serde_json::json!({
                "kind": "model", "name": "m", "about": "", "schema": schema,
                "without_targets": { "when": { "objective": "inputs" }, "score": "-loss" },
            }))
            .unwrap()
        };
        let table = |objective: &str| serde_json::json!({ "objective": objective });
        let usual = profile("targets");
        assert_eq!(usual.score_without_targets(&table("inputs")), Some("-loss"));
        assert_eq!(usual.score_without_targets(&table("targets")), None);
        assert_eq!(usual.score_without_targets(&serde_json::json!({})), None);
        assert_eq!(profile("inputs").score_without_targets(&serde_json::json!({})), Some("-loss"));
    }
}
