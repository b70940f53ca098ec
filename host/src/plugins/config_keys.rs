//! Human-readable descriptions of the keys of a plugin's table, from its JSON Schema.

use plugin_api::config::PathFormat;
use serde_json::{Map, Value};

/// The maximum depth of nested tables. Deeper ones, as in a recursive schema, are not shown.
const DEPTH: usize = 6;

/// A key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    /// The name, dotted for keys of nested tables.
    pub name: String,
    /// The type with its bounds: `whole number from 1`, `text or list of text`.
    pub takes: String,
    /// The default as TOML, if there is one.
    pub default: Option<String>,
    /// Whether the key is required in its table.
    pub required: bool,
    /// The description.
    pub about: String,
    /// The accepted words, each with its meaning.
    pub words: Vec<(String, String)>,
}

/// The keys that a schema describes, in its order; keys of a nested table follow the key of that table.
pub(crate) fn keys(schema: &Value) -> Vec<Key> {
    let mut keys = Vec::new();
    Reader { root: schema }.table(schema, "", DEPTH, &mut keys);
    keys
}

/// The values that a schema accepts.
#[derive(Default)]
struct Shape {
    /// The alternatives, in words.
    takes: Vec<String>,
    words: Vec<(String, String)>,
}

struct Reader<'a> {
    root: &'a Value,
}

impl Reader<'_> {
    /// Resolves the reference of a schema; the schema's own entries take precedence.
    fn resolved(&self, schema: &Value) -> Map<String, Value> {
        let mut schema = schema.as_object().cloned().unwrap_or_default();
        for _ in 0..DEPTH {
            let Some(Value::String(way)) = schema.shift_remove("$ref") else { break };
            let target =
                way.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).and_then(Value::as_object);
            for (key, value) in target.into_iter().flatten() {
                schema.entry(key).or_insert_with(|| value.clone());
            }
        }
        schema
    }

    /// Adds the keys of the table at the dotted path `prefix`.
    fn table(&self, schema: &Value, prefix: &str, depth: usize, keys: &mut Vec<Key>) {
        let schema = self.resolved(schema);
        let required: Vec<&str> = list(&schema, "required").filter_map(Value::as_str).collect();
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let (name, required) = (format!("{prefix}{name}"), required.contains(&name.as_str()));
            if keys.iter().any(|key| key.name == name) {
                continue; // another form of the table has it too
            }
            let inner = self.resolved(inner);
            let mut shape = Shape::default();
            self.shape(&inner, DEPTH, &mut shape);
            keys.push(Key {
                takes: spoken(&shape.takes),
                default: inner.get("default").filter(|value| !value.is_null()).map(toml),
                required,
                about: paragraph(inner.get("description")),
                words: if shape.words.iter().any(|(_, about)| !about.is_empty()) { shape.words } else { Vec::new() },
                name: name.clone(),
            });
            self.within(&inner, &name, depth, keys);
        }
        for form in forms(&schema).filter(|_| depth > 0) {
            self.table(form, prefix, depth - 1, keys);
        }
    }

    /// Adds the keys of nested tables that a value may be or contain.
    fn within(&self, schema: &Map<String, Value>, name: &str, depth: usize, keys: &mut Vec<Key>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        self.table(&only(schema, &["properties", "required"]), &format!("{name}."), depth, keys);
        for form in forms(schema) {
            self.within(&self.resolved(form), name, depth, keys);
        }
        if let Some(items) = schema.get("items") {
            self.within(&self.resolved(items), &format!("{name}[]"), depth, keys);
        }
        if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
            self.within(&self.resolved(values), &format!("{name}.NAME"), depth, keys);
        }
    }

    /// Adds the values that a schema accepts.
    fn shape(&self, schema: &Map<String, Value>, depth: usize, shape: &mut Shape) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Some(word) = schema.get("const") {
            shape.takes.push(toml(word));
            shape.words.push((toml(word), paragraph(schema.get("description"))));
            return;
        }
        if schema.contains_key("enum") {
            let words: Vec<String> = list(schema, "enum").filter(|word| !word.is_null()).map(toml).collect();
            shape.takes.extend(words.iter().cloned());
            shape.words.extend(words.into_iter().map(|word| (word, String::new())));
            return;
        }
        let forms: Vec<_> = forms(schema).map(|form| self.resolved(form)).collect();
        if !forms.is_empty() {
            forms.iter().for_each(|form| self.shape(form, depth, shape));
            return;
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => vec!["anything"],
        };
        for kind in types {
            let (word, min, max) = match kind {
                "null" => continue, // TOML has none: the key is left out
                "string" => (text(schema).to_owned(), "minLength", "maxLength"),
                "boolean" => ("true or false".to_owned(), "", ""),
                "array" => (self.many("list", schema.get("items"), depth), "minItems", "maxItems"),
                "object" => match schema.get("additionalProperties") {
                    Some(values @ Value::Object(_)) => {
                        (self.many("table", Some(values), depth), "minProperties", "maxProperties")
                    }
                    _ => ("table".to_owned(), "", ""),
                },
                "integer" => ("whole number".to_owned(), "minimum", "maximum"),
                other => (other.to_owned(), "minimum", "maximum"),
            };
            let bounds = if min == "minimum" { range(schema) } else { lengths(schema, min, max) };
            shape.takes.push(format!("{word}{bounds}"));
        }
    }

    /// Describes a list or table, such as `list of text`.
    fn many(&self, whole: &str, each: Option<&Value>, depth: usize) -> String {
        let mut shape = Shape::default();
        if let Some(each) = each {
            self.shape(&self.resolved(each), depth, &mut shape);
        }
        if shape.takes.is_empty() { whole.to_owned() } else { format!("{whole} of {}", spoken(&shape.takes)) }
    }
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn forms(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|key| list(schema, key))
}

