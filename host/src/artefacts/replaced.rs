//! `--force`: sets an earlier run aside until the new one is done, then removes it.
//!
//! Only files that a run writes are moved or removed. Links are never followed, and other files stay.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::artefacts::durable::sync_folder;
use crate::artefacts::names;
use crate::artefacts::tracking::event_file;
use crate::error::{CliError, Diagnostic};

const FILES: [&str; 8] = [
    names::EXPERIMENT,
    names::JOURNAL,
    names::METRICS,
    names::SUMMARY,
    names::CROSS_SITE,
    names::PREDICTIONS,
    names::LOCK,
    names::MANIFEST,
];

/// The suffix of the folder of an earlier run. No run's name contains `~`.
const ASIDE: &str = ".replaced~";

/// The manifest of the run in a directory, if fedplug wrote it.
pub(crate) fn manifest(run: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(run.join(names::MANIFEST)).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let ours = value["fedplug"].is_string() && value["interface"].is_string() && value["plugins"].is_array();
    ours.then_some(value)
}

/// The folder of the earlier run of this directory.
pub(crate) fn aside(run: &Path) -> PathBuf {
    let mut path = run.as_os_str().to_owned();
    path.push(ASIDE);
    path.into()
}

/// Whether a process was interrupted while it moved the run in a directory aside: the manifest is moved first.
pub(crate) fn is_interrupted(run: &Path) -> bool {
    manifest(&aside(run)).is_some() && !run.join(names::MANIFEST).exists()
}

/// Whether a run may write a file of this name before its manifest.
pub(crate) fn is_leftover(name: &str) -> bool {
    name == names::LOCK
        || [names::MANIFEST, names::EXPERIMENT].iter().any(|file| name.strip_suffix(".part") == Some(file))
}

/// Whether a run writes a file or folder of this name.
fn is_ours(name: &str) -> bool {
    let whole = name.strip_suffix(".part").unwrap_or(name);
    FILES.contains(&whole)
        || ["events", "clients", "global", names::CHECKPOINT, names::IDLE].contains(&name)
        || is_best(name)
}

fn is_best(name: &str) -> bool {
    name == "best" || name.starts_with("best-")
}

/// Moves the run in a directory aside. If the process is killed meanwhile, the next one finishes the move.
///
/// # Errors
/// If something cannot be moved.
pub(crate) fn set_aside(run: &Path) -> Result<(), CliError> {
    let aside = aside(run);
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "move the earlier run aside", &e);
    if std::fs::symlink_metadata(&aside).is_ok_and(|data| !data.is_dir()) {
        let report =
            Diagnostic::new(format!("{}: already exists, so the earlier run cannot be moved there", aside.display()));
        return Err(CliError::usage(report));
    }
    if manifest(&aside).is_some() && !is_interrupted(run) {
        // A run that was replacing another, but ended early or was interrupted in its last step.
        if !run.join(names::SUMMARY).is_file() {
            remove(run)?;
            return Ok(());
        }
        remove_aside(run)?;
    }
    std::fs::create_dir_all(&aside).map_err(|e| failed(&aside, e))?;
    let mut names: Vec<_> = names(run).map_err(|e| failed(run, e))?;
    // The manifest first: from then on the rest is known to belong to it.
    names.sort_by_key(|name| name != names::MANIFEST);
    for name in names.iter().filter(|name| is_ours(name) && **name != names::LOCK) {
        std::fs::rename(run.join(name), aside.join(name)).map_err(|e| failed(&run.join(name), e))?;
        if name == names::MANIFEST {
            [aside.as_path(), run].into_iter().try_for_each(sync_folder).map_err(|e| failed(&aside, e))?;
        }
    }
    Ok(())
}

/// Removes what a run wrote into a directory, and the directory if it is then empty. Returns the files that stay.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn remove(run: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut left = Vec::new();
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "remove the earlier run", &e);
    let mut all = names(run).map_err(|e| failed(run, e))?;
    // Without checkpoints there is nothing to resume in half of a run; without its manifest it is not known as a run.
    all.sort_by_key(|name| (name == names::MANIFEST, name != names::CHECKPOINT));
    for name in all {
        let path = run.join(&name);
        let ours: fn(&str) -> bool = match name.as_str() {
            names::LOCK => continue,
            names::CHECKPOINT | names::IDLE => |_| true,
            "events" => event_file::is_ours,
            "clients" | "global" => is_model,
            best if is_best(best) => is_model,
            file if is_ours(file) => |_| true,
            _ => |_| false,
        };
        clear(&path, ours, &mut left).map_err(|e| failed(&path, e))?;
    }
    if left.is_empty() && !run.join(names::LOCK).exists() {
        std::fs::remove_dir(run).map_err(|e| failed(run, e))?;
    }
    Ok(left)
}

