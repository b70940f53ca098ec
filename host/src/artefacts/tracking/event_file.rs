//! Writing a TensorBoard event file.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fedplug_plot::events::masked;
use protobuf::Message as _;
use tensorboard_proto::event::Event;

use crate::error::CliError;

/// How many bytes of a client's events are buffered before they are written.
const PIECE: usize = 1 << 16;

/// Removes the event files that a run wrote after the checkpoint it resumes from. `kept` lists the files to keep.
pub(super) fn remove_others(run: &Path, kept: &BTreeMap<PathBuf, u64>) -> Result<(), CliError> {
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "remove the events after the checkpoint", &e);
    let events = run.join("events");
    let list = |path: &Path| match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<std::io::Result<Vec<_>>>),
    };
    for client in list(&events).map_err(|e| failed(&events, e))? {
        let folder = client.path();
        if !client.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        for file in list(&folder).map_err(|e| failed(&folder, e))? {
            let path = file.path();
            let within = path.strip_prefix(run).unwrap_or(&path);
            if is_ours(&file.file_name().to_string_lossy()) && !kept.contains_key(within) {
                std::fs::remove_file(&path).map_err(|e| failed(&path, e))?;
            }
        }
    }
    Ok(())
}

/// Whether this is the name of an event file written by a run.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("events.out.tfevents.") && name.contains(".fedplug.")
}

/// The second in the name of an event file written by a run.
fn second(name: &str) -> Option<u64> {
    name.strip_prefix("events.out.tfevents.")?.split_once(".fedplug.")?.0.parse().ok()
}

/// Checks that a file that this process writes is still the one that it wrote: that nobody has removed, replaced or cut it.
pub(super) fn expect_length(found: u64, written: u64) -> std::io::Result<()> {
    if found == written {
        return Ok(());
    }
    let what = format!("it has {found} bytes, but {written} were written; was it changed by another program?");
    Err(std::io::Error::other(what))
}

/// A TensorBoard event file. It is open only while a piece is written, because there may be more clients than file
/// descriptors.
pub(super) struct EventFile {
    /// The path of the file.
    pub(super) path: PathBuf,
    /// Records that are not written yet.
    waiting: Vec<u8>,
    /// The length in bytes, including waiting records.
    pub(super) len: u64,
}

impl EventFile {
    pub(super) fn new(folder: &Path, time: f64) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // TensorBoard reads the files of a folder in the order of their names, so a resumed run's file must sort later,
        // even if the clock was set back.
        let (mut named, mut number) = (time as u64, 0);
        for entry in std::fs::read_dir(folder)? {
            named = named.max(entry?.file_name().to_str().and_then(second).unwrap_or_default());
        }
        let path = loop {
            let path = folder.join(format!("events.out.tfevents.{named:010}.fedplug.{number:04}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => break path,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(e),
            }
        };
        let mut file = Self { path, waiting: Vec::new(), len: 0 };
        let mut version = Event::new();
        version.set_wall_time(time);
        version.set_file_version("brain.Event:2".to_owned());
        file.write(&version)?;
        Ok(file)
    }

    pub(super) fn write(&mut self, event: &Event) -> std::io::Result<()> {
        let data = event.write_to_bytes().map_err(std::io::Error::other)?;
        let length = (data.len() as u64).to_le_bytes();
        let before = self.waiting.len();
        for part in [&length[..], &masked(&length).to_le_bytes(), &data, &masked(&data).to_le_bytes()] {
            self.waiting.extend_from_slice(part);
        }
        self.len += (self.waiting.len() - before) as u64;
        if self.waiting.len() < PIECE { Ok(()) } else { self.flush() }
    }

    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        if !self.waiting.is_empty() {
            let mut file = OpenOptions::new().append(true).open(&self.path)?;
            file.write_all(&self.waiting)?;
            self.waiting.clear();
            expect_length(file.metadata()?.len(), self.len)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_sorts_later_even_if_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let paths =
            [2000.0, 2000.5, 1000.0, 3000.0, 10.0].map(|time| EventFile::new(folder.path(), time).unwrap().path);
        assert!(paths.is_sorted(), "{paths:?}");
    }
}
