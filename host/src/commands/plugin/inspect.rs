//! `fedplug plugin inspect`: showing what a plugin says about itself.

use std::fmt::Write as _;
use std::path::PathBuf;

use plugin_api::boundary::root;
use plugin_api::component::Profile;
use plugin_api::{Component, Kind};
use serde_json::{Value, json};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::Document;
use crate::plugins::config_keys::{Key, keys};
use crate::plugins::{Finder, Library};

/// The width of descriptions, in columns.
const WIDTH: usize = 100;

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For other programs, with each component's JSON Schema
    Json,
}

/// Describes the library with this name or path, and its components of one kind or of all kinds. `set` has keys and values
/// of a component whose other keys depend on them.
///
/// # Errors
/// If there is no such library, it cannot be opened, the name is ambiguous, or a component has no schema for these keys.
pub(crate) fn inspect(
    name: &str,
    kind: Option<Kind>,
    set: &[String],
    folders: &[PathBuf],
    format: Format,
) -> Result<String, CliError> {
    let finder = Finder::new(folders, &[]);
    let library = match kind {
        Some(kind) => finder.find(kind, name).map(|(library, _)| library),
        None => finder.named(name).and_then(|libraries| one(name, libraries)),
    };
    let library = library.map_err(CliError::usage)?;
    let mut config = Document::parse("--set".to_owned(), "")?;
    set.iter().try_for_each(|argument| config.set(argument))?;
    let wanted = |component: &&Component| kind.is_none_or(|kind| kind == component.profile().kind);
    let components: Vec<Profile> = library
        .plugin
        .components
        .iter()
        .filter(wanted)
        .map(|component| profile(component, config.value()))
        .collect::<Result<_, _>>()
        .map_err(CliError::usage)?;
    Ok(match format {
        Format::Json => {
            let value = json!({ "library": library.path, "about": library.plugin.about, "components": components });
            format!("{value:#}\n")
        }
        Format::Text => text(&library, &components),
    })
}

fn one(name: &str, mut libraries: Vec<Library>) -> Result<Library, Diagnostic> {
    if let ([_, _, ..], Some(last)) = (&libraries[..], libraries.last()) {
        let known =
            libraries.iter().map(|library| format!("{} ({})", library.plugin.about.package, library.path.display()));
        let report = Diagnostic::new(format!("{} plugins are named `{name}`", libraries.len()))
            .cause(known.collect::<Vec<_>>().join(", "));
        let kind = last.plugin.components.first().map_or(Kind::Model, |component| component.profile().kind);
        return Err(report.hint(format!("choose one with --kind, such as --kind {kind}, or give the library's path")));
    }
    libraries.pop().ok_or_else(|| Diagnostic::new(format!("there is no plugin `{name}`")))
}

/// A component's profile, with the schema for these keys. With it, no key is left that others depend on.
fn profile(component: &Component, config: &Value) -> Result<Profile, Diagnostic> {
    let mut profile = component.profile().clone();
    if profile.schema_by.as_ref().is_some_and(|key| config.get(key).is_some()) {
        let who = format!("{} `{}`", profile.kind, profile.name);
        let schema = component.schema(config).map_err(|error| {
            Diagnostic::from(error).within(&who).hint("choose one of several components with --kind")
        })?;
        (profile.schema, profile.schema_by) = (schema.into_owned(), None);
    }
    Ok(profile)
}

fn text(library: &Library, components: &[Profile]) -> String {
    let about = &library.plugin.about;
    let interface = if about.interface == root::INTERFACE {
        format!("plugin-api {}, like this host", about.interface)
    } else {
        format!("plugin-api {}; this host has {}", about.interface, root::INTERFACE)
    };
    let facts = [
        ("library", library.path.display().to_string()),
        ("authors", about.authors.replace(':', ", ")),
        ("licence", about.license.clone()),
        ("build", about.build.clone()),
        ("interface", interface),
    ];
    let mut text = format!("{} {}\n", about.package, about.version);
    for (what, fact) in facts {
        let fact = if fact.is_empty() { "not told".to_owned() } else { fact };
        let _ = writeln!(text, "  {what:<10} {fact}");
    }
    for profile in components {
        let _ = writeln!(text, "\n{} `{}`: {}", profile.kind, profile.name, profile.about);
        let keys = keys(&profile.schema);
        if keys.is_empty() {
            text.push_str("\n  It has no keys of its own.\n");
        }
        keys.iter().for_each(|key| describe(key, &mut text));
        if let Some(key) = &profile.schema_by {
            let _ = writeln!(text, "\n  Other keys depend on the value of `{key}`.");
        }
    }
    text
}

fn describe(key: &Key, text: &mut String) {
    let default = match &key.default {
        Some(default) => format!(", default {default}"),
        None if key.required => ", required".to_owned(),
        None => ", optional".to_owned(),
    };
    let _ = writeln!(text, "\n  {}: {}{default}", key.name, key.takes);
    wrap(&key.about, "      ", text);
    let widest = key.words.iter().map(|(word, _)| word.chars().count()).max().unwrap_or_default();
    for (word, about) in &key.words {
        let mut lines = String::new();
        wrap(about, &" ".repeat(8 + widest), &mut lines);
        let _ = writeln!(text, "      {word:<widest$}  {}", lines.trim());
    }
}

/// Wraps a text at word boundaries and indents each line.
fn wrap(lines: &str, indent: &str, text: &mut String) {
    for line in lines.lines() {
        let mut width = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if width > 0 && width + 1 + length > WIDTH - indent.len() {
                text.push('\n');
                width = 0;
            }
            text.push_str(if width == 0 { indent } else { " " });
            text.push_str(word);
            width += length + usize::from(width > 0);
        }
        text.push('\n');
    }
}
