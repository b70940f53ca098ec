//! Finds the folders and files of tasks, raw or prepared.

use std::path::{Path, PathBuf};

use fedplug_tables::{is_table_file, list_names, quoted};
use plugin_api::{Context, Error, Result};

/// The folder of each task.
///
/// # Errors
/// If the root or folders of tasks do not exist; all missing ones are named.
pub(crate) fn of_tasks(root: &Path, tasks: &[String]) -> Result<Vec<PathBuf>> {
    if !root.is_dir() {
        let help =
            "`root` in [dataset] is the folder that contains the tasks' folders, relative to the experiment's file";
        return Err(Error::data("no such folder").in_file(root, None).help(help));
    }
    let found: Vec<Option<PathBuf>> = tasks.iter().map(|task| of_task(root, task)).collect();
    let missing: Vec<&str> =
        tasks.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(task, _)| task.as_str()).collect();
    if missing.is_empty() { Ok(found.into_iter().flatten().collect()) } else { Err(not_found(root, &missing)?) }
}

/// Newer checkouts of FLAb call `tm` by its long name.
fn of_task(root: &Path, task: &str) -> Option<PathBuf> {
    let names = [task, if task == "tm" { "thermostability" } else { task }];
    names.into_iter().map(|name| root.join(name)).find(|folder| folder.is_dir())
}

fn not_found(root: &Path, missing: &[&str]) -> Result<Error> {
    let there: Vec<String> = list_names(root, |path| path.is_dir())?;
    let help = match (missing.iter().find_map(|name| near(name, &there)), there.is_empty()) {
        (_, true) => "the folder contains no folders".to_owned(),
        (Some(near), _) => format!("did you mean `{near}`? its folders: {}", quoted(&there)),
        (None, _) => format!("its folders: {}", quoted(&there)),
    };
    let plural = if missing.len() == 1 { "task" } else { "tasks" };
    Ok(Error::data(format!("no folder for {plural} {}", quoted(missing))).in_file(root, None).help(help))
}

/// The CSV files of a folder, sorted by name.
pub(crate) fn csv_files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(list_names(folder, |path| path.is_file() && is_table_file(path))?
        .into_iter()
        .map(|name| folder.join(name))
        .collect())
}

/// Warns of other files and folders in a task's folder, since they may hold measurements that somebody expects to be used.
pub(crate) fn warn_other_files(folder: &Path, ctx: &Context<'_>) -> Result<()> {
    let mut others = list_names(folder, |path| path.is_dir() || !is_table_file(path))?;
    others.iter_mut().filter(|name| folder.join(name.as_str()).is_dir()).for_each(|name| name.push('/'));
    if !others.is_empty() {
        let shown = folder.display();
        ctx.warn(format_args!(
            "{shown}: not read: {}; only `.csv`, `.tsv`, `.gz` and `.zip` files are",
            quoted(&others)
        ));
    }
    Ok(())
}

/// The file of all prepared training rows; [`client_file`] names those of the clients.
pub(crate) const TRAIN: &str = "train_data.csv";
/// The file of prepared test rows.
pub(crate) const TEST: &str = "test_data.csv";

/// The file of a client's training rows; clients are counted from 1.
pub(crate) fn client_file(client: usize) -> String {
    format!("client{client}_{TRAIN}")
}

/// Whether a folder contains prepared data.
fn is_prepared(folder: &Path) -> bool {
    [TRAIN, TEST].iter().all(|name| folder.join(name).is_file())
}

/// The tasks that were prepared with `task-per = "file"` from these folders, named `FOLDER-STEM`, and their own folders.
/// `None` if one of the folders itself exists, or has no such task.
pub(crate) fn of_prepared_files(root: &Path, tasks: &[String]) -> Result<Option<(Vec<String>, Vec<PathBuf>)>> {
    let there = if root.is_dir() { list_names(root, is_prepared)? } else { Vec::new() };
    let mut names = Vec::new();
    if tasks.iter().any(|task| of_task(root, task).is_some()) {
        return Ok(None);
    }
    for task in tasks {
        let of_task = |name: &&String| name.strip_prefix(task.as_str()).is_some_and(|rest| rest.starts_with('-'));
        let before = names.len();
        names.extend(there.iter().filter(of_task).cloned());
        if names.len() == before {
            return Ok(None);
        }
    }
    let folders = names.iter().map(|name| root.join(name)).collect();
    Ok(Some((names, folders)))
}

/// Whether the folders contain prepared data: [`TRAIN`] and [`TEST`].
///
/// # Errors
/// If only some of them do.
pub(crate) fn are_prepared(root: &Path, tasks: &[String], folders: &[PathBuf]) -> Result<bool> {
    let raw: Vec<&String> =
        tasks.iter().zip(folders).filter(|(_, folder)| !is_prepared(folder)).map(|(task, _)| task).collect();
    if raw.is_empty() || raw.len() == tasks.len() {
        return Ok(raw.is_empty());
    }
    let error = Error::data(format!("some tasks are prepared, but not {}", quoted(&raw))).in_file(root, None);
    Err(error.help(format!("a prepared task's folder contains `{TRAIN}` and `{TEST}`; prepare all tasks together")))
}

