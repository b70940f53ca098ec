//! A task's files, row after row.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use fedplug_tables::text::{TextBuffer, is_missing, strip_invisible, trim_invisible};
use fedplug_tables::{
    CsvFile, DecimalMark, LetterCounts, NumberError, RowError, RowPolicy, TaskPer, file_stem, is_folder_name,
    parse_number, require_usable_rows, task_names,
};
use plugin_api::{Column, Context, Error, ORIGIN, Result, Source, Table};

use crate::config::{Clients, Config, Text};
use crate::pattern::Pattern;
use crate::task_plan::{TaskPlan, TestRows};

/// The name that stands for the server among the clients.
const SERVER: &str = "server";

/// The usable rows of a task, in the order in which they were read.
#[derive(Default)]
pub(crate) struct TaskRows {
    texts: Vec<TextBuffer>,
    numbers: Vec<Vec<f32>>,
    target: Vec<f32>,
    /// Whose each is, by the client's number; nothing where rows do not say.
    owners: Vec<usize>,
    /// The clients' numbers.
    clients: BTreeMap<String, usize>,
    /// Whether each is for testing; nothing where rows and files do not say.
    for_testing: Vec<bool>,
    /// The files that were read, and the number of its task among those that files make.
    paths: Vec<(PathBuf, usize)>,
    /// The number of each row's file, and where in it the row begins.
    files: Vec<usize>,
    lines: Vec<u64>,
}

impl TaskRows {
    pub(crate) fn len(&self) -> usize {
        self.target.len()
    }

    /// What is predicted of a row.
    pub(crate) fn target(&self, row: usize) -> f32 {
        self.target[row]
    }

    /// What tells a row's sequence from others: its texts, or its numbers where it has none.
    pub(crate) fn text(&self, row: usize) -> String {
        if self.texts.is_empty() {
            return self.numbers.iter().map(|column| column[row].to_string()).collect::<Vec<_>>().join("|");
        }
        self.texts.iter().map(|column| column.get(row)).collect::<Vec<_>>().join("|")
    }

    /// The number of each row's file.
    pub(crate) fn files(&self) -> &[usize] {
        &self.files
    }

    /// The number of a row's task among the [`tasks`](Self::tasks).
    pub(crate) fn task(&self, row: usize) -> usize {
        self.paths[self.files[row]].1
    }

    /// Where a row came from.
    pub(crate) fn origin(&self, row: usize) -> String {
        format!("{}:{}", self.paths[self.files[row]].0.display(), self.lines[row])
    }

    /// The names of the tasks: that of the plan, or one for each name of a file with usable rows.
    pub(crate) fn tasks(&mut self, plan: &TaskPlan, config: &Config) -> Vec<String> {
        if config.task_per == TaskPer::Folder {
            return vec![plan.name.clone()];
        }
        let mut used = vec![false; self.paths.len()];
        self.files.iter().for_each(|&file| used[file] = true);
        let mut stems: Vec<(String, PathBuf)> = Vec::new();
        for ((path, task), _) in self.paths.iter_mut().zip(used).filter(|(_, used)| *used) {
            let stem = file_stem(path);
            *task = stems.iter().position(|(other, _)| *other == stem).unwrap_or(stems.len());
            if *task == stems.len() {
                stems.push((stem, path.clone()));
            }
        }
        let named = config.name.is_some() || config.task.is_some();
        task_names(named.then_some(&*plan.name), stems.iter().map(|(_, path)| path.as_path()))
    }

    /// Whether each row is for testing, if it is known.
    pub(crate) fn for_testing(&self) -> Option<&[bool]> {
        (!self.for_testing.is_empty()).then_some(&self.for_testing)
    }

    /// The rows of each client, in the order of the clients' names.
    pub(crate) fn of_clients(&self) -> Vec<(&str, Vec<usize>)> {
        let mut rows = vec![Vec::new(); self.clients.len()];
        self.owners.iter().enumerate().for_each(|(row, &owner)| rows[owner].push(row));
        self.clients.iter().map(|(name, &number)| (name.as_str(), std::mem::take(&mut rows[number]))).collect()
    }

    /// The table of these rows, in this order.
    pub(crate) fn table(&self, plan: &TaskPlan, rows: &[usize]) -> Result<Table> {
        let mut table = Table::new();
        for (name, texts) in plan.texts.iter().zip(&self.texts) {
            table = table.with(name, Column::text(rows.iter().map(|&row| texts.get(row))))?;
        }
        let numbers = plan.numbers.iter().zip(&self.numbers);
        for (name, numbers) in numbers.chain([(&plan.target, &self.target)]) {
            table = table.with(name, Column::f32(&rows.iter().map(|&row| numbers[row]).collect::<Vec<_>>()))?;
        }
        table.with(ORIGIN, Column::text(rows.iter().map(|&row| self.origin(row))))
    }

