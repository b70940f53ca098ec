//! A TOML file as a tree of values in which every key still knows its place in the text.

mod set;
mod walk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use plugin_api::config::Problem;
use serde_json::Value;
use set::shown;
use toml::de::DeTable;
use walk::{Spot, Walk};

use crate::error::{CliError, Diagnostic, Excerpt};

/// A TOML file with the command line's changes.
#[derive(Clone, Debug)]
pub struct Document {
    path: String,
    text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[usize]>,
    value: Value,
    /// Where each key, and each item of a list, stands in the text.
    places: BTreeMap<Vec<String>, Spot>,
    /// The `--set` arguments, with the way to the key that each changes.
    overrides: Vec<(Vec<String>, String)>,
}

/// Of which half of a line a report speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Key,
    Value,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is not TOML; all syntax errors at once.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            let report = Diagnostic::new(format!("{shown}: cannot read the experiment")).cause(&e);
            CliError::usage(if e.kind() == std::io::ErrorKind::NotFound {
                report.hint("is the path right, seen from the current directory?")
            } else {
                report
            })
        })?;
        Self::parse(shown, &text)
    }

    /// Parses a text that came from `path`.
    ///
    /// # Errors
    /// If it is not TOML.
    pub fn parse(path: String, text: &str) -> Result<Self, CliError> {
        let text: Arc<str> = text.into();
        let (table, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            let report = |error: &toml::de::Error| {
                let span = error.span().map(|span| excerpt(&path, &text, span));
                Diagnostic::new(format!("{path}: not valid TOML: {}", error.message().replace('\n', ", ")))
                    .excerpt(span)
            };
            return Err(CliError::usage(errors.iter().map(report).collect::<Vec<_>>()));
        }
        let mut walk = Walk::default();
        let value = Value::Object(walk.table(table.get_ref()));
        let lines = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let document = Self { path, text: text.clone(), lines, value, places: walk.places, overrides: Vec::new() };
        if walk.problems.is_empty() { Ok(document) } else { Err(document.failure(&[], walk.problems)) }
    }

    /// The whole tree.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The text as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Says what is wrong with the table at `prefix`, each problem with its place in the file.
    pub fn failure(&self, prefix: &[&str], problems: Vec<Problem>) -> CliError {
        CliError::usage(self.reports(prefix, problems))
    }

    /// The reports behind [`failure`](Self::failure).
    pub fn reports(&self, prefix: &[&str], problems: Vec<Problem>) -> Vec<Diagnostic> {
        let mut placed: Vec<(usize, Diagnostic)> = problems
            .into_iter()
            .map(|problem| {
                let half = if problem.is_of_the_name() { Half::Key } else { Half::Value };
                let way: Vec<String> = prefix.iter().map(|&s| s.to_owned()).chain(problem.path).collect();
                let near = way.last().and_then(|name| nearest(name, &problem.known));
                let name = named(&way.join("."), &problem.message);
                let mut report = self.placed(&way, Some(&name), half, &problem.message);
                if let Some(near) = near {
                    report = report.hint(format!("did you mean `{near}`?"));
                } else if !problem.known.is_empty() {
                    report = report.hint(format!("known here: {}", problem.known.join(", ")));
                }
                (self.span(&way, Half::Key).map_or(usize::MAX, |span| span.start), report)
            })
            .collect();
        placed.sort_by_key(|(start, _)| *start);
        placed.into_iter().map(|(_, report)| report).collect()
    }

    /// A report about the value of the key at the end of `way`, with its place.
    pub fn report(&self, way: &[String], message: &str) -> Diagnostic {
        self.placed(way, Some(&named(&way.join("."), message)), Half::Value, message)
    }

    /// A report about a key, by its name, or without one about the table at the end of `way`: then an argument that
    /// changed one key of it may have nothing to do with it.
    fn placed(&self, way: &[String], name: Option<&str>, half: Half, message: &str) -> Diagnostic {
        let value = way.iter().try_fold(&self.value, |value, step| match value {
            Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
            other => other.get(step),
        });
        // What is wrong with a table is none of the key's that was set in it, and a list is what its items are.
        let whole = name.is_some() && !matches!(value, Some(Value::Object(_)));
        let to_blame = |path: &Vec<String>| way.starts_with(path) || (whole && path.starts_with(way));
        let name = name.unwrap_or_default();
        if let Some((_, argument)) = self.overrides.iter().rev().find(|(path, _)| to_blame(path)) {
            return Diagnostic::new(format!("--set {}: {message}", shown(argument)));
        }
        match self.span(way, half) {
            Some(span) => {
                let line = self.lines.partition_point(|&start| start <= span.start);
                let excerpt = Excerpt { path: self.path.clone(), text: self.text.clone(), line, span };
                Diagnostic::new(format!("{}:{line}: {name}{message}", self.path)).excerpt(Some(excerpt))
            }
            None => Diagnostic::new(format!("{}: {name}{message}", self.path)),
        }
    }

    /// Puts the place of the value of the key at the end of `way` to a report.
    pub fn place(&self, report: Diagnostic, way: &[String]) -> Diagnostic {
        let message = report.message().to_owned();
        self.report(way, &message).with_details_of(report)
    }

    /// Puts the place of the table at the end of `way` to a report that is about no key of it.
    pub fn place_table(&self, report: Diagnostic, way: &[String]) -> Diagnostic {
        let message = report.message().to_owned();
        self.placed(way, None, Half::Key, &message).with_details_of(report)
    }

    /// Where the key at the end of `way` or its value stands; where it stands nowhere, the nearest table around it does.
    fn span(&self, way: &[String], half: Half) -> Option<Range<usize>> {
        let len = (1..=way.len()).rev().find(|&len| self.places.contains_key(&way[..len]))?;
        let Spot { key, value } = self.places.get(&way[..len])?;
        // What is no value behind its key is a table with a line of its own, which is its name.
        if half == Half::Key || len < way.len() || value.start < key.end {
            return Some(key.clone());
        }
        // Of a value of several lines the first is enough.
        let text = &self.text[value.clone()];
        Some(value.start..value.start + text.find(['\n', '\r']).unwrap_or(text.len()))
    }
}

