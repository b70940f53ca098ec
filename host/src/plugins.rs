//! Finding and opening plugin libraries.
//!
//! A plugin is named by its component or by the path of its library. `plugin = "amplify"` in `[model]` selects the
//! library of `model-amplify` in the first folder that contains it, without looking further. If no folder contains it,
//! libraries of other kinds with the same name are searched, because a library may offer several components. So
//! `plugin = "secure"` in a `[[filter]]` finds the filter in the library of `aggregator-secure`. They are searched
//! folder by folder, within a folder in the order model, dataset, aggregator, filter, and the first one that offers the
//! component is used. A path selects the library's only component of the kind. Libraries stay open until the process
//! ends.

pub(crate) mod config_keys;
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use plugin_api::{Component, Kind};

use crate::error::Diagnostic;
use crate::experiment::document::nearest;

mod elf;
mod library;
#[cfg(target_os = "linux")]
mod sonames;

pub(crate) use library::Library;

/// The environment variable with folders to search, separated as in `PATH`.
pub(crate) const PATH_VARIABLE: &str = "FEDPLUG_PLUGIN_PATH";

/// All kinds, in search order.
pub(crate) const KINDS: [Kind; 4] = [Kind::Model, Kind::Dataset, Kind::Aggregator, Kind::Filter];

/// Where a search folder comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Argument,
    /// The experiment's file.
    File,
    /// [`PATH_VARIABLE`].
    Environment,
    /// The default: the folder of the program, or the library folder relative to it.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argument => "--plugin-dir",
            Self::File => "plugin-path",
            Self::Environment => PATH_VARIABLE,
            Self::Program => "where fedplug is installed",
        })
    }
}

/// A search folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    /// The path as it was given.
    pub path: PathBuf,
    /// Where it comes from.
    pub origin: Origin,
}

/// Searches a list of folders for libraries and opens each library at most once.
#[derive(Debug)]
pub(crate) struct Finder {
    folders: Vec<Folder>,
    opened: Mutex<BTreeMap<PathBuf, Library>>,
}

