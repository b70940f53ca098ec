//! `fedplug schema`: one JSON Schema for an experiment and the plugins that it names.
//!
//! A plugin's table is the plugin's own schema plus the host's keys, under `$defs` as `<kind>-<name>`; the definitions
//! of that schema are next to it, as `<kind>-<name>-<definition>`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plugin_api::Kind;
use plugin_api::config::PathFormat;
use serde_json::{Map, Value, json};

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{self, Draft};
use crate::experiment::document::Document;
use crate::experiment::paths;
use crate::federation::component_error::ComponentError;
use crate::plugins::{Finder, is_path};

/// The tables that name one plugin each.
const TABLES: [(&str, Kind); 3] =
    [("dataset", Kind::Dataset), ("model", Kind::Model), ("aggregator", Kind::Aggregator)];

/// The schema of the experiment in a file. Reads only the names of the plugins and their search path; the rest may
/// still be invalid or missing. A table that names no plugin accepts anything.
///
/// # Errors
/// If the file is not TOML, or a plugin cannot be found.
pub(crate) fn schema(file: &Path, plugin_folders: &[PathBuf]) -> Result<Value, CliError> {
    let document = Document::read(file)?;
    let finder = Finder::new(plugin_folders, &Draft::of(document.clone()).experiment.plugin_path);
    let (mut schema, place) = config::schemas();
    let mut tables = Tables {
        document: &document,
        finder: &finder,
        defined: Map::new(),
        made: BTreeMap::new(),
        reports: Vec::new(),
    };

    for (key, kind) in TABLES {
        let about = schema["properties"][key]["description"].take();
        let table = tables.table(kind, &[key.to_owned()], &json!({}));
        schema["properties"][key] = described(table, about);
    }
    let place = tables.define("Place", place);
    let at = json!({ "at": {
        "description": "Where the filter processes messages: a position, or a list of positions.",
        "anyOf": [place, { "type": "array", "items": place, "minItems": 1, "uniqueItems": true }],
    } });
    let named = document.value().get("filter").and_then(Value::as_array).map_or(0, Vec::len);
    let mut items: Vec<Value> = Vec::new();
    for index in 0..named.max(1) {
        let item = tables.table(Kind::Filter, &["filter".to_owned(), index.to_string()], &at);
        if !items.contains(&item) {
            items.push(item);
        }
    }
    schema["properties"]["filter"]["items"] =
        if let [one] = &items[..] { one.clone() } else { json!({ "oneOf": items }) };
    if !tables.reports.is_empty() {
        return Err(CliError::usage(tables.reports));
    }
    schema["title"] = "fedplug experiment".into();
    schema["description"] = "One run of federated learning. Paths are relative to this file.".into();
    if let Value::Object(defined) = &mut schema["$defs"] {
        defined.extend(tables.defined);
    }
    Ok(schema)
}

/// The schemas of the plugins' tables collected so far.
struct Tables<'a> {
    document: &'a Document,
    finder: &'a Finder,
    defined: Map<String, Value>,
    /// The plugin's name and its own schema, of each table in `defined`.
    made: BTreeMap<String, (String, Value)>,
    reports: Vec<Diagnostic>,
}

