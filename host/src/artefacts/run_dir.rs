//! The directory of a run, with protection against overwriting an earlier one.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::artefacts::durable;
use crate::artefacts::lock::Lock;
use crate::artefacts::names;
use crate::artefacts::replaced;
use crate::artefacts::safetensors::write_text;
use crate::error::{CliError, Diagnostic};

/// What to do if the directory exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Refuse.
    Refuse,
    /// Replace it, if it contains a run.
    Replace,
    /// Resume from its checkpoint.
    Resume,
}

/// What a directory contains before a run starts in it.
#[derive(Debug, PartialEq)]
enum Found {
    /// Nothing, or no directory.
    Nothing,
    /// Files of a process that ended before it wrote a manifest, or while it moved an earlier run aside.
    Leftovers,
    /// A run, with its manifest.
    Run(Value),
    /// A run whose manifest cannot be read.
    Damaged,
    /// Anything else.
    Others,
}

impl Found {
    fn at(path: &Path) -> Result<Self, CliError> {
        let names = match std::fs::read_dir(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Nothing),
            entries => entries.and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            }),
        };
        let names: Vec<String> = names.map_err(|e| CliError::io(path, "read the directory", &e))?;
        let is_there = |file: &str| names.iter().any(|name| name == file);
        let manifest = path.join(names::MANIFEST);
        if manifest.is_file() {
            // A disk that fails to read it says nothing about what it holds.
            std::fs::read(&manifest).map_err(|e| CliError::io(&manifest, "read the run's manifest", &e))?;
        }
        Ok(match replaced::manifest(path) {
            Some(manifest) => Self::Run(manifest),
            None if names.is_empty() => Self::Nothing,
            None if names.iter().all(|name| replaced::is_leftover(name)) => Self::Leftovers,
            None if replaced::is_interrupted(path) => Self::Leftovers,
            None if [names::MANIFEST, names::EXPERIMENT, names::JOURNAL].iter().all(|&file| is_there(file)) => {
                Self::Damaged
            }
            None => Self::Others,
        })
    }
}

/// A run's directory, locked against other processes.
#[derive(Debug)]
pub(crate) struct RunDir {
    /// Absolute, so that a plugin that changes the current directory does not send results elsewhere.
    path: PathBuf,
    /// The path as the user gave it.
    shown: PathBuf,
    existing: Existing,
    /// The manifest of the run in the directory, if there is one.
    manifest: Option<Value>,
    /// Removed again if no run starts: the directory and its parent, if they are new.
    made: Vec<PathBuf>,
    lock: Option<Lock>,
}

impl RunDir {
    /// Locks `parent/name` for this process, and creates it if necessary. Nothing else in it changes yet. `warn`
    /// receives messages for the user.
    ///
    /// # Errors
    /// If another process uses the directory, if it exists and should not or does not exist and should, or if it cannot
    /// be created.
    pub(crate) fn claim(
        parent: &Path,
        name: &str,
        existing: Existing,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Self, CliError> {
        let shown = parent.join(name);
        let path =
            std::path::absolute(&shown).map_err(|e| CliError::io(&shown, "find the current directory of", &e))?;
        // Report what can be detected before anything is written to the folder.
        let found = Found::at(&path)?;
        if !matches!(found, Found::Run(_)) {
            may_begin(&shown, &found, existing)?;
        }
        let above = path.parent().into_iter();
        let made: Vec<PathBuf> =
            [path.as_path()].into_iter().chain(above).filter(|p| !p.exists()).map(Path::to_path_buf).collect();
        std::fs::create_dir_all(&path).map_err(|e| CliError::io(&shown, "create the run's directory", &e))?;
        let lock = Lock::take(&path)?;
        if let Some(why) = &lock.missing {
            let what = "the file system does not support locks, so a second process would not be stopped";
            warn(&format!("{}: {what}: {why}", shown.display()));
        }
        let mut claimed = Self { path, shown, existing, manifest: None, made, lock: Some(lock) };
        // Another process may have started and ended since the first check.
        let found = Found::at(&claimed.path)?;
        may_begin(&claimed.shown, &found, existing)?;
        if let Found::Run(manifest) = found {
            claimed.manifest = Some(manifest);
        }
        Ok(claimed)
    }

    /// The absolute path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the directory for messages, as the user gave it.
    pub(crate) fn shown(&self) -> std::path::Display<'_> {
        self.shown.display()
    }

    /// The manifest of the run to resume, if there is one and resuming was requested.
    pub(crate) fn to_resume(&self) -> Option<&Value> {
        self.manifest.as_ref().filter(|_| self.existing == Existing::Resume)
    }

