//! What can go wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of the connection, the SuperLink, a key or a file. Errors of one call are [`CallError`](crate::CallError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one that this crate can use.
    #[error("`{url}`: {reason}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The SuperLink could not be reached for as long as [`Connection::patience`](crate::Connection::patience) allows.
    #[error("{url}: no answer for {} s: {reason}", after.as_secs())]
    Unreachable {
        /// Its address.
        url: String,
        /// The last failure.
        reason: String,
        /// How long it was tried.
        after: Duration,
    },
    /// The SuperLink answered with an error.
    #[error("{call}: the SuperLink refused: HTTP {status}{}: {detail}", code.map_or(String::new(), |code| format!(", code {code}")))]
    Refused {
        /// The call, such as `fleet/push-messages`.
        call: String,
        /// The HTTP status.
        status: u16,
        /// Flower's own code, if there is one.
        code: Option<i64>,
        /// Its explanation.
        detail: String,
    },
    /// What came from the network is not what the protocol allows, or exceeds a limit.
    #[error("{subject}: {reason}")]
    Protocol {
        /// What was received.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No key, or not one of the right kind.
    #[error("not a P-384 key: {0}")]
    Key(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// Another process took the run.
    #[error("run {run}: another process took its task\nhint: start flower-superlink with `--isolation process`")]
    Taken {
        /// The run.
        run: u64,
    },
    /// The run was ended by somebody else.
    #[error("run {run} was ended: {status}")]
    RunEnded {
        /// The run.
        run: u64,
        /// Its state, as the SuperLink words it.
        status: String,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Stopped,
}

impl Error {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    pub(crate) fn protocol(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Protocol { subject: subject.into(), reason: reason.into() }
    }

    /// Whether the SuperLink does not know who is calling: the token is dead, or the node is not registered.
    pub(crate) fn is_unauthorised(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    pub(crate) fn has_code(&self, wanted: i64) -> bool {
        matches!(self, Self::Refused { code: Some(code), .. } if *code == wanted)
    }
}
