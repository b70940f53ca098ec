//! The server's side.

mod calls;
mod number;
mod options;
mod poll;
mod receive;
mod run;
mod send;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use self::calls::{Call, Delay, Phase, SiteEntry, Table};
pub use self::options::{Answer, CallError, Peer, Policy, Request, ServerOptions};
use self::state::StateFile;
use crate::endpoint::{Caller, Endpoint, Scope};
use crate::envelope::Place;
use crate::error::Error;
use crate::events::{Event, Observer};
use crate::http::{Counter, Http, Traffic};
use crate::parallel::lock;
use crate::wire;

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

    fn place(&self, number: u64, digest: &str) -> Place {
        Place { session: self.state.session(), number, digest: digest.to_owned() }
    }

    /// Asks who is online.
    fn refresh_sites(&self) -> Result<(), Error> {
        let list: wire::NodeList = self.runtime.call("get-nodes", &wire::Nothing {}, self.scope())?;
        let online: BTreeMap<String, wire::NodeInfo> =
            list.nodes.into_iter().map(|node| (crate::fingerprint(&node.public_key), node)).collect();
        let (mut events, mut lost) = (Vec::new(), Vec::new());
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        table.refreshed = Some(Instant::now());
        for (name, site) in &mut table.sites {
            match (online.get(site.peer.fingerprint()), site.node) {
                (Some(node), before) => {
                    site.node = Some(node.node_id);
                    let activated = site.activated.replace(node.last_activated_at.clone().unwrap_or_default());
                    // A plain node that has begun anew does not know what it was sent before, and cannot be asked.
                    if matches!(site.peer, Peer::Flower(_))
                        && activated.is_some_and(|before| Some(&before) != site.activated.as_ref())
                        && table.calls.get(name).is_some_and(|call| matches!(call.phase, Phase::Sent))
                    {
                        lost.push(name.clone());
                    }
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
        drop(guard);
        self.changed.notify_all();
        events.into_iter().for_each(|event| self.tell(event));
        lost.iter().for_each(|site| self.send_again(site, "the node was away", Delay::None));
        Ok(())
    }
}

/// The ids of arrays that a site keeps.
type KeptIds = BTreeSet<crate::object::ObjectId>;
