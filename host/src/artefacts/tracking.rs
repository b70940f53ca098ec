//! Writing scalars: TensorBoard events, one folder per client, and `metrics.jsonl`.
//!
//! Clients report from their threads, and a single thread of the tracker writes, so that training never waits for a
//! disk. Scalars do not wake that thread, because waking it would cost more than everything else; it polls instead.
//! Events are written to their client's file as they arrive. `metrics.jsonl` holds all clients in one file and must not
//! depend on which of them is faster: within a round it takes one client after the other, and the lines of later
//! clients wait.

pub(crate) mod event_file;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tensorboard_proto::event::Event;

use self::event_file::EventFile;
use crate::error::{CliError, Diagnostic};

/// The longest time that written scalars stay buffered.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

/// How often the tracking thread polls for scalars.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The name under which the server's scalars are stored.
pub(crate) use fedplug_plot::events::SERVER;

/// A number reported by a client or the server.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The client's index in the round's order; `None` for the server.
    pub client: Option<usize>,
    /// The round, from zero.
    pub round: u64,
    /// The name of the measured quantity.
    pub tag: String,
    /// The step, as counted by the client.
    pub step: u64,
    /// The value.
    pub value: f64,
}

/// How far each file was written; a resumed run truncates the files to these positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// Bytes of `metrics.jsonl`.
    pub metrics: u64,
    /// Bytes of each event file, by its path relative to the run directory.
    pub events: BTreeMap<PathBuf, u64>,
}

enum Entry {
    /// A scalar and its time in seconds since 1970.
    Scalar(Scalar, f64),
    ClientDone(usize),
    Sync(Sender<Result<Positions, CliError>>),
}

/// The current time in seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Receives scalars and writes them to files.
#[derive(Debug)]
pub struct Tracker {
    sender: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
}

/// A handle for reporting scalars from a client's thread.
#[derive(Clone, Debug)]
pub struct Reporter(Sender<Entry>);

impl Reporter {
    /// A handle that discards its scalars.
    pub fn nowhere() -> Self {
        Self(channel().0)
    }

    /// Reports a number without blocking. [`Tracker::sync`] returns write errors.
    pub fn scalar(&self, scalar: Scalar) {
        self.scalar_of(scalar, now());
    }

    /// Reports a number with a time in seconds since 1970.
    pub fn scalar_of(&self, scalar: Scalar, time: f64) {
        let _ = self.0.send(Entry::Scalar(scalar, time));
    }

    /// States that a client has no more numbers to report in this round.
    pub fn client_done(&self, client: usize) {
        let _ = self.0.send(Entry::ClientDone(client));
    }
}

impl Tracker {
    /// Starts to write into a run directory, after the contents that `resumed` describes.
    ///
    /// # Errors
    /// If a file cannot be created or truncated.
    pub fn new(run: &Path, clients: &[String], resumed: Option<&Positions>) -> Result<Self, CliError> {
        let metrics = run.join("metrics.jsonl");
        let kept = resumed.cloned().unwrap_or_default();
        let file = open(&metrics, kept.metrics).map_err(|e| CliError::io(&metrics, "write the metrics", &e))?;
        for (path, len) in &kept.events {
            let path = run.join(path);
            open(&path, *len).map_err(|e| CliError::io(&path, "append to the events", &e))?;
        }
        event_file::remove_others(run, &kept.events)?;
        let writer = Writer {
            run: run.to_owned(),
            names: clients.to_vec(),
            metrics: BufWriter::new(file),
            metrics_path: metrics,
            positions: kept,
            events: BTreeMap::new(),
            turn: 0,
            waiting: BTreeMap::new(),
            server: Vec::new(),
        };
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("tracking".to_owned()).spawn(move || writer.run(&receiver));
        let thread = thread.map_err(|e| CliError::run(Diagnostic::new("cannot start the tracking thread").cause(e)))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// A handle for another thread.
    pub fn reporter(&self) -> Reporter {
        self.sender.clone().map_or_else(Reporter::nowhere, Reporter)
    }

    /// Ends a round: waits until everything reported is in the files, clients first, the server last.
    ///
    /// # Errors
    /// If anything could not be written.
    pub fn sync(&self) -> Result<Positions, CliError> {
        let (answer, answered) = channel();
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send(Entry::Sync(answer)).is_ok());
        self.wake();
        let lost = || CliError::run(Diagnostic::new("the tracking thread ended early"));
        if sent { answered.recv().map_err(|_| lost())? } else { Err(lost()) }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.sender = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens a file for writing after its first `len` bytes and removes the rest.
fn open(path: &Path, len: u64) -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(len == 0).truncate(len == 0).open(path)?;
    if len > 0 {
        let found = file.metadata()?.len();
        if found < len {
            let what = format!("it has {found} bytes, but had {len} at the checkpoint");
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what));
        }
        file.set_len(len)?;
        file.seek(SeekFrom::End(0))?;
    }
    Ok(file)
}

