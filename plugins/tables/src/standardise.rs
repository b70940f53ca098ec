//! Whether targets are standardised, and by which numbers.

use std::collections::BTreeMap;
use std::fmt;

use plugin_api::{Context, Error, JsonSchema, Result, Scale};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::{note_scale, quoted};

/// Whether each task's targets become standard scores, and by which mean and deviation.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standardise {
    /// They stay as they are.
    #[default]
    No,
    /// By those of the training rows, at all clients together.
    ByRows,
    /// By these, for every task: no statistic of the data is computed.
    By(Scale),
    /// By these, for each task.
    ByTask(BTreeMap<String, Scale>),
}

const WAYS: &str = "`true`, `false`, `{ mean = 60.0, deviation = 10.0 }`, or such a table for each task, \
                    `{ tm = { mean = 60.0, deviation = 10.0 } }`";

impl Standardise {
    /// The scale of a task's targets; none if they stay as they are. `of_rows` computes that of the training rows.
    ///
    /// # Errors
    /// If the keys give scales by task, and none for this one.
    pub fn scale(&self, task: &str, of_rows: impl FnOnce() -> Result<Scale>) -> Result<Option<Scale>> {
        match self {
            Self::No => Ok(None),
            Self::ByRows => of_rows().map(Some),
            Self::By(scale) => Ok(Some(*scale)),
            Self::ByTask(scales) => scales.get(task).copied().map(Some).ok_or_else(|| {
                let error = Error::config(format!("task `{task}` has no mean and deviation here"));
                error.at_key("standardise").help(format!("there are those of {}", quoted(&known(scales))))
            }),
        }
    }

    /// Keeps for the summary what the standard scores of each task stand for, and what they reveal of the data.
    ///
    /// # Errors
    /// If the keys give a scale for a task that is none.
    pub fn note(&self, scales: &BTreeMap<String, Scale>, ctx: &Context<'_>) -> Result<()> {
        if let Self::ByTask(given) = self
            && let Some(task) = given.keys().find(|task| !scales.contains_key(*task))
        {
            let error = Error::config(format!("there is no task `{task}`")).at_key(format!("standardise.{task}"));
            return Err(error.help(format!("there are {}", quoted(&known(scales)))));
        }
        scales.iter().for_each(|(task, scale)| note_scale(task, *scale, ctx));
        if *self == Self::ByRows {
            ctx.note("privacy.clear", format_args!("mean and standard deviation of each task's targets"));
        }
        Ok(())
    }
}

fn known(scales: &BTreeMap<String, Scale>) -> Vec<&String> {
    scales.keys().collect()
}

/// Two numbers of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(deserialize_with = "finite")]
    mean: f64,
    #[serde(deserialize_with = "positive")]
    deviation: f64,
}

fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if value.is_finite() { Ok(value) } else { Err(de::Error::custom("must be finite")) }
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = finite(deserializer)?;
    if value > 0.0 { Ok(value) } else { Err(de::Error::custom("must be more than 0")) }
}

impl From<Given> for Scale {
    fn from(Given { mean, deviation }: Given) -> Self {
        Self { mean, deviation }
    }
}

