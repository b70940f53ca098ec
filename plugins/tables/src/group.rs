//! Groups of rows that a split keeps on one side.

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
    /// Each row is its own group: a sequence may be in training and in test rows.
    None,
    /// Rows with the same sequence are a group.
    #[default]
    Sequence,
    /// Rows with similar sequences are a group: no test sequence has this identity, 0.5 to 1, or a higher one with a
    /// training sequence.
    ///
    /// The identity of two sequences is `1 - edits / length`, with the Levenshtein distance and the length of the longer
    /// one. Groups are connected components (single linkage), so the guarantee is exact. The price: a chain of small
    /// steps joins distant sequences, and the variants of one antibody are often a single group, which leaves no test rows.
    Identity(f64),
}

const MIN_IDENTITY: f64 = 0.5;
const FORMS: &str = "`\"sequence\"`, `\"none\"` or a table `{ identity = 0.9 }`";

impl GroupBy {
    /// The group of each of `count` rows, numbered from 0 in order of first appearance. `text` returns a row's sequence.
    ///
    /// [`Identity`](Self::Identity) compares all pairs of sequences in the worst case, on the threads of the call.
    ///
    /// # Errors
    /// If the call is cancelled.
    pub fn groups<S: AsRef<str>>(
        self,
        count: usize,
        text: impl Fn(usize) -> S,
        ctx: &Context<'_>,
    ) -> Result<Vec<usize>> {
        let identity = match self {
            Self::None => return Ok((0..count).collect()),
            Self::Sequence => return Ok(SequenceIds::default().of((0..count).map(text))),
            Self::Identity(identity) => identity,
        };
        let sequences = SequenceIds::default().of((0..count).map(&text));
        let mut texts: Vec<S> = Vec::new();
        for (row, &sequence) in sequences.iter().enumerate() {
            if sequence == texts.len() {
                texts.push(text(row));
            }
        }
        let bytes: Vec<&[u8]> = texts.iter().map(|text| text.as_ref().as_bytes()).collect();
        let components = similar::components(&bytes, identity, ctx)?;
        Ok(sequences.into_iter().map(|sequence| components[sequence]).collect())
    }
}

/// Numbers for sequences, from 0 in order of first appearance.
///
/// Sequences are compared by a hash of 128 bits, which takes a tenth of an antibody's memory.
#[derive(Default)]
pub(crate) struct SequenceIds(HashMap<(u64, u64), usize>);

impl SequenceIds {
    /// The number of each sequence; the same sequence has the same number in every call.
    pub(crate) fn of<S: AsRef<str>>(&mut self, sequences: impl IntoIterator<Item = S>) -> Vec<usize> {
        let id = |sequence: S| {
            let half = |salt: u8| {
                let mut hasher = DefaultHasher::new();
                hasher.write_u8(salt);
                hasher.write(sequence.as_ref().as_bytes());
                hasher.finish()
            };
            let next = self.0.len();
            *self.0.entry((half(0), half(1))).or_insert(next)
        };
        sequences.into_iter().map(id).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityTable {
    #[serde(deserialize_with = "identity")]
    identity: f64,
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(deserializer)?;
    if (MIN_IDENTITY..=1.0).contains(&value) {
        Ok(value)
    } else {
        Err(de::Error::custom(format_args!("must be between {MIN_IDENTITY} and 1, not {value}")))
    }
}

// Not derived: an untagged enum would only say that nothing matched, and not which key is wrong.
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
                IdentityTable::deserialize(MapAccessDeserializer::new(map))
                    .map(|table| GroupBy::Identity(table.identity))
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
        let identity = "1 - edits / length of the longer sequence. Sequences that a chain of such pairs connects stay on \
                        one side. Compares all pairs in the worst case: minutes of processor time for 100,000 distinct \
                        antibodies.";
        json_schema!({
            "oneOf": [
                { "const": "sequence", "description": "Rows with the same sequence stay on one side." },
                { "const": "none", "description": "Rows are split one by one, even if their sequences are the same." },
                {
                    "type": "object",
                    "properties": {
                        "identity": { "type": "number", "minimum": MIN_IDENTITY, "maximum": 1, "description": identity },
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
    fn rows_are_grouped_by_sequence_by_identity_or_not_at_all() {
        let rows = ["EVQLVESGGG", "DIQMTQSPSS", "EVQLVESGGG", "EVQLVESGGC", "EVQLVESGCC", "EVQLVESCCC"];
        let groups = |by: GroupBy| by.groups(rows.len(), |row| rows[row], &Context::new(&Silent)).unwrap();
        assert_eq!(groups(GroupBy::None), [0, 1, 2, 3, 4, 5]);
        assert_eq!(groups(GroupBy::Sequence), [0, 1, 0, 2, 3, 4]);
        // Each of the last four differs from the one before by one letter, and the last from the first by three.
        assert_eq!(groups(GroupBy::Identity(0.9)), [0, 1, 0, 0, 0, 0]);
        assert_eq!(groups(GroupBy::Identity(0.95)), groups(GroupBy::Sequence));
        assert_eq!(groups(GroupBy::Identity(1.0)), groups(GroupBy::Sequence));
    }

    #[test]
    fn group_by_accepts_words_and_a_table_and_says_which_key_is_wrong() {
        #[derive(Debug, Deserialize)]
        struct Keys {
            by: GroupBy,
        }
        let ok = |value| read::<Keys>(&json!({ "by": value })).unwrap().by;
        assert_eq!(ok(json!("none")), GroupBy::None);
        assert_eq!(ok(json!("sequence")), GroupBy::Sequence);
        assert_eq!(ok(json!({ "identity": 0.9 })), GroupBy::Identity(0.9));
        let problem = |value| {
            let problems = read::<Keys>(&json!({ "by": value })).unwrap_err();
            format!("{}: {}", problems[0].path.join("."), problems[0].message)
        };
        assert_eq!(problem(json!("sequences")), "by: unknown value `sequences`");
        assert_eq!(problem(json!({ "identity": 90 })), "by.identity: must be between 0.5 and 1, not 90");
        assert_eq!(problem(json!({ "identty": 0.9 })), "by.identty: unknown key `identty`");
        assert_eq!(problem(json!(0.9)), format!("by: must be {FORMS}, not the number `0.9`"));
    }
}
