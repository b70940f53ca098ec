//! The one error shape that crosses the boundary.

use std::fmt;
use std::path::{Path, PathBuf};

/// What a fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of thing went wrong. Open: a later interface may add kinds, and an unknown one arrives as [`Other`].
///
/// [`Other`]: ErrorKind::Other
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The experiment file asks for something that cannot be.
    Config,
    /// A data file or table is missing or unusable.
    Data,
    /// A tensor has the wrong name, shape, type or content.
    Tensor,
    /// Reading or writing failed.
    Io,
    /// The plugin does not offer this.
    Unsupported,
    /// The call stopped because it was asked to.
    Cancelled,
    /// The plugin panicked.
    Panic,
    /// Anything else, with a word of the plugin's own.
    Other(String),
}

impl ErrorKind {
    /// The word that stands for this kind across the boundary.
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

/// Where the trouble lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key of the plugin's own table, dotted: `pretrained.hidden-size`.
    Key(String),
    /// A file, and a line of it counted from one.
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

/// Something went wrong: what, where, why, and what to do about it.
///
/// The message is lowercase, has no final period and puts literals in backticks; it need not repeat the place or the
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

    /// The configuration asks for something that cannot be.
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

    /// The call stopped because the context said so.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped on request")
    }

    /// Anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other("other".to_owned()), message)
    }

    /// Adds a foreign error and its sources as the causes.
    #[must_use]
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.0.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds one cause in words.
    #[must_use]
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Says which key of the plugin's table is at fault, dotted.
    #[must_use]
    pub fn at_key(mut self, key: impl Into<String>) -> Self {
        self.0.place = Some(Place::Key(key.into()));
        self
    }

    /// Says which file is at fault, and the line where it is known.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>, line: Option<u64>) -> Self {
        self.0.place = Some(Place::File(path.as_ref().to_owned(), line));
        self
    }

    /// Says which tensor is at fault.
    #[must_use]
    pub fn at_tensor(mut self, name: impl Into<String>) -> Self {
        self.0.place = Some(Place::Tensor(name.into()));
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }

    /// What sort of thing went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What went wrong, without place and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where the trouble lies, if it has a place.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The causes, the nearest first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// What the user can do, if there is something.
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

/// As a person reads it, which is what a test that unwraps shows: the kind, the place, what went wrong, why, what to do.
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
