//! Checkpoints: the state that a run is resumed from.
//!
//! A checkpoint is a folder `checkpoint/NUMBER`: numbered safetensors files, `index.json` with all other values, and
//! `SHA256SUMS`, which `sha256sum -c` reads. The sums are written last and make the checkpoint complete. The previous
//! checkpoint stays until the next one is started, so the process may be killed at any moment, and a damaged checkpoint is
//! skipped for the previous one.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use plugin_api::{Message, Params, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::artefacts::names;
use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};

const INDEX: &str = "index.json";
const SUMS: &str = "SHA256SUMS";

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
    /// Forces the files to the disk and hashes them, while others are written.
    hashing: (Sender<PathBuf>, JoinHandle<std::io::Result<String>>),
}

impl Writer {
    /// Starts a checkpoint of the run in this directory. All earlier ones but the last complete one are removed.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub(crate) fn new(run: &Path) -> Result<Self, CliError> {
        let parent = run.join(names::CHECKPOINT);
        let failed = |path: &Path, e: std::io::Error| CliError::io(path, "start a checkpoint", &e);
        let all = numbered(&parent).map_err(|e| failed(&parent, e))?;
        let last = all.iter().rfind(|(_, folder)| folder.join(SUMS).is_file());
        for (number, folder) in &all {
            if last.is_none_or(|(last, _)| last != number) {
                std::fs::remove_dir_all(folder).map_err(|e| failed(folder, e))?;
            }
        }
        let folder = parent.join(format!("{:08}", all.last().map_or(1, |(number, _)| number + 1)));
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, e))?;
        let (sender, files) = channel::<PathBuf>();
        let thread = std::thread::spawn(move || files.iter().map(|path| line(&path)).collect());
        Ok(Self { folder, entries: BTreeMap::new(), files: 0, hashing: (sender, thread) })
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
        let _ = self.hashing.0.send(path);
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
        let Self { folder, entries, hashing: (sender, thread), .. } = self;
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
        let above = [Some(folder.as_path()), folder.parent()];
        above.into_iter().flatten().try_for_each(sync_folder).map_err(|e| failed(&e))
    }
}

/// Forces the names in a folder to the disk.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    // Only on Unix can a folder be opened as a file.
    if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
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

/// A file's line in `SHA256SUMS`, once the file is on the disk.
fn line(path: &Path) -> std::io::Result<String> {
    std::fs::File::open(path)?.sync_all()?;
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
        for (_, folder) in all.into_iter().rev().filter(|(_, folder)| folder.join(SUMS).is_file()) {
            match whole(&folder).and_then(|text| serde_json::from_str::<Index<T>>(&text).map_err(|e| e.to_string())) {
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
mod tests {
    use plugin_api::Tensor;

    use super::*;

    fn write(run: &Path, number: f64) {
        let mut writer = Writer::new(run).unwrap();
        let params: Params = [("w", Tensor::from_slice(&[1], &[number]).unwrap())].into_iter().collect();
        // Names that would be the same file, and one that no file could have.
        for name in ["client.1.1.0", "client.1", &"x".repeat(1000)] {
            let values = [("exact".to_owned(), number.into())].into_iter().collect();
            writer.state(name, &State { tensors: params.clone(), values }).unwrap();
        }
        writer.message("global", &Message { extra: params, ..Message::default() }).unwrap();
        writer.finish(&number).unwrap();
    }

    fn open(run: &Path) -> (Option<(Reader, f64)>, Vec<String>) {
        let mut warnings = Vec::new();
        let found = Reader::open(run, &mut |line| warnings.push(line.to_owned())).unwrap();
        (found, warnings)
    }

    #[test]
    fn what_was_written_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        // Of the numbers between 0 and 1, serde_json reads one in ten a bit off unless it is told to be exact.
        let number = 0.456_943_763_567_021_9;
        write(folder.path(), number);
        let (reader, kept) = open(folder.path()).0.unwrap();
        assert_eq!(f64::to_bits(kept), number.to_bits());
        let state = reader.state(&"x".repeat(1000)).unwrap();
        assert_eq!(state.value::<f64>("exact").unwrap().to_bits(), number.to_bits());
        assert_eq!(state.tensors.elements::<f64>("w", &[1]).unwrap(), [number]);
        let message = reader.message("global").unwrap();
        assert!(message.params.is_empty());
        assert_eq!(message.extra.elements::<f64>("w", &[1]).unwrap(), [number]);
    }

    #[test]
    fn the_last_whole_one_counts_and_the_one_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path()).0.is_none());
        (1..=3).for_each(|number| write(folder.path(), f64::from(number)));
        assert_eq!(open(folder.path()).0.unwrap().1, 3.0);
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(folder.path().join(names::CHECKPOINT)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["00000002", "00000003"]);
        // Killed while it was written: it has no sums, and goes when the next is begun.
        drop(Writer::new(folder.path()).unwrap());
        assert_eq!(open(folder.path()).0.unwrap().1, 3.0);
        write(folder.path(), 5.0);
        assert_eq!(names(), ["00000003", "00000005"]);
    }

    #[test]
    fn a_changed_bit_of_any_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1.0);
        write(folder.path(), 2.0);
        let last = folder.path().join(names::CHECKPOINT).join("00000002");
        for entry in std::fs::read_dir(&last).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            for at in [0, bytes.len() / 2, bytes.len() - 2] {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                std::fs::write(&path, changed).unwrap();
                let (found, warnings) = open(folder.path());
                assert_eq!(found.unwrap().1, 1.0, "{} at {at}", path.display());
                assert!(warnings[0].contains("damaged checkpoint"), "{warnings:?}");
                std::fs::rename(last.with_extension("damaged"), &last).unwrap();
            }
            std::fs::write(&path, bytes).unwrap();
        }
        // Two files in each other's parent.
        let [one, two] = ["1.safetensors", "4.safetensors"].map(|name| last.join(name));
        let bytes = std::fs::read(&one).unwrap();
        std::fs::write(&two, [bytes, vec![0]].concat()).unwrap();
        assert_eq!(open(folder.path()).0.unwrap().1, 1.0);
        std::fs::remove_dir_all(folder.path().join(names::CHECKPOINT).join("00000001")).unwrap();
        std::fs::rename(last.with_extension("damaged"), &last).unwrap();
        let failure = Reader::open::<f64>(folder.path(), &mut |_| ()).unwrap_err();
        assert!(failure.to_string().contains("every checkpoint is damaged"), "{failure}");
    }
}
