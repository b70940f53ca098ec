//! The tracker's thread, which writes `metrics.jsonl` and the event files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use serde_json::json;
use tensorboard_proto::event::Event;

use super::event_file::{self, EventFile};
use super::{Entry, Positions, SERVER, Scalar};
use crate::artefacts::names;
use crate::error::CliError;

/// The longest time that written scalars stay buffered.
const FLUSH_AFTER: Duration = Duration::from_secs(5);

/// How often the thread polls for scalars.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Opens a file for writing after its first `len` bytes and removes the rest.
fn open(path: &Path, len: u64) -> std::io::Result<File> {
    // Always at the end: if another program cuts the file, its length tells.
    let file = OpenOptions::new().append(true).create(len == 0).open(path)?;
    let found = file.metadata()?.len();
    if found < len {
        let what = format!("it has {found} bytes, but had {len} at the checkpoint");
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what));
    }
    if found > len {
        file.set_len(len)?;
    }
    Ok(file)
}

/// How many bytes of a client's lines wait in memory; more wait in a file.
const IN_MEMORY: usize = 1 << 18;

/// A client's lines that wait for the lines of earlier clients.
#[derive(Default)]
struct Waiting {
    /// How many bytes of them are in the file.
    spilled: u64,
    /// The lines after those.
    lines: Vec<u8>,
    /// Whether the client has finished its round.
    done: bool,
}

/// The state of the tracker's thread.
pub(super) struct Writer {
    run: PathBuf,
    names: Vec<String>,
    metrics: BufWriter<File>,
    metrics_path: PathBuf,
    positions: Positions,
    events: BTreeMap<Option<usize>, EventFile>,
    /// The client whose lines are written to `metrics.jsonl` as they arrive.
    turn: usize,
    /// What later clients have reported.
    waiting: BTreeMap<usize, Waiting>,
    server: Vec<String>,
}

impl Writer {
    /// Opens the files of a run directory, after the contents that `resumed` describes.
    ///
    /// # Errors
    /// If a file cannot be created or truncated.
    pub(super) fn new(run: &Path, clients: &[String], resumed: Option<&Positions>) -> Result<Self, CliError> {
        let metrics = run.join("metrics.jsonl");
        let positions = resumed.cloned().unwrap_or_default();
        let failed = |path: &Path, doing: &str, len: u64, e: &std::io::Error| {
            let failure = CliError::io(path, doing, e);
            if len > 0 { failure.hint("restore the file from a copy, or start over with --force") } else { failure }
        };
        let len = positions.metrics;
        let file = open(&metrics, len).map_err(|e| failed(&metrics, "write the metrics", len, &e))?;
        for (path, len) in &positions.events {
            let path = run.join(path);
            open(&path, *len).map_err(|e| failed(&path, "append to the events", *len, &e))?;
        }
        event_file::remove_others(run, &positions.events)?;
        Ok(Self {
            run: run.to_owned(),
            names: clients.to_vec(),
            metrics: BufWriter::new(file),
            metrics_path: metrics,
            positions,
            events: BTreeMap::new(),
            turn: 0,
            waiting: BTreeMap::new(),
            server: Vec::new(),
        })
    }

    /// Writes what arrives until nobody can send any more.
    pub(super) fn run(mut self, receiver: &Receiver<Entry>) {
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
            Some(client) => self.wait(client, &line.to_string())?,
        }
        Ok(())
    }

    fn client_done(&mut self, client: usize) -> Result<(), CliError> {
        self.waiting.entry(client).or_default().done = true;
        while self.waiting.get(&self.turn).is_some_and(|waiting| waiting.done) {
            self.release(self.turn)?;
            self.turn += 1;
            // The next client may have lines waiting; from now on its lines are written directly.
            if self.release(self.turn)? {
                self.waiting.insert(self.turn, Waiting { done: true, ..Waiting::default() });
            }
        }
        Ok(())
    }

    /// Keeps a line until it is its client's turn.
    fn wait(&mut self, client: usize, line: &str) -> Result<(), CliError> {
        let file = self.spill(client);
        let waiting = self.waiting.entry(client).or_default();
        waiting.lines.extend_from_slice(line.as_bytes());
        waiting.lines.push(b'\n');
        if waiting.lines.len() < IN_MEMORY {
            return Ok(());
        }
        let folder = file.parent().unwrap_or(&self.run);
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            // What a killed process left is not continued.
            let mut options = OpenOptions::new();
            options.create(true).append(waiting.spilled > 0).write(true).truncate(waiting.spilled == 0);
            options.open(&file)?.write_all(&waiting.lines)
        });
        written.map_err(|e| CliError::io(&file, "write the metrics", &e))?;
        waiting.spilled += waiting.lines.len() as u64;
        waiting.lines.clear();
        Ok(())
    }

    /// The file of a client's waiting lines.
    fn spill(&self, client: usize) -> PathBuf {
        self.run.join(names::IDLE).join(format!("{client}.metrics"))
    }

    /// Writes a client's waiting lines. Returns whether the client has finished its round.
    fn release(&mut self, client: usize) -> Result<bool, CliError> {
        let Some(Waiting { spilled, lines, done }) = self.waiting.remove(&client) else { return Ok(false) };
        if spilled > 0 {
            let path = self.spill(client);
            let copied = File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut self.metrics));
            let copied = copied.and_then(|copied| event_file::expect_length(copied, spilled));
            copied.map_err(|e| CliError::io(&path, "copy the metrics", &e))?;
            let _ = std::fs::remove_file(&path);
        }
        self.positions.metrics += spilled + lines.len() as u64;
        self.metrics.write_all(&lines).map_err(|e| CliError::io(&self.metrics_path, "write the metrics", &e))?;
        Ok(done)
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

    fn flush_metrics(&mut self) -> std::io::Result<()> {
        self.metrics.flush()?;
        // By its name: a file that somebody has removed or replaced can still be written to.
        event_file::expect_length(std::fs::metadata(&self.metrics_path)?.len(), self.positions.metrics)
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.flush_metrics().map_err(|e| CliError::io(&self.metrics_path, "write the metrics", &e))?;
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
