//! What a server is told, and what it tells.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::Connection;
use crate::content::Content;
use crate::error::Error;
use crate::http::Traffic;

/// What a site runs, and the [`fingerprint`](crate::Identity::fingerprint) of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A [`Site`](crate::Site): orders are numbered and worked on once, answers are signed.
    Fedplug(String),
    /// A plain Flower SuperNode: it may work on an order more than once, and its answers are not signed.
    Flower(String),
}

impl Peer {
    /// The fingerprint.
    pub fn fingerprint(&self) -> &str {
        let (Self::Fedplug(fingerprint) | Self::Flower(fingerprint)) = self;
        fingerprint
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long a call waits for a site that is away before it fails; `None`: for ever.
    pub away: Option<Duration>,
    /// How long a site may say nothing about an order before it is asked what it does. A plain Flower node cannot be
    /// asked: see `repeat`.
    pub silence: Duration,
    /// How long a plain Flower node may say nothing before the order is sent again; `None`: for ever. It would work on it
    /// twice if it only is slow.
    pub repeat: Option<Duration>,
    /// Orders that come within this time go out together, so that what they share is sent once.
    pub window: Duration,
    /// How often to ask for answers; for the first seconds after an order was sent at least each 100 ms.
    pub poll: Duration,
    /// How long the SuperLink keeps an order.
    pub ttl: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            away: None,
            silence: Duration::from_secs(30),
            repeat: None,
            window: Duration::from_millis(20),
            poll: Duration::from_millis(300),
            ttl: Duration::from_secs(365 * 86_400),
        }
    }
}

/// What [`Server::open`](crate::Server::open) needs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// How to reach the SuperLink.
    pub connection: Connection,
    /// The run's title in lists of runs; letters and digits of it are kept.
    pub title: String,
    /// A folder for what has to outlive this process. One run of sites has one folder.
    pub state: PathBuf,
    /// The sites by name. Other nodes are ignored.
    pub sites: BTreeMap<String, Peer>,
    /// A bundle made by `flwr build`, for plain Flower nodes, which run its client app.
    pub bundle: Option<Vec<u8>>,
    /// The content of the SuperLink's `--superexec-auth-secret-file`.
    pub secret: Option<Vec<u8>>,
    /// How long to wait for what.
    pub policy: Policy,
}

impl ServerOptions {
    /// The usual settings.
    pub fn new(
        connection: Connection,
        title: impl Into<String>,
        state: impl Into<PathBuf>,
        sites: BTreeMap<String, Peer>,
    ) -> Self {
        let (title, state) = (title.into(), state.into());
        Self { connection, title, state, sites, bundle: None, secret: None, policy: Policy::default() }
    }
}

/// An order.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Flower's message type: `train`, `evaluate` or `query`, or one of these, a dot and a Python identifier.
    pub kind: String,
    /// The name of this work within the session. A call with the key and content of the site's last order is that order:
    /// after a restart of the server, it gets that order's answer. For plain Flower nodes it is the group, the round.
    pub key: String,
    /// What the site gets.
    pub content: Content,
    /// The site keeps the arrays of this order in memory. Those that the next order has as well are not sent again.
    pub keep: bool,
}

/// An order's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the site sent.
    pub content: Content,
    /// What went over the wire for it. What several orders share is counted for one of them.
    pub traffic: Traffic,
    /// How often the order was sent.
    pub sends: u32,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The site was away for longer than the policy allows.
    #[error("site `{site}`: away for {} s", time.as_secs())]
    Away {
        /// The site.
        site: String,
        /// How long.
        time: Duration,
    },
    /// The site does not allow what was asked.
    #[error("site `{site}`: refused: {reason}")]
    Refused {
        /// The site.
        site: String,
        /// In its words.
        reason: String,
    },
    /// The work failed at the site.
    #[error("site `{site}`: {reason}")]
    Failed {
        /// The site.
        site: String,
        /// In its words.
        reason: String,
    },
    /// The site's answer cannot be read.
    #[error("site `{site}`: {reason}")]
    Protocol {
        /// The site.
        site: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection or the run is lost.
    #[error(transparent)]
    Lost(Arc<Error>),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}
