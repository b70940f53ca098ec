//! The one error type that crosses the boundary.

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of this crate's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. A later interface may add kinds; an unknown kind arrives as [`Other`].
///
/// [`Other`]: ErrorKind::Other
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The experiment file asks for something impossible.
    Config,
    /// A data file or table is missing or unusable.
    Data,
    /// A tensor has the wrong name, shape, type or content.
    Tensor,
    /// Reading or writing failed.
    Io,
    /// The plugin does not offer this.
    Unsupported,
    /// The call stopped because the host asked it to.
    Cancelled,
    /// The plugin panicked.
    Panic,
    /// Anything else, with a word that the plugin chooses.
    Other(String),
}

impl ErrorKind {
    /// The word for this kind across the boundary.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Config => "config",
            Self::Data => "data",
            Self::Tensor => "tensor",
            Self::Io => "io",
            Self::Unsupported => "unsupported",
            Self::Cancelled => "cancelled",
            Self::Panic => "panic",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for ErrorKind {
    fn from(word: &str) -> Self {
        match word {
            "config" => Self::Config,
            "data" => Self::Data,
            "tensor" => Self::Tensor,
            "io" => Self::Io,
            "unsupported" => Self::Unsupported,
            "cancelled" => Self::Cancelled,
            "panic" => Self::Panic,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The location of the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of the plugin's own table, dotted: `pretrained.hidden-size`.
    Key(String),
    /// A file, and optionally a line in it, counted from one.
    File(PathBuf, Option<u64>),
    /// A tensor, by name.
    Tensor(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "`{key}`"),
            Self::File(path, None) => write!(f, "{}", path.display()),
            Self::File(path, Some(line)) => write!(f, "{}:{line}", path.display()),
            Self::Tensor(name) => write!(f, "tensor `{name}`"),
        }
    }
}

/// An error: what went wrong, where, why, and what to do about it.
///
/// The message is lowercase, has no final period and puts literals in backticks. It need not repeat the location or the
/// causes, which are shown with it.
///
/// ```
/// use plugin_api::Error;
///
/// let error = Error::data("no row has a `fitness`").in_file("data/tm/a.csv", Some(3)).help("is the column named otherwise?");
/// assert_eq!(error.to_string(), "data/tm/a.csv:3: no row has a `fitness`");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    message: String,
    place: Option<Place>,
    causes: Vec<String>,
    help: Option<String>,
}

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), place: None, causes: Vec::new(), help: None }))
    }

    /// The configuration asks for something impossible.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// A data file or table is missing or unusable.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// A tensor has the wrong name, shape, type or content.
    pub fn tensor(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Tensor, message).at_tensor(name)
    }

    /// Reading or writing `path` failed.
    pub fn io(path: impl AsRef<Path>, cause: &std::io::Error) -> Self {
        Self::new(ErrorKind::Io, cause.to_string()).in_file(path, None)
    }

    /// The plugin does not offer this.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The call stopped because the context asked it to.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped on request")
    }

    /// Anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other("other".to_owned()), message)
    }

    /// Adds a foreign error and its sources as causes.
    #[must_use]
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.0.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds one cause as text.
    #[must_use]
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Sets the key of the plugin's table that is at fault, dotted.
    #[must_use]
    pub fn at_key(mut self, key: impl Into<String>) -> Self {
        self.0.place = Some(Place::Key(key.into()));
        self
    }

    /// Sets the file that is at fault, and the line if known.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>, line: Option<u64>) -> Self {
        self.0.place = Some(Place::File(path.as_ref().to_owned(), line));
        self
    }

    /// Sets the tensor that is at fault.
    #[must_use]
    pub fn at_tensor(mut self, name: impl Into<String>) -> Self {
        self.0.place = Some(Place::Tensor(name.into()));
        self
    }

    /// Sets a hint for the user.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// The kind of error.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What went wrong, without location and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The location of the problem, if it has one.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The causes, nearest first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// The hint for the user, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.0.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

/// The whole error in readable form, as a test that unwraps shows it: kind, location, message, causes, hint.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.as_str())?;
        self.0.causes.iter().try_for_each(|cause| write!(f, "\n  cause: {cause}"))?;
        self.0.help.iter().try_for_each(|help| write!(f, "\n  hint: {help}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwrapped_error_says_all_that_it_knows() {
        let disk = std::io::Error::other("disk on fire");
        let error =
            Error::data("no row").in_file("a.csv", Some(3)).because(&disk).because_of("again").help("use another");
        let told = "data: a.csv:3: no row\n  cause: disk on fire\n  cause: again\n  hint: use another";
        assert_eq!(format!("{error:?}"), told);
        assert_eq!(format!("{:?}", Error::cancelled()), "cancelled: stopped on request");
    }
}
