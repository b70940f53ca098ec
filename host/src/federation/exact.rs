//! Serialising values to JSON without losing a bit: `#[serde(with = "exact")]`.
//!
//! JSON has no NaN and no infinities, so floating-point numbers are their bits.

use plugin_api::{Buffer, Column, Evaluation, Goal, Metric, Table};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Serialises a value.
///
/// # Errors
/// If the value cannot be serialised, as a column of lists.
pub(crate) fn serialize<T: Exact, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.entry().map_err(S::Error::custom)?.serialize(serializer)
}

/// Deserialises a value.
///
/// # Errors
/// If there is no such value.
pub(crate) fn deserialize<'de, T: Exact, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::whole(T::Entry::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A value that comes back from JSON to the bit.
pub(crate) trait Exact: Sized {
    /// The form that is serialised.
    type Entry: Serialize + DeserializeOwned;

    /// Converts to the form that is serialised.
    ///
    /// # Errors
    /// If the value has no such form.
    fn entry(&self) -> plugin_api::Result<Self::Entry>;

    /// Converts back.
    ///
    /// # Errors
    /// If there is no such value.
    fn whole(entry: Self::Entry) -> plugin_api::Result<Self>;
}

impl Exact for f64 {
    type Entry = u64;

    fn entry(&self) -> plugin_api::Result<u64> {
        Ok(self.to_bits())
    }

    fn whole(entry: u64) -> plugin_api::Result<Self> {
        Ok(Self::from_bits(entry))
    }
}

impl<T: Exact> Exact for Option<T> {
    type Entry = Option<T::Entry>;

    fn entry(&self) -> plugin_api::Result<Self::Entry> {
        self.as_ref().map(T::entry).transpose()
    }

    fn whole(entry: Self::Entry) -> plugin_api::Result<Self> {
        entry.map(T::whole).transpose()
    }
}

impl<T: Exact> Exact for Vec<T> {
    type Entry = Vec<T::Entry>;

    fn entry(&self) -> plugin_api::Result<Self::Entry> {
        self.iter().map(T::entry).collect()
    }

    fn whole(entry: Self::Entry) -> plugin_api::Result<Self> {
        entry.into_iter().map(T::whole).collect()
    }
}

/// An [`Evaluation`] with the bits of its numbers.
#[derive(Serialize, Deserialize)]
pub(crate) struct EvaluationEntry {
    task: String,
    examples: u64,
    loss: u64,
    score: u64,
    /// The name, the value's bits, and whether higher is better.
    metrics: Vec<(String, u64, bool)>,
}

impl Exact for Evaluation {
    type Entry = EvaluationEntry;

    fn entry(&self) -> plugin_api::Result<EvaluationEntry> {
        let metric = |metric: &Metric| (metric.name.clone(), metric.value.to_bits(), metric.goal == Goal::Higher);
        Ok(EvaluationEntry {
            task: self.task.clone(),
            examples: self.examples,
            loss: self.loss.to_bits(),
            score: self.score.to_bits(),
            metrics: self.metrics.iter().map(metric).collect(),
        })
    }

    fn whole(entry: EvaluationEntry) -> plugin_api::Result<Self> {
        let metric = |(name, value, higher): (String, u64, bool)| {
            let goal = if higher { Goal::Higher } else { Goal::Lower };
            Metric { name, value: f64::from_bits(value), goal }
        };
        Ok(Self {
            task: entry.task,
            examples: entry.examples,
            loss: f64::from_bits(entry.loss),
            score: f64::from_bits(entry.score),
            metrics: entry.metrics.into_iter().map(metric).collect(),
        })
    }
}

/// A [`Column`] of a kind that a prediction can have, with the bits of its numbers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ColumnEntry {
    Text(Vec<String>),
    F32(Vec<u32>),
    F64(Vec<u64>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Nullable { present: Vec<u8>, values: Box<ColumnEntry> },
}

impl Exact for Column {
    type Entry = ColumnEntry;

