//! Opening a library, and asking it what it offers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use plugin_api::Plugin;
use plugin_api::boundary::root::{self, LoadError};

use super::elf;
use crate::error::Diagnostic;

/// The environment variable with libraries to open before all plugins, separated as in `PATH`. A plugin that needs a
/// library of the same name then gets this one, wherever it was linked to.
const PRELOAD_VARIABLE: &str = "FEDPLUG_PRELOAD";

/// An open library.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    /// The path of the file.
    pub path: PathBuf,
    /// The plugin that it contains.
    pub plugin: Arc<Plugin>,
}

impl Library {
    /// Opens the library at an absolute path. Errors do not repeat the path.
    pub(super) fn open(path: &Path) -> Result<Self, Diagnostic> {
        elf::check(path)?;
        let not_preloaded = preload();
        let stamp = hold(path).map_err(|e| {
            let reason = reason(&e);
            let report = Diagnostic::new("the library cannot be opened").cause(&reason);
            let causes = mismatches(path).into_iter().chain(not_preloaded.iter().cloned());
            let report = causes.fold(report, Diagnostic::cause);
            if reason.starts_with("libtorch") || reason.starts_with("libc10") {
                report.hint("that library is PyTorch's: pip install 'fedplug[torch]', or name it in FEDPLUG_PRELOAD")
            } else {
                report
            }
        })?;
        // SAFETY: as in `hold`.
        let plugin = unsafe { root::load(path) }.map_err(|error| {
            let report = Diagnostic::new(error.to_string());
            match error {
                LoadError::NotAPlugin => report.hint("a plugin's crate calls `plugin_api::export_plugin!` once"),
                LoadError::Interface => {
                    let built = stamp.map_or_else(
                        || "the plugin does not say which version it was built with".to_owned(),
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

    /// A sentence for each dependency that is loaded from another file than the one the plugin was linked with, naming
    /// both files.
    pub(crate) fn mismatches(&self) -> Vec<String> {
        mismatches(&self.path)
    }
}

#[cfg(target_os = "linux")]
fn mismatches(path: &Path) -> Vec<String> {
    let line = |mismatch: super::sonames::Mismatch| {
        let (loaded, wanted) = (mismatch.loaded.display(), mismatch.wanted.display());
        format!(
            "it was linked against {wanted} but gets {loaded}: of two libraries with the same name, the first one \
             loaded is used"
        )
    };
    super::sonames::mismatches(path).into_iter().map(line).collect()
}

#[cfg(not(target_os = "linux"))]
fn mismatches(_: &Path) -> Vec<String> {
    Vec::new()
}

/// Opens the libraries of [`PRELOAD_VARIABLE`], once. Returns what could not be opened, which matters if a plugin needs it.
fn preload() -> &'static [String] {
    static FAILED: OnceLock<Vec<String>> = OnceLock::new();
    FAILED.get_or_init(|| {
        let listed = std::env::var_os(PRELOAD_VARIABLE).unwrap_or_default();
        let files = std::env::split_paths(&listed).filter(|file| !file.as_os_str().is_empty());
        let failed = files.filter_map(|file| hold(&file).err().map(|e| (file, e)));
        failed.map(|(file, e)| format!("{PRELOAD_VARIABLE}: {}: {}", file.display(), reason(&e))).collect()
    })
}

/// What the dynamic loader says.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Opens a library permanently and returns the version of plugin-api that it was built with, if it states one. Resolves
/// all symbols immediately, so that a missing one is an error here and not a crash during a run, and hides them from
/// other libraries.
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
    // Unloading would remove code that objects, threads and thread-local destructors still use.
    std::mem::forget(library);
    Ok(version)
}
