//! A proxy that loses, delays, counts and records.

#![allow(clippy::unwrap_used, reason = "a test's helper may panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A call that passes through.
pub struct Passing {
    /// Without `/v1/`.
    pub path: String,
    /// The call's body.
    pub body: Vec<u8>,
    /// The answer's body, once it is here.
    pub answer: Option<Vec<u8>>,
}

/// What becomes of a call or its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is passed on.
    Pass,
    /// The connection breaks.
    Lose,
    /// It is answered by the proxy with this status.
    Status(u16),
}

/// A slow line, which all connections share, in each direction.
pub struct Line {
    bytes_per_second: usize,
    delay: Duration,
    directions: [Mutex<()>; 2],
}

impl Line {
    /// A line of this many bits a second, on which each message also takes a while to begin to arrive.
    pub fn new(bits_per_second: usize, delay: Duration) -> Self {
        Self { bytes_per_second: bits_per_second / 8, delay, directions: Default::default() }
    }

    /// Writes bytes as they would arrive, a few at a time.
    fn write(&self, direction: usize, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        std::thread::sleep(self.delay);
        for piece in bytes.chunks((self.bytes_per_second / 20).max(1)) {
            let turn = self.directions[direction].lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::sleep(Duration::from_secs_f64(piece.len() as f64 / self.bytes_per_second as f64));
            drop(turn);
            stream.write_all(piece)?;
        }
        Ok(())
    }
}

/// Forwards calls to a SuperLink. `fate` is asked before a call is forwarded, and once more with its answer.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// Forwards to this port of this machine.
    pub fn start(upstream: u16, fate: impl Fn(&Passing) -> Fate + Send + Sync + 'static) -> Self {
        Self::over(None, upstream, fate)
    }

    /// Forwards over a slow line.
    pub fn over(line: Option<Line>, upstream: u16, fate: impl Fn(&Passing) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, stop, fate) =
            (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)), Arc::new(fate));
        let stopped = Arc::clone(&stop);
        let line = Arc::new(line);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (fate, line) = (Arc::clone(&fate), Arc::clone(&line));
                std::thread::spawn(move || {
                    // Lost connections are what it is for.
                    let _ = forward(stream.unwrap(), upstream, line.as_ref().as_ref(), &*fate);
                });
            }
        });
        Self { port, stop }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Forwards the calls of one connection, each over a connection of its own.
fn forward(
    mut client: TcpStream,
    upstream: u16,
    line: Option<&Line>,
    fate: &dyn Fn(&Passing) -> Fate,
) -> std::io::Result<()> {
    let write = |direction, stream: &mut TcpStream, bytes: &[u8]| match line {
        Some(line) => line.write(direction, stream, bytes),
        None => stream.write_all(bytes),
    };
    loop {
        let (head, body) = read(&mut client)?;
        let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches("/v1/").to_owned();
        let mut passing = Passing { path, body, answer: None };
        match fate(&passing) {
            Fate::Pass => {}
            Fate::Lose => return Ok(()),
            Fate::Status(status) => {
                write!(client, "HTTP/1.1 {status} no\r\ncontent-length: 0\r\n\r\n")?;
                continue;
            }
        }
        let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
        server.write_all(head.as_bytes())?;
        write(0, &mut server, &passing.body)?;
        let (head, answer) = read(&mut server)?;
        passing.answer = Some(answer);
        if fate(&passing) == Fate::Lose {
            return Ok(());
        }
        client.write_all(head.as_bytes())?;
        write(1, &mut client, &passing.answer.unwrap())?;
    }
}

/// A head with its empty line, and a body of `content-length`.
fn read(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1 << 16]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
            });
            let mut body = bytes.split_off(end + 4);
            let have = body.len();
            body.resize(length.unwrap_or(0).max(have), 0);
            stream.read_exact(&mut body[have..])?;
            return Ok((head, body));
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&buffer[..count]);
    }
}
