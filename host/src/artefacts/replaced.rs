//! What of a run's directory is fedplug's, and how `--force` puts it aside until the new run is done.
//!
//! Only names that a run writes are moved or removed, links are never followed, and whatever else lies in the directory
//! stays where it is.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::artefacts::checkpoint;
use crate::artefacts::journal;
use crate::artefacts::lock;
use crate::artefacts::tracking::event_file;
use crate::error::{CliError, Diagnostic};
use crate::federation::cross_site;
use crate::federation::summary;

/// The file that tells a run's directory from any other.
pub const MANIFEST: &str = "manifest.json";

/// The experiment that a run was begun with.
pub const EXPERIMENT: &str = "experiment.toml";

/// The folder of models that wait on disk.
pub const IDLE: &str = "idle";

const FILES: [&str; 8] = [
    EXPERIMENT,
    journal::FILE,
    "metrics.jsonl",
    summary::FILE,
    cross_site::FILE,
    "predictions.csv",
    lock::FILE,
    MANIFEST,
];

/// The suffix of a folder that an earlier run waits in. No run has a name with this sign.
const ASIDE: &str = ".replaced~";

/// The manifest of the run in a directory, if it is one that fedplug wrote.
pub fn manifest(run: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(run.join(MANIFEST)).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let ours = value["fedplug"].is_string() && value["interface"].is_string() && value["plugins"].is_array();
    ours.then_some(value)
}

/// Where the earlier run of this directory waits.
pub fn aside(run: &Path) -> PathBuf {
    let mut path = run.as_os_str().to_owned();
    path.push(ASIDE);
    path.into()
}

/// The names in a directory that a run may have written before its manifest.
pub fn is_leftover(name: &str) -> bool {
    name == lock::FILE || [MANIFEST, EXPERIMENT].iter().any(|file| name.strip_suffix(".part") == Some(file))
}

/// Whether a run writes a file or folder of this name.
fn is_ours(name: &str) -> bool {
    let whole = name.strip_suffix(".part").unwrap_or(name);
    FILES.contains(&whole) || ["events", "clients", "global", checkpoint::FOLDER, IDLE].contains(&name) || is_best(name)
}

fn is_best(name: &str) -> bool {
    name == "best" || name.starts_with("best-")
}

/// Puts the run in a directory aside. A process that is killed meanwhile leaves what another one finishes.
///
/// # Errors
/// If something cannot be moved.
pub fn set_aside(run: &Path) -> Result<(), CliError> {
    let aside = aside(run);
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "put the earlier run aside", &e);
    if std::fs::symlink_metadata(&aside).is_ok_and(|data| !data.is_dir()) {
        let report = Diagnostic::new(format!("{}: is in the way of the earlier run", aside.display()));
        return Err(CliError::usage(report));
    }
    if manifest(&aside).is_some() {
        // A run that was to replace one, but ended early or whose last step was interrupted.
        if !run.join(summary::FILE).is_file() {
            remove(run)?;
            return Ok(());
        }
        remove(&aside)?;
    }
    std::fs::create_dir_all(&aside).map_err(|e| failed(&aside, e))?;
    let mut names: Vec<_> = names(run).map_err(|e| failed(run, e))?;
    // The manifest goes last: as long as it is here, this is to be done.
    names.sort_by_key(|name| name == MANIFEST);
    for name in names.iter().filter(|name| is_ours(name) && **name != lock::FILE) {
        std::fs::rename(run.join(name), aside.join(name)).map_err(|e| failed(&run.join(name), e))?;
    }
    Ok(())
}

/// Removes what a run wrote into a directory, and the directory if nothing else is in it. Returns what stays.
///
/// # Errors
/// If something cannot be removed.
pub fn remove(run: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut stays = Vec::new();
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "remove the earlier run", &e);
    let mut all = names(run).map_err(|e| failed(run, e))?;
    all.sort_by_key(|name| name == MANIFEST);
    for name in all {
        let path = run.join(&name);
        let ours: fn(&str) -> bool = match name.as_str() {
            lock::FILE => continue,
            checkpoint::FOLDER | IDLE => |_| true,
            "events" => event_file::is_ours,
            "clients" | "global" => is_model,
            best if is_best(best) => is_model,
            file if is_ours(file) => |_| true,
            _ => |_| false,
        };
        clear(&path, ours, &mut stays).map_err(|e| failed(&path, e))?;
    }
    if stays.is_empty() && !run.join(lock::FILE).exists() {
        std::fs::remove_dir(run).map_err(|e| failed(run, e))?;
    }
    Ok(stays)
}

