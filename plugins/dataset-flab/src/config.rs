//! The keys of the dataset's table.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use fedplug_tables::DecimalMark;
pub(crate) use fedplug_tables::Standardise;
pub use fedplug_tables::{Classes, GroupBy, Sites, TaskPer};
use plugin_api::JsonSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};

use crate::chains::Chains;
use crate::file_patterns::Patterns;

/// FLAb's task folders, in the order that numbers the tasks.
pub const TASKS: [&str; 6] = ["aggregation", "binding", "expression", "immunogenicity", "polyreactivity", "tm"];

/// The keys of the dataset's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The folder with one folder of CSV files for each task, or with data prepared from such a folder; relative to the
    /// experiment's file.
    #[schemars(extend("format" = "path"))]
    pub root: PathBuf,
    /// The tasks, by the names of their folders; by default FLAb's six. `tm` is also found as `thermostability`.
    #[serde(default = "all_tasks", deserialize_with = "tasks")]
    pub tasks: Vec<String>,
    /// Which files form a task: `folder`, all files of a folder together, or `file`, each file on its own. A file is one
    /// assay in one unit, so if a folder mixes assays, `file` gives each its own head, metrics and, with `standardise`,
    /// scale. Such a task is named `FOLDER-STEM` after its file, as `aggregation-CST_HIC`. The files of a folder are split
    /// together: with `split = "random"` a sequence that is for testing in one of them is for testing in all.
    #[serde(default)]
    pub task_per: TaskPer,
    /// The files to read, as glob patterns such as `*_HIC.csv`; by default all files of a folder. A pattern matches the
    /// names in each task's folder or, if it has a `/`, `FOLDER/NAME`.
    pub files: Option<Patterns>,
    /// The files not to read, as such patterns.
    pub exclude: Option<Patterns>,
    /// The column that is predicted: numbers, or classes with `classes`.
    #[serde(default = "fitness")]
    pub target: String,
    /// Whether the target is a class and not a number. A list, such as `["no", "yes"]`: these classes, in this order; another
    /// one in a file is an error. `true`: the texts that occur in the files of the task's folder, sorted. Of two classes, the
    /// second is the positive one. Clients at sites of their own must have the same classes, so list them there.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub classes: Classes,
    /// The clients, and which rows each has.
    #[serde(default)]
    #[schemars(extend("default" = "by-task"))]
    pub clients: Clients,
    /// How rows are divided into training and test rows; `random` by default. Prepared data is already split: this key,
    /// `group-by`, `test-fraction` and `seed` then have no effect, and a warning says so; `folds` is an error.
    pub split: Option<SplitMethod>,
    /// Which rows of a task a random split keeps on one side: `sequence`, the default, those with the same heavy and light
    /// chain; `none`, so that an antibody may be in training and in test rows; or `{ identity = 0.9 }`, those whose chains
    /// together have at least this identity. With `clients = { count, alpha }`, training rows of one group may be at several
    /// clients, but none is among the test rows, which all clients share.
    pub group_by: Option<GroupBy>,
    /// The fraction of a task's rows that are test rows, met as closely as groups allow; 0.2 by default.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_fraction: Option<f64>,
    /// For cross-validation, in place of `test-fraction`: the number of folds. Each group of rows is for testing in one of
    /// them, which have about the same size for each task. `fold` chooses one; `fedplug run --folds 5` runs all.
    #[schemars(range(min = 2))]
    pub folds: Option<usize>,
    /// The fold whose rows are the test rows, from 0. The same seed gives the same folds.
    pub fold: Option<usize>,
    /// The fraction of the training rows that are for validation: no model trains on them, and the best model and early
    /// stopping go by them instead of by the test rows, so that these measure a model that was not chosen by them. None by
    /// default. They are held out as test rows are, by groups of `group-by`, also of prepared data and of the published split; the test rows stay the same.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub validation_fraction: Option<f64>,
    /// The seed of the split; by default derived from the experiment's seed, or 42 for `split = "reference"`.
    pub seed: Option<u64>,
    /// Whether each task's targets are turned into standard scores, so that tasks of any unit have the same weight. `true`: with
    /// the mean and standard deviation of its training rows at all clients together, which the run's files show. In a
    /// federation of real sites this takes one more sum over them. `{ mean = 60.0, deviation = 10.0 }`, or such a table for
    /// each task by name: with numbers known beforehand, so that no statistic of the data is computed, the private choice.
    /// Errors are then in standard deviations; predictions are in the target's own unit.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub standardise: Standardise,
    /// The chains to read. `"paired"`, the default, needs both; `"heavy"` and `"light"` read one, as for nanobodies; `"any"`
    /// reads all that a row has. `split = "reference"` needs pairs.
    #[serde(default)]
    pub chains: Chains,
    /// The column separator, one character; `,` by default. Files named `.tsv` or `.tab` always have tabs.
    #[serde(default = "comma", deserialize_with = "fedplug_tables::deserialize_delimiter")]
    #[schemars(with = "char", default = "comma_character")]
    pub delimiter: u8,
    /// The decimal mark, `"."` (default) or `","`. Thousands separators are not supported.
    #[serde(default)]
    pub decimal: DecimalMark,
    /// The maximum number of training rows for each task and client, and of test rows for each task, chosen at
    /// random. Default: all.
    pub max_samples: Option<NonZeroUsize>,
    /// The names of columns in a file of rows for prediction, where they differ: `{ heavy = "VH" }`. For a single file, use
    /// `fedplug predict --column heavy=VH`.
    #[serde(default)]
    pub predict_columns: BTreeMap<String, String>,
}

