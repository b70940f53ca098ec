//! How calls reach sites.

use std::time::Duration;

use crate::sites::protocol::Payload;

/// A call on its way to a site.
#[derive(Clone, Debug)]
pub(crate) struct Parcel<'a> {
    /// The site's name.
    pub site: &'a str,
    /// What the site is to do, such as `train`.
    pub what: &'a str,
    /// Tells this call from all others of the run, also in another process that resumes the run.
    pub key: String,
    /// The call.
    pub payload: Payload,
}

/// Delivers calls to sites and brings back their replies, each exactly once.
pub(crate) trait Transport: Send + Sync {
    /// Has a site do a call, and waits for the reply. `cancelled` ends the wait. `admit` is called once the site has
    /// replied and before its tensors are fetched; it may block until there is memory for them.
    ///
    /// # Errors
    /// If the site cannot be reached, or the wait was ended.
    fn call(
        &self,
        parcel: Parcel<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Payload, TransportError>;
}

/// No reason to stop waiting but the end of the run.
pub(super) fn never() -> bool {
    false
}

/// Why a call did not reach a site, or its reply did not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransportError {
    /// The wait was ended.
    Cancelled,
    /// The site was away for this long.
    Away(Duration),
    /// The site does not accept the call. The text is the site's.
    Refused(String),
    /// Anything else.
    Failed(String),
}

impl TransportError {
    /// As an error of a component.
    pub(crate) fn into_error(self) -> plugin_api::Error {
        use plugin_api::{Error, ErrorKind};
        match self {
            Self::Cancelled => Error::new(ErrorKind::Cancelled, "stopped on request"),
            Self::Away(time) => Error::other(format!("it has been away for {} s", time.as_secs()))
                .help("wait longer with `federation.site-timeout`, or continue without it with `on-client-failure`"),
            Self::Refused(text) => Error::other(format!("it refuses: {text}")),
            Self::Failed(text) => Error::other(text),
        }
    }
}
