//! The command line: argument parsing and dispatch.

pub(crate) mod compare;
pub(crate) mod plot_errors;
pub(crate) mod predict;
pub(crate) mod prepare;
pub(crate) mod run;
pub(crate) mod schema;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use plugin_api::Level;

use crate::artefacts::run_dir::Existing;
use crate::artefacts::safetensors;
use crate::commands::run::Options;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Experiment, MOST_THREADS};
use crate::terminal::console::Console;
use crate::terminal::stdout;

mod plot;
mod plugin;

/// Federated learning with plugins: one TOML file, one command.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 success, 1 failure, 2 an error in the command line or the experiment, 130 stopped on \
                  request, 141 stdout was closed by its reader"
)]
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
    /// Writes a directory OUTPUT/NAME with models, TensorBoard events, metrics.jsonl and summary.json. Progress and the
    /// final table go to stderr.
    ///
    /// On Ctrl-C, SIGTERM or SIGHUP the run finishes the current epochs, writes a checkpoint and stops; a second signal
    /// stops it at once. A killed process loses the work since its last checkpoint. In both cases --resume continues
    /// the run, with the same results.
    ///
    /// Exit codes: 0 success, 1 the run failed, 2 an error in the command line or the experiment, 130 stopped on request and can be
    /// resumed.
    Run(RunArgs),
    /// Do everything except training: read the file, load the plugins, read the data, create a model
    Check(ExperimentArgs),
    /// Predict values for the rows of a CSV or FASTA file with a trained model
    ///
    /// Writes CSV, one line per row, in the order of the input: all columns of the input (for FASTA: names and
    /// sequences), then TASK_predicted for each task, in the unit of its target.
    Predict(PredictArgs),
    /// Write the data as an experiment will use it, with plots of the clients' sizes
    ///
    /// Needs only the dataset plugin. The paths of all files go to stdout.
    Prepare(PrepareArgs),
    /// Compare finished runs: metrics, time, bytes, memory
    ///
    /// One row per run, with the last values averaged over clients. The score has no unit and is averaged over tasks as
    /// well; metrics belong to one task: the only one, or the one named by --task. The table goes to stdout.
    Compare(CompareArgs),
    /// Draw curves from TensorBoard event files
    ///
    /// One picture per client with one curve per run, as SVG and as PNG (two pixels per pixel of --size). The values
    /// are drawn faintly behind each curve; if there are many, the most extreme one in 200 at either end may lie
    /// outside the plot. The paths of the pictures go to stdout.
    Plot(plot::Plot),
    /// Create, list and inspect plugins
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Write an experiment's JSON Schema, for editors that complete and check TOML
    ///
    /// The schema contains the keys of the plugins that the experiment names, and goes to stdout:
    /// fedplug schema experiment.toml > experiment.schema.json. Editors with Taplo (Even Better TOML in VS Code) use it
    /// if the first line of the experiment is #:schema experiment.schema.json, a path relative to the experiment. Write
    /// it again after choosing another plugin: each table accepts only the plugin that it named at the time, and that
    /// plugin's keys. A table that names no plugin yet accepts anything.
    Schema(plugin::Schema),
}

#[derive(Debug, Args)]
struct ExperimentArgs {
    /// The experiment, a TOML file; paths in it are relative to the current directory
    file: PathBuf,
    /// Override a key of the file: --set federation.rounds=10 --set dataset.root=../data
    ///
    /// Filters are numbered from 0: --set filter.0.at=client-input. Set a table or a list as a whole, in quotes:
    /// --set 'dataset.clients={ count = 6, alpha = 1.0 }'. Anything that is not a TOML value is text.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Search for plugins in this folder first
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
    /// Override the run's name
    #[arg(long)]
    name: Option<String>,
    /// How many clients work at the same time; does not change the results [default: chosen from the number of cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_THREADS)))]
    threads: Option<u32>,
    /// Replace an earlier run of this name; it is kept as NAME.replaced~ until this one finishes
    #[arg(long)]
    force: bool,
    /// Resume an interrupted run of this name from its last checkpoint; everything that its results depend on must be
    /// unchanged
    #[arg(long, conflicts_with = "force")]
    resume: bool,
}