/// The clients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Clients {
    /// One client for each task, named after it.
    #[default]
    ByTask,
    /// A number of clients that have all tasks.
    Sites(Sites),
}

/// How rows are divided into training and test rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplitMethod {
    /// At random; every usable row is used exactly once. Unusable rows are removed before the split.
    #[default]
    Random,
    /// As the published preparation does with NumPy and scikit-learn: the same rows in the same order; some rows belong to no
    /// client. Unusable rows, including those of files without the target, are removed after the split. Antibodies that were
    /// measured more than once may be in training and in test rows.
    Reference,
}

impl Config {
    /// [`Self::group_by`] or its default.
    pub(crate) fn group_by(&self) -> GroupBy {
        self.group_by.unwrap_or_default()
    }

    /// [`Self::split`] or its default.
    pub(crate) fn split(&self) -> SplitMethod {
        self.split.unwrap_or_default()
    }

    /// The sites; `None` if each task is a client.
    pub(crate) fn sites(&self) -> Option<Sites> {
        match self.clients {
            Clients::ByTask => None,
            Clients::Sites(sites) => Some(sites),
        }
    }
}

fn comma() -> u8 {
    b','
}

/// The default for the schema, as it is written in a file.
fn comma_character() -> char {
    ','
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
            return Err(D::Error::custom(format_args!("`{task}` is listed twice")));
        }
    }
    Ok(tasks)
}

// Not derived: an untagged enum would only say that nothing matched, and not which key is wrong.
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

    fn problems(mut keys: Value) -> Vec<String> {
        keys.as_object_mut().unwrap().entry("root").or_insert("data".into());
        let problems = plugin_api::config::problems::<Config>(&keys);
        problems.iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect()
    }

    #[test]
    fn only_the_root_is_required() {
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
    fn invalid_values_are_reported_with_their_keys() {
        assert_eq!(problems(json!({ "clients": "by-tusk" })), ["clients: unknown value `by-tusk`"]);
        let expected = "clients: must be `\"by-task\"` or a table, not the whole number `6`";
        assert_eq!(problems(json!({ "clients": 6 })), [expected]);
        assert_eq!(problems(json!({ "clients": { "count": 6 } })), ["clients: `alpha` is missing"]);
        let count = problems(json!({ "clients": { "count": 0, "alpha": 1.0 } }));
        assert_eq!(count, ["clients.count: must be at least 1 and at most 1000000, not 0"]);
        let alpha = problems(json!({ "clients": { "count": 2, "alpha": 0.0, "alfa": 1 } }));
        for line in
            ["clients.alpha: must be at least 1e-6 and at most 1000000, not 0", "clients.alfa: unknown key `alfa`"]
        {
            assert!(alpha.iter().any(|problem| problem == line), "no `{line}` in {alpha:?}");
        }
        let both = problems(json!({ "test-fraction": 1.0, "tasks": [] }));
        assert!(both.contains(&"test-fraction: must be more than 0 and less than 1, not 1".to_owned()), "{both:?}");
        assert!(both.contains(&"tasks: an experiment needs at least one task".to_owned()), "{both:?}");
        assert_eq!(problems(json!({ "tasks": ["tm", "tm"] })), ["tasks: `tm` is listed twice"]);
        assert_eq!(problems(json!({ "tasks": ["../tm"] })), ["tasks: `../tm` is not the name of a folder in `root`"]);
        assert_eq!(problems(json!({ "max-samples": 0 })), ["max-samples: must be at least 1, not 0"]);
    }
}
