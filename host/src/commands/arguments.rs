//! The arguments of the command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::trained::Options;
use super::{compare, init, keys, plot, plugin, shell};
use crate::error::CliError;
use crate::experiment::config::{Draft, MOST_FOLDS, MOST_THREADS};
use crate::experiment::document::Document;

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
    pub(super) command: Command,
    /// Show more: plugins' debug lines (-v), everything (-vv)
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(super) verbose: u8,
    /// Show warnings and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write an experiment for a CSV file of one's own
    ///
    /// Looks at the columns and proposes what to predict, from what, and whose the rows are; options say otherwise. The
    /// experiment runs as it is, with comments where one may want to change it. Its path and what it does go to stdout.
    Init(init::Init),
    /// Run an experiment
    ///
    /// Writes a directory OUTPUT/NAME with models, TensorBoard events, metrics.jsonl and summary.json. Progress and the
    /// final table go to stderr.
    ///
    /// On Ctrl-C, SIGTERM or SIGHUP the run finishes the current epochs, writes a checkpoint and stops; a second signal
    /// stops it at once. A killed process loses the work since its last checkpoint. In both cases --resume continues
    /// the run, with the same results.
    ///
    /// With --seeds, --folds or a table [repeats] in the file, the experiment is run once for each seed and fold, in
    /// OUTPUT/NAME/seed-1-fold-0 and so on; compare OUTPUT/NAME shows their mean.
    ///
    /// Exit codes: 0 success, 1 the run failed, 2 an error in the command line or the experiment, 130 stopped on request
    /// and can be resumed.
    Run(RunCommand),
    /// Run an experiment with many choices of values, and sort them by their score on rows for validation
    ///
    /// The table [sweep] of the file lists the values: grid = { model = { learning-rate = [0.1, 0.01] } }. Each combination
    /// is a run in OUTPUT/NAME/run-01 and so on. The table of all goes to stdout. It needs rows for validation, such as
    /// validation-fraction = 0.1 in [dataset]: whoever chooses by the test rows measures nothing with them.
    Sweep(SweepArgs),
    /// Run an experiment whose clients are at sites of their own, over Flower's SuperLink
    ///
    /// Waits for the sites that the table federation.sites names, and runs as `fedplug run` does. The sites' data, private
    /// parameters and states stay there.
    Serve(ServeArgs),
    /// Be one site of runs that others serve, until stopped
    ///
    /// The site's file says who the site is, where its data and its device are, and what an experiment may ask for.
    Join(JoinArgs),
    /// Do everything except training: read the file, load the plugins, read the data, create a model
    Check(ExperimentArgs),
    /// Predict values for the rows of a CSV or FASTA file with a trained model
    ///
    /// Writes CSV, one line per row, in the order of the input: all columns of the input (for FASTA: names and
    /// sequences), then TASK_predicted for each task, in the unit of its target.
    Predict(PredictArgs),
    /// Write the vectors that a trained model has for the rows of a CSV or FASTA file
    ///
    /// One vector per row, in the order of the input, as a matrix of 32-bit floats: NumPy's .npy, or .safetensors with
    /// the tensor `vectors`. For the model `amplify` it is the mean of the trunk's normalised hidden states, which its
    /// heads read.
    Embed(EmbedArgs),
    /// Write the data as an experiment will use it, with plots of the clients' sizes
    ///
    /// Needs only the dataset plugin. The paths of all files go to stdout.
    Prepare(PrepareArgs),
    /// Compare finished runs: metrics, time, bytes, memory
    ///
    /// One row per run, with the last values averaged over clients. The score has no unit and is averaged over tasks as
    /// well; metrics belong to one task: the only one, or the one named by --task. The table goes to stdout.
    ///
    /// An experiment that was run with several seeds or folds is one row, with mean and standard deviation. Each further
    /// experiment with the same seeds and folds is compared with the first by a paired t-test.
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
    /// Make the key of a site, or show it
    ///
    /// A site signs what it sends with this key. Its fingerprint, the line for the experiment and the form in which a
    /// SuperLink registers it go to stdout. The file with the private key can be read only by its owner, is never
    /// overwritten, and never leaves the site.
    Keys(keys::Keys),
    /// Write an experiment's JSON Schema, for editors that complete and check TOML
    ///
    /// The schema contains the keys of the plugins that the experiment names, and goes to stdout:
    /// fedplug schema experiment.toml > experiment.schema.json. Editors with Taplo (Even Better TOML in VS Code) use it
    /// if the first line of the experiment is #:schema experiment.schema.json, a path relative to the experiment. Write
    /// it again after choosing another plugin: each table accepts only the plugin that it named at the time, and that
    /// plugin's keys. A table that names no plugin yet accepts anything.
    Schema(plugin::Schema),
    /// Write the completions of a shell
    ///
    /// They go to stdout. For bash: source <(fedplug completions bash), or as a file in
    /// ~/.local/share/bash-completion/completions. For zsh: a file _fedplug in a folder of $fpath. For fish:
    /// ~/.config/fish/completions/fedplug.fish. `make install` installs them.
    Completions(shell::Completions),
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man(shell::Man),
}