/// Removes the run that a new one replaces; what others put into its folders goes to those of the new one. Returns what
/// finds no place there.
///
/// # Errors
/// If something cannot be moved or removed.
pub fn remove_aside(run: &Path) -> Result<Vec<PathBuf>, CliError> {
    let aside = aside(run);
    let mut stays = Vec::new();
    for path in remove(&aside)? {
        let within = path.strip_prefix(&aside).unwrap_or(&path);
        let to = run.join(within);
        if to.symlink_metadata().is_ok() {
            stays.push(path);
            continue;
        }
        to.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::rename(&path, &to))
            .map_err(|e| CliError::io(&path, "move the file to the new run", &e))?;
        // Only empty ones go.
        let above = within.ancestors().skip(1);
        let _ = above.map(|above| std::fs::remove_dir(aside.join(above))).find(Result::is_err);
    }
    Ok(stays)
}

fn is_model(name: &str) -> bool {
    matches!(name.strip_suffix(".part").unwrap_or(name), "model.safetensors" | "predictions.csv")
}

/// Removes the files below a path whose names are ours, and the folders that nothing is left in. A link is nobody's.
fn clear(path: &Path, ours: fn(&str) -> bool, stays: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if kind.is_dir() {
        // What a plugin exported is in its own formats.
        let ours = if name == "export" { |_: &str| true } else { ours };
        let before = stays.len();
        for name in std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()? {
            clear(&name, ours, stays)?;
        }
        return if stays.len() == before { std::fs::remove_dir(path) } else { Ok(()) };
    }
    if kind.is_file() && ours(&name) {
        return std::fs::remove_file(path);
    }
    stays.push(path.to_owned());
    Ok(())
}

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    // A name that is not Unicode is not ours.
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
        write(&path.join(MANIFEST), OURS);
        for file in ["experiment.toml", "metrics.jsonl", "best/model.safetensors", "clients/a/export/x/any.bin"] {
            write(&path.join(file), mark);
        }
        write(&path.join("events/a/events.out.tfevents.0000000001.fedplug.0000"), mark);
    }

    #[test]
    fn a_manifest_of_somebody_else_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        for (text, ours) in [(OURS, true), (r#"{"manifest_version": 3}"#, false), ("{", false), ("[]", false)] {
            write(&folder.path().join(MANIFEST), text);
            assert_eq!(manifest(folder.path()).is_some(), ours, "{text}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_others_wrote_stays_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("r"), folder.path().join("outside"));
        run(&path, "1");
        write(&outside.join("model.safetensors"), "precious");
        let foreign = ["notes.txt", "clients/a/thesis.txt", "events/a/events.out.tfevents.1.other"];
        foreign.iter().for_each(|name| write(&path.join(name), "mine"));
        std::os::unix::fs::symlink(&outside, path.join("global")).unwrap();
        std::os::unix::fs::symlink(outside.join("model.safetensors"), path.join("summary.json")).unwrap();
        let mut stays = remove(&path).unwrap();
        stays.sort();
        let mut wanted: Vec<_> =
            foreign.iter().chain(&["global", "summary.json"]).map(|name| path.join(name)).collect();
        wanted.sort();
        assert_eq!(stays, wanted);
        assert!(outside.join("model.safetensors").exists() && !path.join("best").exists());
        assert!(!path.join("clients/a/export").exists());
    }

    #[test]
    fn the_earlier_run_waits_until_a_new_one_is_whole() {
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
    fn half_a_move_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        run(&path, "1");
        std::fs::create_dir_all(aside(&path)).unwrap();
        std::fs::rename(path.join("metrics.jsonl"), aside(&path).join("metrics.jsonl")).unwrap();
        set_aside(&path).unwrap();
        assert!(names(&path).unwrap().is_empty());
        assert!(manifest(&aside(&path)).is_some() && aside(&path).join("metrics.jsonl").exists());
    }
}
