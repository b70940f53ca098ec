//! Exceptions of Python as errors.

use plugin_api::{Error, ErrorKind};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Told {
    kind: String,
    message: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    tensor: Option<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    causes: Vec<String>,
}

/// The error that an exception is.
pub(crate) fn error(told: &mut Value) -> Error {
    let told: Told = match serde_json::from_value(told.take()) {
        Ok(told) => told,
        Err(error) => return Error::other("Python told an error that cannot be read").because(&error),
    };
    if told.kind == "cancelled" {
        return Error::cancelled();
    }
    let mut error = Error::new(ErrorKind::from(told.kind.as_str()), told.message);
    // The nearest place: a key or a tensor if the class names one, and otherwise the line of the user's own code.
    if let Some(key) = told.key {
        error = error.at_key(key);
    } else if let Some(name) = told.tensor {
        error = error.at_tensor(name);
    } else if let Some(file) = told.file {
        error = error.in_file(file, told.line);
    }
    error = told.causes.into_iter().fold(error, Error::because_of);
    told.hint.into_iter().fold(error, Error::help)
}
