//! One library: opened for good, and asked what it offers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_api::Plugin;
use plugin_api::boundary::root::{self, LoadError};

use super::elf;
use crate::error::Diagnostic;

/// A library that was opened.
#[derive(Clone, Debug)]
pub struct Library {
    /// Where it lies.
    pub path: PathBuf,
    /// What it offers.
    pub plugin: Arc<Plugin>,
}

impl Library {
    /// Opens the library at an absolute path. The report does not name it.
    pub(super) fn open(path: &Path) -> Result<Self, Diagnostic> {
        elf::check(path)?;
        let stamp = hold(path).map_err(|e| {
            let whole = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            let report = Diagnostic::new("the library cannot be opened").cause(whole);
            strange(path).into_iter().fold(report, Diagnostic::cause)
        })?;
        // SAFETY: as in `hold`.
        let plugin = unsafe { root::load(path) }.map_err(|error| {
            let report = Diagnostic::new(error.to_string());
            match error {
                LoadError::NotAPlugin => report.hint("a plugin's crate calls `plugin_api::export_plugin!` once"),
                LoadError::Interface => {
                    let built = stamp.map_or_else(
                        || "the plugin does not say with which version it was built".to_owned(),
                        |version| format!("the plugin was built with plugin-api {version}"),
                    );
                    report.cause(built).hint(format!(
                        "rebuild the plugin with plugin-api {}, or use the host that it was built for",
                        root::INTERFACE
                    ))
                }
                LoadError::Open(details) => report.cause(details),
                LoadError::Failed(error) => error.causes().iter().fold(report, |report, cause| report.cause(cause)),
            }
        })?;
        Ok(Self { path: path.to_owned(), plugin: Arc::new(plugin) })
    }

    /// Of each library that is not the file which the plugin was linked for, both files, in a sentence.
    pub fn strange(&self) -> Vec<String> {
        strange(&self.path)
    }
}

#[cfg(target_os = "linux")]
fn strange(path: &Path) -> Vec<String> {
    let told = |strange: super::sonames::Strange| {
        let (loaded, wanted) = (strange.loaded.display(), strange.wanted.display());
        format!("it was linked for {wanted} and gets {loaded}: of two libraries with one name the first is taken")
    };
    super::sonames::strange(path).into_iter().map(told).collect()
}

#[cfg(not(target_os = "linux"))]
fn strange(_: &Path) -> Vec<String> {
    Vec::new()
}

/// Opens a library for good, and gives the version of plugin-api that it was built with, if it says. All its symbols
/// are resolved now, so that a missing one is an error here and not a crash in the middle of a run, and none of them is
/// seen by other libraries.
fn hold(path: &Path) -> Result<Option<String>, libloading::Error> {
    #[cfg(unix)]
    let library: libloading::Library = {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        // SAFETY: a plugin is native code that the user chose to run; its initialisers run here.
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL)? }.into()
    };
    #[cfg(not(unix))]
    // SAFETY: as above.
    let library = unsafe { libloading::Library::new(path)? };
    // SAFETY: every version of plugin-api exports these bytes under this name, and nothing else has it.
    let stamp = unsafe { library.get::<*const [u8; 32]>(root::STAMP_SYMBOL).ok().map(|stamp| **stamp) };
    let version = stamp.map(|stamp| String::from_utf8_lossy(&stamp).trim_end_matches('\0').to_owned());
    // Unloading would pull the code from under objects, threads and thread-local destructors that still use it.
    std::mem::forget(library);
    Ok(version)
}
