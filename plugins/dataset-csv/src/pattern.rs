//! Patterns of paths: `*` matches any characters, `?` one, `{client}` a client's name; none of them matches a `/`.
//!
//! `globset` does not fit: it has no captures, and reads braces as alternatives.

use std::fmt;
use std::path::{Path, PathBuf};

use fedplug_tables::{deserialize_one_or_many, list_names};
use plugin_api::{JsonSchema, Result};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The placeholder for a client's name.
const CLIENT: &str = "{client}";

/// A path, or a pattern of paths. Hidden files are not matched by patterns.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", inline, extend("format" = "path-pattern"))]
pub struct Pattern(String);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if text.contains("**") {
            return Err(format!("`{text}`: `**` is not supported; `*` matches names in one folder"));
        }
        if text.matches(CLIENT).count() > 1 {
            return Err(format!("`{text}`: `{CLIENT}` occurs twice"));
        }
        Ok(Self(text))
    }
}

impl Pattern {
    /// Whether it contains `{client}`.
    pub(crate) fn names_clients(&self) -> bool {
        self.0.contains(CLIENT)
    }

    /// The matching files, sorted by name, folder by folder.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let parts: Vec<&str> = self.0.split('/').collect();
        let fixed = parts.iter().take_while(|part| !part.contains(['*', '?']) && !part.contains(CLIENT)).count();
        let mut found = vec![match &parts[..fixed] {
            [] => PathBuf::new(),
            [""] => PathBuf::from("/"),
            start => PathBuf::from(start.join("/")),
        }];
        for part in &parts[fixed..] {
            let mut next = Vec::new();
            for path in found {
                let folder = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
                if folder.is_dir() {
                    let names = list_names(folder, |_| true)?;
                    next.extend(
                        names.iter().filter(|name| match_name(part, name, None).is_some()).map(|name| path.join(name)),
                    );
                }
            }
            found = next;
        }
        found.retain(|path| path.is_file());
        Ok(found)
    }

    /// The text that `{client}` matches in a path, the shortest possible; `None` if the path does not match or the pattern
    /// has no `{client}`.
    pub(crate) fn client<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.match_path(path).flatten()
    }

    /// Whether a path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.match_path(path).is_some()
    }

    fn match_path<'a>(&self, path: &'a str) -> Option<Option<&'a str>> {
        fn parts(path: &str) -> Vec<&str> {
            path.split('/')
                .enumerate()
                .filter(|(i, part)| *part != "." && (*i == 0 || !part.is_empty()))
                .map(|p| p.1)
                .collect()
        }
        let (pattern, path) = (parts(&self.0), parts(path));
        if pattern.len() != path.len() {
            return None;
        }
        pattern.into_iter().zip(path).try_fold(None, |client, (part, name)| match_name(part, name, client))
    }
}

/// Matches a name with a pattern of one folder level. Returns what `{client}` matched, or else the `client` so far.
fn match_name<'a>(pattern: &str, name: &'a str, client: Option<&'a str>) -> Option<Option<&'a str>> {
    let mut ends = (0..=name.len()).filter(|&end| name.is_char_boundary(end));
    if let Some(rest) = pattern.strip_prefix(CLIENT) {
        return ends.skip(1).find_map(|end| match_name(rest, &name[end..], Some(&name[..end])));
    }
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty().then_some(client),
        Some('*') => ends.find_map(|end| match_name(rest.as_str(), &name[end..], client)),
        Some(wanted) => {
            let mut letters = name.chars();
            letters.next().filter(|&letter| wanted == '?' || wanted == letter)?;
            match_name(rest.as_str(), letters.as_str(), client)
        }
    }
}

/// One pattern, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(pub Vec<Pattern>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a path, a pattern such as `data/*.csv`, or a list of them";
        let patterns: Vec<Pattern> = deserialize_one_or_many(deserializer, expected)?;
        if patterns.is_empty() {
            return Err(D::Error::custom("must not be empty"));
        }
        match patterns.iter().find(|pattern| pattern.names_clients()) {
            Some(pattern) => Err(D::Error::custom(format_args!(
                "`{pattern}`: `{CLIENT}` is allowed only in `clients = {{ pattern = \"{pattern}\" }}`"
            ))),
            None => Ok(Self(patterns)),
        }
    }
}

impl JsonSchema for Patterns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Patterns".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Pattern>();
        json_schema!({ "oneOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(pattern: &str, path: &str) -> Option<String> {
        Pattern::try_from(pattern.to_owned()).unwrap().client(path).map(str::to_owned)
    }

    #[test]
    fn client_names_are_captured() {
        for (pattern, path, expected) in [
            ("data/{client}/*.csv", "data/north/a.csv", Some("north")),
            ("./data/{client}/*.csv", "data//north/./a.csv", Some("north")),
            ("data/{client}.csv", "data/a.b.csv", Some("a.b")),
            ("{client}_*.csv", "a_b_c.csv", Some("a")),
            ("site-{client}-?.csv", "site-é-1.csv", Some("é")),
            ("*{client}", "ab", Some("ab")),
            ("/data/{client}", "/data/a", Some("a")),
            ("/data/{client}", "data/a", None),
            ("data/{client}.csv", "data/.csv", None),
            ("data/{client}/*.csv", "data/north/deep/a.csv", None),
            ("data/{client}/a?.csv", "data/north/a.csv", None),
            ("data/*.csv", "data/a.csv", None),
        ] {
            assert_eq!(client(pattern, path).as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn matching_files_are_sorted_and_not_hidden() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b/2.csv", "b/1.csv", "a/3.csv", "a/.4.csv", "a/5.txt", ".c/6.csv", "b/7.csv/8"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let files = |pattern: &str| -> Vec<String> {
            let pattern = Pattern::try_from(format!("{}/{pattern}", root.path().display())).unwrap();
            let relative = |path: PathBuf| path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned();
            pattern.files().unwrap().into_iter().map(relative).collect()
        };
        assert_eq!(files("*/*.csv"), ["a/3.csv", "b/1.csv", "b/2.csv"]);
        assert_eq!(files("{client}/?.csv"), ["a/3.csv", "b/1.csv", "b/2.csv"]);
        assert_eq!(files("b/1.csv"), ["b/1.csv"]);
        assert_eq!(files("*/3.csv"), ["a/3.csv"]);
        assert!(files("c/*.csv").is_empty() && files("b").is_empty());
    }

    #[test]
    fn invalid_patterns_are_refused() {
        for text in ["", "a/**/b", "{client}/{client}.csv"] {
            assert!(Pattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