impl Finder {
    /// Searches the folders of the command line, those of the experiment's file, those of [`PATH_VARIABLE`], the folder
    /// of the running program, and `../lib/fedplug` relative to it, in this order.
    pub(crate) fn new(arguments: &[PathBuf], file: &[PathBuf]) -> Self {
        let variable = std::env::var_os(PATH_VARIABLE).unwrap_or_default();
        let variable = std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty());
        let program = std::env::current_exe().ok();
        let beside = program.as_deref().and_then(Path::parent);
        let installed = beside.and_then(Path::parent).map(|prefix| prefix.join("lib").join("fedplug"));
        let folder = |origin| move |path| Folder { path, origin };
        let folders = arguments.iter().cloned().map(folder(Origin::Argument));
        let folders = folders.chain(file.iter().cloned().map(folder(Origin::File)));
        let folders = folders.chain(variable.map(folder(Origin::Environment)));
        let folders =
            folders.chain(beside.map(Path::to_owned).into_iter().chain(installed).map(folder(Origin::Program)));
        Self { folders: folders.collect(), opened: Mutex::default() }
    }

    /// The folders, in search order.
    pub(crate) fn folders(&self) -> &[Folder] {
        &self.folders
    }

    /// The component of this kind that `name` refers to, and its library.
    ///
    /// # Errors
    /// If nothing is found, or the library found is not such a plugin.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Result<(Library, Component), Diagnostic> {
        if is_path(name) {
            return offered(self.open_named(name)?, kind, None);
        }
        let mut refused = None;
        for path in self.candidates(kind, name) {
            match self.open(&path).and_then(|library| offered(library, kind, Some(name))) {
                Ok(found) => return Ok(found),
                Err(report) => refused = refused.or(Some(report)),
            }
        }
        Err(refused.unwrap_or_else(|| self.unknown(kind, name)))
    }

    /// The library at a path, or the libraries named after `name`: the first of each kind.
    ///
    /// # Errors
    /// If there is none, or one of them is not a plugin.
    pub(crate) fn named(&self, name: &str) -> Result<Vec<Library>, Diagnostic> {
        if is_path(name) {
            return Ok(vec![self.open_named(name)?]);
        }
        let found = KINDS.into_iter().filter_map(|kind| self.first(kind, name));
        let found = found.map(|path| self.open(&path)).collect::<Result<Vec<_>, _>>()?;
        if !found.is_empty() {
            return Ok(found);
        }
        let known = self.names(&KINDS);
        let report = Diagnostic::new(format!("there is no plugin `{name}`"))
            .cause(format!("no library of this name in {}", self.looked()));
        Err(report.hint(match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`fedplug plugin list` shows all that are found".to_owned(),
        }))
    }

    /// The libraries to search, in order: the one of this kind and name, or if no folder has it, those of other kinds
    /// with this name. What such a library offers is known only after opening it.
    pub(crate) fn candidates(&self, kind: Kind, name: &str) -> Vec<PathBuf> {
        if let Some(path) = self.first(kind, name) {
            return vec![path];
        }
        let others = |folder: &Folder| KINDS.map(|other| folder.path.join(file_name(other, name)));
        self.folders.iter().flat_map(others).filter(|path| path.is_file()).collect()
    }

    /// The library of this kind and name in the first folder that contains it.
    fn first(&self, kind: Kind, name: &str) -> Option<PathBuf> {
        let file = file_name(kind, name);
        self.folders.iter().map(|folder| folder.path.join(&file)).find(|path| path.is_file())
    }

    fn unknown(&self, kind: Kind, name: &str) -> Diagnostic {
        let report = Diagnostic::new(format!("there is no {kind} plugin `{name}`")).cause(format!(
            "no `{}` in {}",
            file_name(kind, name),
            self.looked()
        ));
        let known = self.names(&[kind]);
        let near = nearest(name, &known).map(str::to_owned).or_else(|| self.near_namesake(kind, name));
        report.hint(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if !known.is_empty() => format!("available: {}", known.join(", ")),
            None => format!("name another folder with --plugin-dir, `plugin-path` or {PATH_VARIABLE}"),
        })
    }

    /// The most similar name of a library of another kind that also offers a component of this kind. Opens only
    /// libraries with similar names.
    fn near_namesake(&self, kind: Kind, name: &str) -> Option<String> {
        let mut names = self.names(&KINDS);
        while let Some(near) = nearest(name, &names).map(str::to_owned) {
            if self.find(kind, &near).is_ok() {
                return Some(near);
            }
            names.retain(|other| *other != near);
        }
        None
    }

    fn looked(&self) -> String {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.path.display().to_string()).collect();
        folders.join(", ")
    }

    /// The names of plugins of these kinds in the folders, according to their file names.
    fn names(&self, kinds: &[Kind]) -> Vec<String> {
        let entries = self.folders.iter().filter_map(|folder| std::fs::read_dir(&folder.path).ok()).flatten();
        let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let named = files.filter_map(|file| named_by(&file)).filter(|(kind, _)| kinds.contains(kind));
        let mut names: Vec<String> = named.map(|(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn open_named(&self, path: &str) -> Result<Library, Diagnostic> {
        if !Path::new(path).is_file() {
            return Err(Diagnostic::new(format!("`{path}`: no such file")));
        }
        self.open(Path::new(path))
    }

    /// Opens a library, or returns it if it is already open.
    ///
    /// # Errors
    /// If it is not a plugin for this host.
    pub(crate) fn open(&self, path: &Path) -> Result<Library, Diagnostic> {
        let shown = path.display();
        // For a file name without a folder, the dynamic loader would use its own search path.
        let path =
            path.canonicalize().map_err(|e| Diagnostic::new(format!("{shown}: cannot open the plugin")).cause(e))?;
        let mut opened = self.opened.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(library) = opened.get(&path) {
            return Ok(library.clone());
        }
        let library = Library::open(&path).map_err(|report| report.within(&shown.to_string()))?;
        opened.insert(path, library.clone());
        Ok(library)
    }
}

/// Whether the name of a plugin is the path of a library.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains(['/', std::path::MAIN_SEPARATOR]) || name.ends_with(DLL_SUFFIX)
}

/// The component of this kind and name; without a name, the only component of the kind.
fn offered(library: Library, kind: Kind, name: Option<&str>) -> Result<(Library, Component), Diagnostic> {
    if let Some(component) = library.plugin.find(kind, name).cloned() {
        return Ok((library, component));
    }
    let components = &library.plugin.components;
    let several: Vec<_> = components.iter().map(Component::profile).filter(|profile| profile.kind == kind).collect();
    let shown = library.path.display();
    if let (None, [.., last]) = (name, &several[..]) {
        let names: Vec<_> = several.iter().map(|profile| format!("`{}`", profile.name)).collect();
        let link = file_name(kind, &last.name);
        return Err(Diagnostic::new(format!(
            "{shown}: contains more than one {kind}, so its path does not select one"
        ))
        .cause(format!("it contains {}", names.join(", ")))
        .hint(format!(
            "select the {kind} by name; for `{}`, put a link `{link}` to the library into a plugin folder",
            last.name
        )));
    }
    let offers: Vec<_> = components.iter().map(|c| format!("{c:?}")).collect();
    Err(Diagnostic::new(format!("{shown}: contains no {kind} of this name"))
        .hint(format!("it contains: {}", offers.join(", "))))
}

/// The file name of the library of `<kind>-<name>`.
fn file_name(kind: Kind, name: &str) -> String {
    format!("{DLL_PREFIX}{kind}_{}{DLL_SUFFIX}", name.replace('-', "_"))
}

/// The kind and the name that a library's file name states.
pub(crate) fn named_by(file: &str) -> Option<(Kind, String)> {
    let (kind, name) = file.strip_prefix(DLL_PREFIX)?.strip_suffix(DLL_SUFFIX)?.split_once('_')?;
    let kind = KINDS.into_iter().find(|known| known.to_string() == kind)?;
    Some((kind, name.replace('_', "-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_of_another_kind_is_asked_only_where_no_folder_has_the_kind() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let finder = Finder::new(&[folders[0].path().to_owned()], &[folders[1].path().to_owned()]);
        let add = |folder: usize, kind| {
            let path = folders[folder].path().join(file_name(kind, "found-by-name"));
            std::fs::write(&path, "").unwrap();
            path
        };
        let found = |kind| finder.candidates(kind, "found-by-name");
        assert!(found(Kind::Filter).is_empty());
        let filter = add(1, Kind::Filter);
        assert!(found(Kind::Aggregator) == vec![filter.clone()]);
        // Namesakes are sorted by folder and then by kind.
        let aggregator = add(0, Kind::Aggregator);
        let dataset = add(0, Kind::Dataset);
        assert_eq!(found(Kind::Model), [dataset, aggregator, filter.clone()]);
        // The requested kind precedes all namesakes, even in a later folder, and is the only result.
        assert_eq!(found(Kind::Filter), [filter]);
        let report = finder.find(Kind::Filter, "nowhere").unwrap_err();
        assert_eq!(report.message(), "there is no filter plugin `nowhere`");
        assert_eq!(named_by(&file_name(Kind::Filter, "a-b")), Some((Kind::Filter, "a-b".to_owned())));
        assert_eq!(named_by("libc.so.6"), None);
    }
}
