//! `fedplug init`: an experiment for one's own CSV file.
//!
//! It looks at the columns and proposes what to predict and from what. The dataset's plugin decides later what it reads; the
//! proposal only has to be right for usual files, and says what it was made of.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::error::{CliError, Diagnostic};
use crate::experiment::document::nearest;

mod columns;
#[cfg(test)]
mod tests;

use columns::{Column, Columns};

/// Rows that are looked at.
const MOST_ROWS: usize = 10_000;
/// The most clients that a column of names makes.
const MOST_CLIENTS: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The CSV file
    data: PathBuf,
    /// The column to predict [default: a column of numbers with a usual name, or the last one]
    #[arg(long)]
    target: Option<String>,
    /// The columns to predict it from, with commas between them [default: columns of sequences, or those of numbers]
    #[arg(long, value_delimiter = ',')]
    inputs: Vec<String>,
    /// The column with the client of each row, or how many clients to deal the rows to [default: a column such as
    /// `hospital`, or 3]
    #[arg(long)]
    clients: Option<String>,
    /// The model
    #[arg(long, value_enum, default_value_t = ModelName::Linear)]
    model: ModelName,
    /// The experiment's file [default: the data file's name with .toml, in the current directory]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Replace the file
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModelName {
    /// Linear and logistic regression; needs nothing
    Linear,
    /// The AMPLIFY protein language model, here a small one that begins at random; needs libtorch
    Amplify,
}

impl Init {
    /// Writes the experiment and returns what it will do.
    ///
    /// # Errors
    /// If the data cannot be read, has nothing to predict or to predict from, or the file exists.
    pub(super) fn execute(&self) -> Result<String, CliError> {
        let columns = Columns::read(&self.data, MOST_ROWS)?;
        let plan =
            self.plan(&columns).map_err(|report| CliError::usage(report.within(&self.data.display().to_string())))?;
        let stem = self.data.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let output = self.output.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}.toml")));
        let text = plan.document(&stem, &seen_from(&output, &self.data)?, &columns);
        write_new(&output, &text, self.force)?;
        Ok(format!("{}\n{}next: fedplug run {}\n", output.display(), plan.told(), output.display()))
    }

    fn plan(&self, columns: &Columns) -> Result<Plan, Diagnostic> {
        let target = match &self.target {
            Some(name) => columns.named(name)?,
            None => columns.target().ok_or_else(|| {
                Diagnostic::new("no column of numbers to predict").hint("name the column with --target")
            })?,
        };
        let chosen: Vec<&Column> = self.inputs.iter().map(|name| columns.named(name)).collect::<Result<_, _>>()?;
        let clients = match self.clients.as_deref().map(|text| (text, text.parse::<usize>())) {
            Some((_, Ok(0))) => return Err(Diagnostic::new("--clients 0: at least one client is needed")),
            Some((_, Ok(count))) => Clients::Count(count),
            Some((name, Err(_))) => Clients::Column(columns.named(name)?.name.clone()),
            None => columns.clients(target).map_or(Clients::Count(3), |column| Clients::Column(column.name.clone())),
        };
        let taken = |column: &Column| {
            column.name == target.name || matches!(&clients, Clients::Column(name) if *name == column.name)
        };
        let inputs = if chosen.is_empty() { columns.inputs(taken) } else { chosen };
        if let Some(both) = inputs.iter().find(|column| taken(column)) {
            return Err(Diagnostic::new(format!("column `{}` cannot be an input as well", both.name)));
        }
        let (numbers, texts): (Vec<&Column>, Vec<&Column>) = inputs.into_iter().partition(|column| column.is_numeric());
        let names = |columns: Vec<&Column>| columns.into_iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let sequences = !texts.is_empty() && texts.iter().all(|column| column.is_sequence());
        if texts.is_empty() && (numbers.is_empty() || self.model == ModelName::Amplify) {
            return Err(
                Diagnostic::new("no column of sequences to predict from").hint("name the columns with --inputs")
            );
        }
        let classes = match (&target.distinct, target.is_numeric()) {
            (_, true) => None,
            (Some(classes), _) if classes.len() > 1 => Some(classes.clone()),
            _ => {
                let what = format!(
                    "column `{}`: neither numbers nor classes, of which there are 2 to {MOST_CLIENTS}",
                    target.name
                );
                return Err(Diagnostic::new(what).hint("name another column with --target"));
            }
        };
        Ok(Plan {
            target: target.name.clone(),
            classes,
            texts: names(texts),
            numbers: names(numbers),
            sequences,
            clients,
            model: self.model,
        })
    }
}

enum Clients {
    Column(String),
    Count(usize),
}

/// What the experiment will do.
struct Plan {
    target: String,
    /// The classes, if the target is one.
    classes: Option<Vec<String>>,
    texts: Vec<String>,
    numbers: Vec<String>,
    /// Whether all texts are sequences of amino acids.
    sequences: bool,
    clients: Clients,
    model: ModelName,
}

