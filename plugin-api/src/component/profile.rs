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
}
