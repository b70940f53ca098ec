//! Scalars that a client's model reported in a round.

use std::collections::BTreeMap;

use plugin_api::{Error, Params, Result, State, Tensor};
use serde::{Deserialize, Serialize};

use crate::federation::exact;

/// Scalars that a client's model reported in a round, with their times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TraceEntry")]
pub struct Trace {
    tags: Vec<String>,
    /// The numbers of the tags.
    #[serde(skip_serializing)]
    numbers: BTreeMap<String, i32>,
    tag: Vec<i32>,
    step: Vec<i64>,
    #[serde(with = "exact")]
    value: Vec<f64>,
    #[serde(with = "exact")]
    time: Vec<f64>,
}

/// A [`Trace`] as it is read from JSON.
#[derive(Deserialize)]
struct TraceEntry {
    tags: Vec<String>,
    tag: Vec<i32>,
    step: Vec<i64>,
    #[serde(with = "exact")]
    value: Vec<f64>,
    #[serde(with = "exact")]
    time: Vec<f64>,
}

impl TryFrom<TraceEntry> for Trace {
    type Error = Error;

    fn try_from(TraceEntry { tags, tag, step, value, time }: TraceEntry) -> Result<Self> {
        let whole = [step.len(), value.len(), time.len()].iter().all(|length| *length == tag.len());
        let known = |number: &i32| usize::try_from(*number).is_ok_and(|number| number < tags.len());
        if !whole || !tag.iter().all(known) {
            return Err(Error::data("scalars lack a tag, a step, a value or a time"));
        }
        let numbers = tags.iter().cloned().zip(0..).collect();
        Ok(Self { tags, numbers, tag, step, value, time })
    }
}

impl Trace {
    /// Adds a scalar. `time` is in seconds since 1970.
    pub fn push(&mut self, tag: &str, step: u64, value: f64, time: f64) {
        let number = self.numbers.get(tag).copied().unwrap_or_else(|| {
            let number = i32::try_from(self.tags.len()).unwrap_or(i32::MAX);
            self.tags.push(tag.to_owned());
            self.numbers.insert(tag.to_owned(), number);
            number
        });
        self.tag.push(number);
        self.step.push(step.cast_signed());
        self.value.push(value);
        self.time.push(time);
    }

    /// Whether it has no scalars.
    pub fn is_empty(&self) -> bool {
        self.tag.is_empty()
    }

    /// The tag, step, value and time of each scalar, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, f64, f64)> {
        let tag = |number: &i32| usize::try_from(*number).ok().and_then(|number| self.tags.get(number));
        let scalars = self.tag.iter().zip(&self.step).zip(&self.value).zip(&self.time);
        scalars.filter_map(move |(((number, step), value), time)| {
            Some((tag(number)?.as_str(), step.cast_unsigned(), *value, *time))
        })
    }

    /// Converts the trace to a state: tensors with one element for each scalar, and the list of tags.
    ///
    /// # Errors
    /// Never in practice; the tensor constructors return a `Result`.
    pub fn state(&self) -> Result<State> {
        let length = [self.tag.len()];
        let tensors: Params = [
            ("tag", Tensor::from_slice(&length, &self.tag)?),
            ("step", Tensor::from_slice(&length, &self.step)?),
            ("value", Tensor::from_slice(&length, &self.value)?),
            ("time", Tensor::from_slice(&length, &self.time)?),
        ]
        .into_iter()
        .collect();
        Ok(State { tensors, values: [("tags".to_owned(), self.tags.clone().into())].into_iter().collect() })
    }

    /// Reads the trace from such a state.
    ///
    /// # Errors
    /// If the state is not that of a trace.
    pub fn read(state: &State) -> Result<Self> {
        let tags: Vec<String> = state.value("tags")?;
        let length = state.tensors.get("tag").map_or(0, |tensor| tensor.shape().iter().product());
        Self::try_from(TraceEntry {
            tag: state.tensors.elements("tag", &[length])?.to_vec(),
            step: state.tensors.elements("step", &[length])?.to_vec(),
            value: state.tensors.elements("value", &[length])?.to_vec(),
            time: state.tensors.elements("time", &[length])?.to_vec(),
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_trace_comes_back() {
        assert_eq!(Trace::read(&Trace::default().state().unwrap()).unwrap(), Trace::default());
    }

    #[test]
    fn a_scalar_that_lacks_something_is_an_error() {
        let read = |text: &str| serde_json::from_str::<Trace>(text).map(|trace| trace.iter().count());
        let text = r#"{"tags": ["a"], "tag": [0, 0], "step": [1, 2], "value": [0, 0], "time": [0, 0]}"#;
        assert_eq!(read(text).unwrap(), 2);
        for (right, wrong) in
            [("[1, 2]", "[1]"), ("\"value\": [0, 0]", "\"value\": [0]"), ("[0, 0], \"step\"", "[0, 1], \"step\"")]
        {
            let error = read(&text.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(error.contains("scalars lack"), "{error}");
        }
    }
}
