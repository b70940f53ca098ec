//! Folders that are empty although a process was killed, and files that survive a power loss.

use std::fs::File;
use std::path::Path;

use crate::error::CliError;

/// Forces the names in a folder to the disk.
///
/// # Errors
/// If the folder cannot be opened or the disk reports an error.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    // Only on Unix can a folder be opened as a file.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Forces a file that is already written to the disk.
///
/// # Errors
/// If the file cannot be opened or the disk reports an error.
pub(crate) fn sync_file(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates an empty folder for files of a plugin. What a killed process left there is removed.
///
/// # Errors
/// If it cannot be emptied or created.
pub(crate) fn empty_folder(folder: &Path) -> Result<(), CliError> {
    let emptied = match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => std::fs::create_dir_all(folder),
    };
    emptied.map_err(|e| CliError::io(folder, "create the folder", &e))
}

/// Forces all files and folders below a folder to the disk, except the entries of the folder itself that are named in
/// `except`. Links are not followed.
///
/// # Errors
/// If something cannot be read or the disk reports an error.
pub(crate) fn sync_tree(folder: &Path, except: &[&str]) -> Result<(), CliError> {
    let failed = |path: &Path, e: &std::io::Error| CliError::io(path, "force it to the disk", e);
    for entry in std::fs::read_dir(folder).map_err(|e| failed(folder, &e))? {
        let entry = entry.map_err(|e| failed(folder, &e))?;
        if except.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| failed(&path, &e))?;
        if kind.is_dir() {
            sync_tree(&path, &[])?;
        } else if kind.is_file() {
            sync_file(&path).map_err(|e| failed(&path, &e))?;
        }
    }
    sync_folder(folder).map_err(|e| failed(folder, &e))
}
