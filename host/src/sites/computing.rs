//! How long a site has computed for each experiment, on disk: the rule `allow.hours`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artefacts::safetensors;
use crate::error::{CliError, Diagnostic};
use crate::sites::refusal::{Broken, Refusal};
use crate::sites::site_file::SiteFile;

/// The file in the site's folder.
const FILE: &str = "computing.json";

/// The computing time of a site, in seconds by the digest of an experiment. All runs of an experiment count together,
/// since a server can start as many as it likes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ComputingTime {
    #[serde(skip)]
    path: PathBuf,
    seconds: BTreeMap<String, f64>,
}

impl ComputingTime {
    /// Reads the times from a site's folder, which exists.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged.
    pub(crate) fn open(state: &Path) -> Result<Self, CliError> {
        let path = state.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self { path, ..Self::default() }),
            Err(e) => return Err(CliError::io(&path, "read the computing time", &e)),
        };
        let read: Self = serde_json::from_str(&text).map_err(|e| {
            let report = Diagnostic::new(format!("{}: the file is damaged", path.display())).cause(e);
            CliError::run(report.hint("remove it to start counting anew"))
        })?;
        Ok(Self { path, ..read })
    }

    /// Adds time for an experiment. When this returns, it is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add(&mut self, digest: &str, time: Duration) -> Result<(), CliError> {
        *self.seconds.entry(digest.to_owned()).or_default() += time.as_secs_f64();
        let text = serde_json::to_string(self).map_err(|e| CliError::io(&self.path, "write", &e.into()))?;
        safetensors::write_text(&self.path, &text)
    }

    /// Checks that an experiment may go on.
    ///
    /// # Errors
    /// If its hours are used up.
    pub(crate) fn check(&self, site: &SiteFile, digest: &str) -> Result<(), Refusal> {
        let Some(most) = site.allow.hours else { return Ok(()) };
        let hours = self.seconds.get(digest).copied().unwrap_or_default() / 3600.0;
        if hours < most {
            return Ok(());
        }
        let reason = format!("the experiment has computed for {hours:.1} hours, and {most} are allowed");
        Err(Refusal::new(&site.name, Broken::new("allow.hours", reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_add_up_over_processes_and_end_an_experiment() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name = \"a\"\n[data]\nfolder = \"d\"\n[allow]\nhours = 1.5\n";
        let site = SiteFile::parse("a.toml", text, folder.path()).unwrap();
        let hour = Duration::from_secs(3600);
        let mut time = ComputingTime::open(folder.path()).unwrap();
        time.add("x", hour).unwrap();
        time.check(&site, "x").unwrap();
        let mut time = ComputingTime::open(folder.path()).unwrap();
        time.add("x", hour / 2).unwrap();
        let refusal = ComputingTime::open(folder.path()).unwrap().check(&site, "x").unwrap_err();
        let wanted = "a: rule `allow.hours`: the experiment has computed for 1.5 hours, and 1.5 are allowed";
        assert_eq!(refusal.to_string(), wanted);
        time.check(&site, "y").unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let failure = ComputingTime::open(folder.path()).unwrap_err().to_string();
        assert!(failure.contains("computing.json: the file is damaged"), "{failure}");
    }
}
