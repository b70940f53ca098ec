//! A site's side.

mod deliver;
mod fetch;
mod node;
mod order;
mod pump;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::order::Order;
use self::store::Store;
use crate::connection::Connection;
use crate::content::Array;
use crate::endpoint::{Caller, Endpoint, Scope};
use crate::envelope::Place;
use crate::error::Error;
use crate::events::{Event, Observer};
use crate::http::{Counter, Http, Traffic};
use crate::identity::Identity;
use crate::object::ObjectId;
use crate::parallel::lock;
use crate::wire::{self, Metadata};

/// What [`Site::open`] needs.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// How to reach the SuperLink. Without [`Connection::patience`] a site waits for ever for one that is away.
    pub connection: Connection,
    /// The site's key.
    pub identity: Identity,
    /// A folder for what has to outlive this process: the node's id and the last answer of each session. One site has one
    /// folder, and one process at a time uses it.
    pub state: PathBuf,
    /// For how long the site counts as online without a sign of life: twice this, from 10 s to half an hour.
    pub heartbeat: Duration,
    /// The shortest pause before the site asks for orders again. The longer it has neither received nor answered anything, the
    /// longer it pauses: a twentieth of that time.
    pub poll: Duration,
    /// The longest such pause.
    pub idle_poll: Duration,
    /// Becomes true when the site shall wait for the SuperLink no longer to come online. [`Site::open`] then ends with
    /// [`Error::Stopped`].
    pub cancel: Arc<AtomicBool>,
}

impl SiteOptions {
    /// The usual settings.
    pub fn new(connection: Connection, identity: Identity, state: impl Into<PathBuf>) -> Self {
        Self {
            connection: Connection { patience: None, ..connection },
            identity,
            state: state.into(),
            heartbeat: Duration::from_secs(60),
            poll: Duration::from_millis(200),
            idle_poll: Duration::from_secs(5),
            cancel: Arc::default(),
        }
    }
}

/// A site: receives orders and answers them. It is online as long as it lives.
pub struct Site {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
pub(crate) struct Shared {
    options: SiteOptions,
    observer: Observer,
    fleet: Endpoint,
    node: AtomicU64,
    registering: Mutex<()>,
    store: Store,
    table: Mutex<Table>,
    changed: Condvar,
    /// Held by whoever pushes a stored answer.
    delivering: Mutex<()>,
    /// The session and the arrays of the last order that was to be kept.
    kept: Mutex<(String, BTreeMap<ObjectId, Array>)>,
    stop: AtomicBool,
    other: Counter,
}

/// How long a site that leaves tries to say so. The SuperLink notices by itself after two minutes.
const LEAVE: Duration = Duration::from_secs(5);

/// Orders that are here.
struct Table {
    /// Not yet taken by the caller.
    pending: VecDeque<Metadata>,
    /// Being fetched or worked on, by ticket.
    working: BTreeMap<u64, Working>,
    tickets: u64,
    /// Stored answers that are wanted again.
    wanted: VecDeque<(Place, Metadata)>,
    /// Whose answer is on its way.
    pushing: Option<Place>,
    /// When the last message came or the last answer went.
    active: Instant,
}

struct Working {
    place: Option<Place>,
    /// The newest message with this order: the one to answer.
    newest: Metadata,
}

impl Site {
    /// Registers the site's key at the SuperLink, unless that is done, and brings the site online.
    ///
    /// # Errors
    /// If the SuperLink cannot be reached or refuses the key, or a file cannot be used.
    pub fn open(options: SiteOptions, observer: Observer) -> Result<Self, Error> {
        let http = Http::new(&options.connection, Arc::clone(&observer))?;
        let caller = Caller::Site { identity: options.identity.clone() };
        let shared = Arc::new(Shared {
            store: Store::open(&options.state)?,
            fleet: Endpoint { http, caller },
            node: AtomicU64::new(0),
            registering: Mutex::new(()),
            table: Mutex::new(Table::new()),
            changed: Condvar::new(),
            delivering: Mutex::new(()),
            kept: Mutex::default(),
            stop: AtomicBool::new(false),
            other: Counter::default(),
            options,
            observer,
        });
        // Until the push goes on, it counts as going on.
        if let Some(push) = shared.store.push()? {
            lock(&shared.table).pushing = push.order.as_ref().and_then(Place::of);
        }
        shared.join()?;
        let mut site = Self { shared, threads: Vec::new() };
        let bodies = [("heartbeat", node::beat as fn(&Shared)), ("pull", pump::run), ("answer", deliver::run)];
        for (name, body) in bodies {
            let shared = Arc::clone(&site.shared);
            let thread = std::thread::Builder::new().name(format!("site-{name}")).spawn(move || body(&shared));
            site.threads.push(thread.map_err(|source| Error::file(&site.shared.options.state, source))?);
        }
        Ok(site)
    }