impl Tables<'_> {
    /// The schema of the table at `way`. `host` holds the host's keys besides `plugin`, all of which are required.
    fn table(&mut self, kind: Kind, way: &[String], host: &Value) -> Value {
        let mut host = host.as_object().cloned().unwrap_or_default();
        let pointer = format!("/{}/plugin", way.join("/"));
        let Some(name) = self.document.value().pointer(&pointer).and_then(Value::as_str) else {
            let plugin =
                json!({ "type": "string", "description": "The name of a plugin, or the path of its library." });
            host.shift_insert(0, "plugin".to_owned(), plugin);
            let required: Vec<_> = host.keys().cloned().collect();
            return json!({ "type": "object", "properties": host, "required": required });
        };
        let key_path: Vec<String> = way.iter().cloned().chain(["plugin".to_owned()]).collect();
        let library = is_path(name).then(|| self.document.resolve(&key_path, name, PathFormat::Path).ok().flatten());
        let component = match self.finder.find(kind, library.flatten().as_deref().unwrap_or(name)) {
            Ok((_, component)) => component,
            Err(report) => {
                self.reports.push(self.document.locate(report, &key_path));
                return Value::Bool(true);
            }
        };
        let profile = component.profile();
        // Of a plugin whose keys depend on one of them, the schema is that of this table.
        let mut table = self.document.value().pointer(&format!("/{}", way.join("/"))).cloned().unwrap_or_default();
        if let Some(table) = table.as_object_mut() {
            table.retain(|key, _| key != "plugin" && !host.contains_key(key));
        }
        let table = match paths::of_table(self.document, way, &component, &table) {
            Ok(table) => table,
            Err(problems) => {
                let names: Vec<&str> = way.iter().map(String::as_str).collect();
                self.reports.extend(self.document.reports(&names, problems));
                return Value::Bool(true);
            }
        };
        let own = match component.schema(&table) {
            Ok(own) => own.into_owned(),
            Err(error) => {
                let error = ComponentError::new(format!("{kind} `{name}`"), error).of_table(way);
                self.reports.push(error.located("", self.document));
                return Value::Bool(true);
            }
        };
        host.shift_insert(0, "plugin".to_owned(), json!({ "const": name, "description": profile.about }));
        let mut title = format!("{kind}-{}", profile.name);
        // Two names may refer to the same component, such as its name and a path. One name may have several schemas.
        let made = (name.to_owned(), own.clone());
        while self.made.get(&title).is_some_and(|other| *other != made) {
            title.push('_');
        }
        self.made.insert(title.clone(), made);
        let mut schema = in_place(&own);
        adopt(&mut schema, &title);
        admit(&mut schema, &host, true);
        self.define(&title, schema)
    }

    /// Adds a schema to `$defs`, with its own definitions next to it, and returns a reference to it.
    fn define(&mut self, title: &str, mut schema: Value) -> Value {
        if let Value::Object(schema) = &mut schema {
            for key in ["$schema", "$id", "title"] {
                schema.shift_remove(key);
            }
            for key in ["$defs", "definitions"] {
                let Some(Value::Object(inner)) = schema.shift_remove(key) else { continue };
                self.defined.extend(inner.into_iter().map(|(name, schema)| (format!("{title}-{name}"), schema)));
            }
        }
        self.defined.insert(title.to_owned(), schema);
        json!({ "$ref": format!("#/$defs/{title}") })
    }
}

fn described(mut schema: Value, about: Value) -> Value {
    if let (Value::Object(schema), Value::String(_)) = (&mut schema, &about) {
        schema.insert("description".to_owned(), about);
    }
    schema
}

/// Replaces a reference at the root of the schema by its target, so that keys can be added.
fn in_place(schema: &Value) -> Value {
    let mut schema = schema.clone();
    // A sensible limit for the depth of references; it also ends cycles.
    for _ in 0..8 {
        let Some(pointer) = schema.get("$ref").and_then(Value::as_str).and_then(|way| way.strip_prefix('#')) else {
            break;
        };
        let Some(Value::Object(target)) = schema.pointer(pointer).cloned() else { break };
        if let Value::Object(schema) = &mut schema {
            schema.shift_remove("$ref");
            schema.extend(target);
        }
    }
    schema
}

