//! The keys of the dataset's table.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroUsize;

use fedplug_tables::Sites;
use fedplug_tables::text::{trimmed, visible};
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
    /// The part of a client's rows that is kept for testing; 0.2 if nothing says which rows are.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_fraction: Option<f64>,
    /// The column that says `train` or `test` of each row; `0`, `no` and `false`, or `1`, `yes` and `true`, are read as
    /// these.
    pub test_column: Option<String>,
    /// The seed of the split; if not given, derived from the experiment's.
    pub seed: Option<u64>,
    /// At most so many random rows to train on for each task and client, and as many to test on.
    pub max_samples: Option<NonZeroUsize>,
    /// What stands between two columns, one character: `,` if not given, `\t` in files with tabs.
    #[serde(default = "comma", deserialize_with = "delimiter")]
    #[schemars(with = "char", default = "comma_character")]
    pub delimiter: u8,
    /// How text is read.
    #[serde(default)]
    pub text: Text,
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
    /// Without any white space and characters that show nothing, as neither has a place in a sequence.
    Sequence,
}

impl Text {
    /// What a field says.
    pub(crate) fn of(self, field: &str) -> Cow<'_, str> {
        match self {
            Self::Plain => Cow::Borrowed(trimmed(field)),
            Self::Sequence => visible(field),
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

fn delimiter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_bytes() {
        [one] if one.is_ascii() && !matches!(one, b'"' | b'\r' | b'\n') => Ok(*one),
        _ => Err(D::Error::custom(format_args!("must be one ASCII character other than `\"`, not `{text}`"))),
    }
}

fn tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<TaskTable>>, D::Error> {
    let tasks = Vec::<TaskTable>::deserialize(deserializer)?;
    if tasks.is_empty() { Err(D::Error::custom("an experiment needs at least one task")) } else { Ok(Some(tasks)) }
}

/// The ways in which a table can say who the clients are, of which it must use one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ways {
    column: Option<String>,
    pattern: Option<Pattern>,
    count: Option<NonZeroUsize>,
    alpha: Option<f64>,
}

const WAYS: &str = "`\"by-task\"`, `{ column = \"hospital\" }`, `{ pattern = \"data/{client}/*.csv\" }` or \
                    `{ count = 6, alpha = 1.0 }`";

impl Ways {
    fn chosen<E: de::Error>(self) -> Result<Clients, E> {
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
            _ => Err(E::custom(format_args!("must be one of {WAYS}"))),
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
                f.write_str(WAYS)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Clients, E> {
                if word == "by-task" { Ok(Clients::ByTask) } else { Err(E::unknown_variant(word, &["by-task"])) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Clients, A::Error> {
                Ways::deserialize(MapAccessDeserializer::new(map))?.chosen()
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
