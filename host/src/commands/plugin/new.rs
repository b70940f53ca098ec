//! `fedplug plugin new`: creating a crate for a new plugin, or a class in Python.
//!
//! The files are templates next to this one, with placeholders such as `{{name}}`.

mod python;

use std::path::{Path, PathBuf};

use plugin_api::Kind;
use serde_json::Value;

use crate::artefacts::safetensors::write_text;
use crate::error::{CliError, Diagnostic};

const MANIFEST: &str = include_str!("new/manifest.toml");
const CONFORMANCE: &str = include_str!("new/conformance.rs");
const README: &str = include_str!("new/readme.md");
const IGNORE: &str = include_str!("new/ignore");
const EXPERIMENT: &str = include_str!("new/experiment.toml");
const DATA: &str = include_str!("new/data.csv");

/// The plugin to create.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The kind of plugin.
    pub kind: Kind,
    /// The name of the plugin.
    pub name: String,
    /// The parent of the new folder.
    pub output: PathBuf,
    /// The folder of plugin-api; by default the one in the checkout that this program was built in.
    pub plugin_api: Option<PathBuf>,
    /// Whether it is a class in Python.
    pub python: bool,
}

/// Creates the folder `<kind>-<name>` with a small but complete plugin. Returns a message with the files and the next
/// commands.
///
/// # Errors
/// If the name is not valid for a plugin, the folder already exists, or a file cannot be written.
pub(crate) fn new(options: &Options) -> Result<String, CliError> {
    let Options { kind, name, output, .. } = options;
    check_name(*kind, name).map_err(CliError::usage)?;
    let files = match options.python {
        true => python::files(*kind, name),
        false => files(*kind, name, dependencies(options.plugin_api.as_deref()).map_err(CliError::usage)?),
    };
    let folder = create_folder(output, &format!("{kind}-{name}"))?;
    let mut message = format!("{}:", folder.display());
    for (file, text) in files {
        let path = folder.join(&file);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).map_err(|e| CliError::io(parent, "create the folder", &e))?;
        write_text(&path, &text)?;
        message.push_str(&format!(" {file}"));
    }
    let commands = match options.python {
        true => "fedplug check experiment.toml\n  fedplug run experiment.toml",
        false => "cargo test\n  cargo build --release\n  fedplug run experiment.toml --plugin-dir target/release",
    };
    Ok(format!("{message}\n\nIt is a complete plugin. To try it:\n\n  cd {}\n  {commands}\n", folder.display()))
}

/// Creates a folder that does not exist yet.
fn create_folder(parent: &Path, name: &str) -> Result<PathBuf, CliError> {
    let folder = parent.join(name);
    std::fs::create_dir_all(parent).map_err(|e| CliError::io(parent, "create the folder", &e))?;
    std::fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::usage(
            Diagnostic::new(format!("{}: already exists; not overwritten", folder.display()))
                .hint("choose another name, or another folder with --output"),
        ),
        _ => CliError::io(&folder, "create the folder", &error),
    })?;
    Ok(folder)
}

