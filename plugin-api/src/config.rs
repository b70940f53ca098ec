//! Checking a configuration table against its schema and against the struct that its owner reads it into.

mod bounds;
mod schema;
mod words;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::{Error, Result};

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

fn missing(name: &str) -> String {
    format!("`{name}` is missing")
}

/// Everything that is wrong with `value`: by a JSON Schema, and then, of what is right by it, by the owner's own check.
///
/// Of the schema these keywords are checked: `$ref`, `type`, `enum`, `const`, the bounds of numbers and `multipleOf`,
/// `format` where it names a type of Rust's, the lengths of text, lists and tables, `pattern`, `uniqueItems`, `items`,
/// `prefixItems`, `properties`, `patternProperties`, `propertyNames`, `additionalProperties`, `required`, `allOf`,
/// `anyOf`, `oneOf` and `not`.
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
    // What is known to be wrong is not shown to the owner, who would say it once more, and might say nothing else.
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

/// Everything that is wrong with `value` as a `C`, by its schema and as it is read: what a host says of a table that a
/// component with this configuration gets.
pub fn problems<C: DeserializeOwned + JsonSchema>(value: &Value) -> Vec<Problem> {
    let own = |rest: &Value| Ok(read::<C>(rest).err().unwrap_or_default());
    check(&schemars::schema_for!(C).to_value(), value, own).unwrap_or_default()
}

/// Refuses a value that is wrong by a JSON Schema, with the first thing that is.
///
/// # Errors
/// If it is.
pub(crate) fn fit(schema: &Value, value: &Value) -> Result<()> {
    schema::problems(schema, value).into_iter().next().map_or(Ok(()), |found| Err(refusal(found.problem)))
}

/// A problem as an error.
pub(crate) fn refusal(Problem { path, message, .. }: Problem) -> Error {
    let error = Error::config(message);
    if path.is_empty() { error } else { error.at_key(path.join(".")) }
}

/// Everything that is wrong with `value` as a `T`, and the `T` if nothing is.
///
/// Serde stops at the first error. So the key at fault is taken out and the rest tried again, until nothing is wrong.
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
            // Taking a bad key out makes it missing, and that problem is noted already.
            path.push(name.to_owned());
            let noted = removed.contains(&path);
            path.pop();
            if !noted {
                problems.push(Problem { path: path.clone(), message: missing(name), known: Vec::new() });
            }
            // Go on without the table around it, for what comes after.
            let Some(taken) = take_out_around(&mut value, &path) else { return Err(problems) };
            removed.push(taken);
            continue;
        }
        let known = message.split_once("expected").map_or_else(Vec::new, |(_, names)| quoted(names));
        if let Some(name) = quoted_after(&message, "unknown field ") {
            if path.last().is_some_and(|last| last == name) {
                path.pop();
            }
            // All of a table at once, since there may be thousands.
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

/// The value at the end of a way.
fn at<'a>(value: &'a mut Value, way: &[String]) -> Option<&'a mut Value> {
    way.iter().try_fold(value, |value, step| match value {
        Value::Object(table) => table.get_mut(step),
        Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
        _ => None,
    })
}

/// Takes the value at `path` out of its table; false where there is none to take. The order of the others is lost.
fn take_out(value: &mut Value, path: &[String]) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let table = at(value, way).and_then(Value::as_object_mut);
    table.is_some_and(|table: &mut Map<String, Value>| table.swap_remove(last).is_some())
}

/// Takes out the value at `path`, or the list that it is an item of: without one item the others had other numbers. What
/// was taken, if anything was.
fn take_out_around(value: &mut Value, path: &[String]) -> Option<Vec<String>> {
    (1..=path.len()).rev().map(|len| &path[..len]).find(|path| take_out(value, path)).map(<[String]>::to_vec)
}

#[cfg(test)]
mod tests;
