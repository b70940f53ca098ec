//! Turns a parsed TOML file into plain values.

use std::collections::BTreeMap;
use std::ops::Range;

use plugin_api::config::Problem;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How deep a key may be nested: far deeper than any table of an experiment.
pub(super) const DEEPEST: usize = 32;

/// The most memory, in bytes, for the paths of all keys: far more than any experiment needs. A list below long names
/// would need much more than its text.
const MOST_MEMORY: usize = 64 << 20;

/// The bytes of a key and of its value, or of the value's first line.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Makes plain values of a parsed file and records their spans.
#[derive(Default)]
pub(super) struct Walk {
    key_path: Vec<String>,
    /// The memory that the paths in `spots` take.
    memory: usize,
    full: bool,
    pub(super) spots: BTreeMap<Vec<String>, Spot>,
    pub(super) problems: Vec<Problem>,
}

impl Walk {
    /// The values of a file.
    pub(super) fn file(&mut self, file: DeTable<'_>) -> Map<String, Value> {
        let map = self.table(&file);
        free(file);
        map
    }

    /// The values of a table.
    fn table(&mut self, table: &DeTable<'_>) -> Map<String, Value> {
        let mut entries: Vec<_> = table.iter().collect();
        // The parser sorts keys; errors and `experiment.toml` follow the file's order.
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut map = Map::new();
        for (key, value) in entries {
            let name = key.get_ref().to_string();
            map.insert(name.clone(), self.step(name, Spot { key: key.span(), value: value.span() }, value.get_ref()));
        }
        map
    }

    fn step(&mut self, name: String, spot: Spot, value: &DeValue<'_>) -> Value {
        self.key_path.push(name);
        self.memory += self.key_path.iter().map(|step| step.len() + size_of::<String>()).sum::<usize>();
        let value = if self.key_path.len() > DEEPEST {
            self.refuse(format!("is nested too deeply: at most {DEEPEST} tables and lists are read"))
        } else if self.memory > MOST_MEMORY {
            self.refuse_all()
        } else {
            self.spots.insert(self.key_path.clone(), spot);
            self.value(value)
        };
        self.key_path.pop();
        value
    }

    /// Records once that there are too many keys.
    fn refuse_all(&mut self) -> Value {
        if !std::mem::replace(&mut self.full, true) {
            let message = "the file has too many keys and items".to_owned();
            self.problems.push(Problem { path: Vec::new(), message, known: Vec::new() });
        }
        Value::Null
    }

    /// Records a problem of the current key, unless there are many: a huge file has one for each item.
    fn refuse(&mut self, message: String) -> Value {
        if self.problems.len() < super::MOST_ERRORS {
            self.problems.push(Problem { path: self.key_path.clone(), message, known: Vec::new() });
        }
        Value::Null
    }

    fn value(&mut self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Integer(digits) => {
                let parsed = i64::from_str_radix(&digits.as_str().replace('_', ""), digits.radix()).ok();
                self.number(parsed.map(Number::from), "the number does not fit 64 bits")
            }
            DeValue::Float(digits) => {
                let parsed = digits.as_str().replace('_', "").parse::<f64>().ok();
                self.number(parsed.and_then(Number::from_f64), "must be a finite number")
            }
            DeValue::Array(list) => {
                let mut item = |(i, item): (usize, &Spanned<DeValue<'_>>)| {
                    self.step(i.to_string(), Spot { key: item.span(), value: item.span() }, item.get_ref())
                };
                Value::Array(list.iter().enumerate().map(&mut item).collect())
            }
            DeValue::Table(table) => Value::Object(self.table(table)),
        }
    }

    fn number(&mut self, found: Option<Number>, otherwise: &str) -> Value {
        found.map_or_else(|| self.refuse(otherwise.to_owned()), Value::Number)
    }
}

/// Frees a parsed file table by table. Dropped at once, tables in each other would take a call each, and a stranger's text
/// may have so many that they overflow the stack.
fn free(table: DeTable<'_>) {
    let mut left: Vec<DeValue<'_>> = vec![DeValue::Table(table)];
    while let Some(value) = left.pop() {
        match value {
            DeValue::Table(table) => left.extend(table.into_iter().map(|(_, value)| value.into_inner())),
            DeValue::Array(list) => left.extend(list.into_iter().map(Spanned::into_inner)),
            // The others hold no values.
            _ => {}
        }
    }
}