    /// Adds a row of the file that was opened last.
    fn push(&mut self, row: &Row<'_>, line: u64, owner: Option<&str>, for_testing: Option<bool>) {
        self.files.push(self.paths.len() - 1);
        self.lines.push(line);
        self.texts.iter_mut().zip(&row.texts).for_each(|(column, field)| column.push(&[field]));
        let columns = self.numbers.iter_mut().chain([&mut self.target]);
        columns.zip(&row.numbers).for_each(|(column, number)| column.push(*number));
        if let Some(name) = row.client.or(owner) {
            let next = self.clients.len();
            let number = self.clients.get(name).copied().unwrap_or(next);
            if number == next {
                self.clients.insert(name.to_owned(), next);
            }
            self.owners.push(number);
        }
        self.for_testing.extend(row.for_testing.or(for_testing));
    }
}

/// Reads a task's files. The rows come with what was left out of each.
///
/// # Errors
/// If a pattern names no file, a file cannot be read, no row is usable, or a client's name could not name a folder.
pub(crate) fn read(plan: &TaskPlan, config: &Config, ctx: &Context<'_>) -> Result<(TaskRows, Vec<Source>)> {
    let files = all_files(&plan.files_key, &plan.files, config)?;
    let test_files = match &plan.testing {
        TestRows::Files(patterns) => all_files(&plan.test_files_key, patterns, config)?,
        _ => Vec::new(),
    };
    if let Some(twice) = test_files.iter().find(|path| files.contains(path)) {
        let error = Error::config(format!("{} is also one of `files`, whose rows are trained on", twice.display()));
        return Err(error.at_key(&plan.test_files_key));
    }
    let texts = plan.texts.iter().map(|_| TextBuffer::default()).collect();
    let mut rows = TaskRows { texts, numbers: vec![Vec::new(); plan.numbers.len()], ..TaskRows::default() };
    let marked = matches!(plan.testing, TestRows::Files(_));
    let all = files.iter().map(|path| (path, false)).chain(test_files.iter().map(|path| (path, true)));
    let read =
        |(path, for_testing): (&PathBuf, bool)| file(path, marked.then_some(for_testing), plan, config, &mut rows, ctx);
    let sources = all.map(read).collect::<Result<Vec<_>>>()?;
    require_usable_rows(&plan.name, &sources).map_err(|error| {
        let texts = plan.texts.iter().map(|name| format!("a text in `{name}`"));
        let numbers = plan.numbers.iter().chain([&plan.target]).map(|name| format!("a finite number in `{name}`"));
        error.help(format!("a row needs {}", texts.chain(numbers).collect::<Vec<_>>().join(", ")))
    })?;
    Ok((rows, sources))
}

/// The files of the patterns, each once, without those that are excluded.
fn all_files(key: &str, patterns: &[Pattern], config: &Config) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let files = pattern.files()?;
        if files.is_empty() {
            // The pattern of the clients stands for `files` where that is not given.
            let key = if pattern.names_clients() { "clients.pattern" } else { key };
            let error = Error::config(format!("`{pattern}` names no file")).at_key(key);
            return Err(error.help("paths are seen from the current directory"));
        }
        all.extend(files);
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|path| seen.insert(path.clone()));
    let excluded = config.exclude.iter().flat_map(|patterns| &patterns.0).collect::<Vec<_>>();
    all.retain(|path| !path.to_str().is_some_and(|path| excluded.iter().any(|pattern| pattern.fits(path))));
    if all.is_empty() {
        return Err(Error::config(format!("no file of `{key}` is left")).at_key("exclude"));
    }
    Ok(all)
}

/// The columns that a file needs, in the order in which a row is judged.
struct RequiredColumns<'a> {
    /// Those of text, of numbers with the target at their end, of the client, and of what the row is for.
    names: Vec<&'a str>,
    texts: usize,
    numbers: usize,
    client: bool,
    testing: bool,
    /// A reason for each name, that it is missing; for each number, why it is none; and that of the last column.
    reasons: Vec<String>,
    text: Text,
    decimal: DecimalMark,
}

impl<'a> RequiredColumns<'a> {
    fn new(plan: &'a TaskPlan, config: &'a Config) -> Self {
        let client = if let Clients::Column(name) = &config.clients { Some(name) } else { None };
        let testing = if let TestRows::Column(name) = &plan.testing { Some(name) } else { None };
        let numbers = || plan.numbers.iter().chain([&plan.target]);
        let names: Vec<&str> =
            plan.texts.iter().chain(numbers()).chain(client).chain(testing).map(String::as_str).collect();
        let missing = names.iter().map(|name| format!("no `{name}`"));
        let none = numbers().flat_map(|name| NOT_MISSING.map(|lack| lack.reason(name, config.decimal)));
        let neither = testing.map(|name| format!("`{name}` is neither `train` nor `test`"));
        let reasons = missing.chain(none).chain(neither).collect();
        let (texts, numbers) = (plan.texts.len(), plan.numbers.len() + 1);
        let (text, decimal) = (config.text, config.decimal);
        Self { names, texts, numbers, client: client.is_some(), testing: testing.is_some(), reasons, text, decimal }
    }
}

