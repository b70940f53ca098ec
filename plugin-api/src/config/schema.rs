//! Checks a value against a JSON Schema. It supports the keywords that schemas of configuration structs use; other
//! keywords refuse nothing. Numbers are TOML's: 1.0 is not a whole number, and every number must fit the range of the
//! key's type.

use serde_json::{Map, Value};

use super::bounds;
use super::words::{kind, shown};
use super::{Problem, unknown_key};

/// How many references and tables deep a schema is followed.
pub(super) const DEPTH: usize = 64;

/// A problem that the schema finds.
pub(super) struct Found {
    pub(super) problem: Problem,
    /// Whether it says little more than that something is wrong. The owner's own message is better then.
    pub(super) vague: bool,
}

/// All problems in a value, in the value's order.
pub(super) fn problems(schema: &Value, value: &Value) -> Vec<Found> {
    let mut validator = Validator::new(schema);
    validator.at(schema, value, DEPTH);
    validator.found
}

pub(super) struct Validator<'s> {
    root: &'s Value,
    way: Vec<String>,
    found: Vec<Found>,
}

impl<'s> Validator<'s> {
    pub(super) fn new(root: &'s Value) -> Self {
        Self { root, way: Vec::new(), found: Vec::new() }
    }
}

impl Validator<'_> {
    fn tell(&mut self, message: impl Into<String>) {
        self.tell_known(message, Vec::new());
    }

    fn tell_known(&mut self, message: impl Into<String>, known: Vec<String>) {
        let problem = Problem { path: self.way.clone(), message: message.into(), known };
        self.found.push(Found { problem, vague: false });
    }

    fn tell_any(&mut self, message: Option<String>) {
        message.into_iter().for_each(|message| self.tell(message));
    }

    fn tell_vaguely(&mut self, message: impl Into<String>) {
        self.tell(message);
        if let Some(last) = self.found.last_mut() {
            last.vague = true;
        }
    }

    pub(super) fn is_valid(&self, schema: &Value, value: &Value, depth: usize) -> bool {
        let mut inner = Validator::new(self.root);
        inner.at(schema, value, depth);
        inner.found.is_empty()
    }

    fn step(&mut self, key: String, schema: &Value, value: &Value, depth: usize) {
        self.way.push(key);
        self.at(schema, value, depth);
        self.way.pop();
    }

    fn at(&mut self, schema: &Value, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(false) => return self.tell_vaguely("is not allowed here"),
            _ => return,
        };
        if let Some(Value::String(target)) = schema.get("$ref") {
            let before = self.found.len();
            match target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                Some(target) => self.at(target, value, depth),
                None => self.tell(format!("the plugin's schema refers to `{target}`, which it does not have")),
            }
            if self.found.len() > before {
                return;
            }
        }
        if schema.contains_key("type") && !types(schema).any(|name| is_of_type(value, name)) {
            return self.tell(format!("must be {}, not {}", kind(schema), shown(value)));
        }
        let words = words(schema);
        if !words.is_empty() && !words.iter().any(|word| equal(word, value)) {
            return self.unknown_word(&words, value);
        }
        match value {
            Value::Number(_) => self.tell_any(bounds::number(schema, value)),
            Value::String(text) => self.text(schema, text),
            Value::Array(list) => self.list(schema, list, depth),
            Value::Object(table) => self.table(schema, table, depth),
            Value::Null | Value::Bool(_) => {}
        }
        for all in array(schema, "allOf") {
            self.at(all, value, depth);
        }
        for (key, only_one) in [("anyOf", false), ("oneOf", true)] {
            if schema.contains_key(key) {
                self.forms(&array(schema, key).collect::<Vec<_>>(), only_one, value, depth);
            }
        }
        if schema.get("not").is_some_and(|not| self.is_valid(not, value, depth)) {
            self.tell_vaguely(format!("must not be {}", shown(value)));
        }
    }

    /// Checks a value that must have one of several forms. If its type or a key's fixed word shows which form is meant,
    /// that form reports the problems.
    fn forms(&mut self, forms: &[&Value], only_one: bool, value: &Value, depth: usize) {
        match forms.iter().filter(|form| self.is_valid(form, value, depth)).count() {
            0 => {}
            1 => return,
            _ if !only_one => return,
            _ => return self.tell_vaguely("has several of the allowed forms at once"),
        }
        let resolved: Vec<Map<String, Value>> = forms.iter().map(|form| self.resolved(form)).collect();
        let known: Vec<Value> = resolved.iter().flat_map(words).collect();
        if resolved.iter().all(|form| !words(form).is_empty() || is_null(form)) {
            return self.unknown_word(&known, value);
        }
        let tagged = |form: &Map<String, Value>| {
            let properties = form.get("properties").and_then(Value::as_object).into_iter().flatten();
            properties.filter_map(|(key, inner)| Some((value.get(key)?, inner.get("const")?))).all(|(a, b)| equal(a, b))
        };
        let mut meant: Vec<usize> = (0..forms.len())
            .filter(|&k| words(&resolved[k]).is_empty() && !is_null(&resolved[k]))
            .filter(|&k| !resolved[k].contains_key("type") || types(&resolved[k]).any(|name| is_of_type(value, name)))
            .filter(|&k| tagged(&resolved[k]))
            .collect();
        // Among several tables, pick the one that knows most of the keys.
        let shared = |k: usize| {
            let known = resolved[k].get("properties").and_then(Value::as_object);
            known.map_or(0, |known| known.keys().filter(|key| value.get(key.as_str()).is_some()).count())
        };
        let most = meant.iter().map(|&k| shared(k)).max().unwrap_or_default();
        meant.retain(|&k| most == 0 || shared(k) == most);
        let mut kinds: Vec<String> = resolved.iter().filter(|form| !is_null(form)).map(kind).collect();
        kinds.dedup();
        match (&meant[..], value) {
            ([one], _) => self.at(forms[*one], value, depth),
            ([], Value::String(_)) if known.iter().any(Value::is_string) => self.unknown_word(&known, value),
            ([], _) => self.tell(format!("must be {}, not {}", kinds.join(" or "), shown(value))),
            _ => self.tell_vaguely(format!("has none of the allowed forms: {}", kinds.join(" or "))),
        }
    }

    fn unknown_word(&mut self, known: &[Value], value: &Value) {
        match value.as_str().filter(|_| known.iter().any(Value::is_string)) {
            Some(word) => {
                let known = known.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                self.tell_known(format!("unknown value `{word}`"), known);
            }
            None => {
                let known: Vec<String> = known.iter().filter(|word| !word.is_null()).map(Value::to_string).collect();
                self.tell(format!("must be {}, not {}", known.join(" or "), shown(value)));
            }
        }
    }

    /// The schema with its reference resolved.
    pub(super) fn resolved(&self, schema: &Value) -> Map<String, Value> {
        let mut schema = schema.as_object().cloned().unwrap_or_default();
        for _ in 0..DEPTH {
            let Some(Value::String(target)) = schema.shift_remove("$ref") else { break };
            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            for (key, value) in target.and_then(Value::as_object).into_iter().flatten() {
                schema.entry(key).or_insert_with(|| value.clone());
            }
        }
        schema
    }

    fn text(&mut self, schema: &Map<String, Value>, text: &str) {
        self.tell_any(bounds::size(schema, ["minLength", "maxLength"], text.chars().count(), "character"));
        let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else { return };
        match regex_lite::Regex::new(pattern) {
            Ok(regex) if regex.is_match(text) => {}
            Ok(_) => self.tell_vaguely(format!("must match `{pattern}`")),
            Err(error) => self.tell(format!("the plugin's schema has a pattern that cannot be read: {error}")),
        }
    }

    fn list(&mut self, schema: &Map<String, Value>, list: &[Value], depth: usize) {
        self.tell_any(bounds::size(schema, ["minItems", "maxItems"], list.len(), "item"));
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = list.iter().find(|item| !seen.insert(item.to_string())) {
                self.tell(format!("has {} twice", shown(twice)));
            }
        }
        let first: Vec<&Value> = array(schema, "prefixItems").collect();
        for (index, item) in list.iter().enumerate() {
            if let Some(schema) = first.get(index).copied().or_else(|| schema.get("items")) {
                self.step(index.to_string(), schema, item, depth);
            }
        }
    }

    fn table(&mut self, schema: &Map<String, Value>, table: &Map<String, Value>, depth: usize) {
        self.tell_any(bounds::size(schema, ["minProperties", "maxProperties"], table.len(), "key"));
        for key in array(schema, "required").filter_map(Value::as_str).filter(|key| !table.contains_key(*key)) {
            self.tell(format!("`{key}` is missing"));
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let patterns: Vec<_> =
            patterns.filter_map(|(pattern, schema)| Some((regex_lite::Regex::new(pattern).ok()?, schema))).collect();
        for (key, value) in table {
            if let Some(names) = schema.get("propertyNames") {
                self.step(key.clone(), names, &Value::from(key.as_str()), depth);
            }
            let mut named = false;
            if let Some(schema) = known.and_then(|known| known.get(key)) {
                named = true;
                self.step(key.clone(), schema, value, depth);
            }
            for (_, schema) in patterns.iter().filter(|(pattern, _)| pattern.is_match(key)) {
                named = true;
                self.step(key.clone(), schema, value, depth);
            }
            match schema.get("additionalProperties").filter(|_| !named) {
                Some(Value::Bool(false)) => {
                    self.way.push(key.clone());
                    let known = known.into_iter().flat_map(Map::keys).cloned().collect();
                    self.tell_known(unknown_key(key), known);
                    self.way.pop();
                }
                Some(schema) => self.step(key.clone(), schema, value, depth),
                None => {}
            }
        }
    }
}

pub(super) fn array<'a>(schema: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// The names of the types that a schema allows.
fn types(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Value::as_str);
    one.into_iter().chain(array(schema, "type").filter_map(Value::as_str))
}

/// Whether a schema allows only null, which TOML does not have.
fn is_null(schema: &Map<String, Value>) -> bool {
    let mut types = types(schema).peekable();
    types.peek().is_some() && types.all(|name| name == "null")
}

/// The values that a schema lists; empty if it also allows others.
pub(super) fn words(schema: &Map<String, Value>) -> Vec<Value> {
    schema.get("const").into_iter().chain(array(schema, "enum")).cloned().collect()
}

/// Compares values. As numbers, 1 and 1.0 are equal.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