/// Adds keys to a table's schema: at its root, and in every alternative that rejects other keys. If the root has no
/// alternatives and does not mention other keys, it rejects them from then on.
fn admit(schema: &mut Value, host: &Map<String, Value>, root: bool) {
    let Value::Object(schema) = schema else { return };
    let mut forms = false;
    for key in ["oneOf", "anyOf", "allOf"] {
        for form in schema.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            forms = true;
            admit(form, host, false);
        }
    }
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if !root && !closed {
        return;
    }
    if !forms && !schema.contains_key("additionalProperties") && !schema.contains_key("unevaluatedProperties") {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    let own = schema.shift_remove("properties").and_then(|own| own.as_object().cloned()).unwrap_or_default();
    // A plugin never sees its own key of that name.
    let own = own.into_iter().filter(|(key, _)| !host.contains_key(key));
    let properties: Map<String, Value> = host.clone().into_iter().chain(own).collect();
    schema.insert("properties".to_owned(), properties.into());
    if root {
        let own = schema.shift_remove("required").and_then(|own| own.as_array().cloned()).unwrap_or_default();
        let own = own.into_iter().filter(|key| key.as_str().is_none_or(|key| !host.contains_key(key)));
        let required: Vec<Value> = host.keys().map(|key| key.as_str().into()).chain(own).collect();
        schema.insert("required".to_owned(), required.into());
    }
}

/// Rewrites references within a schema for its new location: `#/$defs/<title>`, with its definitions next to it.
fn adopt(value: &mut Value, title: &str) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|item| adopt(item, title)),
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match (key.as_str(), &*value) {
                    ("$ref", Value::String(way)) if way.starts_with('#') => {
                        let name = way.strip_prefix("#/$defs/").or_else(|| way.strip_prefix("#/definitions/"));
                        let new = match name {
                            Some(name) => format!("#/$defs/{title}-{name}"),
                            None => format!("#/$defs/{title}{}", &way[1..]),
                        };
                        *value = new.into();
                    }
                    _ => adopt(value, title),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(mut schema: Value) -> Value {
        admit(&mut schema, json!({ "plugin": { "const": "x" } }).as_object().unwrap(), true);
        schema
    }

    #[test]
    fn a_table_has_the_hosts_keys_and_no_others_than_the_plugins() {
        let plain = json!({ "type": "object", "properties": { "a": true }, "required": ["a"] });
        let wanted = json!({
            "type": "object", "additionalProperties": false, "required": ["plugin", "a"],
            "properties": { "plugin": { "const": "x" }, "a": true },
        });
        assert_eq!(table(plain), wanted);
        let empty = table(json!({ "type": "object" }));
        assert_eq!((&empty["additionalProperties"], &empty["required"]), (&json!(false), &json!(["plugin"])));
        // A plugin that accepts any key still does.
        let open = table(json!({ "type": "object", "additionalProperties": { "type": "number" } }));
        assert_eq!(open["additionalProperties"], json!({ "type": "number" }));
    }

    #[test]
    fn each_closed_form_of_a_table_admits_the_hosts_keys() {
        let forms = table(json!({ "oneOf": [
            { "type": "object", "properties": { "how": { "const": "a" } }, "additionalProperties": false },
            { "type": "object", "properties": { "how": { "const": "b" } } },
        ] }));
        assert_eq!(forms["oneOf"][0]["properties"]["plugin"], json!({ "const": "x" }));
        assert_eq!(forms["oneOf"][1]["properties"], json!({ "how": { "const": "b" } }));
        assert_eq!(forms["required"], json!(["plugin"]));
        assert!(forms.get("additionalProperties").is_none());
    }

    #[test]
    fn references_lead_to_where_the_schema_stands() {
        let schema = json!({ "$ref": "#/$defs/Config", "$defs": { "Config": { "properties": { "a": { "$ref": "#/$defs/B" } } } } });
        let mut schema = in_place(&schema);
        assert_eq!(schema["properties"]["a"]["$ref"], "#/$defs/B");
        schema["properties"]["self"] = json!({ "$ref": "#" });
        schema["properties"]["old"] = json!({ "$ref": "#/definitions/C" });
        adopt(&mut schema, "filter-x");
        let reference = |key: &str| schema["properties"][key]["$ref"].clone();
        assert_eq!(
            ["a", "self", "old"].map(reference),
            ["#/$defs/filter-x-B", "#/$defs/filter-x", "#/$defs/filter-x-C"]
        );
    }
}
