//! The command line: arguments as they are typed, and what they start.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use plugin_api::Level;

use crate::config::Experiment;
use crate::error::{Failure, Report};
use crate::run::{self, Options};
use crate::run_dir::Existing;

/// Federated learning with plugins: one TOML file, one command.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Show more: plugins' debug lines (-v), everything (-vv)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Show warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment
    ///
    /// Leaves a directory OUTPUT/NAME with models, TensorBoard events, metrics.jsonl and summary.json. Progress and the
    /// closing table go to stderr. Exit code 0: done, 1: the run failed, 2: the command or the file is wrong.
    Run(RunArgs),
    /// Do everything but train: read the file, load the plugins, read the data, make a model
    Check(ExperimentArgs),
}

#[derive(Debug, Args)]
struct ExperimentArgs {
    /// The experiment, a TOML file; paths in it are seen from the current directory
    file: PathBuf,
    /// Change a key of the file: --set federation.rounds=10 --set dataset.root=../data
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Look for plugins here first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// The folder for run directories
    #[arg(short, long, default_value = "runs")]
    output: PathBuf,
    /// Name the run otherwise than the file does
    #[arg(long)]
    name: Option<String>,
    /// How many clients work at the same time; does not change the results [default: by the machine]
    #[arg(long)]
    threads: Option<usize>,
    /// Replace an earlier run of this name
    #[arg(long)]
    force: bool,
    /// Go on with an interrupted run of this name, from its last checkpoint
    #[arg(long, conflicts_with = "force")]
    resume: bool,
}

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => Level::Warn,
        (_, 0) => Level::Info,
        (_, 1) => Level::Debug,
        _ => Level::Trace,
    };
    let options = |args: &ExperimentArgs| Options {
        output: PathBuf::new(),
        existing: Existing::Refuse,
        plugin_folders: args.plugin_dirs.clone(),
        level,
    };
    match cli.command {
        Command::Run(args) => {
            let existing = match (args.force, args.resume) {
                (true, _) => Existing::Replace,
                (_, true) => Existing::Resume,
                _ => Existing::Refuse,
            };
            let options = Options { existing, ..options(&args.experiment) };
            let mut overrides = args.experiment.overrides;
            overrides.extend(args.name.map(|name| format!("name={}", serde_json::Value::from(name))));
            let mut experiment = Experiment::read(&args.experiment.file, &overrides)?;
            if let Some(threads) = args.threads {
                experiment.federation.threads = threads;
            }
            run::run(experiment, &Options { output: args.output, ..options })
        }
        Command::Check(args) => {
            let options = options(&args);
            let text = run::check(Experiment::read(&args.file, &args.overrides)?, &options)?;
            let mut stdout = std::io::stdout().lock();
            let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            written.map_err(|e| Failure::run(Report::new("cannot write to stdout").cause(e)))
        }
    }
}
