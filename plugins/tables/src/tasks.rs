//! Tasks made of files, and their names.

use std::path::Path;

use plugin_api::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which files form a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskPer {
    /// All files together; they should measure one thing in one unit.
    #[default]
    Folder,
    /// Each file on its own, with its own head and its own scale.
    File,
}

/// A name for each of these files' tasks: `PREFIX-STEM`, or `STEM` without a prefix, with the [stem](file_stem) of the file.
/// Characters that are not safe in the names of folders and tags become `_`. A name that is taken, compared without case,
/// gets a number.
pub fn task_names<'a>(prefix: Option<&str>, files: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let stem: String = file_stem(file).chars().map(plain).collect();
        let name = prefix.map_or_else(|| stem.trim_start_matches('.').to_owned(), |prefix| format!("{prefix}-{stem}"));
        let free = |name: &String| names.iter().all(|other| other.to_lowercase() != name.to_lowercase());
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        names.extend(std::iter::once(name.clone()).chain(numbered).find(free));
    }
    names
}

/// The name of a file without its extensions: `a` for `a.csv` and `a.csv.gz`.
pub fn file_stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let packed = [".gz", ".zip"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    packed.rsplit_once('.').map_or(packed, |(stem, _)| stem).to_owned()
}

/// Whether a folder can have this name.
pub fn is_folder_name(name: &str) -> bool {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    // The limit of most file systems, in bytes.
    plain && name.len() <= 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_files_and_are_distinct_on_any_file_system() {
        let files = ["x/Kd (nM).csv", "x/d44_Kd.csv", "x/d44_kd.csv", "y/d44_kd.CSV", "z.tar.csv.gz", "kaltstabilität"];
        let names = |prefix| task_names(prefix, files.map(Path::new));
        assert_eq!(names(None), ["Kd__nM_", "d44_Kd", "d44_kd-2", "d44_kd-3", "z.tar", "kaltstabilität"]);
        assert_eq!(names(Some("tm"))[..3], ["tm-Kd__nM_", "tm-d44_Kd", "tm-d44_kd-2"]);
        assert!(names(None).iter().all(|name| is_folder_name(name)));
    }

    #[test]
    fn hidden_long_and_nested_names_are_not_folder_names() {
        for name in ["", ".x", "a/b", "a\\b", &"x".repeat(256)] {
            assert!(!is_folder_name(name), "{name}");
        }
        assert!(is_folder_name("Wittrup2017_CST-HIC.v2"));
    }
}
