//! Describes values and types in TOML's terms, and rewrites serde's messages in the same terms.

use serde_json::{Map, Value};

/// How much of a text a message shows.
const SHOWN: usize = 60;

/// A value as a message names it: ``the text `many` ``, `a list`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(_) if value.is_f64() => format!("the number `{value}`"),
        Value::Number(_) => format!("the whole number `{value}`"),
        Value::String(text) if text.chars().count() > SHOWN => {
            format!("the text `{}…`", text.chars().take(SHOWN).collect::<String>())
        }
        Value::String(text) => format!("the text `{text}`"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

/// A number without unneeded digits.
pub(super) fn number(value: &Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(x) if x != 0.0 && !(1e-4..1e9).contains(&x.abs()) => format!("{x:e}"),
        Some(x) => x.to_string(),
        None => value.to_string(),
    }
}

/// What a schema requires: `a whole number`, `text or a table`.
pub(super) fn kind(schema: &Map<String, Value>) -> String {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let words: Vec<String> = schema.get("const").into_iter().chain(listed).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        return words.join(" or ");
    }
    let types = match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let named = types.into_iter().filter(|name| *name != "null").map(|name| match name {
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        other => other,
    });
    let named: Vec<&str> = named.collect();
    if named.is_empty() { "something else".to_owned() } else { named.join(" or ") }
}

/// A serde message about types, reworded for someone who writes TOML. Other messages are unchanged.
pub(super) fn plain(message: &str) -> String {
    if message.starts_with("data did not match any variant of untagged enum") {
        return "has none of the allowed forms".to_owned();
    }
    let rest =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|start| message.strip_prefix(start));
    let Some((came, expected)) = rest.and_then(|rest| rest.split_once(", expected ")) else {
        return message.to_owned();
    };
    if message.starts_with("invalid length") {
        return format!("has {came} items, but must be {}", wanted(expected));
    }
    format!("must be {}, not {}", wanted(expected), given(came))
}

fn given(came: &str) -> String {
    let quoted = |text: &str| text.trim_matches(['`', '"']).to_owned();
    match came.split_once(' ') {
        Some(("integer", value)) => format!("the whole number `{}`", quoted(value)),
        Some(("floating", value)) => format!("the number `{}`", quoted(value.trim_start_matches("point "))),
        Some(("boolean", value)) => format!("`{}`", quoted(value)),
        Some(("string" | "character", value)) => format!("the text `{}`", quoted(value)),
        _ => match came {
            "sequence" => "a list".to_owned(),
            "map" => "a table".to_owned(),
            "null" | "unit value" | "Option value" => "nothing".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn wanted(expected: &str) -> String {
    let range = |least: i64, most: u64| format!("a whole number from {least} to {most}");
    match expected {
        "i8" => range(i8::MIN.into(), i8::MAX as u64),
        "i16" => range(i16::MIN.into(), i16::MAX as u64),
        "i32" => range(i32::MIN.into(), i32::MAX as u64),
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" | "string" | "a borrowed string" | "path string" => "text".to_owned(),
        "a character" => "one character".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" | "an array" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "string or map" => "text or a table".to_owned(),
        _ if expected.starts_with("a nonzero u") => "a whole number from 1".to_owned(),
        _ if expected.starts_with("a nonzero i") => "a whole number other than 0".to_owned(),
        _ if expected.starts_with("struct ") => "a table".to_owned(),
        _ if expected.starts_with("a tuple ") => expected.replacen("a tuple of size", "a list of length", 1),
        other => other.to_owned(),
    }
}