#[derive(Debug, Args)]
pub(super) struct ExperimentArgs {
    /// The experiment, a TOML file; paths in it are relative to it
    pub(super) file: PathBuf,
    /// Override a key of the file: --set federation.rounds=10 --set dataset.root=../data
    ///
    /// Filters are numbered from 0: --set filter.0.at=client-input. Set a table or a list as a whole, in quotes:
    /// --set 'dataset.clients={ count = 6, alpha = 1.0 }'. Anything that is not a TOML value is text. Paths are relative to
    /// the current directory.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// The same for what a table of the file sets, such as [sweep]: paths are relative to the file
    #[arg(long = "set-in-file", value_name = "KEY=VALUE", hide = true)]
    pub(super) overrides_in_file: Vec<String>,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    pub(super) plugin_dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RunCommand {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Run the experiment once with each of these seeds: --seeds 1,2,3
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub(super) seeds: Vec<u32>,
    /// Cross-validate: run the experiment once for each of so many folds, for each seed
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..=MOST_FOLDS as i64))]
    pub(super) folds: Option<u32>,
    /// How many runs work at the same time, with --seeds or --folds [default: chosen from the number of cores; 1 on GPUs]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jobs: Option<u32>,
    /// Run the experiment once, although its file has a table [repeats]
    #[arg(long, conflicts_with_all = ["seeds", "folds", "jobs"])]
    pub(super) once: bool,
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// How many runs work at the same time [default: chosen from the number of cores; 1 on GPUs]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jobs: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) experiment: ExperimentArgs,
    /// The folder for run directories
    #[arg(short, long, default_value = "runs")]
    pub(super) output: PathBuf,
    /// Override the run's name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// How many clients work at the same time; does not change the results [default: chosen from the number of cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_THREADS)))]
    pub(super) threads: Option<u32>,
    /// Replace an earlier run of this name; it is kept as NAME.replaced~ until this one finishes
    #[arg(long)]
    pub(super) force: bool,
    /// Resume an interrupted run of this name from its last checkpoint; everything that its results depend on must be
    /// unchanged
    #[arg(long, conflicts_with = "force")]
    pub(super) resume: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// The SuperLink's address, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    pub(super) superlink: String,
    /// The certificate authority that the SuperLink's certificate must come from, in PEM [default: those of the Web]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Allow http to another machine: everyone on the way can read and change what crosses
    #[arg(long)]
    pub(super) insecure: bool,
    /// The file that flower-superlink got as --superexec-auth-secret-file
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,
    /// The app that plain Flower clients run, as `flwr build` packs it: a .fab file
    #[arg(long, value_name = "FILE")]
    pub(super) bundle: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The site's file, TOML
    pub(super) file: PathBuf,
    /// The SuperLink's address, instead of that of the site's file
    #[arg(long, value_name = "URL")]
    pub(super) superlink: Option<String>,
    /// The certificate authority that the SuperLink's certificate must come from, in PEM
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Allow http to another machine: everyone on the way can read and change what crosses
    #[arg(long)]
    pub(super) insecure: bool,
    /// Note that a person has approved the experiment with this SHA-256, and end
    #[arg(long, value_name = "DIGEST")]
    pub(super) approve: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    pub(super) trained: TrainedArgs,
    /// Predict only this task; may be repeated [default: all tasks of the model]
    #[arg(long = "task")]
    pub(super) tasks: Vec<String>,
    /// The file to write [default: stdout]
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    #[command(flatten)]
    pub(super) trained: TrainedArgs,
    /// Read the columns of this task [default: the first of the model]
    #[arg(long)]
    pub(super) task: Option<String>,
    /// The file to write; its extension, .npy or .safetensors, says the format
    #[arg(short, long)]
    pub(super) output: PathBuf,
}

