//! Finds texts that could be paths out of the site's data folder.
//!
//! The host does not know which keys of a plugin are paths, so each text counts, also in lists and in tables within
//! tables. Relative paths are harmless: they lie in the data folder. A column's name may well have a `/` or `..` in it.

use serde_json::Value;

use crate::plugins;

/// The longest text that a refusal repeats.
const SHOWN: usize = 80;

/// The suspicious texts of a table, each with its key.
pub(super) struct PathCheck {
    key: String,
    pub(super) found: Vec<(String, String)>,
}

impl PathCheck {
    /// Starts with the table at this key.
    pub(super) fn new(table: &str) -> Self {
        Self { key: table.to_owned(), found: Vec::new() }
    }

    /// Checks a key and its value.
    pub(super) fn entry(&mut self, key: &str, value: &Value) {
        let length = self.key.len();
        self.key.push('.');
        self.key.push_str(key);
        self.text(key);
        match value {
            Value::String(text) => self.text(text),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(index, item)| self.entry(&index.to_string(), item))
            }
            Value::Object(table) => table.iter().for_each(|(key, value)| self.entry(key, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        self.key.truncate(length);
    }

    fn text(&mut self, text: &str) {
        if leaves_folder(text) {
            self.found.push((short(&self.key), short(text)));
        }
    }
}

/// Whether a text could be a path that is absolute or leads upwards, or an address.
fn leaves_folder(text: &str) -> bool {
    let text = text.trim_start();
    // After one of these, a pattern's alternative or an address may begin.
    let separators = ['{', '}', ',', '|', '=', ';', ':'];
    let upwards = |part: &str| part.trim() == "..";
    text.starts_with(['~', '$'])
        || text.contains(['\\', '\0'])
        || text.split(separators).any(|part| part.starts_with('/'))
        || text.split('/').flat_map(|part| part.split(separators)).any(upwards)
}

/// Whether the name of a plugin is a path.
pub(super) fn is_library(plugin: &str) -> bool {
    plugins::is_path(plugin) || leaves_folder(plugin)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_out_of_the_folder_are_found_and_names_are_not() {
        for text in [
            "/etc/passwd",
            " /etc/passwd",
            "~/x",
            "~root",
            "..",
            "../x",
            "a/../../b",
            "a/..",
            "{..,a}/x",
            "{/etc,a}/passwd",
            "a,/etc/passwd",
            "https://example.org/x",
            "file:/etc/passwd",
            "C:/x",
            "C:\\x",
            "\\\\host\\x",
            "\\.\\./x",
            "$HOME/x",
            "a\0b",
        ] {
            assert!(leaves_folder(text), "{text}");
        }
        for text in [
            "",
            "data/assay.csv",
            "*_HIC.csv",
            "data/{client}.csv",
            "chandar-lab/AMPLIFY_120M@main",
            "IC50 (ug/ml)",
            "IC50..nM.",
            "% identity",
            "1/kT",
            "a.b",
            ".hidden",
            "kon (1 /s)",
        ] {
            assert!(!leaves_folder(text), "{text}");
        }
    }

    #[test]
    fn texts_in_lists_and_tables_are_found_and_so_are_keys() {
        let mut check = PathCheck::new("dataset");
        check.entry("files", &json!(["a.csv", "/b.csv"]));
        check.entry("task", &json!([{ "files": { "deep": "../c.csv" } }, { "/d": 1 }]));
        check.entry("count", &json!(3));
        let found: Vec<_> = check.found.iter().map(|(key, text)| format!("{key}={text}")).collect();
        assert_eq!(found, ["dataset.files.1=/b.csv", "dataset.task.0.files.deep=../c.csv", "dataset.task.1./d=/d"]);
    }
}