/// A value under a key of the table: a number of the one scale, or a task's scale.
enum Entry {
    Number(f64),
    Scale(Scale),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        #[expect(clippy::cast_precision_loss, reason = "as a number of a file is read where a float is due")]
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a table `{ mean = 60.0, deviation = 10.0 }`")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Entry, E> {
                Ok(Entry::Number(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Entry, E> {
                Ok(Entry::Number(value as f64))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Entry, E> {
                Ok(Entry::Number(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Given::deserialize(MapAccessDeserializer::new(map)).map(|given| Entry::Scale(given.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

// By hand, since an untagged enum would only say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for Standardise {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Standardise;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WAYS)
            }

            fn visit_bool<E: de::Error>(self, by_rows: bool) -> Result<Standardise, E> {
                Ok(if by_rows { Standardise::ByRows } else { Standardise::No })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Standardise, A::Error> {
                let (mut numbers, mut scales) = (BTreeMap::new(), BTreeMap::new());
                while let Some((key, entry)) = map.next_entry::<String, Entry>()? {
                    match entry {
                        Entry::Number(number) => drop(numbers.insert(key, number)),
                        Entry::Scale(scale) => drop(scales.insert(key, scale)),
                    }
                }
                if numbers.is_empty() && !scales.is_empty() {
                    return Ok(Standardise::ByTask(scales));
                }
                if !scales.is_empty() {
                    return Err(de::Error::custom(format_args!("must be one of {WAYS}")));
                }
                let numbers = de::value::MapDeserializer::new(numbers.into_iter());
                Given::deserialize(numbers).map(|given| Standardise::By(given.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Standardise {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Standardise".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scale = |about: &str| {
            json_schema!({
                "type": "object",
                "description": about,
                "properties": {
                    "mean": { "type": "number", "description": "Mean, in the target's own unit." },
                    "deviation": {
                        "type": "number",
                        "exclusiveMinimum": 0,
                        "description": "Standard deviation, in the target's own unit.",
                    },
                },
                "required": ["mean", "deviation"],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "anyOf": [
                {
                    "type": "boolean",
                    "description": "Whether by mean and standard deviation of the rows to train on, at all clients together.",
                },
                scale("By these, for every task. They are known beforehand, so nothing of the data is revealed."),
                {
                    "type": "object",
                    "description": "By these, for each task by its name.",
                    "additionalProperties": scale("Those of a task."),
                    "minProperties": 1,
                },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::config::read;
    use plugin_api::context::Silent;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Keys {
        standardise: Standardise,
    }

    fn ok(value: serde_json::Value) -> Standardise {
        read::<Keys>(&json!({ "standardise": value })).unwrap().standardise
    }

    const SCALE: Scale = Scale { mean: 60.0, deviation: 10.5 };

    #[test]
    fn keys_are_read_and_checked() {
        assert_eq!((ok(json!(true)), ok(json!(false))), (Standardise::ByRows, Standardise::No));
        assert_eq!(ok(json!({ "mean": 60, "deviation": 10.5 })), Standardise::By(SCALE));
        // Tasks may have these names.
        let by_task = [("mean", SCALE), ("tm", SCALE)].map(|(task, scale)| (task.to_owned(), scale));
        let scale = json!({ "mean": 60.0, "deviation": 10.5 });
        assert_eq!(ok(json!({ "tm": scale, "mean": scale })), Standardise::ByTask(by_task.into()));
        let told = |value| {
            let problems = read::<Keys>(&json!({ "standardise": value })).unwrap_err();
            format!("{}: {}", problems[0].path.join("."), problems[0].message)
        };
        assert_eq!(told(json!({ "mean": 60.0, "deviation": 0.0 })), "standardise: must be more than 0");
        assert_eq!(
            told(json!({ "tm": { "mean": 60.0, "deviation": -1 } })),
            "standardise.tm.deviation: must be more than 0"
        );
        assert!(told(json!({ "mean": 60.0 })).contains("deviation"), "{}", told(json!({ "mean": 60.0 })));
        assert!(told(json!({ "mean": 1.0, "tm": scale })).starts_with("standardise: must be one of"));
        assert!(told(json!("yes")).starts_with("standardise: must be `true`, `false`"), "{}", told(json!("yes")));
    }

    #[test]
    fn given_numbers_need_no_rows() {
        let never = || -> Result<Scale> { panic!("a statistic of the data was computed") };
        assert_eq!(Standardise::No.scale("tm", never).unwrap(), None);
        assert_eq!(ok(json!({ "mean": 60, "deviation": 10.5 })).scale("tm", never).unwrap(), Some(SCALE));
        let by_task = ok(json!({ "tm": { "mean": 60.0, "deviation": 10.5 } }));
        assert_eq!(by_task.scale("tm", never).unwrap(), Some(SCALE));
        let error = by_task.scale("kd", never).unwrap_err();
        assert_eq!(error.to_string(), "`standardise`: task `kd` has no mean and deviation here");
        assert_eq!(error.hint(), Some("there are those of `tm`"));
        let scales = [("kd".to_owned(), SCALE)].into();
        let error = by_task.note(&scales, &Context::new(&Silent)).unwrap_err();
        assert_eq!(error.to_string(), "`standardise.tm`: there is no task `tm`");
        assert_eq!(Standardise::ByRows.scale("tm", || Ok(SCALE)).unwrap(), Some(SCALE));
    }
}
