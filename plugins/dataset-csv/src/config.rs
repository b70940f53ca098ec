//! The keys of the dataset's table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use fedplug_tables::text::{is_missing, normalise_chain, trim_invisible};
use fedplug_tables::{Classes, DecimalMark, GroupBy, Sites, Standardise, TaskPer};
use plugin_api::JsonSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::pattern::{Pattern, Patterns};

/// The keys of the dataset's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The files: a path or a pattern such as `data/*.csv`, or a list of them, relative to the experiment's file. The files of
    /// a folder are sorted by name.
    pub files: Option<Patterns>,
    /// Files not to read, as `files`, though `files` or the clients' pattern matches them.
    pub exclude: Option<Patterns>,
    /// Which files form a task: `folder`, all files of a task together, or `file`, all files with the same name. A file is one
    /// assay in one unit, so if files are different assays, `file` gives each its own head, metrics and, with `standardise`,
    /// scale. Such a task has the name of its files without the extension, after `name` and a `-` if a name is given. All
    /// these tasks are split together: a sequence that is for testing in one of them is for testing in all.
    #[serde(default)]
    pub task_per: TaskPer,
    /// The files with the test rows, as `files`, which then has the training rows.
    pub test_files: Option<Patterns>,
    /// The text columns that a model reads.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// The number columns that a model reads, after the text columns.
    #[serde(default)]
    pub number_inputs: Vec<String>,
    /// The column to predict: numbers, or classes with `classes`. Without it, rows have inputs only, for models that learn
    /// from these alone; the task then needs a `name`.
    pub target: Option<String>,
    /// Whether the target is a class and not a number. A list, such as `["no", "yes"]`: these classes, in this order; another
    /// one in a file is an error. `true`: the texts that occur in the task's files, sorted. Of two classes, the second is the
    /// positive one. Clients at sites of their own must have the same classes, so list them there.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub classes: Classes,
    /// The name of the only task; by default that of the target, if there is one.
    pub name: Option<String>,
    /// Several tasks, in this order. The keys above are their defaults.
    #[serde(default, deserialize_with = "tasks")]
    pub task: Option<Vec<TaskTable>>,
    /// The clients.
    pub clients: Clients,
    /// Which rows a random split keeps on one side: `sequence`, the default, those with the same texts in `inputs`, or the
    /// same numbers if there are no texts; `none`, so that a sequence may be in training and in test rows; or
    /// `{ identity = 0.9 }`, those whose texts have at least this identity. If rows belong to clients, each client's rows are
    /// grouped on their own; otherwise no training row of any client is in a group of the test rows.
    pub group_by: Option<GroupBy>,
    /// The fraction of a client's rows that are test rows, met as closely as groups allow; 0.2 by default, unless the split is
    /// given.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_fraction: Option<f64>,
    /// For cross-validation, in place of `test-fraction`: the number of folds. Each group of rows is for testing in one of
    /// them, which have about the same size for each client and task. `fold` chooses one; `fedplug run --folds 5` runs all.
    #[schemars(range(min = 2))]
    pub folds: Option<usize>,
    /// The fold whose rows are the test rows, from 0. The same seed gives the same folds.
    pub fold: Option<usize>,
    /// The fraction of the training rows that are for validation: no model trains on them, and the best model and early
    /// stopping go by them instead of by the test rows, so that these measure a model that was not chosen by them. None by
    /// default. They are held out as test rows are, by groups of `group-by`, also of a given split; the test rows stay the same.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub validation_fraction: Option<f64>,
    /// The column with `train` or `test` for each row; `0`, `no` and `false` mean `train`, and `1`, `yes` and `true` mean
    /// `test`.
    pub test_column: Option<String>,
    /// The seed of the split; by default derived from the experiment's seed.
    pub seed: Option<u64>,
    /// Whether each task's targets are turned into standard scores, so that tasks of any unit have the same weight. `true`: with
    /// the mean and standard deviation of its training rows at all clients together, which the run's files show. In a
    /// federation of real sites this takes one more sum over them. `{ mean = 60.0, deviation = 10.0 }`, or such a table for
    /// each task by name: with numbers known beforehand, so that no statistic of the data is computed, the private choice.
    /// Errors are then in standard deviations; predictions are in the target's own unit.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub standardise: Standardise,
    /// The maximum number of training rows, and of test rows, for each task and client, chosen at random. Default: all.
    pub max_samples: Option<NonZeroUsize>,
    /// The column separator, one character; `,` by default. Files named `.tsv` or `.tab` always have tabs.
    #[serde(default = "comma", deserialize_with = "fedplug_tables::deserialize_delimiter")]
    #[schemars(with = "char", default = "comma_character")]
    pub delimiter: u8,
    /// The decimal mark, `"."` (default) or `","`. Thousands separators are not supported.
    #[serde(default)]
    pub decimal: DecimalMark,
    /// How text is read.
    #[serde(default)]
    pub text: Text,
    /// The names of columns in a file of rows for prediction, where they differ: `{ heavy = "VH" }`. For a single file, use
    /// `fedplug predict --column heavy=VH`.
    #[serde(default)]
    pub predict_columns: BTreeMap<String, String>,
}

