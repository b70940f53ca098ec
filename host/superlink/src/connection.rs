//! How to reach a SuperLink.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::error::Error;
use crate::limits::Limits;

/// How to reach a SuperLink.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its address, such as `https://superlink.example:8000`, or that of a proxy before it.
    pub url: String,
    /// A PEM file with the certificate authority to trust instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Allow `http` to a host other than this one: everybody on the way can read and answer.
    pub insecure: bool,
    /// How long one exchange is repeated if the SuperLink cannot be reached; `None`: for ever.
    pub patience: Option<Duration>,
    /// How long to wait for the next bytes before a connection counts as lost.
    pub timeout: Duration,
    /// Transfers at a time.
    pub transfers: usize,
    /// Bounds on what is received.
    pub limits: Limits,
}

impl Connection {
    /// A connection with the usual settings.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca: None,
            insecure: false,
            patience: Some(Duration::from_secs(900)),
            timeout: Duration::from_secs(60),
            transfers: 4,
            limits: Limits::default(),
        }
    }

    /// Whether the SuperLink is on this machine. An error if the address must not be used.
    pub(crate) fn check(&self) -> Result<bool, Error> {
        check_url(self.url.trim_end_matches('/'), self.insecure)
    }

    /// The authority to trust.
    pub(crate) fn roots(&self) -> Result<Option<RootCerts>, Error> {
        let Some(path) = &self.ca else { return Ok(None) };
        let wrong = |reason: String| Error::Content { path: path.clone(), reason };
        let pem = std::fs::read(path).map_err(|source| Error::file(path, source))?;
        let mut certificates = Vec::new();
        for item in parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(wrong("no certificate".into()));
        }
        Ok(Some(RootCerts::Specific(Arc::new(certificates))))
    }
}

/// Checks an address; says whether it is this machine.
fn check_url(url: &str, insecure: bool) -> Result<bool, Error> {
    let wrong = |reason| Error::Url { url: url.to_owned(), reason };
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| wrong("it does not begin with `https://` or `http://`"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(wrong("names and passwords in addresses are not supported"));
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if host.is_empty() {
        return Err(wrong("no host"));
    }
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(local),
        "http" if local || insecure => Ok(local),
        "http" => Err(wrong(
            "it is not encrypted, and the host is another machine\nhint: use `https`, or allow insecure connections",
        )),
        _ => Err(wrong("it does not begin with `https://` or `http://`")),
    }
}
