//! The keys of the dataset's table.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use fedplug_tables::Sites;
use plugin_api::JsonSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};

/// FLAb's task folders, in the order that numbers the tasks.
pub const TASKS: [&str; 6] = ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"];

/// The keys of the dataset's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The folder that holds one folder of CSV files for each task, or what was prepared of such a folder; relative to
    /// the current directory.
    pub root: PathBuf,
    /// The tasks, by their folders' names; FLAb's six if not given. `tm` is also found as `thermostability`.
    #[serde(default = "all_tasks", deserialize_with = "tasks")]
    pub tasks: Vec<String>,
    /// The column that is predicted.
    #[serde(default = "fitness")]
    pub target: String,
    /// Which clients there are, and which rows each has.
    #[serde(default)]
    pub clients: Clients,
    /// How rows are told apart for training and testing; `random` if not given. Prepared data is split already: there,
    /// this key and the next two have no influence, and a warning says so.
    pub split: Option<Split>,
    /// The part of a task's rows that is kept for testing; 0.2 if not given.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_fraction: Option<f64>,
    /// The seed of the split; if not given, derived from the experiment's, or 42 for `split = "reference"`.
    pub seed: Option<u64>,
    /// Whether each task's targets are turned into standard scores, by mean and standard deviation of its rows to train
    /// on at all clients together. Errors and predictions are then in standard deviations, and tasks of any unit weigh
    /// alike. In a federation of real sites it takes one more sum over them.
    #[serde(default)]
    pub standardise: bool,
    /// At most so many random rows to train on for each task and client, and as many to test on for each task.
    pub max_samples: Option<NonZeroUsize>,
}

/// Which clients there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clients {
    /// One client for each task, named after it.
    #[default]
    ByTask,
    /// So many clients with all tasks.
    Sites(Sites),
}

/// How rows are told apart for training and testing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// At random, so that every row has one place. Rows that cannot be used are left out before.
    #[default]
    Random,
    /// As the published preparation does with NumPy and scikit-learn: the same rows in the same order, and some rows
    /// that no client gets. Rows that cannot be used are left out afterwards.
    Reference,
}

impl Config {
    /// How rows are told apart.
    pub(crate) fn split(&self) -> Split {
        self.split.unwrap_or_default()
    }

    /// The sites; none where each task is a client.
    pub(crate) fn sites(&self) -> Option<Sites> {
        match self.clients {
            Clients::ByTask => None,
            Clients::Sites(sites) => Some(sites),
        }
    }
}

fn all_tasks() -> Vec<String> {
    TASKS.map(str::to_owned).to_vec()
}

fn fitness() -> String {
    "fitness".to_owned()
}

fn tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let tasks = Vec::<String>::deserialize(deserializer)?;
    if tasks.is_empty() {
        return Err(D::Error::custom("an experiment needs at least one task"));
    }
    for (i, task) in tasks.iter().enumerate() {
        if task.is_empty() || task.starts_with('.') || task.contains(['/', '\\']) {
            return Err(D::Error::custom(format_args!("`{task}` is not the name of a folder in `root`")));
        }
        if tasks[..i].contains(task) {
            return Err(D::Error::custom(format_args!("`{task}` stands here twice")));
        }
    }
    Ok(tasks)
}

// By hand, since an untagged enum would only say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for Clients {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Clients;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"by-task\"` or a table `{ count = 6, alpha = 1.0 }`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Clients, E> {
                if word == "by-task" { Ok(Clients::ByTask) } else { Err(E::unknown_variant(word, &["by-task"])) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clients, A::Error> {
                Sites::deserialize(MapAccessDeserializer::new(map)).map(Clients::Sites)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Clients {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Clients".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "const": "by-task", "description": "One client for each task, named after it." },
                generator.subschema_for::<Sites>(),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::config::read;
    use serde_json::{Value, json};

    fn told(mut more: Value) -> Vec<String> {
        more.as_object_mut().unwrap().entry("root").or_insert("data".into());
        let problems = plugin_api::config::problems::<Config>(&more);
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    }

    #[test]
    fn only_the_root_is_needed() {
        let config: Config = read(&json!({ "root": "data" })).unwrap();
        assert_eq!((config.tasks, config.clients, config.split), (all_tasks(), Clients::ByTask, None));
    }

    #[test]
    fn both_kinds_of_clients_are_read() {
        let clients = |value| read::<Config>(&json!({ "root": "data", "clients": value })).unwrap().clients;
        assert_eq!(clients(json!("by-task")), Clients::ByTask);
        let sites = Sites { count: NonZeroUsize::new(6).unwrap(), alpha: 1.0 };
        assert_eq!(clients(json!({ "count": 6, "alpha": 1 })), Clients::Sites(sites));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        assert_eq!(told(json!({ "clients": "by-tusk" })), ["clients: unknown value `by-tusk`"]);
        let expected = "clients: must be `\"by-task\"` or a table, not the whole number `6`";
        assert_eq!(told(json!({ "clients": 6 })), [expected]);
        assert_eq!(told(json!({ "clients": { "count": 6 } })), ["clients: `alpha` is missing"]);
        let count = told(json!({ "clients": { "count": 0, "alpha": 1.0 } }));
        assert_eq!(count, ["clients.count: must be at least 1, not 0"]);
        let alpha = told(json!({ "clients": { "count": 2, "alpha": 0.0, "alfa": 1 } }));
        for line in
            ["clients.alpha: must be at least 1e-6 and at most 1000000, not 0", "clients.alfa: unknown key `alfa`"]
        {
            assert!(alpha.iter().any(|told| told == line), "no `{line}` in {alpha:?}");
        }
        let both = told(json!({ "test-fraction": 1.0, "tasks": [] }));
        assert!(both.contains(&"test-fraction: must be more than 0 and less than 1, not 1".to_owned()), "{both:?}");
        assert!(both.contains(&"tasks: an experiment needs at least one task".to_owned()), "{both:?}");
        assert_eq!(told(json!({ "tasks": ["tm", "tm"] })), ["tasks: `tm` stands here twice"]);
        assert_eq!(told(json!({ "tasks": ["../tm"] })), ["tasks: `../tm` is not the name of a folder in `root`"]);
        assert_eq!(told(json!({ "max-samples": 0 })), ["max-samples: must be at least 1, not 0"]);
    }
}