/// A trained model, and rows for it.
#[derive(Debug, Args)]
pub(super) struct TrainedArgs {
    /// The directory of a finished run, such as runs/quickstart
    pub(super) run: PathBuf,
    /// The input rows, in a format that the run's dataset reads: a CSV with the columns that the model was trained on,
    /// or FASTA
    ///
    /// If the model reads heavy and light chains, FASTA records are paired by name: ab0_H and ab0_L, ab0|VH and ab0|VL,
    /// ab0 heavy and ab0 kappa. A record may also hold both chains, as HEAVY|LIGHT.
    pub(super) input: PathBuf,
    /// Use this client's own model [default: the best global model]
    #[arg(long)]
    pub(super) client: Option<String>,
    /// Use the global model that was best for this task [default: the one that was best over all tasks]
    #[arg(long, value_name = "TASK", conflicts_with = "client")]
    pub(super) best_of: Option<String>,
    /// Read a column under another name, such as --column heavy=VH; may be repeated
    #[arg(long = "column", value_name = "NAME=OTHER", value_parser = column)]
    pub(super) columns: Vec<(String, String)>,
    /// Replace the output file if it exists
    #[arg(long)]
    pub(super) force: bool,
    /// The device: cpu, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
    /// How many threads to compute with
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THREADS)))]
    pub(super) threads: u32,
    /// Search for plugins in this folder first
    #[arg(long = "plugin-dir", value_name = "DIR")]
    pub(super) plugin_dirs: Vec<PathBuf>,
}

impl ExperimentArgs {
    /// Reads the file, and sets the keys that the command line overrides.
    pub(super) fn draft(&self) -> Result<Draft, CliError> {
        let mut document = Document::read(&self.file)?;
        self.overrides.iter().try_for_each(|argument| document.set(argument))?;
        self.overrides_in_file.iter().try_for_each(|argument| document.set_in_file(argument).map(drop))?;
        Ok(Draft::of(document))
    }
}

impl TrainedArgs {
    /// The options for these tasks.
    pub(super) fn options(self, tasks: Vec<String>) -> Options {
        let Self { run, input, client, best_of, columns, device, threads, plugin_dirs, .. } = self;
        Options {
            run,
            input,
            client,
            best_of,
            tasks,
            columns,
            device,
            threads: threads as usize,
            plugin_folders: plugin_dirs,
        }
    }
}

/// Parses `heavy=VH`.
fn column(text: &str) -> Result<(String, String), String> {
    let sides = text.split_once('=').filter(|(ours, theirs)| !ours.is_empty() && !theirs.is_empty());
    let (ours, theirs) = sides.ok_or("must be the column's usual name, `=` and its name in the file")?;
    Ok((ours.to_owned(), theirs.to_owned()))
}

#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    #[command(flatten)]
    pub(super) experiment: ExperimentArgs,
    /// The output folder; created if necessary
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: PathBuf,
    /// Replace data prepared there earlier; other files are kept
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Run directories, or directories with several runs of one experiment
    #[arg(required = true, value_name = "RUN")]
    pub(super) runs: Vec<PathBuf>,
    /// Show the metrics of this task
    #[arg(long, value_name = "NAME")]
    pub(super) task: Option<String>,
    /// Show these metrics, such as Spearman,R2; by default the first two that the model reports, and all with --format
    /// csv
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) metrics: Vec<String>,
    /// Sort the runs by this metric of the last global model, by `score`, or by `validation`, the score that chose the best
    /// model; the best first
    #[arg(long, value_name = "METRIC")]
    pub(super) sort: Option<String>,
    /// What follows the mean over several runs of one experiment
    #[arg(long, value_enum, default_value = "sd")]
    pub(super) spread: compare::Spread,
    /// Show only the paired tests between experiments that were run with the same seeds or folds
    #[arg(long)]
    pub(super) paired: bool,
    /// The output format
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: compare::Format,
}
