//! Checks for datasets.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::folder::Folder;
use super::subject::{OTHER_SEED, SEED, Subject, context};
use super::verdict::{Found, Verdict, fail, no_panic, refused, same, skip, told};
use super::watcher::Watcher;
use super::{compare, memory};
use plugin_api::{
    Column, Component, Context, Dataset, Description, ErrorKind, Result, Table, TargetKind, Task, TaskSpec,
};

/// The checks for a dataset, and their inputs.
#[derive(Clone, Debug)]
#[must_use = "nothing is checked before `check` is called"]
pub struct DatasetCheck {
    subject: Subject,
    rows: Option<PathBuf>,
}

/// The checks that need a working `describe` and `load`.
const NAMES: [&str; 9] =
    ["tables", "same-seed", "another-seed", "unknown-client", "prepare", "rows", "cancellation", "logging", "memory"];

/// A loaded client: its name and tasks.
type Loaded = Vec<(String, Vec<Task>)>;

impl DatasetCheck {
    /// Checks this component with this configuration, which must refer to data.
    pub fn new(component: &Component, config: &Value) -> Self {
        Self { subject: Subject::new(component, config), rows: None }
    }

    /// Uses this file of rows without targets, such as a user wants predicted.
    pub fn with_rows(mut self, file: impl Into<PathBuf>) -> Self {
        self.rows = Some(file.into());
        self
    }

    /// Runs the checks in order.
    pub fn check(&self) -> Verdict {
        self.subject.verdict(|verdict| {
            let made = "the host makes one instance";
            let works = verdict.run("new", made, || Ok(self.make(SEED).map(drop)?))
                && verdict.run("describe", "names become folders and tags, and counts go into the manifest", || {
                    self.describe()
                })
                && verdict.run("load", "a client would train on other data than the manifest says", || self.load());
            if works {
                self.rest(verdict);
            } else {
                verdict.skip(&NAMES, "the calls before it have to work");
            }
        })
    }

    fn rest(&self, verdict: &mut Verdict) {
        let mut run = |name, why, check: &dyn Fn(&Self) -> Found| verdict.run(name, why, || check(self));
        run("tables", "a model would miss a column, or learn from NaN", &Self::tables);
        run("same-seed", "an experiment could not be reproduced", &|this| this.repeated(SEED));
        run("another-seed", "the seed is the user's to choose", &|this| this.repeated(OTHER_SEED));
        run("unknown-client", "a mistyped client must be reported, not end the process", &Self::unknown_client);
        run("prepare", "other programs read the files that it names", &Self::prepare);
        run("rows", "each row of a user's file gets its prediction", &Self::predicted_rows);
        run("cancellation", "a user who stops a run would wait until all is read", &Self::cancellation);
        run("logging", "the lines would bury all others", &Self::logging);
        verdict.watch(|| self.memory());
    }

    fn make(&self, seed: u64) -> Result<Box<dyn Dataset>> {
        let watcher = Watcher::new();
        self.subject.component.new_dataset(&self.subject.config, &context(&watcher, seed))
    }

    /// Everything that an experiment with this seed sees.
    fn all(&self, seed: u64, watcher: &Watcher) -> Result<(Description, Loaded)> {
        let (mut dataset, ctx) = (self.make(seed)?, context(watcher, seed));
        let description = dataset.describe(&ctx)?;
        let load = |client: &plugin_api::ClientSpec| {
            Ok((client.name.clone(), dataset.load(&client.name, &ctx.clone().with_client(&client.name))?))
        };
        let loaded = description.clients.iter().map(load).collect::<Result<_>>()?;
        Ok((description, loaded))
    }