fn excerpt(path: &str, text: &Arc<str>, span: Range<usize>) -> Excerpt {
    let line = text[..span.start].matches('\n').count() + 1;
    Excerpt { path: path.to_owned(), text: text.clone(), line, span }
}

/// The key before the message, unless the message names it already.
fn named(key: &str, message: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or_default();
    if key.is_empty() || message.contains(&format!("`{last}`")) { String::new() } else { format!("`{key}`: ") }
}

/// The known name that the given one is most likely meant to be.
pub fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    let close =
        |candidate: &&str| strsim::damerau_levenshtein(name, candidate) <= 1 + name.len().min(candidate.len()) / 4;
    known.iter().map(AsRef::as_ref).filter(close).min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_blamed_for_its_key_and_not_for_the_whole_table() {
        let mut document = Document::parse("x.toml".into(), "[t]\na = 1\nb = 2\n").unwrap();
        document.set("t.a=3").unwrap();
        let way = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let told = |report: Diagnostic| report.message().to_owned();
        assert_eq!(told(document.report(&way("t.a"), "is bad")), "--set t.a=3: is bad");
        assert_eq!(told(document.report(&way("t.b"), "is bad")), "x.toml:3: `t.b`: is bad");
        assert_eq!(told(document.place_table(Diagnostic::new("is bad"), &way("t"))), "x.toml:1: is bad");
    }

    #[test]
    fn the_caret_stands_under_what_is_wrong() {
        let text = "top = 10\n[t]\nname = \"é\" # why\ninline = { deep = [1, 22] }\nlong = [\n  1,\n]\n[[f]]\nk = 1\n";
        let document = Document::parse("x.toml".into(), text).unwrap();
        let problem = |way: &str, message: &str| Problem {
            path: way.split('.').map(str::to_owned).collect(),
            message: message.to_owned(),
            known: Vec::new(),
        };
        for (way, message, marked) in [
            ("top", "must be less", "10"),
            ("t.name", "must be plain", "\"é\""),
            ("t.name", "unknown key `name`", "name"),
            ("t.inline.deep", "is bad", "[1, 22]"),
            ("t.inline.deep.1", "is bad", "22"),
            ("t.inline", "`more` is missing", "{ deep = [1, 22] }"),
            // Of several lines the first; a table with a line of its own by its name, and so what stands nowhere.
            ("t.long", "is bad", "["),
            ("t", "`more` is missing", "t"),
            ("t.more", "is bad", "t"),
            ("f", "is bad", "f"),
            ("f.0.k", "is bad", "1"),
        ] {
            let told = document.failure(&[], vec![problem(way, message)]).to_string();
            let lines: Vec<&str> = told.lines().collect();
            let carets = lines.iter().position(|line| line.contains('^')).unwrap();
            let pairs = lines[carets].chars().zip(lines[carets - 1].chars());
            let under: String = pairs.filter(|(caret, _)| *caret == '^').map(|(_, letter)| letter).collect();
            assert_eq!(under, marked, "{told}");
        }
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["rounds", "local-epochs", "devices"];
        assert_eq!(nearest("round", &known), Some("rounds"));
        assert_eq!(nearest("local-epoch", &known), Some("local-epochs"));
        assert_eq!(nearest("x", &known), None);
    }
}
