//! `--set KEY=VALUE`: changes to the file from the command line.

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::Document;
use super::walk::{DEEPEST, Walk};
use crate::error::{CliError, Diagnostic};

/// Hints for an argument that cannot be read.
const HOW_TO_SET: [&str; 2] = [
    "write it as in the file, with dots for tables: --set federation.rounds=10",
    "filters are numbered from 0: --set filter.0.at=client-input; a table or a list is set whole with quotes: \
     --set 'dataset.clients={ count = 6, alpha = 1.0 }'",
];

impl Document {
    /// Applies `KEY.KEY=VALUE`. A value that is not TOML is taken as text. Paths in it are relative to the current
    /// directory.
    ///
    /// # Errors
    /// If there is no `=`, or the key lies in something that is not a table.
    pub fn set(&mut self, argument: &str) -> Result<(), CliError> {
        let key_path = self.set_in_file(argument)?;
        self.given.push(key_path);
        Ok(())
    }

    /// The same, as if the file had the value: paths in it are relative to the file. Returns the path of the key.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub(crate) fn set_in_file(&mut self, argument: &str) -> Result<Vec<String>, CliError> {
        let wrong = |what: &str| {
            let report = Diagnostic::new(format!("--set {}: {what}", shown(argument)));
            CliError::usage(HOW_TO_SET.iter().fold(report, |report, hint| report.hint(*hint)))
        };
        let (key, text) = argument.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
        let deep = |depth: usize| wrong(&format!("is nested {depth} tables deep; at most {DEEPEST} are read"));
        // Counted before it is parsed, since the parser calls itself for each.
        let dots = key.matches('.').count();
        if dots > 10 * DEEPEST {
            return Err(deep(dots));
        }
        let key_path = key_path(key).ok_or_else(|| wrong("has no key"))?;
        if key_path.len() > DEEPEST {
            return Err(deep(key_path.len() - 1));
        }
        // --set name=trial, --set dataset.root=../data
        let (source, mut walk) = (format!("v = {text}"), Walk::default());
        let parsed = DeTable::parse(&source).ok().map(|table| walk.file(table.into_inner()));
        let value = parsed.and_then(|mut table| table.shift_remove("v")).unwrap_or_else(|| text.into());
        if let Some(problem) = walk.problems.first() {
            let report = Diagnostic::new(format!("--set {argument}: {}", problem.message));
            let alone = problem.path.len() == 1;
            let hint = format!("text that reads as a number needs quotes of its own: --set '{key}=\"{text}\"'");
            return Err(CliError::usage(if alone { report.hint(hint) } else { report }));
        }
        *target(&mut self.value, &key_path).map_err(|what| wrong(&what))? = value;
        self.given.retain(|given| !given.starts_with(&key_path));
        self.overrides.push((key_path.clone(), format!("--set {}", shown(argument))));
        Ok(key_path)
    }
}

/// The value at a path, which is added if its table lacks it.
///
/// # Errors
/// If the path leads through something that is not a table, or to an item that a list does not have.
fn target<'v>(value: &'v mut Value, path: &[String]) -> Result<&'v mut Value, String> {
    let mut target = value;
    for (depth, step) in path.iter().enumerate() {
        target = match target {
            Value::Object(table) => {
                let number = path.get(depth + 1).filter(|next| next.bytes().all(|c| c.is_ascii_digit()));
                if let (Some(number), None) = (number, table.get(step)) {
                    let list = path[..=depth].join(".");
                    return Err(format!("there is no `{list}` whose item `{number}` could be set"));
                }
                table.entry(step).or_insert_with(|| Value::Object(Map::new()))
            }
            Value::Array(list) => {
                let (count, list_at) = (list.len(), path[..depth].join("."));
                let index = step.parse::<usize>().ok().filter(|&i| i < count);
                let items = if count == 1 { "1 item" } else { &format!("{count} items") };
                let error = || format!("`{list_at}` has {items}, numbered from 0; there is no `{step}`");
                &mut list[index.ok_or_else(error)?]
            }
            _ => return Err(format!("`{}` is not a table", path[..depth].join("."))),
        };
    }
    Ok(target)
}

/// The parts of a dotted key, as TOML reads it: bare or quoted. None if it is not a key.
fn key_path(key: &str) -> Option<Vec<String>> {
    let source = format!("{key} = 0");
    let mut table = DeTable::parse(&source).ok()?.into_inner();
    let mut path = Vec::new();
    loop {
        let mut entries = std::mem::take(&mut table).into_iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else { return None };
        path.push(key.into_inner().into_owned());
        match value.into_inner() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// An argument, shortened to what fits an error.
fn shown(argument: &str) -> std::borrow::Cow<'_, str> {
    match argument.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &argument[..end]).into(),
        None => argument.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_takes_toml_values_and_plain_texts() {
        let mut document = Document::parse("x.toml".into(), "a = 1\n[t]\nlist = [{ k = 1 }]\n").unwrap();
        for argument in ["a=2", "t.new.deep=[1, 2]", "t.text=../data", "t.list.0.k=true"] {
            document.set(argument).unwrap();
        }
        let wanted = r#"{"a":2,"t":{"list":[{"k":true}],"new":{"deep":[1,2]},"text":"../data"}}"#;
        assert_eq!(document.value().to_string(), wanted);
        for argument in ["a", "a.b=1", "t.list.7.k=1", "=1"] {
            assert!(document.set(argument).unwrap_err().to_string().contains("--set"), "{argument}");
        }
    }

    #[test]
    fn set_and_the_file_read_keys_and_values_alike() {
        for line in [
            "a = 1",
            "a.b.c = \"x\"",
            "a . b = 1.5e3",
            "\"a.b\".c = [1, 2]",
            "'a b' = { c = 1, d.e = true }",
            "a.0x1f = 0x1f",
            "a = 1979-05-27",
            "a = 1_000",
        ] {
            let mut document = Document::parse("x.toml".into(), "").unwrap();
            document.set(line).unwrap();
            assert_eq!(document.value(), Document::parse("x.toml".into(), line).unwrap().value(), "{line}");
        }
        let mut document = Document::parse("x.toml".into(), "").unwrap();
        for line in ["a..b=1", ".a=1", "a.=1", "[a]=1", "a\nb=1", "# a=1", " =1"] {
            assert!(document.set(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_number_that_no_key_takes_is_shown_as_it_was_written() {
        let mut document = Document::parse("x.toml".into(), "a = 1\n").unwrap();
        let hint = |text| format!("hint: text that reads as a number needs quotes of its own: --set 'a=\"{text}\"'");
        let digits = "99999999999999999999";
        for (argument, what, hint) in [
            ("a=nan", "must be a finite number", hint("nan")),
            ("a=-inf", "must be a finite number", hint("-inf")),
            ("a=[1, { b = +nan }]", "must be a finite number", String::new()),
            ("a=99999999999999999999", "the number does not fit 64 bits", hint(digits)),
        ] {
            let error = document.set(argument).unwrap_err().to_string();
            assert_eq!(error, format!("error: --set {argument}: {what}\n{hint}").trim_end());
        }
        document.set("a=\"nan\"").unwrap();
        document.set("b=nano").unwrap();
        assert_eq!(document.value().to_string(), r#"{"a":"nan","b":"nano"}"#);
    }
}
