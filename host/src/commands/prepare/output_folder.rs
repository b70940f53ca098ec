//! The output folder of `fedplug prepare`.
//!
//! Files are first written to a temporary folder inside it and moved into place once all are complete. Only files
//! listed in an earlier `prepared.json` are replaced, and links are never followed.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::{CliError, Diagnostic};

/// The file that marks a folder of prepared data.
const MANIFEST: &str = "prepared.json";

/// The temporary folder for incomplete data.
const PART: &str = "prepare.part~";

/// An output folder for prepared data. Dropping it removes incomplete data.
#[derive(Debug)]
pub(super) struct OutputFolder {
    folder: PathBuf,
    part: PathBuf,
    /// The files of an earlier preparation, relative to the folder.
    earlier: BTreeSet<PathBuf>,
    made: bool,
}

impl OutputFolder {
    /// Creates the folder, or opens an existing one that is empty or, with `force`, contains data prepared earlier.
    pub(super) fn open(folder: &Path, force: bool) -> Result<Self, CliError> {
        let shown = folder.display();
        let names = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect()),
        };
        let names: Vec<_> = names.map_err(|e| CliError::io(folder, "read the folder", &e))?;
        let empty = names.iter().all(|name| name == PART);
        let earlier = earlier(folder);
        if !empty && earlier.is_none() {
            let report = Diagnostic::new(format!("{shown}: contains other files, so nothing was written"));
            return Err(CliError::usage(report.hint("choose another folder with --output")));
        }
        if !empty && !force {
            let report = Diagnostic::new(format!("{shown}: already contains prepared data"));
            let hint = "choose another folder with --output, or replace them with --force";
            return Err(CliError::usage(report.hint(hint)));
        }
        if !empty && folder.is_symlink() {
            let report = Diagnostic::new(format!("{shown}: is a link, which --force does not follow"));
            return Err(CliError::usage(report.hint("name the folder itself with --output")));
        }
        let part = folder.join(PART);
        let made = !folder.exists();
        // Remains of an interrupted command.
        clear(&part)?;
        std::fs::create_dir_all(&part).map_err(|e| CliError::io(&part, "create the folder", &e))?;
        Ok(Self { folder: folder.to_owned(), part, earlier: earlier.unwrap_or_default(), made })
    }

    /// The empty folder to write into.
    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    /// Replaces the earlier data with the new files and writes a manifest; returns the files, starting with those in
    /// `reported`.
    pub(super) fn finish(
        self,
        reported: Vec<PathBuf>,
        manifest: &dyn Fn(&[PathBuf]) -> Value,
    ) -> Result<Vec<PathBuf>, CliError> {
        let mut written = Vec::new();
        walk(&self.part, &mut written).map_err(|e| CliError::io(&self.part, "read the folder", &e))?;
        let within = |path: &Path| path.strip_prefix(&self.part).map(Path::to_owned).ok();
        let mut files: Vec<PathBuf> = reported.iter().filter_map(|path| within(path)).collect();
        let known: BTreeSet<PathBuf> = files.iter().cloned().collect();
        files.extend(written.iter().filter_map(|path| within(path)).filter(|path| !known.contains(path)));
        files.iter().try_for_each(|file| self.is_free(file))?;

        // Until every file is in place, the manifest lists old and new files, so that an interrupted command leaves no
        // unlisted file.
        let both: BTreeSet<PathBuf> = self.earlier.iter().chain(&files).cloned().collect();
        self.write(manifest(&both.into_iter().collect::<Vec<_>>()))?;
        for file in &self.earlier {
            let path = self.folder.join(file);
            if is_file(&path) && self.linked(file).is_none() {
                std::fs::remove_file(&path).map_err(|e| CliError::io(&path, "remove the earlier prepared data", &e))?;
                // Removes empty folders only.
                let above = file.ancestors().skip(1).filter(|above| *above != Path::new(""));
                let _ = above.map(|above| std::fs::remove_dir(self.folder.join(above))).find(Result::is_err);
            }
        }
        for file in &files {
            let path = self.folder.join(file);
            let above = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(above)
                .and_then(|()| std::fs::rename(self.part.join(file), &path))
                .map_err(|e| CliError::io(&path, "move the file into place", &e))?;
        }
        self.write(manifest(&files))?;
        files.push(MANIFEST.into());
        Ok(files.iter().map(|file| self.folder.join(file)).collect())
    }

    /// Refuses to overwrite files that fedplug did not prepare.
    fn is_free(&self, file: &Path) -> Result<(), CliError> {
        if let Some(link) = self.linked(file) {
            let report = Diagnostic::new(format!("{}: is a link, so nothing was written", link.display()));
            return Err(CliError::usage(report.hint("choose another folder with --output")));
        }
        let path = self.folder.join(file);
        if path.symlink_metadata().is_ok() && (!self.earlier.contains(file) || !is_file(&path)) {
            let report = Diagnostic::new(format!("{}: not written by fedplug, so not replaced", path.display()));
            return Err(CliError::usage(report.hint("choose another folder with --output")));
        }
        Ok(())
    }

    /// The first link among the parent folders of a file.
    fn linked(&self, file: &Path) -> Option<PathBuf> {
        let above = file.ancestors().skip(1).filter(|above| *above != Path::new(""));
        above.map(|above| self.folder.join(above)).find(|above| above.is_symlink())
    }

    fn write(&self, manifest: Value) -> Result<(), CliError> {
        // Not synced: the data next to it are not either, and can be prepared again.
        let (path, part) = (self.folder.join(MANIFEST), self.part.join(MANIFEST));
        std::fs::write(&part, format!("{manifest:#}\n"))
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|e| CliError::io(&path, "write the file", &e))
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.part);
        if self.made {
            // Removes the folder only if it is empty.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_file())
}

