//! The experiments that a person at the site has approved.
//!
//! An experiment is named by the SHA-256 of the offered text, so that the smallest change needs another approval.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::sites::refusal::{Broken, Refusal};

/// The file with a digest in each line.
const APPROVED: &str = "approved";

/// The file with the last offered experiment that was not approved.
const OFFERED: &str = "offered.toml";

/// The approvals of a site, in its folder.
#[derive(Clone, Debug)]
pub(crate) struct Approvals {
    folder: PathBuf,
}

/// The digest of an offered experiment: its SHA-256 in hexadecimal digits.
pub(crate) fn digest(offered: &str) -> String {
    Sha256::digest(offered).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Approvals {
    /// The approvals in a site's folder, which exists.
    pub(crate) fn new(state: &Path) -> Self {
        Self { folder: state.to_owned() }
    }

    /// Whether this experiment is approved.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn contain(&self, digest: &str) -> Result<bool, CliError> {
        let path = self.folder.join(APPROVED);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|line| line == digest)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(CliError::io(&path, "read the approved experiments", &e)),
        }
    }

    /// Approves an experiment. When this returns, it is on disk.
    ///
    /// # Errors
    /// If `digest` is no SHA-256 in hexadecimal digits, or the file cannot be written.
    pub(crate) fn add(&self, digest: &str) -> Result<(), CliError> {
        let digest = digest.to_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|c| c.is_ascii_hexdigit()) {
            let report = Diagnostic::new(format!("--approve {digest}: is no SHA-256 of 64 hexadecimal digits"));
            return Err(CliError::usage(report.hint("the message about the experiment shows it")));
        }
        if self.contain(&digest)? {
            return Ok(());
        }
        let path = self.folder.join(APPROVED);
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            // Begins a line of its own, in case an earlier one was cut off.
            file.write_all(format!("\n{digest}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| CliError::io(&path, "note the approval", &e))
    }

    /// Writes down an experiment that nobody has approved yet, for a person to read. Returns the file's path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn show(&self, offered: &str) -> Result<PathBuf, CliError> {
        let path = self.folder.join(OFFERED);
        safetensors::write_text(&path, offered).map(|()| path)
    }

    /// The answer to the server as long as nobody has approved.
    pub(crate) fn refusal(site: &str, digest: &str) -> Refusal {
        let reason = format!("a person at the site has to approve the experiment first; its digest is {digest}");
        Refusal::new(site, Broken::new("allow.confirm", reason))
    }

    /// What the site's operator has to do: for a `join` without a terminal.
    pub(crate) fn advice(&self, site_file: &str, offered: &Path, digest: &str) -> Diagnostic {
        let report = Diagnostic::new(format!("{}: the experiment needs an approval", offered.display()));
        report.hint(format!("read it, then approve it with `fedplug join {site_file} --approve {digest}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_is_kept_and_covers_exactly_one_text() {
        let folder = tempfile::tempdir().unwrap();
        let (text, other) = (digest("rounds = 3\n"), digest("rounds = 4\n"));
        assert_eq!(digest(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let approvals = Approvals::new(folder.path());
        assert!(!approvals.contain(&text).unwrap());
        approvals.add(&text.to_uppercase()).unwrap();
        approvals.add(&text).unwrap();
        let again = Approvals::new(folder.path());
        assert_eq!((again.contain(&text).unwrap(), again.contain(&other).unwrap()), (true, false));
        // A line that was cut off approves nothing, and does not spoil the next one.
        let path = folder.path().join(APPROVED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("\n{text}\n"));
        std::fs::write(&path, &text[..30]).unwrap();
        assert!(!again.contain(&text).unwrap() && !again.contain(&text[..29]).unwrap());
        again.add(&other).unwrap();
        assert!(again.contain(&other).unwrap());
    }

    #[test]
    fn only_whole_digests_are_approved() {
        let folder = tempfile::tempdir().unwrap();
        let approvals = Approvals::new(folder.path());
        for digest in ["", "abc", &"g".repeat(64), &"0".repeat(65)] {
            assert!(approvals.add(digest).is_err(), "{digest}");
        }
        let failure = approvals.add("abc").unwrap_err().to_string();
        assert!(failure.starts_with("error: --approve abc: is no SHA-256 of 64 hexadecimal digits"), "{failure}");
    }
}
