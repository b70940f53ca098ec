//! `fedplug plugin` and `fedplug schema`.

pub(super) mod inspect;
pub(super) mod list;
pub(super) mod new;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use plugin_api::Kind;

use crate::commands::schema;
use crate::error::CliError;
use crate::plugins::KINDS;

/// The subcommands of `fedplug plugin`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a crate for a new plugin: a small one that builds, passes its tests and runs in an experiment
    ///
    /// The folder KIND-NAME contains Cargo.toml, src/lib.rs with one component and its test, experiment.toml to run it,
    /// and README.md. Existing files are never overwritten. The next commands go to stdout.
    New(New),
    /// List the plugins in each folder: which are used, shadowed, or cannot be loaded
    ///
    /// The folders are listed in search order: --plugin-dir, `plugin-path` of the experiment, the folders of
    /// FEDPLUG_PLUGIN_PATH, the folder of the fedplug executable, and ../lib/fedplug relative to it. The first library
    /// of a kind and name is used. Listing opens each library, which runs its code.
    List(List),
    /// Show a plugin's details, and the type, default, bounds and meaning of each of its configuration keys
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The kind of plugin
    #[arg(value_parser = kind())]
    kind: Kind,
    /// The name of the plugin in experiments: lowercase letters, digits and hyphens
    name: String,
    /// Where to create the crate's folder; created if necessary
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Create a class in Python instead of a crate: a script, experiment.toml and README.md
    #[arg(long)]
    python: bool,
    /// Depend on plugin-api in this folder [default: that of the checkout that fedplug was built in]
    #[arg(long, value_name = "PATH", conflicts_with = "python")]
    plugin_api: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// An experiment whose `plugin-path` is searched as well
    file: Option<PathBuf>,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
    /// The output format
    #[arg(long, value_enum, default_value = "table")]
    format: list::Format,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The path of a library, or the name of a plugin
    #[arg(value_name = "FILE_OR_NAME")]
    plugin: String,
    /// Show only components of this kind; with a name, find the plugin of this kind
    #[arg(long, value_parser = kind())]
    kind: Option<Kind>,
    /// Show the keys for this value of a key, if the keys depend on it: --set script=my_model.py --set class=MyModel
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
    /// The output format
    #[arg(long, value_enum, default_value = "text")]
    format: inspect::Format,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The experiment, a TOML file; only the names of its plugins must be valid
    file: PathBuf,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
}

impl Command {
    /// Runs the subcommand and returns the text for stdout.
    pub(super) fn execute(self) -> Result<String, CliError> {
        match self {
            Self::New(New { kind, name, output, python, plugin_api }) => {
                new::new(&new::Options { kind, name, output, plugin_api, python })
            }
            Self::List(args) => list::list(args.file.as_deref(), &args.plugin_dirs, args.format),
            Self::Inspect(args) => inspect::inspect(&args.plugin, args.kind, &args.set, &args.plugin_dirs, args.format),
        }
    }
}

impl Schema {
    /// The schema as text for stdout.
    pub(super) fn execute(self) -> Result<String, CliError> {
        schema::schema(&self.file, &self.plugin_dirs).map(|schema| format!("{schema:#}\n"))
    }
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(["model", "dataset", "aggregator", "filter"]).map(|word| {
        // The parser above accepts only these words.
        KINDS.into_iter().find(|kind| kind.to_string() == word).unwrap_or(Kind::Model)
    })
}
