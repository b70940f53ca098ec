//! Errors of components.

use crate::error::Diagnostic;
use crate::experiment::document::Document;

/// A component's error, with the component's name.
#[derive(Clone, Debug)]
pub struct ComponentError {
    who: String,
    error: plugin_api::Error,
    /// The key path of the component's table in the experiment file; empty if unknown.
    table: Vec<String>,
}

impl ComponentError {
    /// Creates an error of the component `who`.
    pub fn new(who: String, error: plugin_api::Error) -> Self {
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
    pub fn error(&self) -> &plugin_api::Error {
        &self.error
    }

    /// Whether the component failed because it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.error.kind() == plugin_api::ErrorKind::Cancelled
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
    pub fn parts(&self) -> (&str, &plugin_api::Error) {
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
            Some(plugin_api::Place::Key(key)) => {
                path.extend(key.split('.').map(str::to_owned));
                document.place(report, &path)
            }
            _ => document.place_table(report, &path),
        }
    }
}
