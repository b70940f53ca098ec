//! Targets that are classes.

use std::borrow::Cow;

use crate::text::{is_missing, trim_invisible};
use plugin_api::{Error, JsonSchema, Result, TargetKind};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// Whether targets are classes, and which there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Classes {
    /// Targets are numbers.
    #[default]
    No,
    /// The texts that occur in the task's files, sorted.
    Found,
    /// These, in this order.
    Given(Vec<String>),
}

const FORMS: &str = "`true`, `false` or a list of classes, `[\"no\", \"yes\"]`";

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Are(bool),
            Given(Vec<String>),
        }
        let form = Form::deserialize(deserializer).map_err(|_| de::Error::custom(format_args!("must be {FORMS}")))?;
        let classes = match form {
            Form::Are(false) => return Ok(Self::No),
            Form::Are(true) => return Ok(Self::Found),
            Form::Given(classes) => classes,
        };
        let wrong = |what: String| Err(de::Error::custom(what));
        if classes.len() < 2 {
            return wrong("there must be at least two classes".to_owned());
        }
        for (index, class) in classes.iter().enumerate() {
            if classes[..index].contains(class) {
                return wrong(format!("`{class}` is listed twice"));
            }
            if is_missing(class) || trim_invisible(class) != class {
                return wrong(format!(
                    "`{class}` cannot be a class: it means a missing value, or has spaces at an end"
                ));
            }
        }
        Ok(Self::Given(classes))
    }
}

impl JsonSchema for Classes {
    fn schema_name() -> Cow<'static, str> {
        "Classes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "type": "boolean" },
                { "type": "array", "items": { "type": "string" }, "minItems": 2, "uniqueItems": true },
            ]
        })
    }
}

/// The classes of a task while its files are read.
#[derive(Clone, Debug, Default)]
pub struct ClassNames {
    names: Vec<String>,
    /// Whether classes that are not known yet are added.
    grow: bool,
}

impl ClassNames {
    /// Those that the key says.
    pub fn new(classes: &Classes) -> Self {
        match classes {
            Classes::Given(names) => Self { names: names.clone(), grow: false },
            Classes::Found | Classes::No => Self { names: Vec::new(), grow: *classes == Classes::Found },
        }
    }

    /// The number of a class.
    ///
    /// # Errors
    /// If the class is not one of those that the key lists.
    pub fn number(&mut self, column: &str, class: &str) -> Result<usize> {
        if let Some(number) = self.names.iter().position(|name| name == class) {
            return Ok(number);
        }
        if !self.grow {
            let error = Error::data(format!("`{class}` in `{column}` is none of the classes"));
            return Err(error.help(format!("`classes` lists {}", self.names.join(", "))));
        }
        self.names.push(class.to_owned());
        Ok(self.names.len() - 1)
    }

    /// Sorts the classes that were found, once all rows of the task are read, so that they do not depend on the order of the
    /// rows. Returns the new number of each. Without classes, nothing happens.
    ///
    /// # Errors
    /// If there is only one.
    pub fn sort(&mut self, task: &str) -> Result<Vec<usize>> {
        if let [one] = &self.names[..] {
            let error = Error::data(format!("all rows of task `{task}` are of the class `{one}`"));
            return Err(error.at_key("classes").help("list all classes there"));
        }
        Ok(if self.grow {
            let before = std::mem::take(&mut self.names);
            self.names.clone_from(&before);
            self.names.sort_unstable();
            before.iter().map(|name| self.names.binary_search(name).unwrap_or_default()).collect()
        } else {
            (0..self.names.len()).collect()
        })
    }

    /// The kind of a target of these classes; a number if there are none.
    pub fn kind(&self) -> TargetKind {
        match &self.names[..] {
            [] => TargetKind::Number,
            names => TargetKind::Class(names.to_vec()),
        }
    }

    /// The classes by their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_or_given() {
        let read = |text: &str| serde_json::from_str::<Classes>(text).map_err(|e| e.to_string());
        assert_eq!((read("true").unwrap(), read("false").unwrap()), (Classes::Found, Classes::No));
        assert_eq!(read("[\"b\", \"a\"]").unwrap(), Classes::Given(vec!["b".to_owned(), "a".to_owned()]));
        for (text, told) in [
            ("[\"a\"]", "there must be at least two classes"),
            ("[\"a\", \"a\"]", "`a` is listed twice"),
            ("[\"-\", \"+\"]", "`-` cannot be a class"),
            ("[\"a \", \"b\"]", "`a ` cannot be a class"),
            ("\"yes\"", "must be `true`, `false` or a list of classes"),
        ] {
            assert!(read(text).unwrap_err().contains(told), "{text}");
        }
        let mut found = ClassNames::new(&Classes::Found);
        let numbers: Vec<usize> = ["b", "c", "a", "b"].iter().map(|class| found.number("y", class).unwrap()).collect();
        let sorted = found.sort("t").unwrap();
        assert_eq!(numbers.iter().map(|&k| found.names()[sorted[k]].as_str()).collect::<String>(), "bcab");
        assert_eq!(found.names(), ["a", "b", "c"]);
    }
}
