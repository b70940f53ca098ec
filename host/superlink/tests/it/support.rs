//! Starts SuperLinks and sites.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fedplug_superlink::{
    Array, Connection, Content, DType, Event, Identity, Observer, Order, Peer, Policy, Record, Request, Server,
    ServerOptions, Site, SiteOptions, Value,
};
use test_support::skip;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// Python with the packages of `tests/requirements.txt`, as installed by `make test`.
pub fn python() -> Option<Command> {
    let packages = root().join(".python");
    if !packages.join("flwr").is_dir() {
        skip("flwr is not in .python; `make test` installs it");
        return None;
    }
    // Flower's programs start each other by name.
    let mut path = packages.join("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
    command.env("PATH", path);
    command.env("PYTHONPATH", packages).env("FLWR_TELEMETRY_ENABLED", "0").env("FLWR_DISABLE_UPDATE_CHECK", "1");
    Some(command)
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `done` gives something.
pub fn wait_for<T>(what: &str, most: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + most;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program that ends with this process, however that ends.
pub struct Program {
    wrapper: Child,
    pub pid: u32,
}

impl Program {
    pub fn start(command: &Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut wrapper = Command::new("sh");
        // Standard input is a pipe that closes when this process ends.
        wrapper.args(["-c", "\"$@\" >&2 </dev/null & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null; wait", "sh"]);
        wrapper.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapper.env(name, value),
                None => wrapper.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapper.current_dir(folder);
        }
        let mut wrapper = wrapper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(wrapper.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { wrapper, pid: line.trim().parse().unwrap() }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self, most: Duration) {
        let pid = self.pid.to_string();
        wait_for("the program's end", most, || (!Path::new("/proc").join(&pid).join("fd").exists()).then_some(()));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// A SuperLink.
pub struct SuperLink {
    pub port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    program: Option<Program>,
}

impl SuperLink {
    pub fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// With TLS. In its folder are the authority's `ca.pem`, and `other.pem` of another.
    pub fn start_tls() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let files = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.pem"];
        Self::start_in(folder, &[&["--isolation", "process"], &files[..]].concat())
    }

    fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Option<Self> {
        python()?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut link = Self { port: free_port(), folder, arguments, program: None };
        link.restart();
        Some(link)
    }

    /// One that several tests share.
    pub fn shared() -> Option<u16> {
        static LINK: LazyLock<Option<SuperLink>> =
            LazyLock::new(|| SuperLink::start(&["--insecure", "--isolation", "process"]));
        LINK.as_ref().map(|link| link.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    pub fn restart(&mut self) {
        let mut command = python().unwrap();
        command
            .arg(root().join(".python/bin/flower-superlink"))
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(&self.arguments)
            .env("FLWR_HOME", self.folder().join("home"))
            .current_dir(self.folder());
        self.program = Some(Program::start(&command, &self.folder().join("superlink.log")));
        let tls = self.arguments.iter().any(|argument| argument.starts_with("--ssl"));
        wait_for("the SuperLink's start", Duration::from_secs(60), || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            if tls {
                return Some(());
            }
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).ok()?;
            answer.ends_with(b"200").then_some(())
        });
    }
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
        "query.refuse" => return order.refuse("not here").unwrap(),
        "query.fail" => return order.fail("out of memory").unwrap(),
        _ => {}
    }
    let content = plus_one(&order.content);
    note("done");
    order.answer(content).unwrap();
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

/// A call of nobody in particular.
pub fn post(port: u16, path: &str, body: &[u8]) -> Vec<u8> {
    let request = ureq::post(format!("http://127.0.0.1:{port}/v1/{path}"));
    let request = request.header("content-type", "application/protobuf").header("accept", "application/protobuf");
    request.send(body).unwrap().body_mut().read_to_vec().unwrap()
}

/// Writes a certificate authority and a certificate of this machine by it, and another authority.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let status =
            std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    for name in ["ca", "other"] {
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"
        ));
    }
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=superlink",
    );
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
}