/// Removes the run that a new one replaces. Files that others put into its folders move to the new run's; returns those
/// whose name is taken there.
///
/// # Errors
/// If something cannot be moved or removed.
pub(crate) fn remove_aside(run: &Path) -> Result<Vec<PathBuf>, CliError> {
    let aside = aside(run);
    let mut left = Vec::new();
    for path in remove(&aside)? {
        let within = path.strip_prefix(&aside).unwrap_or(&path);
        let to = run.join(within);
        if to.symlink_metadata().is_ok() {
            left.push(path);
            continue;
        }
        to.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::rename(&path, &to))
            .map_err(|e| CliError::io(&path, "move the file to the new run", &e))?;
        // Only empty folders are removed.
        let above = within.ancestors().skip(1);
        let _ = above.map(|above| std::fs::remove_dir(aside.join(above))).find(Result::is_err);
    }
    Ok(left)
}

fn is_model(name: &str) -> bool {
    matches!(name.strip_suffix(".part").unwrap_or(name), "model.safetensors" | "predictions.csv")
}

/// Removes the files below a path that are ours by name, and folders that are then empty. Links are never ours.
fn clear(path: &Path, ours: fn(&str) -> bool, left: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if kind.is_dir() {
        // An export is in the plugin's own formats, so any name may be ours.
        let ours = if name == "export" { |_: &str| true } else { ours };
        let before = left.len();
        for name in std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()? {
            clear(&name, ours, left)?;
        }
        return if left.len() == before { std::fs::remove_dir(path) } else { Ok(()) };
    }
    if kind.is_file() && ours(&name) {
        return std::fs::remove_file(path);
    }
    left.push(path.to_owned());
    Ok(())
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    // No name of ours is changed by this.
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const OURS: &str = r#"{"fedplug": "0.1.0", "interface": "1.0.0", "plugins": []}"#;

    fn run(path: &Path, mark: &str) {
        write(&path.join(names::MANIFEST), OURS);
        for file in ["experiment.toml", "metrics.jsonl", "best/model.safetensors", "clients/a/export/x/any.bin"] {
            write(&path.join(file), mark);
        }
        write(&path.join("events/a/events.out.tfevents.0000000001.fedplug.0000"), mark);
    }

    #[test]
    fn a_manifest_of_another_program_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        for (text, ours) in [(OURS, true), (r#"{"manifest_version": 3}"#, false), ("{", false), ("[]", false)] {
            write(&folder.path().join(names::MANIFEST), text);
            assert_eq!(manifest(folder.path()).is_some(), ours, "{text}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn other_files_stay_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("r"), folder.path().join("outside"));
        run(&path, "1");
        write(&outside.join("model.safetensors"), "precious");
        let foreign = ["notes.txt", "clients/a/thesis.txt", "events/a/events.out.tfevents.1.other"];
        foreign.iter().for_each(|name| write(&path.join(name), "mine"));
        std::os::unix::fs::symlink(&outside, path.join("global")).unwrap();
        std::os::unix::fs::symlink(outside.join("model.safetensors"), path.join("summary.json")).unwrap();
        let mut left = remove(&path).unwrap();
        left.sort();
        let mut wanted: Vec<_> =
            foreign.iter().chain(&["global", "summary.json"]).map(|name| path.join(name)).collect();
        wanted.sort();
        assert_eq!(left, wanted);
        assert!(outside.join("model.safetensors").exists() && !path.join("best").exists());
        assert!(!path.join("clients/a/export").exists());
    }

    #[test]
    fn the_earlier_run_is_kept_until_the_new_one_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        let kept = || std::fs::read_to_string(aside(&path).join("metrics.jsonl")).unwrap();
        run(&path, "1");
        write(&path.join("summary.json"), "1");
        write(&path.join("notes.txt"), "mine");
        set_aside(&path).unwrap();
        assert_eq!(kept(), "1");
        assert_eq!(names(&path).unwrap(), ["notes.txt"]);
        // The new one ends early and is itself replaced: the first one is still what is kept.
        run(&path, "2");
        set_aside(&path).unwrap();
        assert_eq!((kept(), names(&path).unwrap()), ("1".to_owned(), vec!["notes.txt".to_owned()]));
        // This one is whole, but its process ended before it could remove the first.
        run(&path, "3");
        write(&path.join("summary.json"), "3");
        set_aside(&path).unwrap();
        assert_eq!(kept(), "3");
        write(&aside(&path).join("best/thesis.txt"), "mine");
        assert!(remove_aside(&path).unwrap().is_empty() && !aside(&path).exists());
        assert_eq!(std::fs::read_to_string(path.join("best/thesis.txt")).unwrap(), "mine");
    }

    #[test]
    fn an_interrupted_move_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        run(&path, "1");
        write(&path.join("summary.json"), "1");
        std::fs::create_dir_all(aside(&path)).unwrap();
        std::fs::rename(path.join(names::MANIFEST), aside(&path).join(names::MANIFEST)).unwrap();
        assert!(is_interrupted(&path));
        set_aside(&path).unwrap();
        assert!(!path.join("summary.json").exists());
        assert!(names(&path).unwrap().is_empty());
        assert!(manifest(&aside(&path)).is_some() && aside(&path).join("metrics.jsonl").exists());
    }
}
