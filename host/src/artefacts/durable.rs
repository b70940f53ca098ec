//! Folders that are empty although a process was killed, and files that survive a power loss.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

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

/// How many files are forced to the disk at a time. A file system writes many at once as fast as one, and a run of ten
/// thousand clients has as many.
const AT_A_TIME: usize = 16;

/// Forces files that are already written, or folders, to the disk with `sync`.
///
/// # Errors
/// If one cannot be opened, or the disk reports an error.
pub(crate) fn sync_all<P: AsRef<Path> + Sync>(
    paths: &[P],
    sync: fn(&Path) -> std::io::Result<()>,
) -> Result<(), (PathBuf, std::io::Error)> {
    let rest = Mutex::new(paths.iter());
    let work = || {
        loop {
            let next = rest.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(path) = next.map(AsRef::as_ref) else { return Ok(()) };
            sync(path).map_err(|e| (path.to_owned(), e))?;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..AT_A_TIME.min(paths.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().map(|thread| thread.join().expect("syncing does not panic")).fold(own, Result::and)
    })
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
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    list(folder, except, &mut files, &mut folders).map_err(|(path, e)| failed(&path, &e))?;
    let synced = sync_all(&files, sync_file).and_then(|()| sync_all(&folders, sync_folder));
    synced.map_err(|(path, e)| failed(&path, &e))
}

/// Adds all files and folders below a folder, and the folder.
fn list(
    folder: &Path,
    except: &[&str],
    files: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, std::io::Error)> {
    for entry in std::fs::read_dir(folder).map_err(|e| (folder.to_owned(), e))? {
        let entry = entry.map_err(|e| (folder.to_owned(), e))?;
        if except.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| (path.clone(), e))?;
        if kind.is_dir() {
            list(&path, &[], files, folders)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    folders.push(folder.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_forced_once_and_the_first_error_is_returned() {
        static SEEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
        fn sync(path: &Path) -> std::io::Result<()> {
            SEEN.lock().unwrap().push(path.to_owned());
            if path == Path::new("7") { Err(std::io::Error::other("full")) } else { Ok(()) }
        }
        let paths = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
        sync_all(&paths(0), sync).unwrap();
        sync_all(&paths(7), sync).unwrap();
        let mut seen = std::mem::take(&mut *SEEN.lock().unwrap());
        seen.sort();
        assert_eq!(seen, paths(7).iter().map(PathBuf::from).collect::<Vec<_>>());
        let (path, error) = sync_all(&paths(100), sync).unwrap_err();
        assert_eq!((path, error.to_string()), (PathBuf::from("7"), "full".to_owned()));
    }

    #[test]
    fn all_below_a_folder_is_listed_but_what_is_excepted_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a/b", "left/c"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["a/b/1", "a/left", "2", "left/3"] {
            std::fs::write(path(name), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(path("left"), path("link")).unwrap();
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        list(folder.path(), &["left"], &mut files, &mut folders).unwrap();
        files.sort();
        assert_eq!(files, ["2", "a/b/1", "a/left"].map(path));
        assert_eq!(folders, [path("a/b"), path("a"), folder.path().to_owned()]);
        sync_tree(folder.path(), &["left"]).unwrap();
    }
}