/// The files of the training rows of `count` clients.
///
/// # Errors
/// If the data was prepared for another number of clients.
pub(crate) fn client_files(folder: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let number = |name: &String| name.strip_prefix("client")?.strip_suffix(TRAIN)?.strip_suffix('_')?.parse().ok();
    let mut there: Vec<usize> = list_names(folder, Path::is_file)?.iter().filter_map(number).collect();
    there.sort_unstable();
    if there.iter().copied().eq(1..=count) {
        return Ok((1..=count).map(|client| folder.join(client_file(client))).collect());
    }
    let message = match there.len() {
        0 => format!("the data was prepared without clients, not for {count}"),
        there => format!("the data was prepared for {there} clients, not for {count}"),
    };
    let help = "prepare the raw data again with this `clients`, or set the `count` for which it was prepared";
    Err(Error::data(message).in_file(folder, None).help(help))
}

/// The most similar of the existing names, if at most a third of the letters differ.
fn near<'a>(name: &str, there: &'a [String]) -> Option<&'a String> {
    let nearest = there.iter().min_by_key(|other| strsim::levenshtein(name, other))?;
    (strsim::levenshtein(name, nearest) <= name.chars().count().div_ceil(3)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_files_are_sorted_and_others_skipped() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.CSV", ".b.csv.swp", "._a.csv", "c.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("d.csv")).unwrap();
        assert_eq!(csv_files(folder.path()).unwrap(), ["a.CSV", "b.csv"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn the_number_of_clients_must_be_that_of_the_prepared_data() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |count| client_files(folder.path(), count).unwrap_err().message().to_owned();
        assert_eq!(problem(2), "the data was prepared without clients, not for 2");
        for name in ["train_data.csv", "client2_train_data.csv", "client1_train_data.csv", "client_train_data.csv"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let expected = ["client1_train_data.csv", "client2_train_data.csv"].map(|name| folder.path().join(name));
        assert_eq!(client_files(folder.path(), 2).unwrap(), expected);
        assert_eq!(problem(1), "the data was prepared for 2 clients, not for 1");
    }

    #[test]
    fn all_tasks_are_prepared_or_none() {
        let root = tempfile::tempdir().unwrap();
        let tasks = ["tm", "binding"].map(str::to_owned);
        let folders = ["tm", "binding"].map(|name| root.path().join(name));
        let prepared = || are_prepared(root.path(), &tasks, &folders);
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join(TRAIN), "").unwrap();
        }
        assert!(!prepared().unwrap());
        std::fs::write(folders[0].join(TEST), "").unwrap();
        assert_eq!(prepared().unwrap_err().message(), "some tasks are prepared, but not `binding`");
        std::fs::write(folders[1].join(TEST), "").unwrap();
        assert!(prepared().unwrap());
    }

    #[test]
    fn tasks_prepared_from_single_files_are_found_unless_the_folders_exist() {
        let root = tempfile::tempdir().unwrap();
        let found = |tasks: &[&str]| {
            let tasks: Vec<String> = tasks.iter().map(|&task| task.to_owned()).collect();
            of_prepared_files(root.path(), &tasks).unwrap().map(|(names, _)| names)
        };
        for name in ["tm-b", "tm-a", "binding-kd"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
            [TRAIN, TEST].iter().for_each(|file| std::fs::write(root.path().join(name).join(file), "").unwrap());
        }
        assert_eq!(found(&["tm", "binding"]).unwrap(), ["tm-a", "tm-b", "binding-kd"]);
        assert_eq!(found(&["tm", "expression"]), None);
        std::fs::create_dir(root.path().join("thermostability")).unwrap();
        assert_eq!(found(&["tm", "binding"]), None);
    }

    #[test]
    fn all_missing_folders_are_named_with_a_similar_one() {
        let root = tempfile::tempdir().unwrap();
        for name in ["binding", "expression", "thermostability"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let tasks =
            |names: &[&str]| of_tasks(root.path(), &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            tasks(&["tm", "binding"]).unwrap(),
            ["thermostability", "binding"].map(|name| root.path().join(name))
        );
        let error = tasks(&["bindin", "expression", "aggregation"]).unwrap_err();
        assert_eq!(error.message(), "no folder for tasks `bindin`, `aggregation`");
        assert_eq!(
            error.hint(),
            Some("did you mean `binding`? its folders: `binding`, `expression`, `thermostability`")
        );
        let gone = of_tasks(&root.path().join("gone"), &[]).unwrap_err();
        assert_eq!(gone.message(), "no such folder");
    }
}
