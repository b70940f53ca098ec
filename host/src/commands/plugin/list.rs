//! `fedplug plugin list`: listing the plugins in each folder, and which of them are used.

use std::env::consts::DLL_SUFFIX;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use plugin_api::Component;
use plugin_api::component::Profile;
use serde::Serialize;

use crate::error::{CliError, Diagnostic};
use crate::experiment::config::Experiment;
use crate::plugins::{self, Finder, Library, named_by};

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For other programs
    Json,
}

/// A folder and its contents.
#[derive(Serialize)]
struct Folder {
    folder: PathBuf,
    /// Where the folder comes from, such as the command line.
    from: String,
    /// Why nothing is listed, if the folder cannot be read.
    problem: Option<String>,
    libraries: Vec<Found>,
    /// The number of libraries that are not named like a plugin; they are not opened.
    others: usize,
}

/// A library that is named like a plugin.
#[derive(Serialize)]
struct Found {
    file: String,
    /// The kind according to the file name.
    kind: plugin_api::Kind,
    name: String,
    version: Option<String>,
    interface: Option<String>,
    components: Vec<Offer>,
    /// Why it cannot be loaded, if it cannot.
    problem: Option<String>,
}

/// A component that a library offers.
#[derive(Serialize)]
struct Offer {
    kind: plugin_api::Kind,
    name: String,
    about: String,
    /// Whether its name refers to this component in an experiment.
    used: bool,
    /// Why it is not used.
    note: String,
}

/// Lists the plugins of each search folder, in search order.
///
/// # Errors
/// If the experiment cannot be read. A library that cannot be loaded is listed with its problem.
pub(crate) fn list(file: Option<&Path>, folders: &[PathBuf], format: Format) -> Result<String, CliError> {
    let of_file = file.map(|file| Experiment::read(file, &[])).transpose()?.map(|read| read.plugin_path);
    let finder = Finder::new(folders, &of_file.unwrap_or_default());
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for folder in finder.folders() {
        found.push(look(&finder, folder, &mut seen));
    }
    if format == Format::Json {
        let text = serde_json::to_string_pretty(&found).map_err(|e| Diagnostic::new("cannot write the list").cause(e));
        return Ok(text.map_err(CliError::run)? + "\n");
    }
    let tables = found.iter().enumerate().map(|(index, folder)| table(index + 1, folder));
    Ok(tables.collect::<Vec<_>>().join("\n"))
}

fn look(finder: &Finder, folder: &plugins::Folder, seen: &mut Vec<PathBuf>) -> Folder {
    let mut entry = Folder {
        folder: folder.path.clone(),
        from: folder.origin.to_string(),
        problem: None,
        libraries: Vec::new(),
        others: 0,
    };
    let files = match files(&folder.path) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            entry.problem = Some("there is no such folder".to_owned());
            return entry;
        }
        Err(error) => {
            entry.problem = Some(format!("cannot be read: {error}"));
            return entry;
        }
    };
    let path = folder.path.canonicalize().unwrap_or_default();
    if seen.contains(&path) {
        entry.problem = Some("the same folder as one above".to_owned());
        return entry;
    }
    seen.push(path);
    for file in files {
        match named_by(&file) {
            Some((kind, name)) => entry.libraries.push(library(finder, &folder.path, file, kind, name)),
            None => entry.others += 1,
        }
    }
    entry
}

/// The file names of all shared libraries in a folder, sorted.
fn files(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let libraries = entries.into_iter().filter(|entry| entry.path().is_file());
    let names = libraries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(DLL_SUFFIX)).collect();
    names.sort_unstable();
    Ok(names)
}

fn library(finder: &Finder, folder: &Path, file: String, kind: plugin_api::Kind, name: String) -> Found {
    let mut found = Found { file, kind, name, version: None, interface: None, components: Vec::new(), problem: None };
    let path = folder.join(&found.file);
    match finder.open(&path) {
        Ok(library) => {
            found.components = library.plugin.components.iter().map(|c| offer(finder, &library, c)).collect();
            found.version = Some(library.plugin.about.version.clone());
            found.interface = Some(library.plugin.about.interface.clone());
        }
        Err(report) => {
            // The table already shows the folder and the file.
            let line = report.line();
            found.problem = Some(line.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&line).to_owned());
        }
    }
    found
}

fn offer(finder: &Finder, library: &Library, component: &Component) -> Offer {
    let Profile { kind, name, about, .. } = component.profile().clone();
    let candidates = finder.candidates(kind, &name);
    let (used, note) = match finder.find(kind, &name) {
        Ok((winner, _)) if winner.path == library.path => (true, String::new()),
        Ok((winner, _)) => (false, format!("shadowed by {}", winner.path.display())),
        Err(_) => match candidates.first() {
            Some(path) => (false, format!("shadowed by {}, which does not offer it", path.display())),
            None => (false, "its library has another name, so it is found by the library's path only".to_owned()),
        },
    };
    Offer { kind, name, about, used, note }
}

fn table(number: usize, folder: &Folder) -> String {
    let mut text = format!("{number}. {} ({})", folder.folder.display(), folder.from);
    if let Some(problem) = &folder.problem {
        return format!("{text}: {problem}\n");
    }
    if folder.libraries.is_empty() {
        text.push_str(": no plugins");
    }
    text.push('\n');
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["kind", "name", "version", "library", ""]);
    for Found { file, version, components, .. } in &folder.libraries {
        for Offer { kind, name, note, .. } in components {
            table.add_row([&kind.to_string(), name, version.as_deref().unwrap_or_default(), file, note]);
        }
    }
    if table.row_count() > 0 {
        let _ = writeln!(text, "{table}");
    }
    for Found { file, problem, .. } in &folder.libraries {
        if let Some(problem) = problem {
            let _ = writeln!(text, "{file} cannot be loaded: {problem}");
        }
    }
    if folder.others > 0 {
        let _ = writeln!(text, "libraries not opened, since their names are not those of plugins: {}", folder.others);
    }
    text
}
