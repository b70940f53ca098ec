//! A plugin that is a class in Python.

use plugin_api::Kind;

use super::{DATA, experiment, filled};

const README: &str = include_str!("python.md");
const IGNORE: &str = "/runs\n__pycache__\n";

/// The files of the new plugin with their texts.
pub(super) fn files(kind: Kind, name: &str) -> Vec<(String, String)> {
    let code = match kind {
        Kind::Model => include_str!("model.py"),
        Kind::Dataset => include_str!("dataset.py"),
        Kind::Aggregator => include_str!("aggregator.py"),
        Kind::Filter => include_str!("filter.py"),
    };
    let script = format!("{}.py", name.replace('-', "_"));
    let class = class(name);
    let words =
        [("kind", kind.to_string()), ("name", name.to_owned()), ("script", script.clone()), ("class", class.clone())];
    let table = format!("plugin = \"python\"\nscript = \"{script}\"\nclass = \"{class}\"");
    // The first line runs the experiment, without a folder of libraries.
    let experiment = filled(&words, &experiment(kind, &table)).replace(" --plugin-dir target/release", "");
    let mut files = vec![
        (script, filled(&words, code)),
        ("experiment.toml".to_owned(), experiment),
        ("README.md".to_owned(), filled(&words, README)),
        (".gitignore".to_owned(), IGNORE.to_owned()),
    ];
    if kind != Kind::Dataset {
        files.push(("data/binding/made-up.csv".to_owned(), DATA.to_owned()));
    }
    files
}

/// The name of the class: `MyModel` for `my-model`.
fn class(name: &str) -> String {
    let part = |part: &str| part[..1].to_uppercase() + &part[1..];
    name.split('-').map(part).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_class_has_a_name_in_capitals() {
        assert_eq!([super::class("my-model"), super::class("krum2")], ["MyModel", "Krum2"]);
    }
}
