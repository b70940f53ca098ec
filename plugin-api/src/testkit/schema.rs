//! Whether a value is valid by a JSON Schema: the keywords that schemas of configuration structs are made of. Others,
//! such as `format` and `pattern`, refuse nothing.

use serde_json::{Map, Value};

/// What makes a value invalid, and where; nothing if it is valid.
pub(crate) fn invalid(schema: &Value, value: &Value) -> Option<String> {
    Validator { root: schema }.at(schema, value, "")
}

struct Validator<'s> {
    root: &'s Value,
}

impl Validator<'_> {
    fn at(&self, schema: &Value, value: &Value, path: &str) -> Option<String> {
        let schema = match schema {
            Value::Bool(true) => return None,
            Value::Object(schema) => schema,
            _ => return Some(format!("{} is not allowed", shown(path))),
        };
        if let Some(Value::String(target)) = schema.get("$ref") {
            let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            let Some(found) = found else {
                return Some(format!("the schema refers to `{target}`, which is not there"));
            };
            if let Some(wrong) = self.at(found, value, path) {
                return Some(wrong);
            }
        }
        let wrong = |what: String| Some(format!("{} {what}", shown(path)));
        if let Some(types) = schema.get("type") {
            let fits = |name: &Value| name.as_str().is_some_and(|name| is_of_type(value, name));
            if !types.as_array().map_or_else(|| fits(types), |all| all.iter().any(fits)) {
                return wrong(format!("is {value}, and must be of the type {types}"));
            }
        }
        if let Some(Value::Array(all)) = schema.get("enum")
            && !all.iter().any(|one| equal(one, value))
        {
            return wrong(format!("is {value}, and must be one of {}", Value::from(all.clone())));
        }
        if let Some(one) = schema.get("const")
            && !equal(one, value)
        {
            return wrong(format!("is {value}, and must be {one}"));
        }
        self.number(schema, value, path)
            .or_else(|| self.sizes(schema, value, path))
            .or_else(|| self.table(schema, value, path))
            .or_else(|| self.list(schema, value, path))
            .or_else(|| self.combined(schema, value, path))
    }

    fn number(&self, schema: &Map<String, Value>, value: &Value, path: &str) -> Option<String> {
        let number = value.as_f64()?;
        let bound = |key: &str, holds: fn(f64, f64) -> bool| {
            let bound = schema.get(key)?.as_f64()?;
            (!holds(number, bound)).then(|| format!("{} is {value}, beyond its `{key}` of {bound}", shown(path)))
        };
        bound("minimum", |x, b| x >= b)
            .or_else(|| bound("maximum", |x, b| x <= b))
            .or_else(|| bound("exclusiveMinimum", |x, b| x > b))
            .or_else(|| bound("exclusiveMaximum", |x, b| x < b))
    }

    fn sizes(&self, schema: &Map<String, Value>, value: &Value, path: &str) -> Option<String> {
        let (least, most, size) = match value {
            Value::String(text) => ("minLength", "maxLength", text.chars().count()),
            Value::Array(list) => ("minItems", "maxItems", list.len()),
            _ => return None,
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|bound| bound as usize);
        let fits = bound(least).is_none_or(|bound| size >= bound) && bound(most).is_none_or(|bound| size <= bound);
        (!fits).then(|| format!("{} has a size of {size}, out of its bounds", shown(path)))
    }

    fn table(&self, schema: &Map<String, Value>, value: &Value, path: &str) -> Option<String> {
        let table = value.as_object()?;
        if let Some(Value::Array(required)) = schema.get("required") {
            let missing = required.iter().filter_map(Value::as_str).find(|key| !table.contains_key(*key));
            if let Some(key) = missing {
                return Some(format!("{} lacks `{key}`", shown(path)));
            }
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        table.iter().find_map(|(key, value)| {
            match (known.and_then(|known| known.get(key)), schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema)) => self.at(schema, value, &inside(key)),
                (None, None) => None,
            }
        })
    }

    fn list(&self, schema: &Map<String, Value>, value: &Value, path: &str) -> Option<String> {
        let (list, items) = (value.as_array()?, schema.get("items")?);
        list.iter().enumerate().find_map(|(i, value)| self.at(items, value, &format!("{path}[{i}]")))
    }

    fn combined(&self, schema: &Map<String, Value>, value: &Value, path: &str) -> Option<String> {
        let of = |key: &str| schema.get(key).and_then(Value::as_array);
        let valid = |all: &Vec<Value>| all.iter().filter(|schema| self.at(schema, value, path).is_none()).count();
        if let Some(wrong) = of("allOf").and_then(|all| all.iter().find_map(|schema| self.at(schema, value, path))) {
            return Some(wrong);
        }
        let any = of("anyOf").is_none_or(|all| valid(all) > 0);
        let one = of("oneOf").is_none_or(|all| valid(all) == 1);
        let not = schema.get("not").is_none_or(|schema| self.at(schema, value, path).is_some());
        (!(any && one && not)).then(|| format!("{} is {value}, which is none of what may stand there", shown(path)))
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "the table".to_owned() } else { format!("`{path}`") }
}

/// As numbers, 1 and 1.0 are equal.
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
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|x| x.fract() == 0.0),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_keywords_of_a_configuration_struct_are_understood() {
        let schema = json!({
            "$defs": { "Mode": { "oneOf": [{ "const": "fast" }, { "type": "object", "required": ["steps"] }] } },
            "type": "object",
            "properties": {
                "rate": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
                "size": { "type": ["integer", "null"], "minimum": 1 },
                "mode": { "$ref": "#/$defs/Mode" },
                "names": { "type": "array", "items": { "enum": ["a", "b"] }, "minItems": 1 },
            },
            "required": ["rate"],
            "additionalProperties": false,
        });
        for valid in [
            json!({ "rate": 1 }),
            json!({ "rate": 0.5, "size": null, "mode": "fast", "names": ["b", "a"] }),
            json!({ "rate": 0.5, "size": 3, "mode": { "steps": 1 } }),
        ] {
            assert_eq!(invalid(&schema, &valid), None, "{valid}");
        }
        for (wrong, part) in [
            (json!({}), "lacks `rate`"),
            (json!({ "rate": 0 }), "`rate` is 0, beyond its `exclusiveMinimum`"),
            (json!({ "rate": "x" }), "of the type \"number\""),
            (json!({ "rate": 1, "size": 0 }), "`minimum`"),
            (json!({ "rate": 1, "size": 1.5 }), "of the type"),
            (json!({ "rate": 1, "mode": "slow" }), "`mode` is \"slow\""),
            (json!({ "rate": 1, "names": [] }), "size of 0"),
            (json!({ "rate": 1, "names": ["a", "c"] }), "`names[1]` is \"c\""),
            (json!({ "rate": 1, "more": 1 }), "`more` is not allowed"),
        ] {
            let told = invalid(&schema, &wrong).unwrap();
            assert!(told.contains(part), "{wrong}: {told}");
        }
    }
}
