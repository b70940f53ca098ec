//! A TOML file as a tree of values that remembers where in the text each key came from.

mod edit;
mod folder;
mod set;
mod walk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use edit::Item;
pub(crate) use folder::FOLDER;
use plugin_api::config::Problem;
use serde_json::Value;
use toml::de::DeTable;
use walk::{Spot, Walk};

use crate::error::{CliError, Diagnostic, Excerpt};

/// A TOML file, with changes of other origin (`--set`, a site's file) applied.
#[derive(Clone, Debug)]
pub struct Document {
    path: String,
    /// The folder of the file; empty if it is the current directory.
    own_folder: PathBuf,
    text: Arc<str>,
    /// The byte at which each line starts.
    lines: Arc<[usize]>,
    value: Value,
    /// The spans of each key and each item of a list.
    spots: BTreeMap<Vec<String>, Spot>,
    /// Where changed values come from, such as `--set a=3`, each with the path of the key that is changed.
    overrides: Vec<(Vec<String>, String)>,
    /// The keys that the command line sets. Paths there are relative to the current directory.
    given: Vec<Vec<String>>,
}

/// The most syntax errors that are reported.
const MOST_ERRORS: usize = 1000;

/// The half of a `key = value` line that a diagnostic points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Key,
    Value,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is not TOML. All syntax errors are reported together.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            let report = Diagnostic::new(format!("{shown}: cannot read the experiment")).cause(&e);
            CliError::usage(if e.kind() == std::io::ErrorKind::NotFound {
                report.hint("the path of an experiment is relative to the current directory")
            } else {
                report
            })
        })?;
        let own_folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { own_folder, ..Self::parse(shown, &text)? })
    }

    /// Parses the text of the file `path`.
    ///
    /// # Errors
    /// If it is not TOML.
    pub fn parse(path: String, text: &str) -> Result<Self, CliError> {
        let text: Arc<str> = text.into();
        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut walk = Walk::default();
        let value = Value::Object(walk.file(table.into_inner()));
        if !errors.is_empty() {
            // Each is looked up in the text, of which a stranger may have written all that is wrong.
            let errors = errors.iter().take(MOST_ERRORS);
            let report = |error: &toml::de::Error| {
                let span = error.span().map(|span| excerpt(&path, &text, span));
                Diagnostic::new(format!("{path}: not valid TOML: {}", error.message().replace('\n', ", ")))
                    .excerpt(span)
            };
            return Err(CliError::usage(errors.map(report).collect::<Vec<_>>()));
        }
        // Of a value of several lines, the first is shown. It is found once, since each item of a long list may be reported.
        for spot in walk.spots.values_mut() {
            let shown = &text[spot.value.clone()];
            spot.value.end = spot.value.start + shown.find(['\n', '\r']).unwrap_or(shown.len());
        }
        let lines = [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let own_folder = Path::new(&path).parent().unwrap_or(Path::new("")).to_owned();
        let (overrides, given) = (Vec::new(), Vec::new());
        let document = Self { path, own_folder, text: text.clone(), lines, value, spots: walk.spots, overrides, given };
        if walk.problems.is_empty() { Ok(document) } else { Err(document.failure(&[], walk.problems)) }
    }

    /// The whole tree.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All problems of the table at `prefix` as one error, each with its line.
    pub fn failure(&self, prefix: &[&str], problems: Vec<Problem>) -> CliError {
        CliError::usage(self.reports(prefix, problems))
    }

    /// The diagnostics of [`failure`](Self::failure), in the order of the file.
    pub fn reports(&self, prefix: &[&str], problems: Vec<Problem>) -> Vec<Diagnostic> {
        let mut placed: Vec<(usize, Diagnostic)> = problems
            .into_iter()
            .map(|problem| {
                let half = if problem.is_of_the_name() { Half::Key } else { Half::Value };
                let key_path: Vec<String> = prefix.iter().map(|&s| s.to_owned()).chain(problem.path).collect();
                let near = key_path.last().and_then(|name| nearest(name, &problem.known));
                let name = named(&key_path.join("."), &problem.message);
                let mut report = self.located(&key_path, Some(&name), half, &problem.message);
                if let Some(near) = near {
                    report = report.hint(format!("did you mean `{near}`?"));
                } else if !problem.known.is_empty() {
                    report = report.hint(format!("known here: {}", problem.known.join(", ")));
                }
                (self.span(&key_path, Half::Key).map_or(usize::MAX, |span| span.start), report)
            })
            .collect();
        placed.sort_by_key(|(start, _)| *start);
        placed.into_iter().map(|(_, report)| report).collect()
    }

    /// A diagnostic about the value of a key, with its line.
    pub fn report(&self, key_path: &[String], message: &str) -> Diagnostic {
        self.located(key_path, Some(&named(&key_path.join("."), message)), Half::Value, message)
    }

    /// A diagnostic about the key `name`, or, without a name, about the table at `key_path`: then a `--set` that changed one
    /// of its keys is not to blame.
    fn located(&self, key_path: &[String], name: Option<&str>, half: Half, message: &str) -> Diagnostic {
        let value = key_path.iter().try_fold(&self.value, |value, step| match value {
            Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get(index)),
            other => other.get(step),
        });
        // A fault of a table is not the fault of one key that was set in it; a fault of a list may be that of an item.
        let whole = name.is_some() && !matches!(value, Some(Value::Object(_)));
        let to_blame = |path: &Vec<String>| key_path.starts_with(path) || (whole && path.starts_with(key_path));
        let name = name.unwrap_or_default();
        if let Some((_, origin)) = self.overrides.iter().rev().find(|(path, _)| to_blame(path)) {
            return Diagnostic::new(format!("{origin}: {message}"));
        }
        match self.span(key_path, half) {
            Some(span) => {
                let line = self.lines.partition_point(|&start| start <= span.start);
                let excerpt = Excerpt { path: self.path.clone(), text: self.text.clone(), line, span };
                Diagnostic::new(format!("{}:{line}: {name}{message}", self.path)).excerpt(Some(excerpt))
            }
            None => Diagnostic::new(format!("{}: {name}{message}", self.path)),
        }
    }

    /// Adds the line of a key's value to a diagnostic.
    pub fn locate(&self, report: Diagnostic, key_path: &[String]) -> Diagnostic {
        let message = report.message().to_owned();
        self.report(key_path, &message).with_details_of(report)
    }

    /// Adds the line of a table to a diagnostic that is about none of its keys.
    pub fn locate_table(&self, report: Diagnostic, key_path: &[String]) -> Diagnostic {
        let message = report.message().to_owned();
        self.located(key_path, None, Half::Key, &message).with_details_of(report)
    }

    /// The span of a key or its value; if the file does not have it, that of the nearest table around it.
    fn span(&self, key_path: &[String], half: Half) -> Option<Range<usize>> {
        let len = (1..=key_path.len()).rev().find(|&len| self.spots.contains_key(&key_path[..len]))?;
        let Spot { key, value } = self.spots.get(&key_path[..len])?;
        // A value that does not follow its key is a table with a header, which is its name.
        if half == Half::Key || len < key_path.len() || value.start < key.end {
            return Some(key.clone());
        }
        Some(value.clone())
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

/// The known name closest to a misspelt one.
pub(crate) fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
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
        let key_path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let message = |report: Diagnostic| report.message().to_owned();
        assert_eq!(message(document.report(&key_path("t.a"), "is bad")), "--set t.a=3: is bad");
        assert_eq!(message(document.report(&key_path("t.b"), "is bad")), "x.toml:3: `t.b`: is bad");
        assert_eq!(message(document.locate_table(Diagnostic::new("is bad"), &key_path("t"))), "x.toml:1: is bad");
    }

    #[test]
    fn the_caret_marks_what_is_wrong() {
        let text = "top = 10\n[t]\nname = \"é\" # why\ninline = { deep = [1, 22] }\nlong = [\n  1,\n]\n[[f]]\nk = 1\n";
        let document = Document::parse("x.toml".into(), text).unwrap();
        let problem = |key_path: &str, message: &str| Problem {
            path: key_path.split('.').map(str::to_owned).collect(),
            message: message.to_owned(),
            known: Vec::new(),
        };
        for (key_path, message, marked) in [
            ("top", "must be less", "10"),
            ("t.name", "must be plain", "\"é\""),
            ("t.name", "unknown key `name`", "name"),
            ("t.inline.deep", "is bad", "[1, 22]"),
            ("t.inline.deep.1", "is bad", "22"),
            ("t.inline", "`more` is missing", "{ deep = [1, 22] }"),
            // Of several lines the first; a table with a header by its name, and so is what the file does not have.
            ("t.long", "is bad", "["),
            ("t", "`more` is missing", "t"),
            ("t.more", "is bad", "t"),
            ("f", "is bad", "f"),
            ("f.0.k", "is bad", "1"),
        ] {
            let text_shown = document.failure(&[], vec![problem(key_path, message)]).to_string();
            let lines: Vec<&str> = text_shown.lines().collect();
            let carets = lines.iter().position(|line| line.contains('^')).unwrap();
            let pairs = lines[carets].chars().zip(lines[carets - 1].chars());
            let under: String = pairs.filter(|(caret, _)| *caret == '^').map(|(_, letter)| letter).collect();
            assert_eq!(under, marked, "{text_shown}");
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
