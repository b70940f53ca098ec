//! The paths of an experiment. Those in its file are relative to the file, those of the command line to the current
//! directory. Plugins and the host see them relative to the current directory.

use plugin_api::Component;
use plugin_api::config::{PathFormat, Problem, paths};
use serde_json::Value;

use crate::experiment::document::Document;

/// A plugin's table as the plugin reads it.
///
/// # Errors
/// The texts that cannot be made such paths.
pub(crate) fn of_table(
    document: &Document,
    table: &[String],
    component: &Component,
    config: &Value,
) -> Result<Value, Vec<Problem>> {
    let profile = &component.profile().schema;
    let known = paths(profile, config);
    let mut resolved = resolved(document, table, config, &known)?;
    // A key that decides about the schema may be a path itself, and is resolved by now. `check` reports its errors.
    if let Ok(schema) = component.schema(&resolved)
        && *schema != *profile
    {
        let more: Vec<_> = paths(&schema, &resolved).into_iter().filter(|(path, _)| !is_in(&known, path)).collect();
        resolved = self::resolved(document, table, &resolved, &more)?;
    }
    Ok(resolved)
}

/// The value at `table` of the document with these paths made relative to the current directory.
///
/// # Errors
/// The texts that cannot be.
pub(crate) fn resolved(
    document: &Document,
    table: &[String],
    value: &Value,
    paths: &[(Vec<String>, PathFormat)],
) -> Result<Value, Vec<Problem>> {
    let (mut value, mut problems) = (value.clone(), Vec::new());
    for (path, format) in paths {
        let Some(text) = at(&mut value, path) else { continue };
        let key_path = [table, path].concat();
        match document.resolve(&key_path, text.as_str().unwrap_or_default(), *format) {
            Ok(Some(found)) => *text = found.into(),
            Ok(None) => {}
            Err(message) => problems.push(Problem { path: path.clone(), message, known: Vec::new() }),
        }
    }
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}

/// Makes the paths at `table` of `whole` that the command line gave absolute, so that they mean the same from anywhere.
pub(crate) fn make_absolute(
    document: &Document,
    table: &[String],
    whole: &mut Value,
    paths: &[(Vec<String>, PathFormat)],
) {
    for (path, format) in paths {
        let key_path = [table, path].concat();
        let Some(text) = at(whole, &key_path) else { continue };
        let absolute = document.absolute(&key_path, text.as_str().unwrap_or_default(), *format);
        if let Some(absolute) = absolute.as_deref().and_then(|path| path.to_str()) {
            *text = absolute.into();
        }
    }
}

fn is_in(paths: &[(Vec<String>, PathFormat)], path: &[String]) -> bool {
    paths.iter().any(|(known, _)| known == path)
}

/// The value at a path.
pub(crate) fn at<'v>(value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, step| match value {
        Value::Object(table) => table.get_mut(step),
        Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
        _ => None,
    })
}