/// The files of the new plugin with their texts.
fn files(kind: Kind, name: &str, dependencies: Dependencies) -> Vec<(String, String)> {
    let code = match kind {
        Kind::Model => include_str!("new/model.rs"),
        Kind::Dataset => include_str!("new/dataset.rs"),
        Kind::Aggregator => include_str!("new/aggregator.rs"),
        Kind::Filter => include_str!("new/filter.rs"),
    };
    let words = [
        ("kind", kind.to_string()),
        ("name", name.to_owned()),
        ("plugin-api", dependencies.plugin_api),
        ("testkit", dependencies.testkit),
        ("crate", format!("{kind}_{}", name.replace('-', "_"))),
        ("check", check(kind).to_owned()),
    ];
    let filled = |text: &str| filled(&words, text);
    let mut files = vec![
        ("Cargo.toml", filled(MANIFEST)),
        ("src/lib.rs", filled(code)),
        ("tests/conformance.rs", filled(CONFORMANCE)),
        ("experiment.toml", filled(&experiment(kind, "plugin = \"{{name}}\""))),
        ("README.md", filled(README)),
        (".gitignore", IGNORE.to_owned()),
    ];
    if kind != Kind::Dataset {
        files.push(("data/binding/made-up.csv", DATA.to_owned()));
    }
    files.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

/// A template with these words in place of the placeholders.
fn filled(words: &[(&str, String)], text: &str) -> String {
    words.iter().fold(text.to_owned(), |text, (word, with)| put(&text, word, with))
}

fn put(text: &str, word: &str, with: &str) -> String {
    text.replace(&format!("{{{{{word}}}}}"), with)
}

/// Checks that the name is valid for a crate, and that the library's file name leads back to it.
fn check_name(kind: Kind, name: &str) -> Result<(), Diagnostic> {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.split('-').all(part) {
        return Err(Diagnostic::new(format!("`{name}`: not a valid plugin name"))
            .hint("use lowercase letters, digits and single hyphens, a letter first: my-median"));
    }
    match name.strip_prefix(&format!("{kind}-")) {
        Some(rest) => Err(Diagnostic::new(format!("`{name}`: the kind is put before the name automatically"))
            .hint(format!("fedplug plugin new {kind} {rest}"))),
        None => Ok(()),
    }
}

/// The package that plugin authors depend on; the test kit is in a folder below it.
const PACKAGE: &str = "fedplug-plugin-api";

/// The sources of plugin-api and the test kit for the manifest: paths, until a registry has them.
struct Dependencies {
    plugin_api: String,
    testkit: String,
}

/// Finds plugin-api and the test kit.
fn dependencies(folder: Option<&Path>) -> Result<Dependencies, Diagnostic> {
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => checkout().ok_or_else(|| {
            Diagnostic::new("the folder `plugin-api` was not found")
                .cause("this program is not in the checkout that it was built in")
                .hint("name the folder `plugin-api` of a checkout with --plugin-api")
        })?,
    };
    let not = || Diagnostic::new(format!("{}: not the folder of plugin-api", folder.display()));
    let folder = folder.canonicalize().map_err(|e| not().cause(e))?;
    is_plugin_api(&folder).map_err(|cause| not().cause(cause))?;
    let path = |folder: PathBuf| folder.to_str().map(|path| format!("path = {}", Value::from(path))).ok_or_else(not);
    Ok(Dependencies { plugin_api: path(folder.clone())?, testkit: path(folder.join("testkit"))? })
}

/// Checks that a folder contains the package that plugin authors depend on.
fn is_plugin_api(folder: &Path) -> Result<(), String> {
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).map_err(|e| e.to_string())?;
    let manifest: Value = toml::from_str(&manifest).map_err(|e| e.message().to_owned())?;
    match manifest["package"]["name"].as_str() {
        Some(PACKAGE) => Ok(()),
        Some(other) => Err(format!("its package is `{other}`, not `{PACKAGE}`")),
        None => Err("its Cargo.toml has no package name".to_owned()),
    }
}

/// The folder of plugin-api in the checkout that this program was built in: found relative to the program, or to its
/// source.
fn checkout() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = program.ancestors().skip(1).chain(source.parent());
    above.find_map(|folder| Some(folder.join("plugin-api")).filter(|folder| is_plugin_api(folder).is_ok()))
}

/// The test kit's check for a plugin of this kind.
fn check(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "testkit::check_model(&component(), &json!({}), &testkit::tasks(&[\"a\", \"b\"])).assert();",
        Kind::Dataset => "testkit::check_dataset(&component(), &json!({ \"rows\": 8 })).assert();",
        Kind::Aggregator => "testkit::check_aggregator(&component(), &json!({})).assert();",
        Kind::Filter => "testkit::check_filter(&component(), &json!({ \"limit\": 1.0 })).assert();",
    }
}

/// An experiment with the new plugin, which `named` names; the other plugins are those that come with fedplug.
fn experiment(new: Kind, named: &str) -> String {
    let flab = "plugin = \"flab\"\nroot = \"data\"\ntasks = [\"binding\"]\nclients = { count = 3, alpha = 10.0 }";
    let tables = [
        (Kind::Dataset, flab, "rows = 64"),
        (Kind::Model, "plugin = \"linear\"", "learning-rate = 0.5"),
        (Kind::Aggregator, "plugin = \"fedavg\"", "weight-by = \"steps\""),
        (Kind::Filter, "", "at = \"client-output\"\nlimit = 1.0"),
    ];
    let fill = |text: String, (kind, usual, keys): (Kind, &str, &str)| {
        let head = if kind == Kind::Filter { "\n[[filter]]\n" } else { "" };
        let own = format!("{head}{named}\n{keys}");
        put(&text, &kind.to_string(), if kind == new { &own } else { usual })
    };
    tables.into_iter().fold(EXPERIMENT.to_owned(), fill).trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_crate_and_a_library_can_have() {
        for name in ["my-median", "a", "krum2", "fed-avg-2"] {
            assert!(check_name(Kind::Aggregator, name).is_ok(), "{name}");
        }
        for name in ["", "My-median", "my_median", "2nd", "-a", "a-", "a--b", "a/b", "..", "über", "aggregator-x"] {
            assert!(check_name(Kind::Aggregator, name).is_err(), "{name}");
        }
        // Words of other kinds are allowed.
        assert!(check_name(Kind::Filter, "model-size").is_ok());
    }
}
