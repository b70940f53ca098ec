//! One process per run directory.
//!
//! An operating system lock on the file `run.lock`, which holds the process id. It is released however the process ends.
//! Over NFS it works if the mount supports locks (a lock daemon, no `nolock` or `local_lock`); otherwise processes on two
//! machines do not see each other.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::artefacts::names;
use crate::error::{CliError, Diagnostic};

/// A directory locked by this process. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    /// Why there is no lock, if the file system does not support them.
    pub missing: Option<String>,
}

impl Lock {
    /// Locks an existing directory.
    ///
    /// # Errors
    /// If another process holds the lock, or the file cannot be written.
    pub(crate) fn take(folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(names::LOCK);
        let failed = |e: std::io::Error| CliError::io(&path, "lock the run's directory", &e);
        if std::fs::symlink_metadata(&path).is_ok_and(|data| !data.is_file()) {
            return Err(CliError::usage(Diagnostic::new(format!("{}: was not written by fedplug", path.display()))));
        }
        loop {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            let missing = match file.try_lock() {
                Ok(()) => None,
                Err(TryLockError::WouldBlock) => return Err(in_use(folder, &path)),
                Err(TryLockError::Error(error)) => Some(error.to_string()),
            };
            // Whoever had it may have removed the file between the two calls.
            if missing.is_none() && !is_at(&file, &path) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .and_then(|()| file.flush())
                .map_err(failed)?;
            return Ok(Self { file, path, missing });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked, so that nobody else's file is removed.
        if is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether this is the file that lies there now.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let id = |data: std::io::Result<std::fs::Metadata>| data.map(|data| (data.dev(), data.ino())).ok();
        let here = id(file.metadata());
        here.is_some() && here == id(std::fs::symlink_metadata(path))
    }
    #[cfg(not(unix))]
    {
        // A file that is open cannot be removed there.
        let _ = file;
        path.is_file()
    }
}

fn in_use(folder: &Path, path: &Path) -> CliError {
    let pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let report = Diagnostic::new(format!("{}: {who} is running this experiment", folder.display()));
    CliError::usage(report.hint("wait for it, stop it, or give this run another name with --name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_who_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        assert!(lock.missing.is_none());
        let text = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(text.contains(&format!("process {} is running", std::process::id())), "{text}");
        drop(lock);
        assert!(!folder.path().join(names::LOCK).exists());
        // What a killed process left is no lock.
        std::fs::write(folder.path().join(names::LOCK), "1\n").unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(names::LOCK)).unwrap(),
            format!("{}\n", std::process::id())
        );
        drop(lock);
    }
}
