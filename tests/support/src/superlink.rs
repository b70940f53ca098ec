//! Flower's SuperLink and other programs that tests start, and that end with the test.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::skip;

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The folder with flwr: that of `make test`, or `FEDPLUG_FLOWER`, to test with another version.
pub fn packages() -> PathBuf {
    std::env::var_os("FEDPLUG_FLOWER").map_or_else(|| root().join(".python"), PathBuf::from)
}

/// Python with flwr.
pub fn python() -> Option<Command> {
    let packages = packages();
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

/// How long anything may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(240);

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

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program that ends with this process, however that ends.
pub struct Program {
    wrapper: Child,
    /// Its process id.
    pub pid: u32,
}

impl Program {
    /// Starts a command, whose output goes to the end of `log`.
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

/// `superlinks.py`, which starts and kills SuperLinks, and kills those that remain when this process ends.
struct SuperLinks {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl SuperLinks {
    /// Sends a command, and returns the process id that is its answer.
    fn request(fields: &[&str]) -> io::Result<String> {
        static SUPERLINKS: LazyLock<Mutex<SuperLinks>> = LazyLock::new(|| Mutex::new(SuperLinks::start()));
        let mut links = SUPERLINKS.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(links.process.stdin.as_ref().unwrap(), "{}", fields.join("\t"))?;
        let mut answer = String::new();
        if links.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::other("superlinks.py has ended"));
        }
        Ok(answer.trim().to_owned())
    }

    fn start() -> Self {
        let mut command = python().unwrap();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/superlinks.py"));
        command.arg(packages().join("bin/flower-superlink"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }
}

/// A SuperLink.
pub struct SuperLink {
    /// Where it listens.
    pub port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    /// The process id while it runs.
    process: Option<String>,
}

impl SuperLink {
    /// Starts one in memory.
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
        let mut link = Self { port: free_port(), folder, arguments, process: None };
        link.restart();
        Some(link)
    }

    /// One that several tests share.
    pub fn shared() -> Option<u16> {
        static LINK: LazyLock<Option<SuperLink>> =
            LazyLock::new(|| SuperLink::start(&["--insecure", "--isolation", "process"]));
        LINK.as_ref().map(|link| link.port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        SuperLinks::request(&["kill", &self.process.take().unwrap()]).unwrap();
    }

    /// Starts it again, with more arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.restart();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        let port = self.port.to_string();
        let mut fields = vec!["start", self.folder().to_str().unwrap(), "--host", "127.0.0.1", "--port", &port];
        fields.extend(self.arguments.iter().map(String::as_str));
        self.process = Some(SuperLinks::request(&fields).unwrap());
        let tls = self.arguments.iter().any(|argument| argument.starts_with("--ssl"));
        wait_for("the SuperLink's start", LONG, || {
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

impl Drop for SuperLink {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // A second panic would end all tests of the program.
            let _ = SuperLinks::request(&["kill", &process]);
        }
    }
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
