//! `fedplug plugin` and `fedplug schema`: what writes, lists and shows plugins.

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

/// What can be done with plugins themselves.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the crate of a new plugin: a small one that builds, passes its tests and runs in an experiment
    ///
    /// The folder KIND-NAME holds Cargo.toml, src/lib.rs with one component and its test, experiment.toml that runs it,
    /// and README.md. What is there is never overwritten. The next commands go to stdout.
    New(New),
    /// List the plugins that are found, folder by folder: which are used, shadowed, or cannot be loaded
    ///
    /// The folders stand in the order in which they are looked through: --plugin-dir, `plugin-path` of the experiment,
    /// the folders of FEDPLUG_PLUGIN_PATH, the folder of fedplug itself, and ../lib/fedplug beside it. The first library
    /// of a kind and name is used. Each library is opened for this, which runs its code.
    List(List),
    /// Show what a plugin is, and each key of its configuration with type, default, bounds and meaning
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// What it is
    #[arg(value_parser = kind())]
    kind: Kind,
    /// The name that experiments will call it by: lowercase letters, digits and hyphens
    name: String,
    /// The folder to put the crate's folder in; made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Depend on plugin-api in this folder [default: that of the checkout which fedplug was built in]
    #[arg(long, value_name = "PATH")]
    plugin_api: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// An experiment whose `plugin-path` is looked through as well
    file: Option<PathBuf>,
    /// Look for plugins here first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
    /// How the list is written
    #[arg(long, value_enum, default_value = "table")]
    format: list::Format,
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The path of a library, or a plugin's name
    #[arg(value_name = "FILE_OR_NAME")]
    plugin: String,
    /// Show the components of this kind only; of a name, find this kind's plugin
    #[arg(long, value_parser = kind())]
    kind: Option<Kind>,
    /// Look for plugins here first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    format: inspect::Format,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The experiment, a TOML file; only its plugins' names need to be right
    file: PathBuf,
    /// Look for plugins here first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
}

impl Command {
    /// Does it, and gives what goes to stdout.
    pub(super) fn execute(self) -> Result<String, CliError> {
        match self {
            Self::New(New { kind, name, output, plugin_api }) => {
                new::new(&new::Options { kind, name, output, plugin_api })
            }
            Self::List(args) => list::list(args.file.as_deref(), &args.plugin_dirs, args.format),
            Self::Inspect(args) => inspect::inspect(&args.plugin, args.kind, &args.plugin_dirs, args.format),
        }
    }
}

impl Schema {
    /// The schema, which goes to stdout.
    pub(super) fn execute(self) -> Result<String, CliError> {
        schema::schema(&self.file, &self.plugin_dirs).map(|schema| format!("{schema:#}\n"))
    }
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(["model", "dataset", "aggregator", "filter"]).map(|word| {
        // The parser before lets no other word pass.
        KINDS.into_iter().find(|kind| kind.to_string() == word).unwrap_or(Kind::Model)
    })
}
