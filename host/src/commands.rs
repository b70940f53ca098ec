//! The commands.

pub(crate) mod batch;
pub(crate) mod batch_folder;
pub(crate) mod compare;
pub(crate) mod embed;
pub(crate) mod join;
pub(crate) mod plot_errors;
pub(crate) mod predict;
pub(crate) mod prepare;
pub(crate) mod repeat;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod sweep;
pub(crate) mod trained;

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use plugin_api::Level;

use crate::artefacts::run_dir::Existing;
use crate::artefacts::safetensors;
use crate::commands::run::Options;
use crate::error::{CliError, Diagnostic};
use crate::experiment::config::{Draft, Repeats};
use crate::sites::superlink::Link;
use crate::terminal::console::Console;
use crate::terminal::stdout;

mod arguments;
mod init;
mod keys;
mod plot;
mod plugin;
mod shell;

pub use arguments::Cli;
use arguments::{
    Command, CompareArgs, EmbedArgs, ExperimentArgs, JoinArgs, PredictArgs, RunArgs, RunCommand, ServeArgs, SweepArgs,
};

fn predict(args: PredictArgs, console: &Console) -> Result<(), CliError> {
    let PredictArgs { trained, tasks, output } = args;
    let (force, options) = (trained.force, trained.options(tasks));
    let Some(path) = output else {
        let mut output = Piped { stdout: stdout::writer(), closed: false };
        let outcome = predict::predict(&options, console, &mut output);
        return outcome.map(drop).map_err(|failure| if output.closed { CliError::closed_pipe() } else { failure });
    };
    let count = to_file(&path, force, "write the predictions", |file| predict::predict(&options, console, file))?;
    console.log(Level::Info, &format!("{count} rows predicted: {}", path.display()));
    Ok(())
}

fn embed(args: EmbedArgs, console: &Console) -> Result<(), CliError> {
    let EmbedArgs { trained, task, output: path } = args;
    let (force, options) = (trained.force, trained.options(task.into_iter().collect()));
    let format = embed::Format::of(&path)?;
    let (rows, size) =
        to_file(&path, force, "write the vectors", |file| embed::embed(&options, format, console, file))?;
    console.log(Level::Info, &format!("{rows} vectors of {size} numbers: {}", path.display()));
    Ok(())
}

/// Calls `write` with a temporary file, which replaces the output once it is complete.
fn to_file<T>(
    path: &Path,
    force: bool,
    what: &str,
    write: impl FnOnce(&mut File) -> Result<T, CliError>,
) -> Result<T, CliError> {
    if path.exists() && !force {
        let report = Diagnostic::new(format!("{}: the file already exists", path.display()));
        return Err(CliError::usage(report.hint("choose another with --output, or replace it with --force")));
    }
    let part = safetensors::partial(path);
    let mut file = File::create(&part).map_err(|e| CliError::io(&part, what, &e))?;
    let written = write(&mut file).inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })?;
    std::fs::rename(&part, path).map_err(|e| CliError::io(path, what, &e))?;
    Ok(written)
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
    match cli.command {
        Command::Run(args) => run(args, level),
        Command::Sweep(args) => sweep(args, level),
        Command::Serve(args) => serve(args, level),
        Command::Join(args) => join(args, level),
        Command::Predict(args) => predict(args, &Console::new(level)),
        Command::Embed(args) => embed(args, &Console::new(level)),
        Command::Check(args) => {
            let options = options(&args, level);
            print(&run::check(args.draft()?, &options)?)
        }
        Command::Prepare(args) => {
            let options = options(&args.experiment, level);
            let experiment = args.experiment.draft()?.whole()?;
            print(&lines(&prepare::prepare(&experiment, &args.output, args.force, &options)?))
        }
        Command::Plugin(command) => print(&command.execute()?),
        Command::Schema(args) => print(&args.execute()?),
        Command::Init(args) => print(&args.execute()?),
        Command::Keys(args) => print(&args.execute()?),
        Command::Completions(args) => print(&args.execute()),
        Command::Man(args) => print(&lines(&args.execute()?)),
        Command::Compare(CompareArgs { runs, task, metrics, sort, spread, paired, format }) => {
            let options = compare::Options { runs, task, metrics, sort, spread, paired, format };
            print(&compare::compare(&options)?)
        }
        Command::Plot(args) => print(&lines(&args.execute(&Console::new(level))?)),
    }
}