    /// A folder inside the directory, created if necessary.
    ///
    /// # Errors
    /// If it cannot be created.
    pub(crate) fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf, CliError> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(|e| CliError::io(&path, "create the folder", &e))?;
        Ok(path)
    }

    /// Writes `manifest.json` and `experiment.toml`. If this run replaces another one, that run is moved aside first. A
    /// resumed run keeps the start time and the command of its first start.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn begin(&mut self, experiment: &str, mut new: Value) -> Result<(), CliError> {
        if self.existing == Existing::Replace && self.manifest.is_some() || replaced::is_interrupted(&self.path) {
            replaced::set_aside(&self.path)?;
        }
        let aside = replaced::aside(&self.path);
        // `--resume` of a process that was killed while it moved the earlier run aside replaces it as well.
        if self.existing != Existing::Refuse && self.to_resume().is_none() && replaced::manifest(&aside).is_some() {
            new["replaces"] = aside.file_name().unwrap_or_default().to_string_lossy().into();
        }
        if let Some(old) = self.to_resume() {
            let mut resumed = old["resumed"].as_array().cloned().unwrap_or_default();
            resumed.push(json!({"begun": new["begun"], "command": new["command"]}));
            for key in ["begun", "command", "replaces"] {
                if let Some(value) = old.get(key) {
                    new[key] = value.clone();
                }
            }
            new["resumed"] = resumed.into();
        }
        // The manifest is written first: it marks the directory as a run's, whatever happens next.
        self.write_json(names::MANIFEST, &new)?;
        self.made.clear();
        self.manifest = Some(new);
        write_text(&self.path.join(names::EXPERIMENT), experiment)?;
        let parent = self.path.parent().unwrap_or(&self.path);
        durable::sync_folder(parent).map_err(|e| CliError::io(parent, "force it to the disk", &e))
    }

    /// Writes the summary, which makes the run complete. All other results are on the disk before.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(crate) fn complete(&self, summary: &impl Serialize) -> Result<(), CliError> {
        durable::sync_tree(&self.path, &[names::CHECKPOINT, names::IDLE, names::LOCK])?;
        self.write_json(names::SUMMARY, summary)
    }

    /// Whether the run is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.path.join(names::SUMMARY).is_file()
    }

    /// Finishes the run: removes the checkpoint, the idle models and the run that this one replaces. `warn` receives a
    /// message if files are left over.
    ///
    /// # Errors
    /// If the run that it replaces cannot be removed.
    pub(crate) fn finish(&self, warn: &mut dyn FnMut(&str)) -> Result<(), CliError> {
        for folder in [names::CHECKPOINT, names::IDLE] {
            let _ = std::fs::remove_dir_all(self.path.join(folder));
        }
        // A process that was interrupted before it moved anything leaves it empty; only then is it removed here.
        let _ = std::fs::remove_dir(replaced::aside(&self.path));
        if self.replaces().is_some() {
            let stays = replaced::remove_aside(&self.path)?;
            if let Some(first) = stays.first() {
                let (count, first) = (stays.len(), first.display());
                warn(&format!("not removed, since fedplug did not write it: {first} ({count} in all)"));
            }
        }
        Ok(())
    }

    /// The path of the run that this one replaces, if there is one.
    pub(crate) fn replaces(&self) -> Option<PathBuf> {
        let aside = replaced::aside(&self.path);
        let said = self.manifest.as_ref().is_some_and(|manifest| manifest.get("replaces").is_some());
        (said && replaced::manifest(&aside).is_some()).then_some(aside)
    }

    /// The experiment that the run in this directory was started with, if it was written.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn experiment(&self) -> Result<Option<String>, CliError> {
        let path = self.path.join(names::EXPERIMENT);
        match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some).map_err(|e| CliError::io(&path, "read the run's experiment", &e)),
        }
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), CliError> {
        let path = self.path.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|e| CliError::io(&path, "write", &e.into()))?;
        write_text(&path, &format!("{text}\n"))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        self.lock = None;
        for folder in &self.made {
            // Removes empty folders only.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Checks whether a run may start in a directory with these contents. `path` is for messages.
fn may_begin(path: &Path, found: &Found, existing: Existing) -> Result<(), CliError> {
    let shown = path.display();
    let (message, hint) = match (found, existing) {
        (Found::Run(_), Existing::Resume) | (Found::Leftovers, _) => return Ok(()),
        (Found::Nothing, Existing::Refuse | Existing::Replace) => return Ok(()),
        (Found::Run(_), Existing::Replace) if path.is_symlink() => {
            ("is a link, which --force does not follow", "name the directory itself with --output and --name")
        }
        (Found::Run(_), Existing::Replace) => return Ok(()),
        (Found::Run(_), Existing::Refuse) => (
            "this directory already contains a run",
            "give this one another name with --name, resume the old one with --resume, or replace it with --force",
        ),
        (Found::Nothing | Found::Others, Existing::Resume) => {
            ("there is no run to resume", "start it without --resume")
        }
        (Found::Damaged, _) => (
            "contains a run whose `manifest.json` is damaged, so it is neither resumed nor replaced",
            "restore the file from a copy, or move the directory away",
        ),
        (Found::Others, Existing::Refuse | Existing::Replace) => (
            "contains files that are not part of a run, so nothing was written",
            "choose another folder with --output or another name with --name",
        ),
    };
    Err(CliError::usage(Diagnostic::new(format!("{shown}: {message}")).hint(hint)))
}

#[cfg(test)]
mod tests;
