//! The folder that the relative paths of a file are relative to.

use std::path::{Component, Path, PathBuf};

use plugin_api::config::PathFormat;
use serde_json::Value;

use super::Document;

/// The key that names the folder, if it is not that of the file.
pub(crate) const FOLDER: &str = "folder";

/// Characters that may match several names in a pattern of paths.
const OF_PATTERNS: [char; 4] = ['*', '?', '[', '{'];

impl Document {
    /// The folder that relative paths in the file are relative to: that of the key `folder`, or the file's own. Empty if
    /// it is the current directory.
    pub(crate) fn folder(&self) -> PathBuf {
        match self.value.get(FOLDER).and_then(Value::as_str) {
            Some(folder) if self.is_given(&[FOLDER.to_owned()]) => folder.into(),
            Some(folder) => self.own_folder.join(folder),
            None => self.own_folder.clone(),
        }
    }

    /// Whether the command line sets the key, or a table around it.
    pub(crate) fn is_given(&self, key_path: &[String]) -> bool {
        self.given.iter().any(|given| key_path.starts_with(given))
    }

    /// Makes paths relative to the current directory, as in files that do not name their folder and are not in it.
    pub(crate) fn unless_named_in_current(mut self) -> Self {
        if self.value.get(FOLDER).is_none() {
            self.own_folder = PathBuf::new();
        }
        self
    }

    /// The path, for this process, that a text of the file means. `None` if it is the text itself.
    ///
    /// # Errors
    /// If the folder's name cannot be part of such a text.
    pub(crate) fn resolve(
        &self,
        key_path: &[String],
        text: &str,
        format: PathFormat,
    ) -> Result<Option<String>, String> {
        let folder = self.folder();
        if text.is_empty() || Path::new(text).is_absolute() || folder.as_os_str().is_empty() || self.is_given(key_path)
        {
            return Ok(None);
        }
        let path = joined(&folder, text);
        if format == PathFormat::PathOrName && !is_explicit(text) && !path.exists() {
            return Ok(None);
        }
        let shown = folder.display();
        let Some(found) = path.to_str() else {
            return Err(format!("is relative to the folder `{shown}`, whose name is not UTF-8"));
        };
        match OF_PATTERNS.iter().find(|c| format == PathFormat::Pattern && folder.to_string_lossy().contains(**c)) {
            Some(c) => Err(format!(
                "is a pattern relative to the folder `{shown}`, whose name has a `{c}`: start from within that folder, or \
                 rename it"
            )),
            None => Ok(Some(found.to_owned())),
        }
    }

    /// The absolute path of a text that the command line sets. `None` if the text comes from elsewhere, is absolute, or is
    /// no path.
    pub(crate) fn absolute(&self, key_path: &[String], text: &str, format: PathFormat) -> Option<PathBuf> {
        let name = format == PathFormat::PathOrName && !is_explicit(text) && !Path::new(text).exists();
        let relative = self.is_given(key_path) && !name && !text.is_empty() && !Path::new(text).is_absolute();
        relative.then(|| std::path::absolute(text).ok()).flatten()
    }
}

/// The path of a text in a folder, without `..` after a folder that is no link.
fn joined(folder: &Path, text: &str) -> PathBuf {
    let mut path = folder.to_owned();
    for component in Path::new(text).components() {
        let within = || path.file_name().is_some() && path.symlink_metadata().is_ok_and(|found| found.is_dir());
        match component {
            Component::CurDir => {}
            Component::ParentDir if within() => {
                path.pop();
            }
            other => path.push(other),
        }
    }
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

/// Whether a text can only be a path.
fn is_explicit(text: &str) -> bool {
    text.starts_with("./") || text.starts_with("../")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::parse("a/b.toml".into(), text).unwrap()
    }

    fn key(name: &str) -> Vec<String> {
        vec!["t".to_owned(), name.to_owned()]
    }

    #[test]
    fn paths_of_the_file_are_relative_to_it_and_those_of_the_command_line_are_not() {
        let mut document = document("[t]\n");
        document.set("t.given=x").unwrap();
        document.set_in_file("t.own=x").unwrap();
        let resolve = |name, text| document.resolve(&key(name), text, PathFormat::Path).unwrap();
        assert_eq!(resolve("file", "x"), Some("a/x".to_owned()));
        assert_eq!(resolve("own", "../x"), Some("a/../x".to_owned()));
        assert_eq!([resolve("given", "x"), resolve("file", "/x"), resolve("file", "")], [None, None, None]);
        let absolute = |name, text| document.absolute(&key(name), text, PathFormat::Path);
        assert_eq!(absolute("given", "x"), Some(std::env::current_dir().unwrap().join("x")));
        assert_eq!([absolute("file", "x"), absolute("given", "/x")], [None, None]);
    }

    #[test]
    fn parents_are_left_out_where_no_link_leads_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        let of = |folder: &str, text: &str| joined(&at(folder), text);
        assert_eq!(of("real", "../data/./x"), at("data/x"));
        assert_eq!(of("missing", "../data"), at("missing/../data"));
        assert_eq!(joined(Path::new(".."), "../x"), Path::new("../../x"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("real", at("link")).unwrap();
            assert_eq!(of("link", "../data"), at("link/../data"));
        }
    }

    #[test]
    fn the_key_folder_is_relative_to_the_file_and_counts_for_all_others() {
        for (text, folder) in [("", "a"), ("folder = \"c\"", "a/c"), ("folder = \"/c\"", "/c")] {
            assert_eq!(document(text).folder(), Path::new(folder), "{text}");
        }
        let mut set = document("");
        set.set("folder=c").unwrap();
        assert_eq!(set.folder(), Path::new("c"));
        assert_eq!(Document::parse("b.toml".into(), "").unwrap().folder(), Path::new(""));
        assert_eq!(document("").unless_named_in_current().folder(), Path::new(""));
        assert_eq!(document("folder = \"/c\"").unless_named_in_current().folder(), Path::new("/c"));
    }

    #[test]
    fn a_name_is_a_path_only_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("model")).unwrap();
        let file = folder.path().join("x.toml");
        std::fs::write(&file, "").unwrap();
        let document = Document::read(&file).unwrap();
        let resolve = |text| document.resolve(&key("k"), text, PathFormat::PathOrName).unwrap();
        let beside = |name: &str| Some(folder.path().join(name).to_str().unwrap().to_owned());
        assert_eq!(resolve("model"), beside("model"));
        assert_eq!(resolve("owner/model"), None);
        assert_eq!(resolve("./missing"), beside("missing"));
    }

    #[test]
    fn a_folder_that_would_be_read_as_a_pattern_is_refused() {
        let document = Document::parse("a*/b.toml".into(), "").unwrap();
        assert!(document.resolve(&key("k"), "x.csv", PathFormat::Path).is_ok());
        let message = document.resolve(&key("k"), "*.csv", PathFormat::Pattern).unwrap_err();
        assert!(message.starts_with("is a pattern relative to the folder `a*`, whose name has a `*`"), "{message}");
    }
}