#[derive(Debug, Args)]
struct PredictArgs {
    /// The directory of a finished run, such as runs/quickstart
    run: PathBuf,
    /// The input rows, in a format that the run's dataset reads: a CSV with the columns that the model was trained on,
    /// or FASTA
    ///
    /// If the model reads heavy and light chains, FASTA records are paired by name: ab0_H and ab0_L, ab0|VH and ab0|VL,
    /// ab0 heavy and ab0 kappa. A record may also hold both chains, as HEAVY|LIGHT.
    input: PathBuf,
    /// Predict with this client's own model [default: the best global model]
    #[arg(long)]
    client: Option<String>,
    /// Predict with the global model that was best for this task [default: the one that was best over all tasks]
    #[arg(long, value_name = "TASK", conflicts_with = "client")]
    best_of: Option<String>,
    /// Predict only this task; may be repeated [default: all tasks of the model]
    #[arg(long = "task")]
    tasks: Vec<String>,
    /// Read a column under another name, such as --column heavy=VH; may be repeated
    #[arg(long = "column", value_name = "NAME=OTHER", value_parser = column)]
    columns: Vec<(String, String)>,
    /// The file to write [default: stdout]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long)]
    force: bool,
    /// The device: cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    device: String,
    /// How many threads to compute with
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THREADS)))]
    threads: u32,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    plugin_dirs: Vec<PathBuf>,
}

/// Parses `heavy=VH`.
fn column(text: &str) -> Result<(String, String), String> {
    let sides = text.split_once('=').filter(|(ours, theirs)| !ours.is_empty() && !theirs.is_empty());
    let (ours, theirs) = sides.ok_or("must be the column's usual name, `=` and its name in the file")?;
    Ok((ours.to_owned(), theirs.to_owned()))
}

fn predict(args: PredictArgs, console: &Console) -> Result<(), CliError> {
    let options = predict::Options {
        run: args.run,
        input: args.input,
        client: args.client,
        best_of: args.best_of,
        tasks: args.tasks,
        columns: args.columns,
        device: args.device,
        threads: args.threads as usize,
        plugin_folders: args.plugin_dirs,
    };
    let Some(path) = args.output else {
        let mut output = Piped { stdout: stdout::writer(), closed: false };
        let outcome = predict::predict(&options, console, &mut output);
        return outcome.map(drop).map_err(|failure| if output.closed { CliError::closed_pipe() } else { failure });
    };
    if path.exists() && !args.force {
        let report = Diagnostic::new(format!("{}: the file already exists", path.display()));
        return Err(CliError::usage(report.hint("choose another with --output, or replace it with --force")));
    }
    // Written to a temporary file, which replaces the output once it is complete.
    let part = safetensors::partial(&path);
    let mut file = std::fs::File::create(&part).map_err(|e| CliError::io(&part, "write the predictions", &e))?;
    let count = predict::predict(&options, console, &mut file).inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })?;
    std::fs::rename(&part, &path).map_err(|e| CliError::io(&path, "write the predictions", &e))?;
    console.log(Level::Info, &format!("{count} rows predicted: {}", path.display()));
    Ok(())
}

#[derive(Debug, Args)]
struct PrepareArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    /// The output folder; created if necessary
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace data prepared there earlier; other files are kept
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// Run directories
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Show the metrics of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// The output format
    #[arg(long, value_enum, default_value = "table")]
    format: compare::Format,
}

/// Runs the command.
///
/// # Errors
/// If the command fails.
pub fn execute(cli: Cli) -> Result<(), CliError> {
    stdout::reserve().map_err(|e| CliError::run(Diagnostic::new("cannot reserve stdout").cause(e)))?;
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
            let mut draft = Draft::read(&args.experiment.file, &overrides)?;
            if let Some(threads) = args.threads {
                draft.experiment.federation.threads = threads as usize;
            }
            run::run(draft, &Options { output: args.output, ..options })
        }
        Command::Predict(args) => predict(args, &Console::new(level)),
        Command::Check(args) => {
            let options = options(&args);
            let text = run::check(Draft::read(&args.file, &args.overrides)?, &options)?;
            print(&text)
        }
        Command::Prepare(args) => {
            let options = options(&args.experiment);
            let experiment = Experiment::read(&args.experiment.file, &args.experiment.overrides)?;
            print(&lines(&prepare::prepare(&experiment, &args.output, args.force, &options)?))
        }
        Command::Plugin(command) => print(&command.execute()?),
        Command::Schema(args) => print(&args.execute()?),
        Command::Compare(args) => print(&compare::compare(&args.runs, args.task.as_deref(), args.format)?),
        Command::Plot(args) => print(&lines(&args.execute(&Console::new(level))?)),
    }
}

fn lines(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("{}\n", path.display())).collect()
}

fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = stdout::writer();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => CliError::closed_pipe(),
        _ => CliError::run(Diagnostic::new("cannot write to stdout").cause(e)),
    })
}

/// Stdout, recording whether its reader has closed it.
struct Piped {
    stdout: Box<dyn Write>,
    closed: bool,
}

impl Write for Piped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stdout.write(bytes).inspect_err(|e| self.closed |= e.kind() == ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.flush().inspect_err(|e| self.closed |= e.kind() == ErrorKind::BrokenPipe)
    }
}
