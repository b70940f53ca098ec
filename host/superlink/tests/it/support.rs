//! Starts SuperLinks and sites.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fedplug_superlink::{
    Array, Connection, Content, DType, Event, Identity, Observer, Order, Peer, Policy, Record, Request, Server,
    ServerOptions, Site, SiteOptions, Value,
};
pub use test_support::superlink::{LONG, packages, python, wait_for};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Events of one end.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub fn observer(&self, name: &str) -> Observer {
        let (events, name, start) = (Arc::clone(&self.0), name.to_owned(), Instant::now());
        Arc::new(move |event| {
            eprintln!("{name} {:.2}: {event}", start.elapsed().as_secs_f64());
            events.lock().unwrap().push(event.clone());
        })
    }

    pub fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| which(event)).count()
    }

    pub fn any(&self, which: impl Fn(&Event) -> bool) -> bool {
        self.count(which) > 0
    }
}

pub fn connection(port: u16) -> Connection {
    Connection { timeout: Duration::from_secs(20), ..Connection::new(format!("http://127.0.0.1:{port}")) }
}

/// A server's folder, sites and settings.
pub struct Bench {
    folder: tempfile::TempDir,
    pub identities: BTreeMap<String, Identity>,
    pub policy: Policy,
    pub server_events: Events,
    pub site_events: Events,
}

impl Bench {
    pub fn new(sites: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut identities = BTreeMap::new();
        for name in sites {
            let identity = Identity::generate().unwrap();
            identity.save(&folder.path().join(format!("{name}.pem"))).unwrap();
            identities.insert((*name).to_owned(), identity);
        }
        let policy = Policy {
            away: Some(Duration::from_secs(60)),
            silence: Duration::from_secs(2),
            poll: Duration::from_millis(100),
            ..Policy::default()
        };
        Self { folder, identities, policy, server_events: Events::default(), site_events: Events::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn server_options(&self, port: u16) -> ServerOptions {
        let sites = self.identities.iter();
        let sites = sites.map(|(name, identity)| (name.clone(), Peer::Fedplug(identity.fingerprint()))).collect();
        let options = ServerOptions::new(connection(port), "Test Run", self.path("server"), sites);
        ServerOptions { policy: self.policy, ..options }
    }

    pub fn server(&self, port: u16) -> Server {
        Server::open(self.server_options(port), self.server_events.observer("server")).unwrap()
    }

    pub fn site_options(&self, name: &str, port: u16) -> SiteOptions {
        let options =
            SiteOptions::new(connection(port), self.identities[name].clone(), self.path(&format!("site-{name}")));
        SiteOptions { poll: Duration::from_millis(100), idle_poll: Duration::from_millis(200), ..options }
    }

    /// A site that works in a thread.
    pub fn site(&self, name: &str, port: u16) -> Worker {
        self.site_with(name, port, Duration::ZERO)
    }

    pub fn site_with(&self, name: &str, port: u16, sleep: Duration) -> Worker {
        let site = Site::open(self.site_options(name, port), self.site_events.observer(name)).unwrap();
        Worker::start(site, self.path(&format!("{name}.log")), sleep)
    }

    /// How often a site has done the work of each key.
    pub fn worked(&self, name: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default().lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        counts
    }
}

/// A site in a thread that adds one to whatever comes.
pub struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub fn start(site: Site, log: PathBuf, sleep: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(order) = site.next(Duration::from_millis(200)).unwrap() {
                    work(order, &log, sleep);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Adds one to all floats of an order and answers it. The log gets a line for each work that is begun and done.
pub fn work(order: Order, log: &Path, sleep: Duration) {
    let key = order.key.clone();
    let note = |what: &str| {
        let mut file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        writeln!(file, "{what} {key}").unwrap();
    };
    note("begin");
    std::thread::sleep(sleep);
    match &*order.kind {
        "query.refuse" => order.refuse("not here"),
        "query.fail" => order.fail("out of memory"),
        "query.wrong" => {
            let metrics = [("name".to_owned(), Value::from("text"))].into();
            let error = order.answer([("m".to_owned(), Record::Metrics(metrics))].into()).unwrap_err();
            assert!(error.to_string().contains("the metric `name` is no number"), "{error}");
            return;
        }
        _ => {
            let content = plus_one(&order.content);
            note("done");
            order.answer(content)
        }
    }
    .unwrap();
}

/// What [`work`] answers.
pub fn plus_one(content: &Content) -> Content {
    let records = content.iter().map(|(name, record)| {
        let record = match record {
            Record::Arrays(arrays) => {
                Record::Arrays(arrays.iter().map(|(name, array)| (name.clone(), add(array))).collect())
            }
            other => other.clone(),
        };
        (name.clone(), record)
    });
    records.collect()
}

fn add(array: &Array) -> Array {
    if array.dtype() != DType::F32 {
        return array.clone();
    }
    let numbers = array.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let data: Vec<u8> = numbers.flat_map(|number| (number + 1.0).to_le_bytes()).collect();
    Array::new(DType::F32, array.shape().to_vec(), data.into()).unwrap()
}

/// An array of floats: `start`, `start + 1`, ….
pub fn floats(length: u64, start: f32) -> Array {
    let data: Vec<u8> = (0..length).flat_map(|i| (start + i as f32).to_le_bytes()).collect();
    Array::new(DType::F32, vec![length], data.into()).unwrap()
}

pub fn content(arrays: &[(&str, Array)]) -> Content {
    let arrays = arrays.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
    let config = [("lr".to_owned(), Value::Float(0.1))].into_iter().collect();
    Content::from([("arrays".to_owned(), Record::Arrays(arrays)), ("config".to_owned(), Record::Config(config))])
}

pub fn request(key: &str, content: &Content) -> Request {
    Request { kind: "train.test".into(), key: key.into(), content: content.clone(), keep: false }
}

/// Never stop.
pub fn never() -> bool {
    false
}
