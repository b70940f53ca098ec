//! Selects the files of a task's folder by glob patterns.

use std::path::{Path, PathBuf};

use fedplug_tables::{deserialize_one_or_many, quoted};
use globset::{GlobBuilder, GlobMatcher};
use plugin_api::{Error, JsonSchema, Result};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A glob pattern: `*` and `?` for characters of a name, `[ab]` for one of several, `{a,b}` for either.
#[derive(Clone, Debug)]
struct Pattern(GlobMatcher);

/// One pattern, or a list of them.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Pattern>);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let glob = GlobBuilder::new(&text).literal_separator(true).build();
        glob.map(|glob| Self(glob.compile_matcher())).map_err(D::Error::custom)
    }
}

impl Pattern {
    /// Whether the pattern matches a task's file: its name or, if the pattern has a `/`, `TASK/NAME`.
    fn is_match(&self, task: &str, file: &Path) -> bool {
        let name = Path::new(file.file_name().unwrap_or_default());
        if self.0.glob().glob().contains('/') {
            self.0.is_match(Path::new(task).join(name))
        } else {
            self.0.is_match(name)
        }
    }
}

impl Patterns {
    fn any(&self, task: &str, file: &Path) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(task, file))
    }
}

/// The files of each task that match `files`, or all if that is not given, without those that match `exclude`.
///
/// # Errors
/// If a pattern matches no file, or excludes all files of a task.
pub(crate) fn select_files(
    mut tasks: Vec<(String, Vec<PathBuf>)>,
    files: Option<&Patterns>,
    exclude: Option<&Patterns>,
) -> Result<Vec<(String, Vec<PathBuf>)>> {
    for (key, patterns) in [("files", files), ("exclude", exclude)] {
        let unused = |pattern: &&Pattern| {
            !tasks.iter().any(|(task, files)| files.iter().any(|file| pattern.is_match(task, file)))
        };
        if let Some(pattern) = patterns.into_iter().flat_map(|patterns| &patterns.0).find(unused) {
            let error = Error::config(format!("`{}` matches no file", pattern.0.glob())).at_key(key);
            return Err(error.help("patterns match the names in each task's folder or, with a `/`, `TASK/NAME`"));
        }
    }
    for (task, all) in &mut tasks {
        let wanted = |file: &PathBuf| {
            files.is_none_or(|files| files.any(task, file)) && !exclude.is_some_and(|exclude| exclude.any(task, file))
        };
        let (kept, excluded): (Vec<PathBuf>, Vec<PathBuf>) = all.drain(..).partition(wanted);
        if kept.is_empty() && !excluded.is_empty() {
            let names: Vec<_> =
                excluded.iter().filter_map(|file| file.file_name()).map(|n| n.to_string_lossy()).collect();
            let error = Error::config(format!("no file of task `{task}` is selected"));
            let key = if files.is_some() { "files" } else { "exclude" };
            return Err(error.at_key(key).help(format!("its folder contains {}", quoted(&names))));
        }
        *all = kept;
    }
    Ok(tasks)
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_one_or_many(deserializer, "a pattern such as `*_HIC.csv`, or a list of them").map(Self)
    }
}

impl JsonSchema for Patterns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Patterns".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::config::read;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Keys {
        files: Option<Patterns>,
        exclude: Option<Patterns>,
    }

    fn choose(keys: Value) -> Result<Vec<String>> {
        let keys: Keys = read(&keys).unwrap();
        let names = |task: &str, names: &[&str]| {
            (task.to_owned(), names.iter().map(|name| Path::new("/data").join(task).join(name)).collect())
        };
        let all = vec![names("tm", &["a_HIC.csv", "b_SAS.csv"]), names("binding", &["a_HIC.csv", "kd.csv"])];
        let left = select_files(all, keys.files.as_ref(), keys.exclude.as_ref())?;
        let name = |task: &str, file: &PathBuf| format!("{task}/{}", file.file_name().unwrap().to_str().unwrap());
        Ok(left.iter().flat_map(|(task, files)| files.iter().map(move |file| name(task, file))).collect())
    }

    #[test]
    fn files_are_selected_by_name_or_by_task_and_name() {
        let all = ["tm/a_HIC.csv", "tm/b_SAS.csv", "binding/a_HIC.csv", "binding/kd.csv"];
        assert_eq!(choose(json!({})).unwrap(), all);
        assert_eq!(choose(json!({ "files": "*_HIC.csv" })).unwrap(), [all[0], all[2]]);
        assert_eq!(choose(json!({ "files": ["tm/*", "*/kd.csv"] })).unwrap(), [all[0], all[1], all[3]]);
        assert_eq!(choose(json!({ "exclude": "tm/{a,c}_*" })).unwrap(), all[1..]);
        assert_eq!(choose(json!({ "files": "?_*", "exclude": ["*SAS*"] })).unwrap(), [all[0], all[2]]);
    }

    #[test]
    fn patterns_without_a_file_and_tasks_without_a_file_are_errors() {
        let problem = |keys| {
            let error = choose(keys).unwrap_err();
            (error.to_string(), error.hint().unwrap().to_owned())
        };
        assert_eq!(problem(json!({ "files": ["*", "*_HIK.csv"] })).0, "`files`: `*_HIK.csv` matches no file");
        assert_eq!(problem(json!({ "exclude": "data/tm/*" })).0, "`exclude`: `data/tm/*` matches no file");
        let (message, hint) = problem(json!({ "files": "kd.csv" }));
        assert_eq!(message, "`files`: no file of task `tm` is selected");
        assert_eq!(hint, "its folder contains `a_HIC.csv`, `b_SAS.csv`");
        let problems = read::<Keys>(&json!({ "files": ["[a"] })).unwrap_err();
        assert_eq!(problems[0].path, ["files", "0"]);
    }
}