/// The files that an earlier command prepared in a folder, according to its manifest.
fn earlier(folder: &Path) -> Option<BTreeSet<PathBuf>> {
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(MANIFEST)).ok()?).ok()?;
    let ours = manifest["fedplug"].is_string() && manifest["interface"].is_string() && manifest["plugin"].is_object();
    let files = manifest["files"].as_array().filter(|_| ours)?;
    let within = |path: &PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
    Some(files.iter().filter_map(|file| file.as_str().map(PathBuf::from)).filter(within).collect())
}

/// All files below a folder, sorted by name.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() { walk(&entry.path(), found)? } else { found.push(entry.path()) }
    }
    Ok(())
}

/// Removes the temporary folder of an interrupted command.
fn clear(part: &Path) -> Result<(), CliError> {
    match std::fs::remove_dir_all(part) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CliError::io(part, "remove what an interrupted command left", &e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(files: &[PathBuf]) -> Value {
        json!({"fedplug": "0", "interface": "1.0.0", "plugin": {}, "files": files})
    }

    fn prepare(folder: &Path, files: &[&str], force: bool) -> Result<Vec<PathBuf>, CliError> {
        let output = OutputFolder::open(folder, force)?;
        for file in files {
            let path = output.part().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "new").unwrap();
        }
        let reported = files.iter().map(|file| output.part().join(file)).collect();
        output.finish(reported, &manifest)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        walk(folder, &mut found).unwrap();
        found.iter().map(|path| path.strip_prefix(folder).unwrap().display().to_string()).collect()
    }

    #[test]
    fn what_was_prepared_is_replaced_and_what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let files = prepare(&path, &["tm/train.csv", "old/x.csv"], false).unwrap();
        assert_eq!(files, ["tm/train.csv", "old/x.csv", MANIFEST].map(|file| path.join(file)));
        std::fs::write(path.join("tm/notes.txt"), "mine").unwrap();
        assert!(prepare(&path, &["tm/train.csv"], false).unwrap_err().to_string().contains("contains prepared data"));
        prepare(&path, &["tm/train.csv"], true).unwrap();
        assert_eq!(names(&path), [MANIFEST, "tm/notes.txt", "tm/train.csv"]);
        // Files that fedplug did not prepare are not overwritten.
        let failure = prepare(&path, &["tm/notes.txt"], true).unwrap_err();
        assert!(failure.to_string().contains("not written by fedplug"), "{failure}");
        assert_eq!(std::fs::read_to_string(path.join("tm/notes.txt")).unwrap(), "mine");
        assert_eq!(names(&path), [MANIFEST, "tm/notes.txt", "tm/train.csv"]);
    }

    #[test]
    fn a_failed_command_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        drop(OutputFolder::open(&path, false).unwrap());
        assert!(!path.exists());
        prepare(&path, &["a.csv"], false).unwrap();
        let output = OutputFolder::open(&path, true).unwrap();
        std::fs::write(output.part().join("half.csv"), "").unwrap();
        drop(output);
        assert_eq!(names(&path), ["a.csv", MANIFEST]);
        // After a kill, the next command cleans up.
        std::fs::create_dir_all(path.join(PART)).unwrap();
        std::fs::write(path.join(PART).join("half.csv"), "").unwrap();
        prepare(&path, &["b.csv"], true).unwrap();
        assert_eq!(names(&path), ["b.csv", MANIFEST]);
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_of_somebody_else_and_links_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("new"), folder.path().join("outside"));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(path.join(MANIFEST), r#"{"files": []}"#).unwrap();
        assert!(OutputFolder::open(&path, true).unwrap_err().to_string().contains("contains other files"));
        std::fs::write(path.join(MANIFEST), manifest(&["../outside/x".into(), "tm/x".into()]).to_string()).unwrap();
        std::fs::write(outside.join("x"), "precious").unwrap();
        std::os::unix::fs::symlink(&outside, path.join("tm")).unwrap();
        assert!(prepare(&path, &["tm/x"], true).unwrap_err().to_string().contains("is a link"));
        prepare(&path, &["b.csv"], true).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("x")).unwrap(), "precious");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(OutputFolder::open(&link, true).unwrap_err().to_string().contains("is a link"));
    }
}
