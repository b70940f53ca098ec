//! Checkpoints: the state that a run is resumed from.
//!
//! A checkpoint is a folder `checkpoint/NUMBER`: numbered safetensors files, `index.json` with all other values, and
//! `SHA256SUMS`, which `sha256sum -c` reads. The sums are written last and make the checkpoint complete. Older checkpoints
//! than the last two are removed after that, so the process may be killed at any moment, and a damaged checkpoint is
//! skipped for the previous one.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use plugin_api::{Message, Params, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::artefacts::durable::{sync_all, sync_file, sync_folder};
use crate::artefacts::names;
use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};

const INDEX: &str = "index.json";
const SUMS: &str = "SHA256SUMS";

/// How many complete checkpoints are kept. While another one is written, there are this many besides it.
const KEPT: usize = 2;

/// `index.json`: the host's part, and an entry for each component by name.
#[derive(Serialize, Deserialize)]
struct Index<T> {
    run: T,
    entries: BTreeMap<String, Entry>,
}

/// A state or a message: small values, and the files of its tensors, if any.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    values: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tensors: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra: Option<String>,
}

/// A checkpoint being written.
#[derive(Debug)]
pub(crate) struct Writer {
    folder: PathBuf,
    entries: BTreeMap<String, Entry>,
    files: usize,
    hashing: Hashing,
}

/// A thread that forces files to the disk and hashes them, while others are written.
#[derive(Debug)]
struct Hashing {
    files: Sender<PathBuf>,
    /// Returns the lines of `SHA256SUMS`.
    thread: JoinHandle<std::io::Result<String>>,
}

impl Writer {
    /// Starts a checkpoint of the run in this directory. Earlier ones that are incomplete are removed.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub(crate) fn new(run: &Path) -> Result<Self, CliError> {
        let parent = run.join(names::CHECKPOINT);
        let failed = |path: &Path, e: std::io::Error| CliError::io(path, "start a checkpoint", &e);
        let all = numbered(&parent).map_err(|e| failed(&parent, e))?;
        for (_, folder) in all.iter().filter(|(_, folder)| !is_complete(folder)) {
            std::fs::remove_dir_all(folder).map_err(|e| failed(folder, e))?;
        }
        let folder = parent.join(format!("{:08}", all.last().map_or(1, |(number, _)| number + 1)));
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        let (sender, files) = channel::<PathBuf>();
        let thread = std::thread::spawn(move || lines(&files));
        Ok(Self { folder, entries: BTreeMap::new(), files: 0, hashing: Hashing { files: sender, thread } })
    }

    fn tensors(&mut self, params: &Params) -> Result<Option<String>, CliError> {
        if params.is_empty() {
            return Ok(None);
        }
        self.files += 1;
        let name = format!("{}.safetensors", self.files);
        let path = self.folder.join(&name);
        safetensors::write(&path, params, &[])?;
        // If the thread ended early, joining it says so.
        let _ = self.hashing.files.send(path);
        Ok(Some(name))
    }

    /// Adds a component's state under a name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn state(&mut self, name: &str, state: &State) -> Result<(), CliError> {
        let entry = Entry { tensors: self.tensors(&state.tensors)?, values: state.values.clone(), extra: None };
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Adds a message under a name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn message(&mut self, name: &str, message: &Message) -> Result<(), CliError> {
        let (tensors, extra) = (self.tensors(&message.params)?, self.tensors(&message.extra)?);
        self.entries.insert(name.to_owned(), Entry { tensors, extra, values: message.values.clone() });
        Ok(())
    }

    /// Completes the checkpoint.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn finish(self, run: &impl Serialize) -> Result<(), CliError> {
        let Self { folder, entries, hashing: Hashing { files: sender, thread }, .. } = self;
        let failed = |e: &std::io::Error| CliError::io(&folder, "write the checkpoint", e);
        let index = serde_json::to_string(&Index { run, entries }).map_err(|e| failed(&e.into()))?;
        let path = folder.join(INDEX);
        safetensors::write_text(&path, &index)?;
        let _ = sender.send(path);
        drop(sender);
        let sums = thread.join().expect("hashing does not panic").map_err(|e| failed(&e))?;
        // Everything else is on the disk before the sums are, so that a complete checkpoint survives a power loss.
        sync_folder(&folder).map_err(|e| failed(&e))?;
        safetensors::write_text(&folder.join(SUMS), &sums)?;
        // The checkpoint's folder, the folder of all checkpoints and the run's directory.
        folder.ancestors().take(3).try_for_each(sync_folder).map_err(|e| failed(&e))?;
        folder.parent().map_or(Ok(()), remove_old)
    }
}

/// Whether a checkpoint was written to its end.
fn is_complete(folder: &Path) -> bool {
    folder.join(SUMS).is_file()
}

/// Removes all complete checkpoints but the last [`KEPT`].
fn remove_old(parent: &Path) -> Result<(), CliError> {
    let failed = |path: &Path, e: &std::io::Error| CliError::io(path, "remove an old checkpoint", e);
    let all = numbered(parent).map_err(|e| failed(parent, &e))?;
    for (_, folder) in all.iter().rev().filter(|(_, folder)| is_complete(folder)).skip(KEPT) {
        // The sums first: without them it is no checkpoint, and a killed process leaves no half of one.
        let sums = folder.join(SUMS);
        std::fs::remove_file(&sums).map_err(|e| failed(&sums, &e))?;
        std::fs::remove_dir_all(folder).map_err(|e| failed(folder, &e))?;
    }
    Ok(())
}

