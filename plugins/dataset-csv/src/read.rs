//! Reads a task's files.

use std::path::{Path, PathBuf};

use fedplug_tables::{Classes, CsvFile, LetterCounts, RowError, RowPolicy, is_folder_name, require_usable_rows};
use plugin_api::{Context, Error, Result, Source};

use crate::config::{Clients, Config, Text};
use crate::pattern::Pattern;
use crate::row::{RequiredColumns, Row};
use crate::task_plan::{TaskPlan, TestRows};
use crate::task_rows::TaskRows;

/// The name that events use for the server.
const SERVER: &str = "server";

/// Reads a task's files. Returns the usable rows and, for each file, what was skipped.
///
/// # Errors
/// If a pattern matches no file, a file cannot be read, no row is usable, or a client's name cannot name a folder.
pub(crate) fn read(plan: &TaskPlan, config: &Config, ctx: &Context<'_>) -> Result<(TaskRows, Vec<Source>)> {
    let files = all_files(&plan.files_key, &plan.files, config)?;
    let test_files = match &plan.testing {
        TestRows::Files(patterns) => all_files(&plan.test_files_key, patterns, config)?,
        _ => Vec::new(),
    };
    if let Some(twice) = test_files.iter().find(|path| files.contains(path)) {
        let error = Error::config(format!("{} is also one of `files`, whose rows are for training", twice.display()));
        return Err(error.at_key(&plan.test_files_key));
    }
    let mut rows = TaskRows::new(plan);
    let marked = matches!(plan.testing, TestRows::Files(_));
    let all = files.iter().map(|path| (path, false)).chain(test_files.iter().map(|path| (path, true)));
    let read =
        |(path, for_testing): (&PathBuf, bool)| file(path, marked.then_some(for_testing), plan, config, &mut rows, ctx);
    let sources = all.map(read).collect::<Result<Vec<_>>>()?;
    require_usable_rows(&plan.name, &sources).map_err(|error| {
        let texts = plan.texts.iter().map(|name| format!("a text in `{name}`"));
        let number = |name: &String| format!("a finite number in `{name}`");
        let target = plan.target.as_ref().map(|name| match plan.classes {
            Classes::No => number(name),
            _ => format!("a class in `{name}`"),
        });
        let numbers = plan.numbers.iter().map(number).chain(target);
        error.help(format!("a row needs {}", texts.chain(numbers).collect::<Vec<_>>().join(", ")))
    })?;
    rows.sort_classes(plan)?;
    Ok((rows, sources))
}

/// The files that match the patterns, each once, without those that are excluded.
///
/// # Errors
/// If a pattern matches no file, or all files are excluded.
fn all_files(key: &str, patterns: &[Pattern], config: &Config) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let files = pattern.files()?;
        if files.is_empty() {
            // Without `files`, the pattern of the clients names the files.
            let key = if pattern.names_clients() { "clients.pattern" } else { key };
            let error = Error::config(format!("`{pattern}` matches no file")).at_key(key);
            return Err(error.help("paths are relative to the experiment's file"));
        }
        all.extend(files);
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|path| seen.insert(path.clone()));
    let excluded = config.exclude.iter().flat_map(|patterns| &patterns.0).collect::<Vec<_>>();
    all.retain(|path| !path.to_str().is_some_and(|path| excluded.iter().any(|pattern| pattern.matches(path))));
    if all.is_empty() {
        return Err(Error::config(format!("all files of `{key}` are excluded")).at_key("exclude"));
    }
    Ok(all)
}

/// Reads a file's rows into `rows`. `for_testing` says whether they are for testing, if the file decides.
fn file(
    path: &Path,
    for_testing: Option<bool>,
    plan: &TaskPlan,
    config: &Config,
    rows: &mut TaskRows,
    ctx: &Context<'_>,
) -> Result<Source> {
    let client = match &config.clients {
        Clients::Pattern(pattern) => Some(client_of_path(path, pattern)?),
        _ => None,
    };
    let mut file = CsvFile::open(path, config.delimiter, ctx)?;
    let required = RequiredColumns::new(plan, config);
    let names = file.names(&required.names);
    let position = |wanted: &&str| names.iter().position(|name| name == wanted);
    let missing: Vec<&str> = required.names.iter().filter(|name| position(name).is_none()).copied().collect();
    if !missing.is_empty() {
        let reason = file.missing_columns(&names, &missing);
        return Ok(file.skip(reason, ctx));
    }
    let columns: Vec<usize> = required.names.iter().filter_map(position).collect();
    file.check_unique(&names, columns.iter().copied())?;
    rows.begin_file(path.to_owned());
    let policy = RowPolicy { reasons: &required.reasons, allow_short_rows: false, allow_empty: false };
    let mut letters = LetterCounts::default();
    let source = file.rows(policy, ctx, |record| {
        let row = Row::new(record, &columns, &required).map_err(RowError::Skip)?;
        if let Some(client) = row.client {
            check_client(client).map_err(|e| e.in_file(path, record.position().map(csv::Position::line)))?;
        }
        let line = record.position().map_or(0, csv::Position::line);
        rows.push(&row, line, client, for_testing, plan).map_err(|e| e.in_file(path, Some(line)))?;
        if config.text == Text::Sequence {
            letters.add(columns[..required.texts].iter().filter_map(|&column| record.get(column)));
        }
        Ok(())
    })?;
    letters.warn(path, ctx);
    Ok(source)
}

/// The client to which a file belongs.
fn client_of_path<'a>(path: &'a Path, pattern: &Pattern) -> Result<&'a str> {
    let name = path.to_str().and_then(|path| pattern.client(path)).ok_or_else(|| {
        let error = Error::config(format!("{} does not match `{pattern}`", path.display())).at_key("clients.pattern");
        error.help("every file must match the pattern, which says to which client it belongs")
    })?;
    check_client(name).map_err(|e| e.in_file(path, None))?;
    Ok(name)
}

/// Checks that a client can have this name.
///
/// # Errors
/// If it cannot name a folder.
pub(crate) fn check_client(name: &str) -> Result<()> {
    if is_folder_name(name) && name != SERVER {
        return Ok(());
    }
    let help =
        "a client's folder has its name: without `/` and `\\`, not beginning with `.`, not `server`, at most 255 bytes";
    Err(Error::data(format!("`{name}` cannot be the name of a client")).help(help))
}
