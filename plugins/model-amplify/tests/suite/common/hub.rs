//! A hub with a few files on loopback, which fails on request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

/// Its only repository.
pub(crate) const ID: &str = "lab/tiny";

/// A failure of the hub.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    Nothing,
    /// Every response has this status.
    Status(u16),
    /// The connection closes in the middle of the weights.
    BreaksOff,
    /// The last byte of the weights is changed.
    Flips,
    /// It takes every request and never answers.
    Silent,
    /// Nothing comes after the middle of the weights, and the connection stays open.
    Stalls,
    /// Responses are not a hub's.
    TalksNonsense,
}

/// Contents and behaviour.
pub(crate) struct Shelf {
    /// Files by commit and name.
    pub(crate) files: BTreeMap<(String, String), Vec<u8>>,
    /// The commits of branches and tags.
    pub(crate) revisions: BTreeMap<String, String>,
    /// The token that gives access, if one is needed.
    pub(crate) token: Option<String>,
    pub(crate) fault: Fault,
    /// Requested paths and ranges, in order.
    pub(crate) asked: Vec<String>,
}

pub(crate) struct TestHub {
    pub(crate) url: String,
    shelf: Arc<Mutex<Shelf>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestHub {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (files, revisions) = (BTreeMap::new(), BTreeMap::new());
        let shelf = Shelf { files, revisions, token: None, fault: Fault::Nothing, asked: Vec::new() };
        let shelf = Arc::new(Mutex::new(shelf));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (url, shelf, ended) = (url.clone(), shelf.clone(), ended.clone());
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that goes away is its own affair.
                    let _ = answer(&stream.unwrap(), &url, &shelf, &ended);
                }
            }
        });
        Self { url, shelf, ended, thread: Some(thread) }
    }

    /// Changes contents or behaviour.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Shelf) -> T) -> T {
        change(&mut self.shelf.lock().unwrap())
    }

    /// The requests since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.change(|shelf| std::mem::take(&mut shelf.asked))
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(stream: &TcpStream, url: &str, shelf: &Mutex<Shelf>, ended: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let range = headers.get("range").map(String::as_str);
    let (fault, (status, head, body)) = {
        let shelf = &mut *shelf.lock().unwrap();
        shelf.asked.push(format!("{path} {}", range.unwrap_or("all")));
        (shelf.fault, shelf.reply(&path, headers.get("authorization"), range, url))
    };
    if fault == Fault::Silent {
        return until_closed(stream, ended);
    }
    let length = body.len();
    write!(&*stream, "HTTP/1.1 {status} -\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    let halfway = [Fault::BreaksOff, Fault::Stalls].contains(&fault) && path.starts_with("/cdn/") && length > 1;
    (&*stream).write_all(if halfway { &body[..length.div_ceil(2)] } else { &body })?;
    if halfway && fault == Fault::Stalls {
        return until_closed(stream, ended);
    }
    stream.shutdown(Shutdown::Both)
}

/// Waits until the other side has closed the connection.
fn until_closed(mut stream: &TcpStream, ended: &AtomicBool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    while !ended.load(Ordering::Relaxed) {
        match stream.read(&mut [0]) {
            Ok(0) => break,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            read => drop(read?),
        }
    }
    Ok(())
}

impl Shelf {
    /// Status, headers and body.
    fn reply(&self, path: &str, who: Option<&String>, range: Option<&str>, url: &str) -> (u16, String, Vec<u8>) {
        let nothing = |status| (status, String::new(), Vec::new());
        let allowed = self.token.as_ref().is_none_or(|token| who == Some(&format!("Bearer {token}")));
        match self.fault {
            Fault::Status(status) => return nothing(status),
            Fault::TalksNonsense => return (200, String::new(), b"<html>welcome</html>".to_vec()),
            _ if !allowed => return nothing(401),
            _ => {}
        }
        let commit = |revision: &str| {
            let known = self.files.keys().any(|(commit, _)| commit == revision);
            self.revisions.get(revision).cloned().or_else(|| known.then(|| revision.to_owned()))
        };
        if let Some(revision) = path.strip_prefix(&format!("/api/models/{ID}/revision/")) {
            let Some(sha) = commit(revision) else { return nothing(404) };
            let names = self.files.keys().filter(|(commit, _)| *commit == sha);
            let siblings: Vec<_> = names.map(|(_, name)| json!({ "rfilename": name })).collect();
            return (200, String::new(), json!({ "sha": sha, "siblings": siblings }).to_string().into_bytes());
        }
        let resolved = path.strip_prefix(&format!("/{ID}/resolve/"));
        let Some((revision, name)) =
            resolved.or_else(|| path.strip_prefix("/cdn/")).and_then(|rest| rest.split_once('/'))
        else {
            return nothing(404);
        };
        let Some(commit) = commit(revision) else { return nothing(404) };
        let Some(content) = self.files.get(&(commit.clone(), name.to_owned())) else { return nothing(404) };
        let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let large = name.ends_with(".safetensors");
        if large && resolved.is_some() {
            // As the hub does with large files: they lie elsewhere.
            let elsewhere = format!("Location: {url}/cdn/{commit}/{name}\r\nX-Linked-Etag: \"{hash}\"\r\n");
            return (302, format!("{elsewhere}X-Repo-Commit: {commit}\r\n"), Vec::new());
        }
        let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
        let first: usize = range.0.parse().unwrap();
        let last = range.1.parse().unwrap_or(content.len() - 1);
        let mut body = content[first..=last].to_vec();
        if self.fault == Fault::Flips && large {
            *body.last_mut().unwrap() ^= 1;
        }
        // A small file's tag is as long as Git's hash.
        let head = format!("Content-Range: bytes {first}-{last}/{}\r\nX-Repo-Commit: {commit}\r\n", content.len());
        (206, format!("{head}ETag: \"{}\"\r\n", &hash[..40]), body)
    }
}