    fn describe(&self) -> Found {
        let (watcher, mut dataset) = (Watcher::new(), self.make(SEED)?);
        let ctx = context(&watcher, SEED);
        let description = dataset.describe(&ctx)?;
        let Description { tasks, clients, sources, .. } = &description;
        if clients.is_empty() || tasks.is_empty() {
            return fail("at least one client and one task", format!("{} and {}", clients.len(), tasks.len()));
        }
        let twice = |names: &[&str]| {
            names.iter().enumerate().find(|(k, name)| names[..*k].contains(name)).map(|(_, n)| (*n).to_owned())
        };
        let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        if let Some(name) = twice(&names) {
            return fail("each task once", format!("two tasks are named {name:?}"));
        }
        let wrong = |task: &&TaskSpec| {
            let no_target = task.target_kind == TargetKind::None;
            task.name.is_empty() || task.inputs.is_empty() || task.target.is_empty() != no_target
        };
        if let Some(task) = tasks.iter().find(wrong) {
            return fail("tasks with a name, input columns and a target, or none", format!("{task:?}"));
        }
        let plain = |name: &str| {
            !(name.is_empty() || name == "server" || name.starts_with('.') || name.contains(['/', '\\', '\0']))
        };
        let found: Vec<&str> = clients.iter().map(|client| client.name.as_str()).collect();
        if let Some(name) = found.iter().find(|name| !plain(name)) {
            return fail("names of clients that can name a folder, and none is `server`", format!("{name:?}"));
        }
        if let Some(name) = twice(&found) {
            return fail("each client once", format!("two clients are named {name:?}"));
        }
        for client in clients {
            let places: Vec<_> =
                client.tasks.iter().map(|task| names.iter().position(|name| *name == task.name)).collect();
            if places.iter().any(Option::is_none) || !places.is_sorted_by(|a, b| a < b) {
                let expected =
                    format!("client `{}` to have tasks of the dataset, in its order: {names:?}", client.name);
                return fail(expected, format!("{:?}", client.tasks.iter().map(|task| &task.name).collect::<Vec<_>>()));
            }
        }
        let hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(source) = sources.iter().find(|source| !hash(&source.sha256)) {
            return fail("64 hexadecimal digits of SHA-256 for each file", format!("{source:?}"));
        }
        let again = dataset.describe(&ctx)?;
        same(
            "the same when it is asked twice",
            (again != description).then(|| format!("{again:?}, and was {description:?}")),
        )
    }

    fn load(&self) -> Found {
        let (description, loaded) = self.all(SEED, &Watcher::new())?;
        for (client, (name, tasks)) in description.clients.iter().zip(&loaded) {
            let described: Vec<_> =
                client.tasks.iter().map(|t| (t.name.as_str(), t.train, t.test, t.validation)).collect();
            let came = tasks.iter().map(|task| {
                let validation = task.validation_rows()?.len();
                Ok((task.spec.name.as_str(), task.train.rows() - validation, task.test.rows(), validation))
            });
            let came: Vec<_> = came.collect::<Result<_>>()?;
            if described != came {
                let rows = "as task, train, test and validation rows";
                let expected = format!("client `{name}` to get what `describe` says, {rows}: {described:?}");
                return fail(expected, format!("{came:?}"));
            }
            if let Some(task) = tasks.iter().find(|task| !description.tasks.contains(&task.spec)) {
                return fail("the tasks as `describe` has them", format!("client `{name}` gets {:?}", task.spec));
            }
        }
        Ok(())
    }

    fn tables(&self) -> Found {
        let (_, loaded) = self.all(SEED, &Watcher::new())?;
        for (client, task) in loaded.iter().flat_map(|(client, tasks)| tasks.iter().map(move |task| (client, task))) {
            for (which, table) in [("train", &task.train), ("test", &task.test)] {
                let place = format!("client `{client}`, task `{}`, {which} table", task.spec.name);
                let columns = || format!("columns {:?}", table.columns().map(|(name, _)| name).collect::<Vec<_>>());
                if let Some(name) = task.spec.inputs.iter().find(|name| table.column(name).is_none()) {
                    return fail(format!("{place}: the input column `{name}`, even without a row"), columns());
                }
                if task.spec.target_kind == TargetKind::None {
                    continue;
                }
                let target = &task.spec.target;
                let wanted = match (&task.spec.target_kind, table.column(target)) {
                    (_, None) => return fail(format!("{place}: the target `{target}`, even without a row"), columns()),
                    (TargetKind::Number, Some(Column::F32(_)))
                    | (TargetKind::Class(_), Some(Column::I64(_) | Column::Text(_)))
                    | (TargetKind::Numbers(_), Some(Column::List(_))) => "",
                    (TargetKind::Number, _) => "f32",
                    (TargetKind::Class(_), _) => "i64 or text",
                    _ => "lists",
                };
                if !wanted.is_empty() {
                    return fail(format!("{place}: the target `{target}` as {wanted}"), "another type");
                }
                let numbers = table.column(target).map(Column::numbers).unwrap_or_default();
                if let Some(row) = numbers.iter().position(|x| !x.is_finite()) {
                    let expected = format!("{place}: finite targets; rows without one are to be skipped and counted");
                    return fail(expected, format!("{} in row {row}", numbers[row]));
                }
            }
        }
        Ok(())
    }

