//! Stdout, reserved for the answers of commands.
//!
//! Plugins are native code and may print. Whatever they print to stdout goes to stderr, so that it never mixes with
//! predictions or tables that another program reads.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

/// The original stdout.
static OURS: OnceLock<File> = OnceLock::new();

/// Keeps stdout for [`writer`], and sends what others print there to stderr.
///
/// # Errors
/// If the system does not allow it.
#[cfg(unix)]
pub(crate) fn reserve() -> std::io::Result<()> {
    let ours = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    // A second call would find stderr in the place of stdout.
    OURS.set(File::from(ours)).map_err(|_| std::io::Error::other("stdout is already reserved"))
}

/// On other systems plugins share stdout with the host.
#[cfg(not(unix))]
pub(crate) fn reserve() -> std::io::Result<()> {
    Ok(())
}

/// Writes to stdout, without a buffer.
pub(crate) fn writer() -> Box<dyn Write> {
    match OURS.get() {
        Some(ours) => Box::new(ours),
        None => Box::new(std::io::stdout()),
    }
}
