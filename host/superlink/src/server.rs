//! The server's side.

mod calls;
mod poll;
mod receive;
mod run;
mod send;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::calls::{Call, Phase, SiteEntry, Table};
use self::state::StateFile;
use crate::content::Content;
use crate::endpoint::{Caller, Endpoint, Scope};
use crate::error::Error;
use crate::events::{Event, Observer};
use crate::http::{Connection, Counter, Http, Traffic};
use crate::parallel::lock;
use crate::wire;

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
    /// How often to ask for answers.
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

/// What [`Server::open`] needs.
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

/// A site as the SuperLink sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteStatus {
    /// Its name in [`ServerOptions::sites`].
    pub name: String,
    /// Whether it is online.
    pub online: bool,
}

/// The server's side of a run: calls sites. Made for many threads.
///
/// Dropping it leaves the run open for 60 seconds; until then a [`Server`] with the same state folder continues it.
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
pub(crate) struct Shared {
    options: ServerOptions,
    observer: Observer,
    runtime: Endpoint,
    control: Endpoint,
    run: AtomicU64,
    renewing: Mutex<()>,
    state: StateFile,
    table: Mutex<Table>,
    changed: Condvar,
    stop: AtomicBool,
    /// Traffic that belongs to no call.
    other: Counter,
}

impl Server {
    /// Makes a run on the SuperLink, or continues the one of the state folder.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached or refuses, another process takes the run's task, or a file cannot be used.
    pub fn open(options: ServerOptions, observer: Observer) -> Result<Self, Error> {
        let http = Http::new(&options.connection, Arc::clone(&observer))?;
        let state = StateFile::open(&options.state)?;
        let now = Instant::now();
        let sites = options.sites.iter().map(|(name, peer)| (name.clone(), SiteEntry::new(peer.clone(), now)));
        let table = Table { sites: sites.collect(), ..Table::default() };
        let shared = Arc::new(Shared {
            runtime: Endpoint { http: Arc::clone(&http), caller: Caller::Server { token: RwLock::default() } },
            control: Endpoint { http, caller: Caller::Operator },
            run: AtomicU64::new(0),
            renewing: Mutex::new(()),
            state,
            table: Mutex::new(table),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            other: Counter::default(),
            options,
            observer,
        });
        shared.begin()?;
        let mut server = Self { shared, threads: Vec::new() };
        for (name, body) in [("heartbeat", run::beat as fn(&Shared)), ("send", send::run), ("poll", poll::run)] {
            let shared = Arc::clone(&server.shared);
            let thread = std::thread::Builder::new().name(format!("superlink-{name}")).spawn(move || body(&shared));
            server.threads.push(thread.map_err(|source| Error::file(&server.shared.options.state, source))?);
        }
        Ok(server)
    }

    /// The run's id on the SuperLink. It changes if the SuperLink loses the run.
    pub fn run(&self) -> u64 {
        self.shared.run.load(Ordering::Relaxed)
    }

    /// The session: 128 random bits, the same for all runs of one state folder.
    pub fn session(&self) -> String {
        self.shared.state.session()
    }

    /// All sites in the order of their names, and who is online.
    ///
    /// # Errors
    /// If the SuperLink cannot be asked.
    pub fn sites(&self) -> Result<Vec<SiteStatus>, Error> {
        self.shared.refresh_sites()?;
        let table = lock(&self.shared.table);
        Ok(table
            .sites
            .iter()
            .map(|(name, site)| SiteStatus { name: name.clone(), online: site.node.is_some() })
            .collect())
    }

    /// Has a site do a piece of work, and waits for the answer, however often it has to be asked. A site does one work at
    /// a time; a second call to it waits.
    ///
    /// # Errors
    /// If the site is away for too long, refuses or fails; if the run or the SuperLink is lost; if `cancel` is true.
    pub fn call(&self, site: &str, request: Request, cancel: &(dyn Fn() -> bool + Sync)) -> Result<Answer, CallError> {
        self.call_with(site, request, cancel, &|| ())
    }

    /// [`call`](Self::call), which asks `admit` once the site has answered and before the answer is fetched: it may block
    /// until there is memory for it.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub fn call_with(
        &self,
        site: &str,
        request: Request,
        cancel: &(dyn Fn() -> bool + Sync),
        admit: &dyn Fn(),
    ) -> Result<Answer, CallError> {
        self.shared.call(site, request, cancel, admit)
    }

    /// Adds lines to the run's log on the SuperLink.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached or refuses.
    pub fn log(&self, lines: &[String]) -> Result<(), Error> {
        let logs = lines.iter().map(|line| format!("{line}\n")).collect();
        self.shared.runtime.call::<wire::Nothing>("push-logs", &wire::PushLogs { logs }, self.shared.scope()).map(drop)
    }

    /// Traffic so far, of all calls and of what belongs to none.
    pub fn traffic(&self) -> Traffic {
        self.shared.runtime.http.traffic.get()
    }

    /// Ends the run, for all to see, and forgets it.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached or refuses, or the state cannot be written.
    pub fn finish(self, completed: bool, details: &str) -> Result<(), Error> {
        self.shared.end(completed, details)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A scope for what belongs to no call.
    fn scope(&self) -> Scope<'_> {
        Scope { abort: &|| false, counter: &self.other }
    }

    fn tell(&self, event: Event) {
        (self.observer)(&event);
    }

    fn trouble(&self, subject: &str, error: &Error) {
        self.tell(Event::Trouble { subject: subject.to_owned(), reason: error.to_string() });
    }

    /// Asks who is online.
    fn refresh_sites(&self) -> Result<(), Error> {
        let list: wire::NodeList = self.runtime.call("get-nodes", &wire::Nothing {}, self.scope())?;
        let online: BTreeMap<String, wire::NodeInfo> =
            list.nodes.into_iter().map(|node| (crate::fingerprint(&node.public_key), node)).collect();
        let mut events = Vec::new();
        let mut table = lock(&self.table);
        table.refreshed = Some(Instant::now());
        for (name, site) in &mut table.sites {
            match (online.get(site.peer.fingerprint()), site.node) {
                (Some(node), before) => {
                    site.node = Some(node.node_id);
                    site.public_pem = node.public_key.clone();
                    if before.is_none() {
                        events.push(Event::SiteOnline { site: name.clone() });
                    }
                }
                (None, Some(_)) => {
                    site.node = None;
                    site.away_since = Instant::now();
                    events.push(Event::SiteAway { site: name.clone() });
                }
                (None, None) => {}
            }
        }
        drop(table);
        self.changed.notify_all();
        events.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }
}

/// The ids of arrays that a site keeps.
type KeptIds = BTreeSet<crate::object::ObjectId>;