    fn repeated(&self, seed: u64) -> Found {
        let [first, second] = [self.all(seed, &Watcher::new())?, self.all(seed, &Watcher::new())?];
        let expected = "two instances with the same seed to describe and load the same";
        same(expected, (first.0 != second.0).then(|| format!("{:?}, and was {:?}", second.0, first.0)))?;
        let differs = first
            .1
            .iter()
            .zip(&second.1)
            .find_map(|((name, a), (_, b))| compare::tasks(a, b).map(|what| format!("client `{name}`: {what}")));
        same(expected, differs)
    }

    fn unknown_client(&self) -> Found {
        let watcher = Watcher::new();
        let (mut dataset, ctx) = (self.make(SEED)?, context(&watcher, SEED));
        dataset.describe(&ctx)?;
        refused("an error for an unknown client", dataset.load("no such client", &ctx)).map(drop)
    }

    fn prepare(&self) -> Found {
        let (watcher, folder) = (Watcher::new(), Folder::new()?);
        match self.make(SEED)?.prepare(folder.path(), &context(&watcher, SEED)) {
            Err(error) if *error.kind() == ErrorKind::Unsupported => skip("it prepares nothing"),
            Err(error) => fail("files, or an error that says that this is not supported", told(&error)),
            Ok(files) => {
                match files.iter().map(|file| folder.path().join(file)).find(|path| !is_within(path, folder.path())) {
                    None => Ok(()),
                    Some(path) => fail("the files that it names to be in the folder", format!("{}", path.display())),
                }
            }
        }
    }

    fn predicted_rows(&self) -> Found {
        let watcher = Watcher::new();
        let (mut dataset, ctx) = (self.make(SEED)?, context(&watcher, SEED));
        no_panic("an error where no file was opened", dataset.next_rows(1, &ctx))?;
        let expected = "an error for a file that is not there";
        refused(expected, dataset.open_rows(Path::new("no/such/file"), &ctx))?;
        let Some(file) = &self.rows else { return skip("no file of rows was given: `with_rows`") };
        let inputs: Vec<String> = dataset.describe(&ctx)?.tasks.into_iter().flat_map(|task| task.inputs).collect();
        let whole = self.read(&mut *dataset, file, 1 << 20, &ctx)?;
        if let Some(name) = inputs.iter().find(|name| whole.iter().any(|table| table.column(name).is_none())) {
            return fail(format!("the input column `{name}` of the tasks"), "it is not there");
        }
        let rows: usize = whole.iter().map(Table::rows).sum();
        let pieces = self.read(&mut *dataset, file, 1, &ctx)?;
        if pieces.iter().any(|table| table.rows() != 1) || pieces.len() != rows {
            return fail(format!("{rows} rows one by one"), format!("{} pieces", pieces.len()));
        }
        let Some(table) = whole.first() else { return fail("at least one row", "there is none") };
        let differs = pieces
            .iter()
            .take(table.rows())
            .enumerate()
            .find_map(|(row, piece)| compare::tables(&table.select(&[row]), piece));
        same("the same rows one by one as all together", differs)
    }

    /// The rows of a file, in pieces of at most this many.
    fn read(&self, dataset: &mut dyn Dataset, file: &Path, at_most: u64, ctx: &Context<'_>) -> Found<Vec<Table>> {
        dataset.open_rows(file, ctx)?;
        let mut pieces = Vec::new();
        loop {
            let piece = dataset.next_rows(at_most, ctx)?;
            match piece.rows() {
                0 => return Ok(pieces),
                rows if rows as u64 > at_most => {
                    return fail(format!("at most {at_most} rows"), format!("{rows} rows"));
                }
                _ => pieces.push(piece),
            }
        }
    }

    fn cancellation(&self) -> Found {
        let watcher = Watcher::new();
        self.make(SEED)?.describe(&context(&watcher, SEED))?;
        if watcher.asked() == 0 {
            return skip("`describe` never asks whether to stop, which is fine if it is quick");
        }
        let watcher = Watcher::stopping_after(0);
        watcher.was_obeyed("describe", self.make(SEED)?.describe(&context(&watcher, SEED)))
    }

    fn logging(&self) -> Found {
        let watcher = Watcher::new();
        self.all(SEED, &watcher)?;
        watcher.was_moderate("describe` and `load")
    }

    fn memory(&self) -> Found {
        let watcher = Watcher::new();
        memory::does_not_grow(|| self.all(SEED, &watcher).map(drop))
    }
}

fn is_within(path: &Path, folder: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    path.is_file() && whole(path).zip(whole(folder)).is_some_and(|(path, folder)| path.starts_with(folder))
}