/// The numbered folders, in ascending order.
fn numbered(parent: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(parent) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// How many files are forced to the disk together.
const TOGETHER: usize = 256;

/// The lines of files in `SHA256SUMS`, once the files are on the disk.
fn lines(files: &Receiver<PathBuf>) -> std::io::Result<String> {
    let mut lines = String::new();
    while let Ok(first) = files.recv() {
        let some: Vec<PathBuf> = std::iter::once(first).chain(files.try_iter().take(TOGETHER - 1)).collect();
        sync_all(&some, sync_file).map_err(|(_, e)| e)?;
        for path in &some {
            lines += &line(path)?;
        }
    }
    Ok(lines)
}

/// A file's line in `SHA256SUMS`.
fn line(path: &Path) -> std::io::Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{}  {name}\n", sha256(path)?))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => hash.update(&piece[..length]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A checkpoint on disk.
#[derive(Debug)]
pub(crate) struct Reader {
    folder: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Reader {
    /// Opens the last undamaged checkpoint of the run in this directory, if there is one, with the host's part of it. Later,
    /// damaged ones are reported to `warn`.
    ///
    /// # Errors
    /// If all checkpoints are damaged.
    pub(crate) fn open<T: DeserializeOwned>(
        run: &Path,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<(Self, T)>, CliError> {
        Self::open_if(run, |_: &T| true, warn)
    }

    /// As [`Self::open`], for the last checkpoint that `accept` accepts.
    ///
    /// # Errors
    /// If all checkpoints are damaged.
    pub(crate) fn open_if<T: DeserializeOwned>(
        run: &Path,
        accept: impl Fn(&T) -> bool,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<(Self, T)>, CliError> {
        let parent = run.join(names::CHECKPOINT);
        if parent.join(INDEX).is_file() {
            let report = Diagnostic::new(format!(
                "{}: the checkpoint was written by an earlier version of fedplug",
                parent.display()
            ));
            return Err(CliError::run(report.hint("start over with --force, or use the version that wrote it")));
        }
        let all = numbered(&parent).map_err(|e| CliError::io(&parent, "read the checkpoints", &e))?;
        let mut damaged: Vec<(PathBuf, String)> = Vec::new();
        for (_, folder) in all.into_iter().rev().filter(|(_, folder)| is_complete(folder)) {
            match whole(&folder).and_then(|text| serde_json::from_str::<Index<T>>(&text).map_err(|e| e.to_string())) {
                Ok(Index { run, .. }) if !accept(&run) => {}
                Ok(Index { run, entries }) => {
                    if let Some((damaged, _)) = damaged.last() {
                        warn(&format!("resuming from the previous checkpoint: {}", folder.display()));
                        // Out of the way of the next checkpoint; removed at the end of the run.
                        set_aside(damaged)?;
                    }
                    return Ok(Some((Self { folder, entries }, run)));
                }
                Err(what) => {
                    warn(&format!("{}: damaged checkpoint: {what}", folder.display()));
                    damaged.push((folder, what));
                }
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        let report = Diagnostic::new(format!("{}: every checkpoint is damaged", parent.display()));
        let report = damaged.iter().fold(report, |report, (folder, what)| {
            report.cause(format!("{}: {what}", folder.file_name().unwrap_or_default().display()))
        });
        Err(CliError::run(report.hint("start over with --force")))
    }

    fn entry(&self, name: &str) -> Result<&Entry, CliError> {
        self.entries.get(name).ok_or_else(|| {
            CliError::run(Diagnostic::new(format!("{}: has no entry for `{name}`", self.folder.display())))
        })
    }

    fn tensors(&self, file: Option<&String>) -> Result<Params, CliError> {
        file.map_or_else(|| Ok(Params::new()), |file| safetensors::read(&self.folder.join(file)))
    }

    /// A component's state.
    ///
    /// # Errors
    /// If it is missing or cannot be read.
    pub(crate) fn state(&self, name: &str) -> Result<State, CliError> {
        let entry = self.entry(name)?;
        Ok(State { tensors: self.tensors(entry.tensors.as_ref())?, values: entry.values.clone() })
    }

    /// A message.
    ///
    /// # Errors
    /// If it is missing or cannot be read.
    pub(crate) fn message(&self, name: &str) -> Result<Message, CliError> {
        let entry = self.entry(name)?;
        let (params, extra) = (self.tensors(entry.tensors.as_ref())?, self.tensors(entry.extra.as_ref())?);
        Ok(Message { params, extra, values: entry.values.clone() })
    }
}

fn set_aside(folder: &Path) -> Result<(), CliError> {
    let to = folder.with_extension("damaged");
    let _ = std::fs::remove_dir_all(&to);
    std::fs::rename(folder, to).map_err(|e| CliError::io(folder, "move the damaged checkpoint aside", &e))
}

/// Verifies all files of a checkpoint and returns its index.
fn whole(folder: &Path) -> Result<String, String> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|e| format!("{name}: {e}"));
    let mut sums: BTreeMap<String, String> = BTreeMap::new();
    for line in read(SUMS)?.lines() {
        let (sum, name) = line.split_once("  ").ok_or_else(|| format!("{SUMS} has an invalid line, `{line}`"))?;
        sums.insert(name.to_owned(), sum.to_owned());
    }
    for (name, sum) in &sums {
        let found = sha256(&folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
        if found != *sum {
            return Err(format!("{name}: changed since it was written"));
        }
    }
    let text = read(INDEX)?;
    let index: Index<serde::de::IgnoredAny> = serde_json::from_str(&text).map_err(|e| format!("{INDEX}: {e}"))?;
    let named = index.entries.values().flat_map(|entry| entry.tensors.iter().chain(&entry.extra));
    match named.map(String::as_str).chain([INDEX]).find(|name| !sums.contains_key(*name)) {
        Some(name) => Err(format!("{SUMS} does not name {name}")),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests;