    fn entry(&self) -> plugin_api::Result<ColumnEntry> {
        let misplaced = || plugin_api::Error::data(format!("a column of {} has bytes between its rows", self.kind()));
        Ok(match self {
            Self::Text(column) => ColumnEntry::Text(column.iter().map(str::to_owned).collect()),
            Self::F32(buffer) => {
                let values: &[f32] = buffer.try_cast().ok_or_else(misplaced)?;
                ColumnEntry::F32(values.iter().map(|x| x.to_bits()).collect())
            }
            Self::F64(buffer) => {
                let values: &[f64] = buffer.try_cast().ok_or_else(misplaced)?;
                ColumnEntry::F64(values.iter().map(|x| x.to_bits()).collect())
            }
            Self::I64(buffer) => ColumnEntry::I64(buffer.try_cast().ok_or_else(misplaced)?.to_vec()),
            Self::Bool(buffer) => ColumnEntry::Bool(buffer.as_slice().iter().map(|&x| x != 0).collect()),
            Self::Nullable(column) => ColumnEntry::Nullable {
                present: column.present().as_slice().to_vec(),
                values: Box::new(column.values().entry()?),
            },
            other => return Err(plugin_api::Error::unsupported(format!("a column of {}", other.kind()))),
        })
    }

    fn whole(entry: ColumnEntry) -> plugin_api::Result<Self> {
        Ok(match entry {
            ColumnEntry::Text(rows) => Self::text(rows),
            ColumnEntry::F32(bits) => Self::f32(&bits.into_iter().map(f32::from_bits).collect::<Vec<_>>()),
            ColumnEntry::F64(bits) => Self::f64(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>()),
            ColumnEntry::I64(rows) => Self::i64(&rows),
            ColumnEntry::Bool(rows) => Self::bool(&rows),
            ColumnEntry::Nullable { present, values } => Self::whole(*values)?.with_nulls(Buffer::copy_of(&present))?,
        })
    }
}

impl Exact for Table {
    type Entry = Vec<(String, ColumnEntry)>;

    fn entry(&self) -> plugin_api::Result<Self::Entry> {
        self.columns().map(|(name, column)| Ok((name.to_owned(), column.entry()?))).collect()
    }

    fn whole(entry: Self::Entry) -> plugin_api::Result<Self> {
        entry.into_iter().try_fold(Self::new(), |table, (name, column)| table.with(name, Column::whole(column)?))
    }
}

/// Serialises a message without its tensors, which travel beside the JSON: `#[serde(with = "exact::without_tensors")]`.
pub(crate) mod without_tensors {
    use plugin_api::Message;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Serialises the message's values.
    ///
    /// # Errors
    /// If the serialiser fails.
    pub(crate) fn serialize<S: Serializer>(message: &Message, serializer: S) -> Result<S::Ok, S::Error> {
        message.values.serialize(serializer)
    }

    /// Deserialises a message that has no tensors yet.
    ///
    /// # Errors
    /// If the deserialiser fails.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        Ok(Message { values: serde_json::Map::deserialize(deserializer)?, ..Message::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holds(#[serde(with = "super")] Table);

    #[test]
    fn every_column_of_a_prediction_comes_back_to_the_bit() {
        let nan = f32::from_bits(0x7fc0_1234);
        let numbers = Column::f64(&[0.1, f64::NAN, -0.0]).with_nulls(Buffer::copy_of(&[1_u8, 1, 0])).unwrap();
        let table = Table::new()
            .with("a", Column::f32(&[0.1, nan, f32::NEG_INFINITY]))
            .and_then(|table| table.with("b", numbers))
            .and_then(|table| table.with("c", Column::text(["x", "", "\u{1F9EC}"])))
            .and_then(|table| table.with("d", Column::i64(&[i64::MIN, 0, i64::MAX])))
            .and_then(|table| table.with("e", Column::bool(&[true, false, true])))
            .unwrap();
        let text = serde_json::to_string(&Holds(table.clone())).unwrap();
        let Holds(back) = serde_json::from_str(&text).unwrap();
        assert_eq!(back.columns().len(), 5);
        for ((name, column), (name_back, column_back)) in table.columns().zip(back.columns()) {
            assert_eq!(name, name_back);
            assert!(column.is_equal(column_back), "{name}");
        }
    }

    #[test]
    fn what_a_prediction_cannot_hold_is_an_error() {
        let table = Table::new().with("a", Column::bytes([b"x"])).unwrap();
        let error = serde_json::to_string(&Holds(table)).unwrap_err().to_string();
        assert!(error.contains("a column of bytes"), "{error}");
        let short = r#"[["a", {"nullable": {"present": [1], "values": {"i64": [1, 2]}}}]]"#;
        assert!(serde_json::from_str::<Holds>(short).is_err());
    }
}
