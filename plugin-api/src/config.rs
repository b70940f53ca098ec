//! Checking a configuration table against the struct that its owner reads it into.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_path_to_error::Segment;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The way to the key, from the table's root; an index of an array is a number in decimal.
    pub path: Vec<String>,
    /// What is wrong, in one line.
    pub message: String,
    /// The names that would have been understood, where the name is what is wrong.
    pub known: Vec<String>,
}

impl Problem {
    /// Whether it is the key's name that is wrong, and not its value.
    pub fn is_of_the_name(&self) -> bool {
        self.path.last().is_some_and(|name| self.message == unknown_key(name))
    }
}

fn unknown_key(name: &str) -> String {
    format!("unknown key `{name}`")
}

/// Everything that is wrong with `value` as a `T`, and the `T` if nothing is.
///
/// Serde stops at the first error. So the key at fault is taken out and the rest tried again, until nothing is wrong.
///
/// # Errors
/// The problems, in the order found.
pub fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<Problem>> {
    let mut value = value.clone();
    let mut problems: Vec<Problem> = Vec::new();
    let mut removed: Vec<Vec<String>> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(read) if problems.is_empty() => return Ok(read),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let mut path: Vec<String> = error.path().iter().filter_map(segment).collect();
        let message = error.inner().to_string();
        if let Some(name) = quoted_after(&message, "missing field ") {
            // Taking a bad key out makes it missing. That problem is noted already: go on without the table around it.
            path.push(name.to_owned());
            let noted = removed.contains(&path);
            path.pop();
            if noted && take_out(&mut value, &path) {
                removed.push(path);
                continue;
            }
            if !noted {
                problems.push(Problem { path, message: format!("`{name}` is missing"), known: Vec::new() });
            }
            return Err(problems);
        }
        let mut known = Vec::new();
        let mut text = message.clone();
        if let Some(name) = quoted_after(&message, "unknown field ") {
            if path.last().is_none_or(|last| last != name) {
                path.push(name.to_owned());
            }
            known = message.split_once("expected").map_or_else(Vec::new, |(_, names)| quoted(names));
            text = unknown_key(name);
        } else if let Some(name) = quoted_after(&message, "unknown variant ") {
            known = message.split_once("expected").map_or_else(Vec::new, |(_, names)| quoted(names));
            text = format!("unknown value `{name}`");
        }
        let taken = take_out(&mut value, &path);
        removed.push(path.clone());
        problems.push(Problem { path, message: text, known });
        if !taken {
            return Err(problems);
        }
    }
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.strip_prefix('`')?.split('`').next()
}

fn quoted(list: &str) -> Vec<String> {
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Takes the value at `path` out of its table or array; false where there is none to take.
fn take_out(value: &mut Value, path: &[String]) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let mut value = value;
    for step in way {
        let next = match value {
            Value::Object(table) => table.get_mut(step),
            Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
            _ => None,
        };
        let Some(next) = next else { return false };
        value = next;
    }
    match value {
        Value::Object(table) => table.shift_remove(last).is_some(),
        // Taking an element out would renumber the others: the whole array has been said to be wrong.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Config {
        rounds: u32,
        #[serde(default)]
        inner: Inner,
        mode: Option<Mode>,
    }
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is tested")]
    struct Inner {
        #[serde(default)]
        size: u8,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Fast,
    }

    fn told(value: &Value) -> Vec<(String, String)> {
        read::<Config>(value).unwrap_err().into_iter().map(|p| (p.path.join("."), p.message)).collect()
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let found = told(&json!({"rounds": "ten", "inner": {"size": 300, "sise": 1}, "mode": "fats", "round": 1}));
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        for path in ["rounds", "inner.size", "inner.sise", "mode", "round"] {
            assert!(paths.contains(&path), "{path} is not in {found:?}");
        }
        assert_eq!(paths.len(), 5, "{found:?}");
    }

    #[test]
    fn a_bad_key_that_must_be_there_does_not_hide_what_comes_after_it() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its reading is tested")]
        struct Outer {
            inner: Needed,
            number: u8,
        }
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only its reading is tested")]
        struct Needed {
            alpha: u8,
        }
        let found = read::<Outer>(&json!({"inner": {"alpha": "x"}, "number": "y"})).unwrap_err();
        assert_eq!(found.iter().map(|p| p.path.join(".")).collect::<Vec<_>>(), ["inner.alpha", "number"]);
    }

    #[test]
    fn a_missing_key_is_told_and_an_unknown_one_lists_the_known() {
        assert_eq!(told(&json!({})), [(String::new(), "`rounds` is missing".into())]);
        let problems = read::<Config>(&json!({"rounds": 1, "modee": 1})).unwrap_err();
        assert_eq!(problems[0].known, ["rounds", "inner", "mode"]);
        assert!(problems[0].is_of_the_name());
        let problems = read::<Config>(&json!({"rounds": 1, "mode": "fats"})).unwrap_err();
        assert!(!problems[0].is_of_the_name());
    }
}
