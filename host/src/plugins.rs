//! Finding plugins' libraries and opening them.
//!
//! A plugin is named by its component or by the path of its library. `plugin = "amplify"` in `[model]` asks for the
//! library of `model-amplify`; where no folder has that, for the library of another kind with the same name, since one
//! library may offer several components: `plugin = "secure"` in a `[[filter]]` finds the filter that the library of
//! `aggregator-secure` brings along. Libraries stay open until the process ends.

use std::collections::BTreeMap;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use plugin_api::abi::root::{self, LoadError};
use plugin_api::{Component, Kind, Plugin};

use crate::document::nearest;
use crate::error::Report;

/// The environment variable with folders to look in, separated as in `PATH`.
pub const PATH_VARIABLE: &str = "FEDPLUG_PLUGIN_PATH";

/// A library that was opened.
#[derive(Clone, Debug)]
pub struct Library {
    /// Where it lies.
    pub path: PathBuf,
    /// What it offers.
    pub plugin: Arc<Plugin>,
}

/// Looks for libraries in a list of folders and opens each at most once.
#[derive(Debug)]
pub struct Finder {
    folders: Vec<PathBuf>,
    opened: Mutex<BTreeMap<PathBuf, Library>>,
}

impl Finder {
    /// Looks in `first`, then in the folders of [`PATH_VARIABLE`], then beside the running program and in
    /// `../lib/fedplug` of its folder.
    pub fn new(first: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut folders: Vec<PathBuf> = first.into_iter().collect();
        if let Some(paths) = std::env::var_os(PATH_VARIABLE) {
            folders.extend(std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()));
        }
        if let Some(program) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
            folders.push(program.to_owned());
            folders.extend(program.parent().map(|prefix| prefix.join("lib").join("fedplug")));
        }
        Self { folders, opened: Mutex::default() }
    }

    /// The component of this kind that `name` stands for, and its library.
    ///
    /// # Errors
    /// If nothing is found, or what is found is not such a plugin.
    pub fn find(&self, kind: Kind, name: &str) -> Result<(Library, Component), Report> {
        let is_path = name.contains(['/', std::path::MAIN_SEPARATOR]) || name.ends_with(DLL_SUFFIX);
        let path = if is_path {
            let path = PathBuf::from(name);
            if !path.is_file() {
                return Err(Report::new(format!("`{name}`: there is no such file")));
            }
            path
        } else {
            self.locate(kind, name)?
        };
        let library = self.open(&path)?;
        let component = library.plugin.find(kind, (!is_path).then_some(name)).cloned();
        component.map(|component| (library.clone(), component)).ok_or_else(|| {
            let offers: Vec<_> = library.plugin.components.iter().map(|c| format!("{c:?}")).collect();
            Report::new(format!("{}: offers no {kind} of this name", library.path.display()))
                .hint(format!("it offers: {}", offers.join(", ")))
        })
    }

    /// The library to look into: of this kind and name in the first folder that has it. If none has, in the first
    /// folder that has one of another kind with this name, the kinds taken as model, dataset, aggregator, filter; what
    /// such a library offers is only known once it is open.
    fn locate(&self, kind: Kind, name: &str) -> Result<PathBuf, Report> {
        let file = file_name(kind, name);
        let others = [Kind::Model, Kind::Dataset, Kind::Aggregator, Kind::Filter].map(|other| file_name(other, name));
        let named = self.folders.iter().map(|folder| folder.join(&file));
        let namesakes = self.folders.iter().flat_map(|folder| others.iter().map(|other| folder.join(other)));
        if let Some(path) = named.chain(namesakes).find(|path| path.is_file()) {
            return Ok(path);
        }
        let looked: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        let mut report = Report::new(format!("there is no {kind} plugin `{name}`"))
            .cause(format!("no `{file}` in {}", looked.join(", ")));
        let known = self.names(kind);
        if let Some(near) = nearest(name, &known) {
            report = report.hint(format!("did you mean `{near}`?"));
        } else if !known.is_empty() {
            report = report.hint(format!("there are: {}", known.join(", ")));
        } else {
            report = report.hint(format!("name another folder with --plugin-dir, `plugin-path` or {PATH_VARIABLE}"));
        }
        Err(report)
    }

    /// The names of this kind's plugins whose libraries lie in the folders, by their file names.
    fn names(&self, kind: Kind) -> Vec<String> {
        let start = format!("{DLL_PREFIX}{kind}_");
        let mut names: Vec<String> = self
            .folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|file| Some(file.strip_prefix(&start)?.strip_suffix(DLL_SUFFIX)?.replace('_', "-")))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Opens a library, or gives the one that was opened before.
    ///
    /// # Errors
    /// If it is not a plugin for this host.
    pub fn open(&self, path: &Path) -> Result<Library, Report> {
        let shown = path.display();
        // Without a folder in its name the dynamic loader would search its own list.
        let path = path.canonicalize().map_err(|e| Report::new(format!("{shown}: cannot open the plugin")).cause(e))?;
        let mut opened = self.opened.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(library) = opened.get(&path) {
            return Ok(library.clone());
        }
        let stamp = hold(&path).map_err(|e| {
            let whole = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Report::new(format!("{shown}: the library cannot be opened")).cause(whole)
        })?;
        let plugin = root::load(&path).map_err(|error| {
            let report = Report::new(format!("{shown}: {error}"));
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
        let library = Library { path: path.clone(), plugin: Arc::new(plugin) };
        opened.insert(path, library.clone());
        Ok(library)
    }
}

/// The file name of the library of `<kind>-<name>`.
fn file_name(kind: Kind, name: &str) -> String {
    format!("{DLL_PREFIX}{kind}_{}{DLL_SUFFIX}", name.replace('-', "_"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_of_another_kind_is_taken_only_where_no_folder_has_the_kind() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let finder = Finder::new(folders.iter().map(|folder| folder.path().to_owned()));
        let add = |folder: usize, kind| {
            let path = folders[folder].path().join(file_name(kind, "found-by-name"));
            std::fs::write(&path, "").unwrap();
            path
        };
        let found = |kind| finder.locate(kind, "found-by-name");
        assert!(found(Kind::Filter).is_err());
        let filter = add(1, Kind::Filter);
        assert_eq!(found(Kind::Aggregator).unwrap(), filter);
        // Of namesakes the first folder's, and there the first kind's.
        let aggregator = add(0, Kind::Aggregator);
        assert_eq!(found(Kind::Model).unwrap(), aggregator);
        let dataset = add(0, Kind::Dataset);
        assert_eq!(found(Kind::Model).unwrap(), dataset);
        // The kind that was asked for goes before all namesakes, in a later folder too.
        assert_eq!(found(Kind::Filter).unwrap(), filter);
        let report = finder.locate(Kind::Filter, "nowhere").unwrap_err();
        assert_eq!(report.message(), "there is no filter plugin `nowhere`");
    }
}
