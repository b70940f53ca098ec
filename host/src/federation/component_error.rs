//! Errors of components.

use std::path::PathBuf;

use plugin_api::{Error, Place};
use serde::{Deserialize, Serialize};

use crate::error::Diagnostic;
use crate::experiment::document::Document;

/// The kind of an error of the host's own, such as a full disk, that was met during a client's call.
pub(crate) const OF_HOST: &str = "host";

/// A component's error, with the component's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "ErrorEntry", into = "ErrorEntry")]
pub struct ComponentError {
    who: String,
    error: Error,
    /// The key path of the component's table in the experiment file; empty if unknown.
    table: Vec<String>,
}

impl ComponentError {
    /// Creates an error of the component `who`.
    pub fn new(who: String, error: Error) -> Self {
        Self { who, error, table: Vec::new() }
    }

    /// Sets the key path of the component's table in the experiment file.
    #[must_use]
    pub fn of_table(self, table: &[String]) -> Self {
        Self { table: table.to_vec(), ..self }
    }

    /// The key path of the component's table in the experiment file; empty if unknown.
    pub fn table(&self) -> &[String] {
        &self.table
    }

    /// The error without the component's name.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Whether the component failed because it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Cancelled
    }

    /// Whether the host failed and not the component: the client is not to blame.
    pub(crate) fn is_of_host(&self) -> bool {
        self.error.kind().as_str() == OF_HOST
    }

    /// The error for another host: a full disk at a client's site is that client's failure.
    pub(crate) fn of_another_host(self) -> Self {
        if !self.is_of_host() {
            return self;
        }
        Self { error: Error::new(plugin_api::ErrorKind::Io, self.error.message()), ..self }
    }

    /// Whether the component does not support the call.
    pub fn is_unsupported(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Unsupported
    }

    /// Whether a plugin panicked. Its instance cannot be called again.
    pub fn is_panic(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Panic
    }

    /// The component's name and the error.
    pub fn parts(&self) -> (&str, &Error) {
        (&self.who, &self.error)
    }

    /// Formats the error for people: `round 3, client `tm`, model `amplify`: …`.
    pub fn report(&self, at: &str) -> Diagnostic {
        let comma = if at.is_empty() || self.who.is_empty() { "" } else { ", " };
        Diagnostic::from(self.error.clone()).within(&format!("{at}{comma}{}", self.who))
    }

    /// As [`report`](Self::report), with the position in the experiment file: the key that the error names, or else the
    /// component's table.
    pub fn located(&self, at: &str, document: &Document) -> Diagnostic {
        let (report, mut path) = (self.report(at), self.table.clone());
        match self.error.place() {
            Some(Place::Key(key)) => {
                path.extend(key.split('.').map(str::to_owned));
                document.locate(report, &path)
            }
            _ => document.locate_table(report, &path),
        }
    }
}

/// The serialised form of a [`ComponentError`].
#[derive(Serialize, Deserialize)]
struct ErrorEntry {
    who: String,
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<PlaceEntry>,
    causes: Vec<String>,
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    table: Vec<String>,
}

/// The serialised form of a [`Place`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PlaceEntry {
    Key(String),
    File(PathBuf, Option<u64>),
    Tensor(String),
}

impl From<ComponentError> for ErrorEntry {
    fn from(ComponentError { who, error, table }: ComponentError) -> Self {
        let place = error.place().cloned().map(|place| match place {
            Place::Key(key) => PlaceEntry::Key(key),
            Place::File(path, line) => PlaceEntry::File(path, line),
            Place::Tensor(name) => PlaceEntry::Tensor(name),
        });
        Self {
            who,
            kind: error.kind().as_str().to_owned(),
            message: error.message().to_owned(),
            place,
            causes: error.causes().to_vec(),
            hint: error.hint().map(str::to_owned),
            table,
        }
    }
}

impl From<ErrorEntry> for ComponentError {
    fn from(entry: ErrorEntry) -> Self {
        let ErrorEntry { who, kind, message, place, causes, hint, table } = entry;
        let error = Error::new(kind.as_str().into(), message);
        let error = match place {
            None => error,
            Some(PlaceEntry::Key(key)) => error.at_key(key),
            Some(PlaceEntry::File(path, line)) => error.in_file(path, line),
            Some(PlaceEntry::Tensor(name)) => error.at_tensor(name),
        };
        let error = causes.into_iter().fold(error, Error::because_of);
        Self { who, error: hint.into_iter().fold(error, Error::help), table }
    }
}
