//! Which texts of a configuration are paths, by the `format` of its schema.

use serde_json::{Map, Value};

use super::schema::{DEPTH, Validator, array, words};

/// How a text of a configuration names files: the `format` of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFormat {
    /// `path`: a file or a folder.
    Path,
    /// `path-pattern`: a path in which some characters match several names, such as `data/*.csv`.
    Pattern,
    /// `path-or-name`: a path or, where there is no such file or folder, something else, such as a model on a hub.
    PathOrName,
}

impl PathFormat {
    /// The format of a schema of texts, if it is one of paths.
    pub fn of(schema: &Map<String, Value>) -> Option<Self> {
        match schema.get("format")?.as_str()? {
            "path" => Some(Self::Path),
            "path-pattern" => Some(Self::Pattern),
            "path-or-name" => Some(Self::PathOrName),
            _ => None,
        }
    }
}

/// The texts of a configuration that are paths, each with the path of its key from the table's root. A schema says so by
/// `format`: `#[schemars(extend("format" = "path"))]` at a field; that of a list counts for its items.
pub fn paths(schema: &Value, value: &Value) -> Vec<(Vec<String>, PathFormat)> {
    let mut finder = Finder { root: schema, way: Vec::new(), found: Vec::new() };
    finder.at(schema, value, DEPTH);
    finder.found
}

struct Finder<'s> {
    root: &'s Value,
    way: Vec<String>,
    found: Vec<(Vec<String>, PathFormat)>,
}

impl Finder<'_> {
    fn at(&mut self, schema: &Value, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let schema = Validator::new(self.root).resolved(schema);
        let format = PathFormat::of(&schema);
        match value {
            Value::String(_) => self.add(format),
            Value::Array(list) => {
                for index in (0..list.len()).filter(|&index| list[index].is_string()) {
                    self.way.push(index.to_string());
                    self.add(format);
                    self.way.pop();
                }
                let first: Vec<&Value> = array(&schema, "prefixItems").collect();
                for (index, item) in list.iter().enumerate() {
                    if let Some(schema) = first.get(index).copied().or_else(|| schema.get("items")) {
                        self.step(index.to_string(), schema, item, depth);
                    }
                }
            }
            Value::Object(table) => {
                for (key, inner) in table {
                    let own = schema.get("properties").and_then(|properties| properties.get(key));
                    if let Some(schema) = own.or_else(|| schema.get("additionalProperties")) {
                        self.step(key.clone(), schema, inner, depth);
                    }
                }
            }
            _ => return,
        }
        array(&schema, "allOf").for_each(|form| self.at(form, value, depth));
        for key in ["anyOf", "oneOf"] {
            let fits = |form: &&Value| Validator::new(self.root).is_valid(form, value, depth);
            let (mut forms, others): (Vec<&Value>, Vec<&Value>) = array(&schema, key).partition(fits);
            // Of a value that is wrong, as much as can be known.
            if forms.is_empty() {
                forms = others;
            }
            // A fixed word is no path.
            let fixed = |form: &&Value| !words(&Validator::new(self.root).resolved(form)).is_empty();
            if !value.is_string() || !forms.iter().any(fixed) {
                forms.into_iter().for_each(|form| self.at(form, value, depth));
            }
        }
    }

    fn add(&mut self, format: Option<PathFormat>) {
        let known = self.found.iter().any(|(way, _)| *way == self.way);
        self.found.extend(format.filter(|_| !known).map(|format| (self.way.clone(), format)));
    }

    fn step(&mut self, key: String, schema: &Value, value: &Value, depth: usize) {
        self.way.push(key);
        self.at(schema, value, depth);
        self.way.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Config {
        #[schemars(extend("format" = "path"))]
        file: PathBuf,
        #[schemars(extend("format" = "path"))]
        folders: Vec<PathBuf>,
        #[schemars(extend("format" = "path"))]
        maybe: Option<PathBuf>,
        source: Source,
        all: Vec<Inner>,
        named: BTreeMap<String, Inner>,
        text: String,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "as above")]
    enum Source {
        Named(#[schemars(extend("format" = "path-or-name"))] String),
        New { seed: u32 },
    }

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "as above")]
    struct Inner {
        #[schemars(extend("format" = "path-pattern"))]
        files: String,
    }

    #[test]
    fn paths_are_found_wherever_they_are() {
        let schema = schemars::schema_for!(Config).to_value();
        let value = json!({ "file": "a", "folders": ["b", "c"], "maybe": "d", "source": "e", "text": "no",
            "all": [{ "files": "f" }], "named": { "x": { "files": "g" } }, "unknown": "no" });
        let found: Vec<String> =
            paths(&schema, &value).into_iter().map(|(way, format)| format!("{} {format:?}", way.join("."))).collect();
        let wanted = [
            "file Path",
            "folders.0 Path",
            "folders.1 Path",
            "maybe Path",
            "source PathOrName",
            "all.0.files Pattern",
            "named.x.files Pattern",
        ];
        assert_eq!(found, wanted);
        assert!(paths(&schema, &json!({ "source": { "seed": 1 }, "file": 3, "all": "no" })).is_empty());
    }

    #[test]
    fn the_form_that_fits_decides_and_a_fixed_word_is_no_path() {
        let schema = json!({ "properties": {
            "from": { "oneOf": [{ "const": "memory" }, { "type": "string", "format": "path" }] },
            "table": { "oneOf": [
                { "properties": { "kind": { "const": "file" }, "name": { "type": "string", "format": "path" } } },
                { "properties": { "kind": { "const": "column" }, "name": { "type": "string" } } },
            ] },
        } });
        let count = |value: Value| paths(&schema, &value).len();
        assert_eq!((count(json!({ "from": "memory" })), count(json!({ "from": "disk" }))), (0, 1));
        assert_eq!(count(json!({ "table": { "kind": "file", "name": "x" } })), 1);
        assert_eq!(count(json!({ "table": { "kind": "column", "name": "x" } })), 0);
    }
}
