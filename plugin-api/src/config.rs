//! Checks a configuration table against its schema and against the struct that its owner deserialises.

mod bounds;
mod paths;
mod schema;
mod words;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

pub use self::paths::{PathFormat, paths};
use crate::{Error, Result};

/// A problem in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path to the key from the table's root. An array index is a decimal number.
    pub path: Vec<String>,
    /// A one-line description of the problem.
    pub message: String,
    /// The valid names, if the name is the problem.
    pub known: Vec<String>,
}

impl Problem {
    /// Whether the problem is the key's name rather than its value.
    pub fn is_of_the_name(&self) -> bool {
        self.path.last().is_some_and(|name| self.message == unknown_key(name))
    }
}

fn unknown_key(name: &str) -> String {
    format!("unknown key `{name}`")
}

fn missing(name: &str) -> String {
    format!("`{name}` is missing")
}

/// All problems in `value`. A JSON Schema is checked first; then the owner's check runs on whatever passed.
///
/// These schema keywords are checked: `$ref`, `type`, `enum`, `const`, the bounds of numbers and `multipleOf`, `format`
/// if it names a Rust type, the lengths of text, lists and tables, `pattern`, `uniqueItems`, `items`, `prefixItems`,
/// `properties`, `patternProperties`, `propertyNames`, `additionalProperties`, `required`, `allOf`, `anyOf`, `oneOf`
/// and `not`.
///
/// # Errors
/// Those of the owner's check.
pub fn check(schema: &Value, value: &Value, own: impl FnOnce(&Value) -> Result<Vec<Problem>>) -> Result<Vec<Problem>> {
    let found = schema::problems(schema, value);
    let place = |problem: &Problem| match problem.message.strip_suffix("` is missing") {
        Some(name) => problem.path.iter().cloned().chain([name.trim_start_matches('`').to_owned()]).collect(),
        None => problem.path.clone(),
    };
    let sure: std::collections::BTreeSet<Vec<String>> =
        found.iter().filter(|found| !found.vague).map(|found| place(&found.problem)).collect();
    // The owner does not see values with known problems: it would report them again, and might report nothing else.
    let mut rest = value.clone();
    for place in &sure {
        take_out(&mut rest, place);
    }
    let own = own(&rest)?;
    let own: Vec<Problem> = own.into_iter().filter(|problem| !sure.contains(&place(problem))).collect();
    let better = |vague: &Problem| own.iter().any(|own| own.path.starts_with(&vague.path));
    let found = found.into_iter().filter(|found| !found.vague || !better(&found.problem));
    let mut problems: Vec<Problem> = found.map(|found| found.problem).collect();
    problems.extend(own);
    Ok(problems)
}

/// All problems in `value` as a `C`, from its schema and from deserialising it. A host reports the same for the table
/// of a component with this configuration.
pub fn problems<C: DeserializeOwned + JsonSchema>(value: &Value) -> Vec<Problem> {
    let own = |rest: &Value| Ok(read::<C>(rest).err().unwrap_or_default());
    check(&schemars::schema_for!(C).to_value(), value, own).unwrap_or_default()
}

/// Returns the first problem that a JSON Schema finds in a value, as an error.
///
/// # Errors
/// If there is a problem.
pub(crate) fn fit(schema: &Value, value: &Value) -> Result<()> {
    schema::problems(schema, value).into_iter().next().map_or(Ok(()), |found| Err(refusal(found.problem)))
}

/// Converts a problem to an error.
pub(crate) fn refusal(Problem { path, message, .. }: Problem) -> Error {
    let error = Error::config(message);
    if path.is_empty() { error } else { error.at_key(path.join(".")) }
}

/// Deserialises `value` as a `T`, or returns everything that is wrong with it.
///
/// Serde stops at the first error. So this removes the offending key and tries again until nothing is wrong.
///
/// # Errors
/// The problems, in the order found.
pub fn read<T: DeserializeOwned>(value: &Value) -> std::result::Result<T, Vec<Problem>> {
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
            // A bad key that was removed is now missing, but its problem is already recorded.
            path.push(name.to_owned());
            let noted = removed.contains(&path);
            path.pop();
            if !noted {
                problems.push(Problem { path: path.clone(), message: missing(name), known: Vec::new() });
            }
            // Remove the enclosing table and continue, to find later problems.
            let Some(taken) = take_out_around(&mut value, &path) else { return Err(problems) };
            removed.push(taken);
            continue;
        }
        let known = message.split_once("expected").map_or_else(Vec::new, |(_, names)| quoted(names));
        if let Some(name) = quoted_after(&message, "unknown field ") {
            if path.last().is_some_and(|last| last == name) {
                path.pop();
            }
            // Remove all unknown keys of a table at once, since there may be thousands.
            let mut unknown: Vec<String> = vec![name.to_owned()];
            let table = at(&mut value, &path).and_then(|table| table.as_object_mut());
            let others = table.map(|table| table.keys().filter(|key| *key != name && !known.contains(key)).cloned());
            unknown.extend(others.into_iter().flatten());
            let mut taken = false;
            for name in unknown {
                let path: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
                taken |= take_out(&mut value, &path);
                problems.push(Problem { path, message: unknown_key(&name), known: known.clone() });
            }
            if !taken {
                return Err(problems);
            }
            continue;
        }
        let problem = match quoted_after(&message, "unknown variant ") {
            Some(name) => Problem { path: path.clone(), message: format!("unknown value `{name}`"), known },
            None => Problem { path: path.clone(), message: words::plain(&message), known: Vec::new() },
        };
        problems.push(problem);
        let Some(taken) = take_out_around(&mut value, &path) else { return Err(problems) };
        removed.push(taken);
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

/// The value at a path.
fn at<'a>(value: &'a mut Value, way: &[String]) -> Option<&'a mut Value> {
    way.iter().try_fold(value, |value, step| match value {
        Value::Object(table) => table.get_mut(step),
        Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
        _ => None,
    })
}

/// Removes the value at `path` from its table. Returns false if there is none. Does not preserve the order of the
/// others.
fn take_out(value: &mut Value, path: &[String]) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let table = at(value, way).and_then(Value::as_object_mut);
    table.is_some_and(|table: &mut Map<String, Value>| table.swap_remove(last).is_some())
}

/// Removes the value at `path`, or the whole list that contains it, since removing one item would renumber the others.
/// Returns the path of what was removed, if anything.
fn take_out_around(value: &mut Value, path: &[String]) -> Option<Vec<String>> {
    (1..=path.len()).rev().map(|len| &path[..len]).find(|path| take_out(value, path)).map(<[String]>::to_vec)
}

#[cfg(test)]
mod tests;
