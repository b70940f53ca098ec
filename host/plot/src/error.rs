//! Plotting errors.

use std::io;
use std::path::{Path, PathBuf};

/// Why something was not drawn. Messages start with the path.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is invalid; lists every problem found.
    #[error("{}", .0.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("\n"))]
    Request(Vec<Problem>),
    /// No run has curves of this client.
    #[error("no run has a client `{name}` with this tag")]
    NoSuchClient {
        /// The requested client.
        name: String,
        /// The clients that exist.
        known: Vec<String>,
    },
    /// A file or folder cannot be used.
    #[error("{}: cannot {doing}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operation that failed.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The renderer rejected the picture.
    #[error("{}: cannot draw the picture", .path.display())]
    Draw {
        /// The path of the picture.
        path: PathBuf,
        /// The renderer's message.
        cause: String,
    },
}

impl Error {
    /// For `map_err`: an error for a file or folder that cannot be used.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Request(vec![problem])
    }
}

/// One problem with a request.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// The cause, if it adds information.
    pub cause: Option<String>,
    /// How to fix it.
    pub hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: String) -> Self {
        Self { message, cause: None, hint: None }
    }

    pub(crate) fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