fn only(schema: &Map<String, Value>, keys: &[&str]) -> Value {
    schema.iter().filter(|(key, _)| keys.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The bounds: ` from 1`, ` above 0 up to 1`; empty if there are none other than those of the type.
fn range(schema: &Map<String, Value>) -> String {
    let bound = |key: &str, word: &str| schema.get(key).map(|value| format!(" {word} {}", toml(value)));
    let low = bound("minimum", "from").or_else(|| bound("exclusiveMinimum", "above")).unwrap_or_default();
    let high = bound("maximum", if low.is_empty() { "up to" } else { "to" });
    low + &high.or_else(|| bound("exclusiveMaximum", "below")).unwrap_or_default()
}

/// The bounds of a length: `, at least 1`.
fn lengths(schema: &Map<String, Value>, min: &str, max: &str) -> String {
    let bound = |key: &str, word: &str| schema.get(key).map(|value| format!(", {word} {value}")).unwrap_or_default();
    let pattern = schema.get("pattern").filter(|_| min == "minLength").map(|p| format!(", like {}", toml(p)));
    bound(min, "at least") + &bound(max, "at most") + &pattern.unwrap_or_default()
}

/// Joins words as `a, b or c`, without duplicates.
fn spoken(words: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for word in words {
        if !once.contains(&word.as_str()) {
            once.push(word);
        }
    }
    match once.split_last() {
        None => "anything".to_owned(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
    }
}

/// Joins the lines of a description; an empty line starts a new line.
fn paragraph(description: Option<&Value>) -> String {
    let text = description.and_then(Value::as_str).unwrap_or_default();
    let lines = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a text is.
fn text(schema: &Map<String, Value>) -> &'static str {
    match PathFormat::of(schema) {
        None => "text",
        Some(PathFormat::Path) => "path",
        Some(PathFormat::Pattern) => "path, also with wildcards",
        Some(PathFormat::PathOrName) => "path or name",
    }
}

/// Formats a value as TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let entries = table.iter().filter(|(_, value)| !value.is_null());
            let entries: Vec<_> = entries.map(|(key, value)| format!("{key} = {}", toml(value))).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        // A JSON string is also a TOML string.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
