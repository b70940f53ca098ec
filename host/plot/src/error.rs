//! Why something was not drawn.

use std::io;
use std::path::{Path, PathBuf};

/// Why something was not drawn. A message names the path first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong: all that is known to be.
    #[error("{}", .0.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("\n"))]
    Request(Vec<Problem>),
    /// None of the runs has curves of this client.
    #[error("no run has a client `{name}` with this tag")]
    NoSuchClient {
        /// The client that was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file or folder cannot be used.
    #[error("{}: cannot {doing}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What could not be done with it.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The renderer refused the picture.
    #[error("{}: cannot draw the picture", .path.display())]
    Draw {
        /// The picture's file.
        path: PathBuf,
        /// What the renderer says.
        cause: String,
    },
}

impl Error {
    /// For `map_err`: a file or folder cannot be used.
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), doing, source }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Request(vec![problem])
    }
}

/// One thing that is wrong with what was asked for.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Why, where that says more.
    pub cause: Option<String>,
    /// What to do about it.
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
