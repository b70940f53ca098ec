//! The keys of the dataset's table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;

use fedplug_tables::text::{is_missing, normalise_chain, trim_invisible};
use fedplug_tables::{DecimalMark, GroupBy, Sites, TaskPer};
use plugin_api::JsonSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, Error, MapAccess, Visitor};

use crate::pattern::{Pattern, Patterns};

/// The keys of the dataset's table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The files: a path or a pattern such as `data/*.csv`, or a list of them; relative to the current directory. In a
    /// folder files are taken in the order of their names.
    pub files: Option<Patterns>,
    /// The files that are not read, as `files`, though that or the clients' pattern names them.
    pub exclude: Option<Patterns>,
    /// What makes a task: `folder`, all files of a task together, or `file`, those of one name each on their own. A file
    /// is one assay in one unit, so where files are of different assays `file` gives each its own head, its own metrics
    /// and, with `standardise`, its own scale. Such a task is named after its files without their endings, behind `name`
    /// and a `-` where a task has a name. Its files are split together: a sequence that is for testing in one of them is for
    /// testing in all.
    #[serde(default)]
    pub task_per: TaskPer,
    /// The files with the rows to test on, as `files`, which then has the rows to train on.
    pub test_files: Option<Patterns>,
    /// The columns of text that a model reads.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// The columns of numbers that a model reads, after those of text.
    #[serde(default)]
    pub number_inputs: Vec<String>,
    /// The column of numbers that is predicted.
    pub target: Option<String>,
    /// The name of the one task; that of the target if not given.
    pub name: Option<String>,
    /// Several tasks, in the order that numbers them. What one does not say, the keys above say for all.
    #[serde(default, deserialize_with = "tasks")]
    pub task: Option<Vec<TaskTable>>,
    /// Who the clients are.
    pub clients: Clients,
    /// Which rows a random split keeps on one side: `sequence` if not given, those with the same texts in `inputs`, or
    /// the same numbers where there are no texts; `none`, so that the same sequence may be trained and tested on; or
    /// `{ identity = 0.9 }`, those whose texts are at least so similar. Where rows say which client's they are, it holds
    /// among the rows of each; else also across clients, for the test rows that all share.
    pub group_by: Option<GroupBy>,
    /// The part of a client's rows that is kept for testing, met as closely as groups allow; 0.2 if nothing says which
    /// rows are.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_fraction: Option<f64>,
    /// The column that says `train` or `test` of each row; `0`, `no` and `false`, or `1`, `yes` and `true`, are read as
    /// these.
    pub test_column: Option<String>,
    /// The seed of the split; if not given, derived from the experiment's.
    pub seed: Option<u64>,
    /// Whether each task's targets are turned into standard scores, by mean and standard deviation of its rows to train
    /// on at all clients together. Errors are then in standard deviations, and tasks of any unit weigh alike. In a
    /// federation of real sites it takes one more sum over them.
    #[serde(default)]
    pub standardise: bool,
    /// At most so many random rows to train on for each task and client, and as many to test on.
    pub max_samples: Option<NonZeroUsize>,
    /// What stands between two columns, one character: `,` if not given. Files named `.tsv` or `.tab` have tabs in any case.
    #[serde(default = "comma", deserialize_with = "fedplug_tables::deserialize_delimiter")]
    #[schemars(with = "char", default = "comma_character")]
    pub delimiter: u8,
    /// What stands before the fraction of a number: `"."` if not given, or `","`. Separators of thousands are not read.
    #[serde(default)]
    pub decimal: DecimalMark,
    /// How text is read.
    #[serde(default)]
    pub text: Text,
    /// The names that columns have in a file of rows to be predicted, where they are others: `{ heavy = "VH" }`. For one file,
    /// `fedplug predict --column heavy=VH` says the same.
    #[serde(default)]
    pub predict_columns: BTreeMap<String, String>,
}

impl Config {
    /// Which rows a random split keeps together.
    pub(crate) fn group_by(&self) -> GroupBy {
        self.group_by.unwrap_or_default()
    }
}

/// A task of several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskTable {
    /// Its name.
    pub name: String,
    /// Its files.
    pub files: Option<Patterns>,
    /// Its files with the rows to test on.
    pub test_files: Option<Patterns>,
    /// The columns of text that a model reads for it.
    pub inputs: Option<Vec<String>>,
    /// The columns of numbers that a model reads for it.
    pub number_inputs: Option<Vec<String>>,
    /// The column that is predicted.
    pub target: Option<String>,
}

/// How text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    /// As it stands, without white space and characters that show nothing at its ends.
    #[default]
    Plain,
    /// As a sequence of amino acids: in upper case, without any white space and characters that show nothing. LetterCounts that
    /// are no usual amino acids are reported.
    Sequence,
}

impl Text {
    /// What a field says; none where that stands for a missing value.
    pub(crate) fn of(self, field: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Plain if is_missing(field) => None,
            Self::Plain => Some(Cow::Borrowed(trim_invisible(field))),
            Self::Sequence => normalise_chain(field),
        }
    }
}

/// Who the clients are.
#[derive(Clone, Debug, PartialEq)]
pub enum Clients {
    /// One client for each task, named after it.
    ByTask,
    /// One client for each value of this column.
    Column(String),
    /// One client for each text that stands for `{client}` in the path of a file.
    Pattern(Pattern),
    /// So many clients with all tasks.
    Sites(Sites),
}

/// The same for the schema, where it stands as in a file.
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

/// The ways in which a table can say who the clients are, of which it must use one.
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
                Err(E::custom(format_args!("`{pattern}` does not say with `{{client}}` where a client's name stands")))
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

// By hand, since an untagged enum would only say that nothing matched, and not which key is wrong.
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
        let one = |key: &str, description: &str| {
            json_schema!({
                "type": "object",
                "properties": { key: { "type": "string", "description": description } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "oneOf": [
                { "const": "by-task", "description": "One client for each task, named after it." },
                one("column", "One client for each value of this column."),
                one("pattern", "One client for each text that stands for `{client}` in the path of a file."),
                generator.subschema_for::<Sites>(),
            ]
        })
    }
}
