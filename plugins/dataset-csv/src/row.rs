//! Reads the fields of one row.

use std::borrow::Cow;

use csv::StringRecord;
use fedplug_tables::text::{is_missing, strip_invisible, trim_invisible};
use fedplug_tables::{Classes, DecimalMark, NumberError, parse_number};

use crate::config::{Clients, Config, Text};
use crate::task_plan::{TaskPlan, TestRows};

/// The columns that a file must have, in the order in which a row is checked.
pub(crate) struct RequiredColumns<'a> {
    /// Text columns, number columns with the target last, the target if it is a class, then the columns of the client and of the split, if there are any.
    pub(crate) names: Vec<&'a str>,
    pub(crate) texts: usize,
    numbers: usize,
    /// Whether the target is a class.
    class: bool,
    client: bool,
    testing: bool,
    /// The reasons for skipping a row: each column is missing; each number is invalid in one of three ways; the column of the
    /// split has another word.
    pub(crate) reasons: Vec<String>,
    text: Text,
    decimal: DecimalMark,
}

impl<'a> RequiredColumns<'a> {
    pub(crate) fn new(plan: &'a TaskPlan, config: &'a Config) -> Self {
        let client = if let Clients::Column(name) = &config.clients { Some(name) } else { None };
        let testing = if let TestRows::Column(name) = &plan.testing { Some(name) } else { None };
        let class = plan.classes != Classes::No;
        let numbers = || plan.numbers.iter().chain(plan.target.as_ref().filter(|_| !class));
        let target = plan.target.as_ref().filter(|_| class);
        let names: Vec<&str> =
            plan.texts.iter().chain(numbers()).chain(target).chain(client).chain(testing).map(String::as_str).collect();
        let missing = names.iter().map(|name| format!("no `{name}`"));
        let invalid = numbers().flat_map(|name| INVALID.map(|error| error.reason(name, config.decimal)));
        let neither = testing.map(|name| format!("`{name}` is neither `train` nor `test`"));
        let reasons = missing.chain(invalid).chain(neither).collect();
        let (texts, numbers) = (plan.texts.len(), numbers().count());
        let (text, decimal) = (config.text, config.decimal);
        Self {
            names,
            texts,
            numbers,
            class,
            client: client.is_some(),
            testing: testing.is_some(),
            reasons,
            text,
            decimal,
        }
    }
}

/// Why a field that is not missing is not a number.
const INVALID: [NumberError; 3] = [NumberError::Censored, NumberError::WrongDecimalMark, NumberError::NotFinite];

/// The values of one row.
pub(crate) struct Row<'a> {
    pub(crate) texts: Vec<Cow<'a, str>>,
    /// The number inputs, and the target if it is a number.
    pub(crate) numbers: Vec<f32>,
    /// The target, if it is a class.
    pub(crate) class: Option<&'a str>,
    /// The client, if a column says it.
    pub(crate) client: Option<&'a str>,
    /// Whether the row is for testing, if a column says it.
    pub(crate) for_testing: Option<bool>,
}

impl<'a> Row<'a> {
    /// Reads a row whose required columns have these indices. The error is the index of the reason for skipping it.
    pub(crate) fn new(
        record: &'a StringRecord,
        columns: &[usize],
        required: &RequiredColumns<'_>,
    ) -> Result<Self, usize> {
        let fields: Vec<&str> = columns.iter().map(|&column| record.get(column).unwrap_or_default()).collect();
        let (texts, rest) = fields.split_at(required.texts);
        let texts: Vec<Option<Cow<'_, str>>> = texts.iter().map(|field| required.text.of(field)).collect();
        let present = texts.iter().map(Option::is_some).chain(rest.iter().map(|field| !is_missing(field)));
        if let Some(missing) = present.into_iter().position(|present| !present) {
            return Err(missing);
        }
        let (values, rest) = rest.split_at(required.numbers);
        let mut numbers = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            let kind = |error| INVALID.iter().position(|other| *other == error).unwrap_or_default();
            let reason = |error| columns.len() + i * INVALID.len() + kind(error);
            numbers.push(parse_number(value, required.decimal).map_err(reason)?);
        }
        let (class, rest) = rest.split_at(usize::from(required.class));
        let class = class.first().map(|class| trim_invisible(class));
        let client = required.client.then(|| trim_invisible(rest[0]));
        let for_testing = match rest.last().filter(|_| required.testing) {
            Some(word) => Some(is_for_testing(word).ok_or(columns.len() + values.len() * INVALID.len())?),
            None => None,
        };
        Ok(Self { texts: texts.into_iter().flatten().collect(), numbers, class, client, for_testing })
    }
}

/// Whether a word in the column of the split means that the row is for testing.
fn is_for_testing(word: &str) -> Option<bool> {
    match strip_invisible(word).to_lowercase().as_str() {
        "test" | "1" | "yes" | "true" => Some(true),
        "train" | "0" | "no" | "false" => Some(false),
        _ => None,
    }
}