impl Config {
    /// [`Self::group_by`] or its default.
    pub(crate) fn group_by(&self) -> GroupBy {
        self.group_by.unwrap_or_default()
    }
}

/// One of several tasks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskTable {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Option<Patterns>,
    /// Its files with the test rows.
    pub test_files: Option<Patterns>,
    /// The text columns that a model reads for it.
    pub inputs: Option<Vec<String>>,
    /// The number columns that a model reads for it.
    pub number_inputs: Option<Vec<String>>,
    /// The column to predict, if there is one.
    pub target: Option<String>,
    /// Whether the target is a class.
    pub classes: Option<Classes>,
}

/// How text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    /// As in the file, without white space and invisible characters at the ends.
    #[default]
    Plain,
    /// As a sequence of amino acids: in upper case, without white space and invisible characters. Letters other than the 20
    /// amino acids and `B` are reported.
    Sequence,
}

impl Text {
    /// The text of a field; `None` if the value is missing.
    pub(crate) fn of(self, field: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Plain if is_missing(field) => None,
            Self::Plain => Some(Cow::Borrowed(trim_invisible(field))),
            Self::Sequence => normalise_chain(field),
        }
    }
}

/// The clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Clients {
    /// One client for each task, named after it.
    ByTask,
    /// One client for each value of this column.
    Column(String),
    /// One client for each text that `{client}` matches in the path of a file.
    Pattern(Pattern),
    /// A number of clients that have all tasks.
    Sites(Sites),
}

/// The default for the schema, as it is written in a file.
fn comma_character() -> char {
    ','
}

fn comma() -> u8 {
    b','
}

fn tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<TaskTable>>, D::Error> {
    let tasks = Vec::<TaskTable>::deserialize(deserializer)?;
    if tasks.is_empty() { Err(D::Error::custom("an experiment needs at least one task")) } else { Ok(Some(tasks)) }
}

/// The table form of `clients`, with the keys of all variants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientsTable {
    column: Option<String>,
    pattern: Option<Pattern>,
    count: Option<NonZeroUsize>,
    alpha: Option<f64>,
}

const CLIENTS_FORMS: &str = "`\"by-task\"`, `{ column = \"hospital\" }`, `{ pattern = \"data/{client}/*.csv\" }` or \
                    `{ count = 6, alpha = 1.0 }`";

impl ClientsTable {
    fn into_clients<E: de::Error>(self) -> Result<Clients, E> {
        match self {
            Self { column: Some(column), pattern: None, count: None, alpha: None } => Ok(Clients::Column(column)),
            Self { column: None, pattern: Some(pattern), count: None, alpha: None } if pattern.names_clients() => {
                Ok(Clients::Pattern(pattern))
            }
            Self { column: None, pattern: Some(pattern), count: None, alpha: None } => {
                Err(E::custom(format_args!("`{pattern}` lacks `{{client}}`, the place of a client's name")))
            }
            Self { column: None, pattern: None, count: Some(count), alpha: Some(alpha) } => {
                Ok(Clients::Sites(Sites { count, alpha }))
            }
            Self { column: None, pattern: None, count: Some(_), alpha: None } => Err(E::missing_field("alpha")),
            Self { column: None, pattern: None, count: None, alpha: Some(_) } => Err(E::missing_field("count")),
            _ => Err(E::custom(format_args!("must be one of {CLIENTS_FORMS}"))),
        }
    }
}

// Not derived: an untagged enum would only say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for Clients {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Clients;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(CLIENTS_FORMS)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Clients, E> {
                if word == "by-task" { Ok(Clients::ByTask) } else { Err(E::unknown_variant(word, &["by-task"])) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clients, A::Error> {
                ClientsTable::deserialize(MapAccessDeserializer::new(map))?.into_clients()
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Clients {
    fn schema_name() -> Cow<'static, str> {
        "Clients".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, value: Schema| {
            json_schema!({
                "type": "object",
                "properties": { key: value },
                "required": [key],
                "additionalProperties": false,
            })
        };
        let column = json_schema!({ "type": "string", "description": "One client for each value of this column." });
        let mut pattern = generator.subschema_for::<Pattern>();
        let about = "One client for each text that `{client}` matches in the path of a file.";
        pattern.insert("description".to_owned(), about.into());
        json_schema!({
            "oneOf": [
                { "const": "by-task", "description": "One client for each task, named after it." },
                one("column", column),
                one("pattern", pattern),
                generator.subschema_for::<Sites>(),
            ]
        })
    }
}