    /// The site's node id. It changes if the SuperLink forgets the site.
    pub fn node(&self) -> u64 {
        self.shared.node()
    }

    /// The next order, with its content, or `None` if none came for `wait`. Meanwhile, and while the order is worked on,
    /// threads of the site keep it online and answer questions about it.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn next(&self, wait: Duration) -> Result<Option<Order>, Error> {
        let until = Instant::now() + wait;
        loop {
            let ticket = {
                let mut table = lock(&self.shared.table);
                loop {
                    if let Some(ticket) = table.begin_work() {
                        break ticket;
                    }
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    table = self.shared.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            };
            if let Some(order) = Order::fetch(&self.shared, ticket)? {
                return Ok(Some(order));
            }
        }
    }

    /// Deletes what is stored of a session that is over.
    ///
    /// # Errors
    /// If the file cannot be deleted.
    pub fn forget(&self, session: &str) -> Result<(), Error> {
        let _one = lock(&self.shared.delivering);
        let mut kept = lock(&self.shared.kept);
        if kept.0 == session {
            *kept = Default::default();
        }
        drop(kept);
        self.shared.store.forget(session)
    }

    /// Traffic so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.fleet.http.traffic.get()
    }

    /// Goes offline. Without it the SuperLink notices after two heartbeats.
    ///
    /// # Errors
    /// If the SuperLink refuses, or [`Error::Stopped`] if it cannot be reached for some seconds.
    pub fn leave(self) -> Result<(), Error> {
        let node = wire::NodeId { node_id: self.node() };
        let start = Instant::now();
        let scope = Scope { abort: &|| start.elapsed() > LEAVE, counter: &self.shared.other };
        self.shared.fleet.call::<wire::Nothing>("deactivate-node", &node, scope).map(drop)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of the thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Table {
    fn new() -> Self {
        Self {
            pending: VecDeque::new(),
            working: BTreeMap::new(),
            tickets: 0,
            wanted: VecDeque::new(),
            pushing: None,
            active: Instant::now(),
        }
    }

    /// No answer is on its way any more.
    fn end_push(&mut self) {
        self.pushing = None;
        self.active = Instant::now();
    }

    /// Takes the next order.
    fn begin_work(&mut self) -> Option<u64> {
        let newest = self.pending.pop_front()?;
        self.tickets += 1;
        self.working.insert(self.tickets, Working { place: Place::of(&newest), newest });
        Some(self.tickets)
    }
}

impl Shared {
    fn node(&self) -> u64 {
        self.node.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the site need not come online.
    fn cancelled(&self) -> bool {
        self.stopped() || self.options.cancel.load(Ordering::Relaxed)
    }

    fn tell(&self, event: Event) {
        (self.observer)(&event);
    }

    fn trouble(&self, subject: &str, error: &Error) {
        self.tell(Event::Trouble { subject: subject.to_owned(), reason: error.to_string() });
    }
}
