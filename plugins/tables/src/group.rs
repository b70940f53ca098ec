//! Which rows stay on one side of a split.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use plugin_api::{Context, JsonSchema, Result};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::similar;

/// Which rows a random split keeps on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum GroupBy {
    /// Every row is on its own: the same sequence may be trained and tested on.
    None,
    /// Rows of the same sequence.
    #[default]
    Sequence,
    /// Rows of similar sequences: no test row's sequence is this similar to a training row's.
    ///
    /// The identity of two sequences is `1 - edits / length`: the least number of letters to substitute, insert or delete
    /// that makes one the other (Levenshtein's distance), over the length of the longer one. Groups are the connected
    /// components (single linkage), so this is a guarantee and no heuristic; its price is that a chain of small steps
    /// joins distant sequences, and variants of one antibody are often a single group, which leaves no row to test on.
    Identity(f64),
}

const LEAST: f64 = 0.5;
const FORMS: &str = "`\"sequence\"`, `\"none\"` or a table `{ identity = 0.9 }`";

impl GroupBy {
    /// The group of each of `count` rows, numbered from 0 in the order in which groups appear.
    ///
    /// [`Identity`](Self::Identity) compares every two sequences in the worst case, most of them by a count of words
    /// alone.
    ///
    /// # Errors
    /// If the call shall stop.
    pub fn groups<S: AsRef<str>>(
        self,
        count: usize,
        text: impl Fn(usize) -> S,
        ctx: &Context<'_>,
    ) -> Result<Vec<usize>> {
        let least = match self {
            Self::None => return Ok((0..count).collect()),
            Self::Sequence => return Ok(sequence_ids((0..count).map(text))),
            Self::Identity(least) => least,
        };
        let sequences = sequence_ids((0..count).map(&text));
        let mut texts: Vec<S> = Vec::new();
        for (row, &sequence) in sequences.iter().enumerate() {
            if sequence == texts.len() {
                texts.push(text(row));
            }
        }
        let bytes: Vec<&[u8]> = texts.iter().map(|text| text.as_ref().as_bytes()).collect();
        let components = similar::components(&bytes, least, ctx)?;
        Ok(sequences.into_iter().map(|sequence| components[sequence]).collect())
    }
}

/// A number for each text, the same for the same text, from 0 in the order in which texts appear.
///
/// TextBuffer are told apart by 128 bits of their hash, which takes a tenth of an antibody's memory.
pub fn sequence_ids<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Vec<usize> {
    let mut seen = HashMap::new();
    let number = |text: S| {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(text.as_ref().as_bytes());
            hasher.finish()
        };
        let next = seen.len();
        *seen.entry((half(0), half(1))).or_insert(next)
    };
    texts.into_iter().map(number).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Similar {
    #[serde(deserialize_with = "identity")]
    identity: f64,
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (LEAST..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(de::Error::custom(format_args!("must lie between {LEAST} and 1, not {value}")))
    }
}

// By hand, since an untagged enum would only say that nothing matched, and not which key is wrong.
impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = GroupBy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(FORMS)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<GroupBy, E> {
                match word {
                    "none" => Ok(GroupBy::None),
                    "sequence" => Ok(GroupBy::Sequence),
                    _ => Err(E::unknown_variant(word, &["none", "sequence"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<GroupBy, A::Error> {
                Similar::deserialize(MapAccessDeserializer::new(map)).map(|similar| GroupBy::Identity(similar.identity))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for GroupBy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "GroupBy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let identity = "1 - edits / length of the longer sequence; every chain of sequences that are pairwise this \
                        similar stays on one side. Compares all pairs in the worst case: minutes of processor time for \
                        100,000 distinct antibodies.";
        json_schema!({
            "oneOf": [
                { "const": "sequence", "description": "Rows of the same sequence stay on one side." },
                { "const": "none", "description": "Rows are split one by one, whatever their sequences." },
                {
                    "type": "object",
                    "properties": {
                        "identity": { "type": "number", "minimum": LEAST, "maximum": 1, "description": identity },
                    },
                    "required": ["identity"],
                    "additionalProperties": false,
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

    #[test]
    fn rows_are_grouped_by_nothing_by_sequence_or_by_similarity() {
        let rows = ["EVQLVESGGG", "DIQMTQSPSS", "EVQLVESGGG", "EVQLVESGGC", "EVQLVESGCC", "EVQLVESCCC"];
        let groups = |by: GroupBy| by.groups(rows.len(), |row| rows[row], &Context::new(&Silent)).unwrap();
        assert_eq!(groups(GroupBy::None), [0, 1, 2, 3, 4, 5]);
        assert_eq!(groups(GroupBy::Sequence), [0, 1, 0, 2, 3, 4]);
        // Each of the last is one letter from the one before, though the last is three from the first.
        assert_eq!(groups(GroupBy::Identity(0.9)), [0, 1, 0, 0, 0, 0]);
        assert_eq!(groups(GroupBy::Identity(0.95)), groups(GroupBy::Sequence));
        assert_eq!(groups(GroupBy::Identity(1.0)), groups(GroupBy::Sequence));
    }

    #[test]
    fn keys_are_read_and_checked() {
        #[derive(Debug, Deserialize)]
        struct Keys {
            by: GroupBy,
        }
        let ok = |value| read::<Keys>(&json!({ "by": value })).unwrap().by;
        assert_eq!(ok(json!("none")), GroupBy::None);
        assert_eq!(ok(json!("sequence")), GroupBy::Sequence);
        assert_eq!(ok(json!({ "identity": 0.9 })), GroupBy::Identity(0.9));
        let told = |value| {
            let problems = read::<Keys>(&json!({ "by": value })).unwrap_err();
            format!("{}: {}", problems[0].path.join("."), problems[0].message)
        };
        assert_eq!(told(json!("sequences")), "by: unknown value `sequences`");
        assert_eq!(told(json!({ "identity": 90 })), "by.identity: must lie between 0.5 and 1, not 90");
        assert_eq!(told(json!({ "identty": 0.9 })), "by.identty: unknown key `identty`");
        assert_eq!(told(json!(0.9)), format!("by: must be {FORMS}, not the number `0.9`"));
    }
}