/// The options that do not write a run directory.
fn options(args: &ExperimentArgs, level: Level) -> Options {
    let plugin_folders = args.plugin_dirs.clone();
    Options { output: PathBuf::new(), existing: Existing::Refuse, plugin_folders, level }
}

fn serve(args: ServeArgs, level: Level) -> Result<(), CliError> {
    let ServeArgs { run, superlink, ca, insecure, secret_file, bundle } = args;
    let reach = serve::Reach { link: Link { url: superlink, ca, insecure }, secret: secret_file, bundle };
    let (draft, options) = run_options(run, level)?;
    if !draft.experiment.repeats.is_empty() {
        let report = Diagnostic::new("`repeats`: a run over sites is not repeated");
        return Err(CliError::usage(report.hint("remove the table, and serve one run for each seed")));
    }
    serve::serve(draft, &options, &reach)
}

fn join(args: JoinArgs, level: Level) -> Result<(), CliError> {
    let JoinArgs { file, superlink, ca, insecure, approve } = args;
    match approve {
        Some(digest) => join::approve(&file, &digest),
        None => join::join(&join::Options { file, superlink, ca, insecure, level }),
    }
}

fn run(args: RunCommand, level: Level) -> Result<(), CliError> {
    let RunCommand { run, seeds, folds, jobs, once } = args;
    let arguments = arguments_of_all(&run.experiment, level);
    let (draft, options) = run_options(run, level)?;
    let of_file = &draft.experiment.repeats;
    let repeats = Repeats {
        seeds: if seeds.is_empty() { of_file.seeds.clone() } else { seeds },
        folds: folds.map(|folds| folds as usize).or(of_file.folds),
    };
    if once || repeats.is_empty() || !draft.is_whole() {
        return run::run(draft, &options);
    }
    let Options { output, existing, .. } = options;
    let options = repeat::Options { arguments, output, existing, jobs: jobs.map(|jobs| jobs as usize), level };
    repeat::run(&draft.experiment, &repeats, &options)
}

fn sweep(args: SweepArgs, level: Level) -> Result<(), CliError> {
    let SweepArgs { run, jobs } = args;
    let arguments = arguments_of_all(&run.experiment, level);
    let (draft, Options { output, existing, .. }) = run_options(run, level)?;
    let options = repeat::Options { arguments, output, existing, jobs: jobs.map(|jobs| jobs as usize), level };
    print(&sweep::sweep(&draft.whole()?, &options)?)
}

/// The arguments that all runs of an experiment have in common.
fn arguments_of_all(args: &ExperimentArgs, level: Level) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![args.file.clone().into()];
    args.overrides.iter().for_each(|set| arguments.extend(["--set".into(), set.into()]));
    args.plugin_dirs.iter().for_each(|folder| arguments.extend(["--plugin-dir".into(), folder.into()]));
    arguments.extend(match level {
        Level::Debug => Some("-v".into()),
        Level::Trace => Some("-vv".into()),
        _ => None,
    });
    arguments
}

/// The experiment and the options of a run.
fn run_options(args: RunArgs, level: Level) -> Result<(Draft, Options), CliError> {
    let existing = match (args.force, args.resume) {
        (true, _) => Existing::Replace,
        (_, true) => Existing::Resume,
        _ => Existing::Refuse,
    };
    let options = Options { existing, output: args.output, ..options(&args.experiment, level) };
    let mut experiment = args.experiment;
    experiment.overrides.extend(args.name.map(|name| format!("name={}", serde_json::Value::from(name))));
    let mut draft = experiment.draft()?;
    if let Some(threads) = args.threads {
        draft.experiment.federation.threads = threads as usize;
    }
    Ok((draft, options))
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
