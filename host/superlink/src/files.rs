//! Files that only their owner can read, replaced as a whole.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::error::Error;

/// Writes a new file of mode 0600.
pub(crate) fn create_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // tempfile creates files with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error).map(drop)
    };
    write().map_err(|source| Error::file(path, source))
}

/// Replaces a file: afterwards it is the old one or the new one, whatever happens in between. Mode 0600.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), Error> {
    let replace = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error).map(drop)
    };
    replace().map_err(|source| Error::file(path, source))
}

/// Creates a folder that only its owner can enter, unless it exists.
pub(crate) fn folder(path: &Path) -> Result<(), Error> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| Error::file(path, source))
}

/// Reads a file that may not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::file(path, source)),
    }
}

/// Removes a file that may not exist.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// Reserves a folder for this process, for as long as the file lives.
pub(crate) fn reserve(folder: &Path) -> Result<File, Error> {
    self::folder(folder)?;
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path).map_err(|source| Error::file(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::Content { path: folder.to_owned(), reason: "another process is using it".into() })
        }
        Err(std::fs::TryLockError::Error(source)) => Err(Error::file(&path, source)),
    }
}
