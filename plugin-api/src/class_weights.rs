//! How much the rows of each class count in training.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result, TaskSpec};

/// How much the rows of each class count in training: a value for a model's configuration, `"balanced"` or a table such as
/// `{ yes = 5.0 }`.
///
/// A batch's loss is then `Σ wᵢ lossᵢ / Σ wᵢ`, as in PyTorch and scikit-learn. Metrics never weigh rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged, rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Each class counts as much as every other one at the client: `rows / (classes · rows of the class)`.
    #[serde(serialize_with = "balanced")]
    Balanced,
    /// The weight of each class by its name; 1 for those that are not listed.
    Given(BTreeMap<String, f64>),
}

fn balanced<S: serde::Serializer>(serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str("balanced")
}

impl ClassWeights {
    /// The weight of each class of a task, given the classes of the client's training rows.
    pub fn of(&self, spec: &TaskSpec, rows: &[usize]) -> Vec<f32> {
        let classes = spec.target_kind.classes().unwrap_or_default();
        let weight = |(class, name): (usize, &String)| match self {
            Self::Balanced => {
                let own = rows.iter().filter(|&&row| row == class).count().max(1);
                (rows.len() as f64 / (classes.len() * own) as f64) as f32
            }
            Self::Given(weights) => weights.get(name).map_or(1.0, |weight| *weight as f32),
        };
        classes.iter().enumerate().map(weight).collect()
    }

    /// Checks that the weights are those of classes of the tasks.
    ///
    /// # Errors
    /// If no task has classes, or a weight is listed for a class that does not exist.
    pub fn check(&self, tasks: &[TaskSpec]) -> Result<()> {
        let classes: Vec<&String> = tasks.iter().filter_map(|task| task.target_kind.classes()).flatten().collect();
        if classes.is_empty() && !tasks.is_empty() {
            return Err(Error::config("the targets are numbers, not classes"));
        }
        let Self::Given(weights) = self else { return Ok(()) };
        match weights.keys().find(|name| !classes.contains(name)) {
            Some(name) if !classes.is_empty() => {
                let known: Vec<String> = classes.iter().map(|class| format!("`{class}`")).collect();
                Err(Error::config(format!("there is no class `{name}`"))
                    .help(format!("there are {}", known.join(", "))))
            }
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Word(String),
            Given(BTreeMap<String, f64>),
        }
        const FORMS: &str = "`\"balanced\"` or a table of weights, `{ yes = 5.0, no = 1.0 }`";
        let wrong = || de::Error::custom(format_args!("must be {FORMS}"));
        match Form::deserialize(deserializer).map_err(|_| wrong())? {
            Form::Word(word) if word == "balanced" => Ok(Self::Balanced),
            Form::Word(_) => Err(wrong()),
            Form::Given(weights) => match weights.iter().find(|(_, weight)| !(weight.is_finite() && **weight > 0.0)) {
                Some((class, weight)) => {
                    Err(de::Error::custom(format_args!("the weight of `{class}` must be above 0, not {weight}")))
                }
                None => Ok(Self::Given(weights)),
            },
        }
    }
}

impl JsonSchema for ClassWeights {
    fn schema_name() -> Cow<'static, str> {
        "ClassWeights".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "const": "balanced", "description": "Each class counts as much as every other one at the client." },
                {
                    "type": "object",
                    "description": "The weight of each class by its name; 1 for those that are not listed.",
                    "additionalProperties": { "type": "number", "exclusiveMinimum": 0 }
                },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetKind;

    #[test]
    fn weights_are_balanced_or_given() {
        let read = |text: &str| serde_json::from_str::<ClassWeights>(text).map_err(|e| e.to_string());
        let target_kind = TargetKind::Class(["no", "yes", "maybe"].map(str::to_owned).to_vec());
        let spec = TaskSpec { target_kind, ..TaskSpec::new("t", ["x"], "y") };
        // As scikit-learn's `compute_class_weight`, with all classes: 8 / (3 · count). A class without rows counts as one row.
        let rows = [0, 0, 0, 0, 0, 0, 1, 1];
        let wanted = [8.0 / 18.0, 8.0 / 6.0, 8.0 / 3.0].map(|weight: f64| weight as f32);
        assert_eq!(read("\"balanced\"").unwrap().of(&spec, &rows), wanted);
        let given = read("{\"yes\": 5}").unwrap();
        assert_eq!(given.of(&spec, &rows), [1.0, 5.0, 1.0]);
        assert!(given.check(std::slice::from_ref(&spec)).is_ok() && given.check(&[]).is_ok());
        let error = read("{\"yse\": 5}").unwrap().check(std::slice::from_ref(&spec)).unwrap_err();
        assert_eq!(
            (error.message(), error.hint()),
            ("there is no class `yse`", Some("there are `no`, `yes`, `maybe`"))
        );
        let error = given.check(&[TaskSpec::new("t", ["x"], "y")]).unwrap_err();
        assert_eq!(error.message(), "the targets are numbers, not classes");
        assert!(read("{\"yes\": 0}").unwrap_err().contains("the weight of `yes` must be above 0, not 0"));
        assert!(read("\"blanced\"").unwrap_err().contains("must be `\"balanced\"` or a table of weights"));
        for text in ["\"balanced\"", "{\"yes\":5.0}"] {
            assert_eq!(serde_json::to_string(&read(text).unwrap()).unwrap(), text);
        }
    }
}