impl Plan {
    fn told(&self) -> String {
        let inputs: Vec<String> = self.texts.iter().chain(&self.numbers).map(|name| format!("`{name}`")).collect();
        let kind = if self.classes.is_some() { "the class" } else { "the number" };
        let clients = match &self.clients {
            Clients::Column(name) => format!("a client for each value of `{name}`"),
            Clients::Count(count) => format!("{count} clients, each with a share of the rows"),
        };
        format!("predicts {kind} `{}` from {}; {clients}\n", self.target, inputs.join(", "))
    }

    fn document(&self, stem: &str, data: &Path, columns: &Columns) -> String {
        let mut text = String::new();
        let name: String =
            stem.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).collect();
        let list =
            |names: &[String]| format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "));
        let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let mut line = |words: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{words}"); // Writing to a string cannot fail.
        };
        line(format_args!(
            "# Made by `fedplug init` for {}, whose columns are: {}",
            data.display(),
            all.join(", ").replace('\n', " ")
        ));
        line(format_args!("#   fedplug check FILE     what would be run, without training"));
        line(format_args!("#   fedplug run FILE       leaves runs/NAME; --resume continues a stopped run"));
        line(format_args!("name = {}", quoted(&name)));
        line(format_args!("seed = 42                        # the same seed gives the same results"));
        line(format_args!(
            "\n[federation]\nrounds = 20\nlocal-epochs = 1                 # passes over its rows by each client in a round"
        ));
        line(format_args!("devices = [\"auto\"]               # a GPU if there is one and the model can use it"));
        line(format_args!("\n[dataset]\nplugin = \"csv\"\nfiles = {}", quoted(&data.to_string_lossy())));
        if !self.texts.is_empty() {
            line(format_args!("inputs = {}", list(&self.texts)));
        }
        if !self.numbers.is_empty() {
            line(format_args!("number-inputs = {}", list(&self.numbers)));
        }
        line(format_args!("target = {}", quoted(&self.target)));
        if let Some(classes) = &self.classes {
            line(format_args!("classes = {}", list(classes)));
        }
        if self.sequences {
            line(format_args!("text = \"sequence\"                # letters of amino acids, in upper case"));
        }
        if columns.delimiter() != b',' {
            line(format_args!("delimiter = {}", quoted(&char::from(columns.delimiter()).to_string())));
        }
        match &self.clients {
            Clients::Column(name) => line(format_args!("clients = {{ column = {} }}", quoted(name))),
            Clients::Count(count) => {
                line(format_args!(
                    "clients = {{ count = {count}, alpha = 1e6 }}   # equal shares; a small alpha makes them unequal"
                ));
            }
        }
        line(format_args!(
            "test-fraction = 0.2              # rows for testing; those with the same inputs stay together"
        ));
        line(format_args!("\n[model]"));
        match self.model {
            ModelName::Linear => line(format_args!(
                "plugin = \"linear\"                # or \"amplify\": fedplug plugin inspect amplify"
            )),
            ModelName::Amplify => line(format_args!(
                "plugin = \"amplify\"\n# A small trunk that begins at random. With a GPU: pretrained = \"chandar-lab/AMPLIFY_120M\"\npretrained = {{ \
                 hidden-size = 32, layers = 2, heads = 4, intermediate-size = 64 }}"
            )),
        }
        line(format_args!("\n[aggregator]\nplugin = \"fedavg\""));
        line(format_args!(
            "\n# Each client keeps its own head, the part that predicts from the shared features.\n# [[filter]]\n# plugin = \
                           \"exclude-params\"\n# at = \"client-output\"\n# containing = \"regressor\""
        ));
        text
    }
}

/// The path of the data in an experiment, which is relative to the experiment's file.
///
/// # Errors
/// If a folder cannot be found.
fn seen_from(experiment: &Path, data: &Path) -> Result<PathBuf, CliError> {
    let folder = experiment.parent().unwrap_or(Path::new(""));
    if data.is_absolute() || folder.as_os_str().is_empty() {
        return Ok(data.to_owned());
    }
    // Without links, so that `..` leads where it seems to.
    let real = |path: &Path| path.canonicalize().map_err(|e| CliError::io(path, "find", &e));
    let (folder, data) = (real(folder)?, real(data)?);
    let common = folder.components().zip(data.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    Ok(up.chain(data.components().skip(common)).collect())
}

/// A TOML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn write_new(path: &Path, text: &str, force: bool) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).create_new(!force);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::usage(
            Diagnostic::new(format!("{}: the file already exists", path.display()))
                .hint("choose another with --output, or replace it with --force"),
        ),
        _ => CliError::io(path, "write the experiment", &e),
    })
}
