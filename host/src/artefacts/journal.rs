//! The rounds that were started, recorded on disk before any message of a round leaves a client.
//!
//! A checkpoint only covers finished rounds. If a process is killed, the resumed run repeats the rounds after the
//! checkpoint, although their messages may already have been sent. Anything that counts messages, such as a privacy
//! account, must know about these attempts. So each round, each repetition of a round and the cross-site evaluation
//! adds a line to this file, which is on disk before the round's first message. A component reads the count as the
//! property `attempts` of its context. A client on another machine has its own journal: it counts what left that
//! client, no matter which process lost the later rounds.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::artefacts::names;
use crate::error::{CliError, Diagnostic};

/// The journal of a run, or a disabled one.
#[derive(Debug)]
pub struct Journal {
    file: Option<(PathBuf, File)>,
    begun: Mutex<Begun>,
}

/// How often rounds were started.
#[derive(Debug, Default)]
struct Begun {
    by_anybody: u64,
    by_client: BTreeMap<String, u64>,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Attempt {
    /// The round, from zero; the cross-site evaluation is numbered after the last round.
    round: u64,
    /// The clients that take part.
    clients: Vec<String>,
}

/// A disabled journal, for example for a dry run: it counts nothing, and components see no count.
pub static NONE: Journal =
    Journal { file: None, begun: Mutex::new(Begun { by_anybody: 0, by_client: BTreeMap::new() }) };

impl Journal {
    /// Opens the journal in a run's directory, or creates it: runs of earlier versions have none.
    ///
    /// # Errors
    /// If it cannot be read or written, or is damaged. A truncated last line is not an error and is not counted,
    /// because the messages of a round wait until its line is on disk.
    pub fn open(run: &Path) -> Result<Self, CliError> {
        let path = run.join(names::JOURNAL);
        let failed = |e: &std::io::Error| CliError::io(&path, "open the journal of rounds", e);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(|e| failed(&e))?,
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut begun = Begun::default();
        for (number, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let attempt: Attempt = serde_json::from_slice(line).map_err(|e| {
                let report = Diagnostic::new(format!("{}: line {} is damaged", path.display(), number + 1)).cause(e);
                CliError::run(report.hint("without it there is no record of what was sent; start over with --force"))
            })?;
            begun.add(&attempt.clients);
        }
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(|e| failed(&e))?;
        file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(|e| failed(&e))?;
        // The directory entry must be on disk as well. If folders cannot be opened, the operating system takes care of
        // it.
        if let Ok(folder) = File::open(run) {
            let _ = folder.sync_all();
        }
        Ok(Self { file: Some((path, file)), begun: Mutex::new(begun) })
    }

    /// Records that these clients start a round. When this returns, the record is on disk.
    ///
    /// # Errors
    /// If it cannot be written. In that case the round must not start.
    pub fn begin(&self, round: u64, clients: &[String]) -> Result<(), CliError> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        let mut begun = self.lock();
        let write = || {
            let mut line = serde_json::to_vec(&Attempt { round, clients: clients.to_vec() })?;
            line.push(b'\n');
            let mut file = file;
            file.write_all(&line)?;
            file.sync_data()
        };
        write().map_err(|e| CliError::io(path, "record the start of a round", &e))?;
        begun.add(clients);
        Ok(())
    }

    /// How many rounds a client has started in this run's directory, including repeated rounds and the current one;
    /// without a client, how many rounds were started at all. `None` for a disabled journal.
    pub fn attempts(&self, client: Option<&str>) -> Option<u64> {
        self.file.as_ref()?;
        let begun = self.lock();
        Some(client.map_or(begun.by_anybody, |client| begun.by_client.get(client).copied().unwrap_or_default()))
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    fn add(&mut self, clients: &[String]) {
        self.by_anybody += 1;
        for client in clients {
            match self.by_client.get_mut(client) {
                Some(count) => *count += 1,
                None => drop(self.by_client.insert(client.clone(), 1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_was_begun_is_known_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let counts = |journal: &Journal| ["a", "b", "c"].map(|client| journal.attempts(Some(client)).unwrap());
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!((counts(&journal), journal.attempts(None)), ([0, 0, 0], Some(0)));
        journal.begin(0, &names(&["a", "b"])).unwrap();
        journal.begin(1, &names(&["b"])).unwrap();
        assert_eq!(counts(&journal), [1, 2, 0]);
        // The process ends here; the next one repeats round 1.
        drop(journal);
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(counts(&journal), [1, 2, 0]);
        journal.begin(1, &names(&["b"])).unwrap();
        assert_eq!((counts(&journal), journal.attempts(None)), ([1, 3, 0], Some(3)));
        let text = std::fs::read_to_string(folder.path().join(names::JOURNAL)).unwrap();
        let line = "{\"round\":1,\"clients\":[\"b\"]}\n";
        assert_eq!(text, format!("{{\"round\":0,\"clients\":[\"a\",\"b\"]}}\n{line}{line}"));
    }

    #[test]
    fn half_a_line_counts_nothing_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(names::JOURNAL);
        std::fs::write(&path, "{\"round\":0,\"clients\":[\"a\"]}\n{\"round\":1,\"cli").unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.attempts(Some("a")), Some(1));
        journal.begin(1, &names(&["a"])).unwrap();
        drop(journal);
        assert_eq!(Journal::open(folder.path()).unwrap().attempts(Some("a")), Some(2));
        std::fs::write(&path, "{\"round\":0}\n{\"round\":1,\"clients\":[\"a\"]}\n").unwrap();
        let failure = Journal::open(folder.path()).unwrap_err().to_string();
        assert!(failure.contains("attempts.jsonl: line 1 is damaged"), "{failure}");
    }

    #[test]
    fn a_rehearsal_counts_nothing() {
        NONE.begin(0, &names(&["a"])).unwrap();
        assert_eq!((NONE.attempts(Some("a")), NONE.attempts(None)), (None, None));
    }
}