/// Why a field that is there is no number.
const NOT_MISSING: [NumberError; 3] = [NumberError::Censored, NumberError::WrongDecimalMark, NumberError::NotFinite];

/// What one row says.
struct Row<'a> {
    texts: Vec<Cow<'a, str>>,
    numbers: Vec<f32>,
    client: Option<&'a str>,
    for_testing: Option<bool>,
}

impl<'a> Row<'a> {
    /// Judges a row, whose fields stand at these places; an error is the number of the reason.
    fn new(
        record: &'a StringRecord,
        places: &[usize],
        needed: &RequiredColumns<'_>,
    ) -> std::result::Result<Self, usize> {
        let fields: Vec<&str> = places.iter().map(|&place| record.get(place).unwrap_or_default()).collect();
        let (texts, rest) = fields.split_at(needed.texts);
        let texts: Vec<Option<Cow<'_, str>>> = texts.iter().map(|field| needed.text.of(field)).collect();
        let is_there = texts.iter().map(Option::is_some).chain(rest.iter().map(|field| !is_missing(field)));
        if let Some(missing) = is_there.into_iter().position(|there| !there) {
            return Err(missing);
        }
        let (values, rest) = rest.split_at(needed.numbers);
        let mut numbers = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            let reason = |lack| NOT_MISSING.iter().position(|other| *other == lack).unwrap_or_default();
            let lack = |lack| places.len() + i * NOT_MISSING.len() + reason(lack);
            numbers.push(parse_number(value, needed.decimal).map_err(lack)?);
        }
        let client = needed.client.then(|| trim_invisible(rest[0]));
        let for_testing = match rest.last().filter(|_| needed.testing) {
            Some(word) => Some(is_for_testing(word).ok_or(places.len() + values.len() * NOT_MISSING.len())?),
            None => None,
        };
        Ok(Self { texts: texts.into_iter().flatten().collect(), numbers, client, for_testing })
    }
}

/// Reads a file's rows into `rows`.
fn file(
    path: &Path,
    for_testing: Option<bool>,
    plan: &TaskPlan,
    config: &Config,
    rows: &mut TaskRows,
    ctx: &Context<'_>,
) -> Result<Source> {
    let owner = match &config.clients {
        Clients::Pattern(pattern) => Some(owner(path, pattern)?),
        _ => None,
    };
    let mut file = CsvFile::open(path, config.delimiter, ctx)?;
    let needed = RequiredColumns::new(plan, config);
    let names = file.names(&needed.names);
    let place = |wanted: &&str| names.iter().position(|name| name == wanted);
    let missing: Vec<&str> = needed.names.iter().filter(|name| place(name).is_none()).copied().collect();
    if !missing.is_empty() {
        let lack = file.missing_columns(&names, &missing);
        return Ok(file.skip(lack, ctx));
    }
    rows.paths.push((path.to_owned(), 0));
    let places: Vec<usize> = needed.names.iter().filter_map(place).collect();
    let rules = RowPolicy { reasons: &needed.reasons, allow_short_rows: false, allow_empty: false };
    let mut letters = LetterCounts::default();
    let source = file.rows(rules, ctx, |record| {
        let row = Row::new(record, &places, &needed).map_err(RowError::Skip)?;
        if let Some(client) = row.client {
            check_client(client).map_err(|e| e.in_file(path, record.position().map(csv::Position::line)))?;
        }
        let line = record.position().map_or(0, csv::Position::line);
        rows.push(&row, line, owner, for_testing);
        if config.text == Text::Sequence {
            letters.add(places[..needed.texts].iter().filter_map(|&place| record.get(place)));
        }
        Ok(())
    })?;
    letters.warn(path, ctx);
    Ok(source)
}

/// The client whose file this is.
fn owner<'a>(path: &'a Path, pattern: &Pattern) -> Result<&'a str> {
    let name = path.to_str().and_then(|path| pattern.client(path)).ok_or_else(|| {
        let error = Error::config(format!("{} does not fit `{pattern}`", path.display())).at_key("clients.pattern");
        error.help("the pattern says of each file whose it is")
    })?;
    check_client(name).map_err(|e| e.in_file(path, None))?;
    Ok(name)
}

pub(crate) fn check_client(name: &str) -> Result<()> {
    if is_folder_name(name) && name != SERVER {
        return Ok(());
    }
    let help = "a client's name names its folder: without `/` and `\\`, not beginning with `.`, not `server`, of at most 255 bytes";
    Err(Error::data(format!("`{name}` cannot name a client")).help(help))
}

fn is_for_testing(word: &str) -> Option<bool> {
    match strip_invisible(word).to_lowercase().as_str() {
        "test" | "1" | "yes" | "true" => Some(true),
        "train" | "0" | "no" | "false" => Some(false),
        _ => None,
    }
}
