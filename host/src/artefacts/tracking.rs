//! Writing scalars: TensorBoard events, one folder per client, and `metrics.jsonl`.
//!
//! Clients report from their threads, and a single thread of the tracker writes, so that training never waits for a
//! disk. Scalars do not wake that thread, because waking it would cost more than everything else; it polls instead.
//! Events are written to their client's file as they arrive. `metrics.jsonl` holds all clients in one file and must not
//! depend on which of them is faster: within a round it takes one client after the other, and the lines of later
//! clients wait.

pub(crate) mod event_file;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use self::writer::Writer;
use crate::artefacts::{durable, names};
use crate::error::{CliError, Diagnostic};

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

impl Positions {
    /// Forces the files to the disk that have grown since `before`, so that a checkpoint with these positions survives a
    /// power loss.
    ///
    /// # Errors
    /// If a file is missing or the disk reports an error.
    pub(crate) fn force(&self, run: &Path, before: &Self) -> Result<(), CliError> {
        let failed = |path: &Path, e: &std::io::Error| CliError::io(path, "force the metrics to the disk", e);
        let grown = self.events.iter().filter(|(path, len)| before.events.get(*path) != Some(len));
        let metrics = Path::new(names::METRICS);
        let grown = grown.map(|(path, _)| path.as_path()).chain((self.metrics > before.metrics).then_some(metrics));
        let grown: Vec<PathBuf> = grown.map(|path| run.join(path)).collect();
        durable::sync_all(&grown, durable::sync_file).map_err(|(path, e)| failed(&path, &e))?;
        // The names of new files.
        let new = self.events.keys().filter(|path| !before.events.contains_key(*path));
        let folders: BTreeSet<&Path> = new.flat_map(|path| path.ancestors().skip(1)).collect();
        let folders: Vec<PathBuf> = folders.into_iter().map(|folder| run.join(folder)).collect();
        durable::sync_all(&folders, durable::sync_folder).map_err(|(path, e)| failed(&path, &e))
    }
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

/// Scalars that were reported, each with its time in seconds since 1970. Ends once all handles are dropped.
#[derive(Debug)]
pub(crate) struct Collected(Receiver<Entry>);

impl Iterator for Collected {
    type Item = (Scalar, f64);

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .try_iter()
            .find_map(|entry| if let Entry::Scalar(scalar, time) = entry { Some((scalar, time)) } else { None })
    }
}

impl Reporter {
    /// A handle that discards its scalars.
    pub fn nowhere() -> Self {
        Self(channel().0)
    }

    /// A handle whose scalars are collected, and the collection.
    pub(crate) fn collecting() -> (Self, Collected) {
        let (sender, receiver) = channel();
        (Self(sender), Collected(receiver))
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
        let writer = Writer::new(run, clients, resumed)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reporter: &Reporter, client: Option<usize>, step: u64) {
        reporter.scalar(Scalar { client, round: 0, tag: "x".to_owned(), step, value: 1.0 });
    }

    fn written(run: &Path) -> Vec<(String, u64)> {
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
        assert_eq!(written(folder.path()), [one(100), one(101)].concat());
    }

    #[test]
    fn many_lines_of_a_fast_client_wait_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"].map(str::to_owned);
        let tracker = Tracker::new(folder.path(), &names, None).unwrap();
        let reporter = tracker.reporter();
        let steps = 0..20_000_u64;
        for client in [2, 1] {
            steps.clone().for_each(|step| report(&reporter, Some(client), step));
            reporter.client_done(client);
        }
        let spilled = || folder.path().join(names::IDLE).join("1.metrics").is_file();
        while !spilled() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        report(&reporter, Some(0), 7);
        reporter.client_done(0);
        let positions = tracker.sync().unwrap();
        let wanted: Vec<(String, u64)> = [("a".to_owned(), 7)]
            .into_iter()
            .chain(["b", "c"].into_iter().flat_map(|name| steps.clone().map(|step| (name.to_owned(), step))))
            .collect();
        assert!(written(folder.path()) == wanted);
        assert_eq!(std::fs::metadata(folder.path().join(names::METRICS)).unwrap().len(), positions.metrics);
        assert_eq!(std::fs::read_dir(folder.path().join(names::IDLE)).unwrap().count(), 0);
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
    fn a_file_that_another_program_removes_or_cuts_is_missed() {
        for (events, cut) in [(false, true), (false, false), (true, true), (true, false)] {
            let folder = tempfile::tempdir().unwrap();
            let tracker = Tracker::new(folder.path(), &["a".to_owned()], None).unwrap();
            report(&tracker.reporter(), Some(0), 1);
            let positions = tracker.sync().unwrap();
            let file = if events { positions.events.keys().next().unwrap() } else { Path::new(names::METRICS) };
            let file = folder.path().join(file);
            if cut {
                std::fs::write(&file, "").unwrap();
            } else {
                std::fs::remove_file(&file).unwrap();
            }
            report(&tracker.reporter(), Some(0), 2);
            let failure = tracker.sync().unwrap_err().to_string();
            assert!(failure.contains(&file.display().to_string()), "{failure}");
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
        assert_eq!(written(folder.path()), [("a".to_owned(), 1), ("a".to_owned(), 3)]);
        assert_eq!(positions.events.len(), 2);
        for (path, len) in &positions.events {
            assert_eq!(std::fs::metadata(folder.path().join(path)).unwrap().len(), *len);
        }
    }
}