/// The state of the tracker's thread.
struct Writer {
    run: PathBuf,
    names: Vec<String>,
    metrics: BufWriter<File>,
    metrics_path: PathBuf,
    positions: Positions,
    events: BTreeMap<Option<usize>, EventFile>,
    /// The client whose lines are written to `metrics.jsonl` as they arrive.
    turn: usize,
    /// Lines of later clients, and whether the client has finished its round.
    waiting: BTreeMap<usize, (Vec<String>, bool)>,
    server: Vec<String>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Entry>) {
        // The first failure is kept and returned by every sync; after it nothing is written.
        let mut failure: Option<CliError> = None;
        let mut flushed = Instant::now();
        loop {
            let entry = match receiver.try_recv() {
                Ok(entry) => entry,
                Err(TryRecvError::Empty) => {
                    if failure.is_none() && flushed.elapsed() >= FLUSH_AFTER {
                        failure = self.flush().err();
                        flushed = Instant::now();
                    }
                    std::thread::park_timeout(LOOK_EVERY);
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
            };
            let outcome = match entry {
                _ if failure.is_some() && !matches!(entry, Entry::Sync(_)) => Ok(()),
                Entry::Scalar(scalar, time) => self.scalar(&scalar, time),
                Entry::ClientDone(client) => self.client_done(client),
                Entry::Sync(answer) => {
                    let outcome = match &failure {
                        Some(failure) => Err(failure.clone()),
                        None => self.end_round().and_then(|()| self.flush()),
                    };
                    let _ = answer.send(outcome.clone().map(|()| self.positions.clone()));
                    outcome
                }
            };
            failure = failure.or(outcome.err());
        }
        if failure.is_none() {
            let _ = self.end_round().and_then(|()| self.flush());
        }
    }

    fn scalar(&mut self, scalar: &Scalar, time: f64) -> Result<(), CliError> {
        let name = scalar.client.map_or(SERVER, |client| self.names[client].as_str());
        if !self.events.contains_key(&scalar.client) {
            let folder = self.run.join("events").join(name);
            let file = EventFile::new(&folder, time).map_err(|e| CliError::io(&folder, "write the events", &e))?;
            self.events.insert(scalar.client, file);
        }
        let file = self.events.get_mut(&scalar.client).expect("just put there");
        let mut event = Event::new();
        event.set_wall_time(time);
        event.set_step(scalar.step.cast_signed());
        #[expect(clippy::cast_possible_truncation, reason = "the format holds 32-bit floats")]
        event.set_summary(tensorboard_rs::summary::scalar(&format!("{name}/{}", scalar.tag), scalar.value as f32));
        file.write(&event).map_err(|e| CliError::io(&file.path, "write the events", &e))?;

        let Scalar { round, tag, step, value, .. } = scalar;
        let line = json!({"client": name, "round": round, "step": step, "tag": tag, "value": value, "time": time});
        match scalar.client {
            None => self.server.push(line.to_string()),
            Some(client) if client == self.turn => self.line(&line.to_string())?,
            Some(client) => self.waiting.entry(client).or_default().0.push(line.to_string()),
        }
        Ok(())
    }

    fn client_done(&mut self, client: usize) -> Result<(), CliError> {
        self.waiting.entry(client).or_default().1 = true;
        while let Some((_, true)) = self.waiting.get(&self.turn) {
            self.release(self.turn)?;
            self.turn += 1;
            // The next client may have lines waiting; from now on its lines are written directly.
            let (lines, done) = self.waiting.remove(&self.turn).unwrap_or_default();
            for line in lines {
                self.line(&line)?;
            }
            if done {
                self.waiting.insert(self.turn, (Vec::new(), true));
            }
        }
        Ok(())
    }

    fn release(&mut self, client: usize) -> Result<(), CliError> {
        let (lines, _) = self.waiting.remove(&client).unwrap_or_default();
        lines.iter().try_for_each(|line| self.line(line))
    }

    fn end_round(&mut self) -> Result<(), CliError> {
        for client in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.release(client)?;
        }
        self.turn = 0;
        std::mem::take(&mut self.server).iter().try_for_each(|line| self.line(line))
    }

    fn line(&mut self, line: &str) -> Result<(), CliError> {
        self.positions.metrics += line.len() as u64 + 1;
        writeln!(self.metrics, "{line}").map_err(|e| CliError::io(&self.metrics_path, "write the metrics", &e))
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.metrics.flush().map_err(|e| CliError::io(&self.metrics_path, "write the metrics", &e))?;
        for file in self.events.values_mut() {
            file.flush().map_err(|e| CliError::io(&file.path, "write the events", &e))?;
            let within = file.path.strip_prefix(&self.run).unwrap_or(&file.path);
            match self.positions.events.get_mut(within) {
                Some(len) => *len = file.len,
                None => drop(self.positions.events.insert(within.to_owned(), file.len)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reporter: &Reporter, client: Option<usize>, step: u64) {
        reporter.scalar(Scalar { client, round: 0, tag: "x".to_owned(), step, value: 1.0 });
    }

    fn told(run: &Path) -> Vec<(String, u64)> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let line = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            (value["client"].as_str().unwrap().to_owned(), value["step"].as_u64().unwrap())
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn lines_stand_in_client_order_whoever_was_faster() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"].map(str::to_owned);
        let tracker = Tracker::new(folder.path(), &names, None).unwrap();
        let reporter = tracker.reporter();
        for round in 0..2 {
            report(&reporter, None, 100 + round);
            report(&reporter, Some(2), 2);
            report(&reporter, Some(1), 1);
            reporter.client_done(2);
            report(&reporter, Some(0), 0);
            reporter.client_done(0);
            report(&reporter, Some(1), 11);
            reporter.client_done(1);
            tracker.sync().unwrap();
        }
        let one = |server| {
            [("a", 0), ("b", 1), ("b", 11), ("c", 2), (SERVER, server)].map(|(name, step)| (name.to_owned(), step))
        };
        assert_eq!(told(folder.path()), [one(100), one(101)].concat());
    }

    /// A checkpoint stores how far the files were written, including large pieces written before the end of the round.
    #[test]
    fn positions_count_what_was_written_before_the_round_ended() {
        let folder = tempfile::tempdir().unwrap();
        let tracker = Tracker::new(folder.path(), &["a".to_owned()], None).unwrap();
        let reporter = tracker.reporter();
        for length in [1, 100_000] {
            reporter.scalar(Scalar { client: Some(0), round: 0, tag: "x".repeat(length), step: 0, value: 1.0 });
            let positions = tracker.sync().unwrap();
            let (path, len) = positions.events.iter().next().unwrap();
            assert_eq!(std::fs::metadata(folder.path().join(path)).unwrap().len(), *len);
        }
    }

    #[test]
    fn a_resumed_run_cuts_back_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a".to_owned()];
        let tracker = Tracker::new(folder.path(), &names, None).unwrap();
        report(&tracker.reporter(), Some(0), 1);
        let kept = tracker.sync().unwrap();
        report(&tracker.reporter(), Some(0), 2);
        tracker.sync().unwrap();
        drop(tracker);
        let tracker = Tracker::new(folder.path(), &names, Some(&kept)).unwrap();
        report(&tracker.reporter(), Some(0), 3);
        let positions = tracker.sync().unwrap();
        assert_eq!(told(folder.path()), [("a".to_owned(), 1), ("a".to_owned(), 3)]);
        assert_eq!(positions.events.len(), 2);
        for (path, len) in &positions.events {
            assert_eq!(std::fs::metadata(folder.path().join(path)).unwrap().len(), *len);
        }
    }
}
